"""Vector prelude: typed vectors and primitive operations in C11 for one instruction set.

    from headrace.targets import simd
    isa = simd.ISAS["avx512"]
    text = simd.prelude(isa, {"hr_load_f32x16", "hr_fma_f32x16", "hr_store_f32x16"})
    text = simd.prelude(isa, simd.used(kernel_source))      # the same, from the code that uses it

Names are `hr_<op>_<type>`, conversions `hr_<op>_<to>_<from>`: hr_fma_f32x16, hr_fma_f32, hr_cvt_f32x16_i8x16.
C types: scalars are `float`, `double`, `int8_t`, …; vectors are GNU vectors named like their suffix:
`f32x16`, `i8x16`, `f64x16`. `simd.ctype("f32", 16)` is "f32x16", `simd.ctype("f32", 1)` is "float". Any power
of two of lanes works, also wider or narrower than a register. `+ - * / & | ^ ~ == < …` and `v[i]` of GNU C
work on vectors directly (but signed integers that can overflow: hr_add, hr_sub, hr_mul, which wrap).
16-bit floats are bits in uint16_t, u16x16: f = hr_cvt_f32x16_bf16x16(hr_load_u16x16(p)). hr_add_f16x16 and
hr_add_bf16x16, sub, mul and div round once; fma and fnma round once with avx512fp16, else twice.
A mask is the signed integer type of the same width and lanes (i32x16 for f32x16, i8x16 for u8x16), all bits
of a lane set or none; for scalars int32_t -1 or 0 (int64_t for f64, …). Masks of another width:
hr_cvt_i8x16_i32x16(mask).

Every function is `static inline`, always inlined, and carries the target attribute of the instruction set; a
function that uses it must carry `isa.target_attribute` (or more) too. Operations on types wider than a
register are macros around such functions, so that compilers do not warn about their calling convention.
No function has undefined behaviour for any argument unless its line says so. The text turns contraction of
floating-point expressions off for clang; gcc leaves it off under -std=c11, but not under -std=c++17 or gnu11,
where -ffp-contract=off is needed for the same bits.

T type, E element, M mask, S source type, H type of half the lanes:

    T hr_load_T(const E *p): L elements from p, which needs only element alignment
    void hr_store_T(E *p, T a): L elements to p
    T hr_load_n_T(const E *p, int n): first n (0 ≤ n ≤ L) elements, the rest 0; reads nothing beyond
    void hr_store_n_T(E *p, int n, T a): first n (0 ≤ n ≤ L) lanes; writes nothing beyond
    T hr_load_strided_T(const E *p, ptrdiff_t step): lane i from p[i * step]
    void hr_store_strided_T(E *p, ptrdiff_t step, T a): lane i to p[i * step]
    void hr_load_transposed_T(const E *p, ptrdiff_t step, T *out): lane i of out[j] from p[i * step + j]
    T hr_gather_T(const E *p, const int32_t *index): lane i from p[index[i]]
    T hr_splat_T(E a): a in every lane
    T hr_iota_T(void): 0, 1, 2, …
    H hr_lo_T(T a): lower half of the lanes (vectors)
    H hr_hi_T(T a): upper half of the lanes (vectors)
    T hr_cat_T(H lo, H hi): two halves joined (vectors)
    T hr_add_T(T a, T b): a + b; integers wrap
    T hr_sub_T(T a, T b): a - b; integers wrap
    T hr_mul_T(T a, T b): a * b; integers wrap
    T hr_neg_T(T a): -a; integers wrap
    T hr_abs_T(T a): |a|; the least integer stays itself
    T hr_div_T(T a, T b): a / b; integers truncate, x / 0 is 0, least / -1 is least
    T hr_rem_T(T a, T b): a - div(a, b) * b, sign of a; a rem 0 is a
    T hr_mod_T(T a, T b): remainder with the sign of b; a mod 0 is a
    T hr_fma_T(T a, T b, T c): a * b + c; one rounding exactly where Isa.fma, else two
    T hr_fnma_T(T a, T b, T c): c - a * b; one rounding exactly where Isa.fma, else two
    T hr_dot4_T(T a, T b, T c): c + the sum over a lane of unsigned byte of a * signed byte of b; wraps
    T hr_dot2_T(J a, J b, T c): c + the sum over a lane of bf16 of a * bf16 of b, both in 32 bits
    T hr_min_T(T a, T b): smaller; NaN if either is NaN
    T hr_max_T(T a, T b): larger; NaN if either is NaN
    T hr_min_fast_T(T a, T b): a < b ? a : b, so b if either is NaN
    T hr_max_fast_T(T a, T b): a > b ? a : b, so b if either is NaN
    T hr_copysign_T(T a, T b): |a| with the sign bit of b
    T hr_sqrt_T(T a): correctly rounded (f64 without an instruction: within 0.51 ULP)
    T hr_floor_T(T a): towards minus infinity
    T hr_ceil_T(T a): towards plus infinity
    T hr_trunc_T(T a): towards zero
    T hr_round_T(T a): nearest, ties to even
    T hr_ldexp_T(T a, T n): a * 2**n, one rounding if 0.5 ≤ |a| < 4; only for whole n, |n| ≤ 252 (f32),
        |n| ≤ 2044 (f64)
    M hr_lt_T(T a, T b): a < b as a mask: every bit of the lane set, or none
    M hr_le_T(T a, T b): a <= b
    M hr_gt_T(T a, T b): a > b
    M hr_ge_T(T a, T b): a >= b
    M hr_eq_T(T a, T b): a == b
    M hr_ne_T(T a, T b): a != b; ne(a, a) is the NaN test
    T hr_select_T(M m, T a, T b): lane of a where the mask is set, else of b
    T hr_select_lt_T(T x, T y, T a, T b): select(lt(x, y), a, b) in fewer instructions
    T hr_and_T(T a, T b): a & b
    T hr_or_T(T a, T b): a | b
    T hr_xor_T(T a, T b): a ^ b
    T hr_not_T(T a): ~a
    T hr_shl_T(T a, int s): every lane << s, 0 ≤ s < width
    T hr_shr_T(T a, int s): every lane >> s, 0 ≤ s < width; arithmetic for signed
    T hr_shlv_T(T a, T s): lane << its own s; 0 when s ≥ width
    T hr_shrv_T(T a, T s): lane >> its own s; 0 when s ≥ width
    int hr_any_T(T m): 1 if any lane of a mask is set
    int hr_all_T(T m): 1 if every lane of a mask is set
    E hr_hsum_T(T a): sum of the lanes, halves folded onto each other; integers wrap
    E hr_hprod_T(T a): product of the lanes, same order; integers wrap
    E hr_hmin_T(T a): smallest lane; NaN if any is NaN
    E hr_hmax_T(T a): largest lane; NaN if any is NaN
    T hr_cast_T_S(S a): the same bits as another type of the same size
    T hr_cvt_T_S(S a): to T from S as C converts: integers wrap, floats round to nearest even; float to
        integer only inside the range of T; 16-bit floats f16, bf16 to and from f32, f64
    T hr_sat_T_S(S a): to T from S, truncated towards zero and clamped to the range of T; NaN is 0
    T hr_near_T_S(S a, E low, E high): i32 from f32: nearest, ties to even, within low … high; NaN is 0;
        -2**22 ≤ low ≤ 0 ≤ high ≤ 2**22
    T hr_quotient_T(T a, E b, E high, E low): a / b; high + low is near 1 / b, and where Isa.fma it is
        a * low + a * high
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from headrace.targets import intrinsic, vector_generic, vector_neon, vector_x86
from headrace.targets.expand import expand, function, letters
from headrace.targets.primitives import SIGNATURES
from headrace.targets.vector_types import ELEMS, FUNCTION, VType, parse


@dataclass(frozen=True)
class Isa:
    """An instruction set that code is generated for, inside one C file, by function attributes."""

    name: str
    lanes: int  # f32 lanes of a register
    features: tuple[str, ...]  # as the compiler names them
    header: str  # "immintrin.h", or "" when no intrinsics are used
    fma: bool  # fma is one instruction and rounds once
    vectors: int  # number of vector registers

    @property
    def dots(self) -> bool:
        """Whether dot4 of i32 takes few instructions."""
        return self.header == "immintrin.h"

    @property
    def pairs(self) -> bool:
        """Whether dot2 of f32 is one instruction."""
        return "avx512bf16" in self.features

    @property
    def tiles(self) -> bool:
        """Whether it has tile registers and products of them (AMX)."""
        return "amx-tile" in self.features

    @property
    def target_attribute(self) -> str:
        """`__attribute__((target("avx2,fma")))`, or "" when the compiler's default will do."""
        return f'__attribute__((target("{",".join(self.features)}")))' if self.features else ""


_AVX2 = ("avx2", "fma", "f16c")
_AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl")
_VNNI = (*_AVX512, "avx512vnni")
_AMX = ("amx-tile", "amx-int8", "amx-bf16")
ISAS = {
    isa.name: isa
    for isa in (
        Isa("generic", 4, (), "", False, 16),
        Isa("x86-64", 4, (), "immintrin.h", False, 16),
        Isa("avx2", 8, _AVX2, "immintrin.h", True, 16),
        Isa("avx2vnni", 8, ("avxvnni", *_AVX2), "immintrin.h", True, 16),
        Isa("avx512", 16, (*_AVX512, *_AVX2), "immintrin.h", True, 32),
        Isa("avx512vnni", 16, (*_VNNI, *_AVX2), "immintrin.h", True, 32),
        Isa("avx512bf16", 16, (*_VNNI, "avx512bf16", *_AVX2), "immintrin.h", True, 32),
        Isa("avx512fp16", 16, (*_VNNI, "avx512bf16", "avx512fp16", *_AVX2), "immintrin.h", True, 32),
        Isa("avx512amx", 16, (*_VNNI, "avx512bf16", *_AMX, *_AVX2), "immintrin.h", True, 32),
        Isa("neon", 4, (), "arm_neon.h", True, 32),
    )
}


def ctype(elem: str, lanes: int) -> str:
    """C type of `lanes` elements: "float", "f32x16"; f16 and bf16 give uint16_t and u16x16."""
    return VType(ELEMS[elem], lanes).c


# g++ 12 warns about the undefined operands in its own AVX-512 header (gcc bug 105593)
_GXX_QUIET = [
    "#if defined(__cplusplus) && !defined(__clang__)",
    '#pragma GCC diagnostic ignored "-Wuninitialized"',
    '#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"',
    "#endif",
]
# gcc does not contract under -std=c11; clang does, and then results depend on what it finds to contract
_NO_CONTRACTION = ["#ifdef __clang__", "#pragma STDC FP_CONTRACT OFF", "#endif"]
_USED = re.compile(r"\bhr_[a-z]\w*(?=\()")
_TYPES = re.compile(r"\b(?:[fiu](?:8|16|32|64))x[0-9]+\b")
# operations that are better done on two halves than portably, when a type is wider than a register
_SPLIT = frozenset(
    "fma fnma sqrt floor ceil trunc round min max min_fast max_fast copysign ldexp select select_lt".split()
)


def used(code: str) -> set[str]:
    """Names of all functions `hr_…(` that C text calls, primitives and others."""
    return set(_USED.findall(code))


def is_primitive(name: str) -> bool:
    """Whether `name` (hr_<op>_<type>…) is an operation of this module."""
    match = FUNCTION.match(name)
    return match is not None and match[1] in SIGNATURES and parse(match[2]).elem.kind in SIGNATURES[match[1]].kinds


def prelude(isa: Isa, needed: Iterable[str], types: Iterable[str] = ()) -> str:
    """C text that defines the primitives `needed` (full names), all they use, and the vector types they name.

    types: further vector types to define, such as "f32x16"; also found in `needed` if it holds C text.
    ValueError for a name that is no primitive.
    """
    texts: dict[str, str] = {}
    for name in sorted(needed):
        _collect(isa, name, texts)
    vectors = {match for text in texts.values() for match in _TYPES.findall(text)} | {t for t in types if "x" in t}
    typedefs = [parse(name).typedef() for name in sorted(vectors, key=lambda n: (parse(n).lanes, n))]
    return "\n".join([head(isa), *typedefs, "", *texts.values(), ""])


def head(isa: Isa) -> str:
    """Includes and the function attributes that every function of the prelude carries."""
    lines = _GXX_QUIET if isa.name.startswith("avx512") else []
    lines = [*lines, *_NO_CONTRACTION, "#include <stddef.h>", "#include <stdint.h>"]
    lines += [f"#include <{isa.header}>"] if isa.header else []
    return "\n".join([*lines, f"#define HR_INLINE {inline(isa)}"])


def inline(isa: Isa) -> str:
    """What HR_INLINE stands for."""
    return f"static inline __attribute__((always_inline, unused)) {isa.target_attribute}".rstrip()


def vector_types(code: str) -> set[str]:
    """Vector types that C text names."""
    return set(_TYPES.findall(code))


def wide_types(isa: Isa, *types: VType) -> set[str]:
    """C names of those types that are wider than a register."""
    return {t.c for t in types if t.lanes > 1 and t.bytes > 4 * isa.lanes}


def _collect(isa: Isa, name: str, texts: dict[str, str]) -> None:
    """Add the definition of `name` after those of everything it calls."""
    if name in texts:
        return
    text = _definition(isa, name)
    for inner in sorted({n.removesuffix("_") for n in used(text)} - {name}):
        _collect(isa, inner, texts)
    texts[name] = text


def _definition(isa: Isa, name: str) -> str:
    match = FUNCTION.match(name)
    signature = SIGNATURES.get(match[1]) if match else None
    if match is None or signature is None or (match[3] is not None) != (signature.types == 2):
        raise ValueError(f"{name!r} is not a vector primitive")
    t, s = parse(match[2]), parse(match[3]) if match[3] else None
    text = _body(isa, signature.op, t, s) if t.elem.kind in signature.kinds else None
    if text is None:
        raise ValueError(f"{name!r}: operation {signature.op!r} does not exist for this type")
    named = letters(t, s)
    returns = named[signature.returns].c if signature.returns in named else signature.returns
    params = re.sub(r"\b[TEMUHSJ]\b", lambda m: named[m[0]].c, signature.params)
    body = expand(text, t, s, vector_generic.constants(t))
    return function(name, returns, params, body, "HR_INLINE", wide_types(isa, *named.values()))


def _body(isa: Isa, op: str, t: VType, s: VType | None) -> str | None:
    instruction = intrinsic.find(op, t, isa.features)
    if instruction is not None:
        return f"return ($T){instruction.text(t.bytes)};"
    if op == "quotient":
        return _quotient(isa)
    if isa.header == "immintrin.h":
        text = vector_x86.body(isa.name, op, t, s)
    else:
        text = vector_neon.body(op, t, s) if isa.name == "neon" else None
    if text is not None:
        return text
    if ((op in _SPLIT and t.elem.kind == "f") or op in ("select", "dot4")) and t.lanes > 1 and t.bytes > 4 * isa.lanes:
        return _on_halves(op)
    if op == "cvt" and s is not None and t.lanes == s.lanes and _convert_halves(isa, t, s):
        held = "$X" if t.elem.kind == "h" else "$"
        return f"return cat{held}({_half_call(op, t, s)});"
    return vector_generic.body(op, t, s)


def _quotient(isa: Isa) -> str:
    if isa.fma:
        return "(void)b;\nreturn fma$(a, splat$(high), a * splat$(low));"
    return "(void)high, (void)low;\nreturn a / splat$(b);"


def _convert_halves(isa: Isa, t: VType, s: VType) -> bool:
    """Conversions to take by halves: f16 beyond a register, and what gcc 12 cannot widen at -O0."""
    if {t.elem.name, s.elem.name} == {"f16", "f32"}:
        return t.lanes > isa.lanes
    return isa.name.startswith("avx512") and t.bytes == 128 and s.bytes == 64


def _on_halves(op: str) -> str:
    params = SIGNATURES[op].params.split(", ")
    halves = []
    for half in ("lo", "hi"):
        arguments = (f"{half}{'$M' if p.startswith('M ') else '$'}({p.split()[-1]})" for p in params)
        halves.append(f"{op}$H({', '.join(arguments)})")
    return f"return cat$({', '.join(halves)});"


def _half_call(op: str, t: VType, s: VType) -> str:
    to, source = t.with_lanes(t.lanes // 2).name, s.with_lanes(t.lanes // 2).name
    held = "X" if s.elem.kind == "h" else "S"
    return ", ".join(f"hr_{op}_{to}_{source}({half}${held}(a))" for half in ("lo", "hi"))
