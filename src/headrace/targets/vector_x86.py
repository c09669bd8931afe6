"""Bodies of the vector primitives in SSE2, AVX2 and AVX-512 intrinsics, where they beat the portable ones."""

from __future__ import annotations

from headrace.targets import vector_bytes
from headrace.targets.vector_transpose import transposed
from headrace.targets.vector_types import VType

_PREFIX = {16: "_mm", 32: "_mm256", 64: "_mm512"}
_LEVELS = {"x86-64": 0, "avx2": 1, "avx2vnni": 1}
_LEVELS |= dict.fromkeys(("avx512", "avx512vnni", "avx512bf16", "avx512fp16", "avx512amx"), 2)
_FP16 = frozenset(("avx512fp16",))
_ROUND = {"round": "0x08", "floor": "0x09", "ceil": "0x0a", "trunc": "0x0b"}

# clang up to 22 exchanges operands when it merges a blend into vpternlog (LLVM issue 157929): results of bit
# operations are kept apart from blends by an empty asm, which costs no instruction
_BARRIER = '#ifdef __clang__\n__asm__("" : "+v"({}));\n#endif'
_COPYSIGN = "$T r = cast$T$U((cast$U$T(a) & splat$U($MAX)) | (cast$U$T(b) & ~splat$U($MAX)));"
_SELECT = "return ($T)((m & ($M)a) | (~m & ($M)b));"


def body(name: str, op: str, t: VType, s: VType | None) -> str | None:
    """C statements of hr_<op>_<t>[_<s>] on the instruction set `name`; None: use the portable body."""
    level = _LEVELS[name]
    if op == "dot4":
        return _dot(level, t)
    if op in ("cvt", "near") and s is not None:
        return vector_bytes.x86(level, op, t, s) or (_convert(level, t, s) if level and op == "cvt" else None)
    if t.elem.kind == "h":
        return _half(op, t) if name in _FP16 else None
    if t.lanes == 1:
        return _scalar(level, op, t) if t.elem.kind == "f" else None
    if t.bytes not in _PREFIX or t.bytes > 16 << level:
        return None
    if op in ("lo", "hi", "cat"):
        return _halves(op, t)
    if op == "load_transposed":
        return transposed(t) if t.elem.bits == 32 else None
    text = _float(level, op, t) if t.elem.kind == "f" else _int(level, op, t)
    return text or _masked(level, op, t) or _blend(level, op, t)


def _names(t: VType) -> tuple[str, str, str]:
    """Intrinsic prefix, suffix and register type: ("_mm256", "ps", "__m256")."""
    prefix = _PREFIX[t.bytes]
    register = f"__m{t.bytes * 8}"
    if t.elem.kind == "f":
        return (prefix, "ps", register) if t.elem.bits == 32 else (prefix, "pd", register + "d")
    return prefix, f"ep{t.elem.kind}{t.elem.bits}", register + "i"


def _float(level: int, op: str, t: VType) -> str | None:
    p, x, r = _names(t)
    if op in _ROUND and level:
        call = f"{p}_roundscale_{x}" if t.bytes == 64 else f"{p}_round_{x}"
        return f"return ($T){call}(({r})a, {_ROUND[op]});"
    if op in ("fma", "fnma") and level:
        return f"return ($T){p}_{op.replace('ma', 'madd')}_{x}(({r})a, ({r})b, ({r})c);"
    if op == "sqrt":
        return f"return ($T){p}_sqrt_{x}(({r})a);"
    if op in ("min_fast", "max_fast"):
        return f"return ($T){p}_{op[:3]}_{x}(({r})a, ({r})b);"
    if level == 2 and op in ("min", "max"):
        nan = f"{p}_cmp_{x}_mask(({r})a, ({r})a, _CMP_UNORD_Q)"
        return f"return ($T){p}_mask_mov_{x}({p}_{op}_{x}(({r})a, ({r})b), {nan}, ({r})a);"
    if level == 2 and op == "select_lt":
        less = f"{p}_cmp_{x}_mask(({r})x, ({r})y, _CMP_LT_OQ)"
        return f"return ($T){p}_mask_blend_{x}({less}, ({r})b, ({r})a);"
    if level == 2 and op == "copysign":
        return f"{_COPYSIGN}\n{_BARRIER.format('r')}\nreturn r;"
    if level == 2 and op == "ldexp":
        return f"return ($T){p}_scalef_{x}(({r})a, ({r})n);"
    return None


def _half(op: str, t: VType) -> str | None:
    """Arithmetic of f16 in its own instructions."""
    if t.elem.name != "f16" or t.bytes not in _PREFIX or op not in ("add", "sub", "mul", "div", "fnma"):
        return None
    p, r = _PREFIX[t.bytes], f"__m{t.bytes * 8}h"
    if op == "fnma":
        return f"return ($T){p}_fnmadd_ph(({r})a, ({r})b, ({r})c);"
    return f"return ($T){p}_{op}_ph(({r})a, ({r})b);"


def _halves(op: str, t: VType) -> str | None:
    """Half registers by register moves; gcc 12 makes stores and loads of the portable form."""
    if t.bytes < 32:
        return None
    p, x, r = _names(t)
    bits, half = t.bytes * 8, t.bytes * 4
    x = x if t.elem.kind == "f" else f"si{bits}"
    narrow = x if t.elem.kind == "f" else f"si{half}"
    half_register = r.replace(str(bits), str(half))
    long_name = f"{x}{bits}" if t.elem.kind == "f" else x
    short_name = f"{x}{half}" if t.elem.kind == "f" else narrow
    if op == "lo":
        return f"return ($H){p}_cast{long_name}_{short_name}(({r})a);"
    kind = {"ps": "f", "pd": "f"}.get(x, "i")
    if bits == 512:
        part = {"ps": "32x8", "pd": "64x4"}.get(x, "64x4")
        extract = f"{p}_extract{kind}{part}_{x if kind == 'f' else 'epi64'}"
        insert = f"{p}_insert{kind}{part}"
    else:
        extract, insert = f"{p}_extract{kind}128_{x}", f"{p}_insert{kind}128_{x}"
    if op == "hi":
        return f"return ($H){extract}(({r})a, 1);"
    low = f"{p}_cast{short_name}_{long_name}(({half_register})lo)"
    return f"return ($T){insert}({low}, ({half_register})hi, 1);"


def _int(level: int, op: str, t: VType) -> str | None:
    p, x, r = _names(t)
    bits = t.elem.bits
    if op == "select" and level == 2:
        return f"{_BARRIER.format('a')}\n{_BARRIER.format('b')}\n{_SELECT}"
    if op in ("min", "max", "min_fast", "max_fast") and level and (bits < 64 or level == 2):
        return f"return ($T){p}_{op[:3]}_{x}(({r})a, ({r})b);"
    if op == "abs" and t.elem.kind == "i" and level and (bits < 64 or level == 2):
        return f"return ($T){p}_abs_{x}(({r})a);"
    if op in ("any", "all"):
        if level == 2:
            full = f"{(1 << t.lanes) - 1:#x}" + ("ull" if t.lanes > 32 else "u")
            return f"return {p}_movep{x[2:]}_mask(({r})m) {'!= 0' if op == 'any' else f'== {full}'};"
        full = "-1" if t.bytes == 32 else "0xffff"
        return f"return {p}_movemask_epi8(({r})m) {'!= 0' if op == 'any' else f'== {full}'};"
    return None


def _dot(level: int, t: VType) -> str | None:
    """The products of even and of odd bytes as pairs of 16 bits, which cannot overflow."""
    if t.elem.bits != 32 or t.bytes not in _PREFIX or t.bytes > 16 << level:
        return None
    p, _, r = _names(t)
    low = f"{p}_set1_epi16(255)"
    low_bytes = f"({r})a & {low}" if t.bytes < 64 else f"_mm512_and_si512(({r})a, {low})"
    return f"""\
{r} even = {p}_madd_epi16({low_bytes}, {p}_srai_epi16({p}_slli_epi16(({r})b, 8), 8));
{r} odd = {p}_madd_epi16({p}_srli_epi16(({r})a, 8), {p}_srai_epi16(({r})b, 8));
return ($T){p}_add_epi32(({r})c, {p}_add_epi32(even, odd));"""


def _masked(level: int, op: str, t: VType) -> str | None:
    """Loads and stores of the first n lanes."""
    if op not in ("load_n", "store_n") or not level:
        return None
    p, x, r = _names(t)
    x = x.replace("epu", "epi")
    if level == 2:
        one = "1ull" if t.lanes >= 32 else "1u"
        bits = f"({one} << n) - 1" if t.lanes < 64 else "n >= 64 ? ~0ull : (1ull << n) - 1"
        mask = f"__mmask{max(8, t.lanes)} k = (__mmask{max(8, t.lanes)})({bits});\n"
        if op == "load_n":
            return mask + f"return ($T){p}_maskz_loadu_{x}(k, p);"
        return mask + f"{p}_mask_storeu_{x}(p, k, ({r})a);"
    if t.elem.bits < 32:
        return None
    pointee = {"epi32": "int", "epi64": "long long"}.get(x, "$E")
    mask = f"__m{t.bytes * 8}i k = (__m{t.bytes * 8}i)lt$I(iota$I(), splat$I(n));\n"
    if op == "load_n":
        return mask + f"return ($T){p}_maskload_{x}((const {pointee} *)p, k);"
    known = _store_known(t)
    return f"{known}{mask}{p}_maskstore_{x}(({pointee} *)p, k, ({r})a);"


def _store_known(t: VType) -> str:
    """Where n is a constant: whole stores of 4, 2 and 1 lanes, which loads that follow can take over and which
    cost less than one under a mask (tens of operations on some processors)."""
    if t.elem.name != "f32" or t.bytes != 32:  # a float stored to integers would break the rules of aliasing
        return ""
    return """\
if (__builtin_constant_p(n)) {
    __m128 low = _mm256_castps256_ps128((__m256)a);
    float *to = p;
    if (n >= 8) { _mm256_storeu_ps(to, (__m256)a); return; }
    if (n >= 4) { _mm_storeu_ps(to, low); low = _mm256_extractf128_ps((__m256)a, 1); to += 4; }
    if (n & 2) { _mm_storel_pi((__m64 *)(void *)to, low); low = _mm_movehl_ps(low, low); to += 2; }
    if (n & 1) _mm_store_ss(to, low);
    return;
}
"""


def _blend(level: int, op: str, t: VType) -> str | None:
    """AVX2 blends on the top bit; AVX-512 makes one vpternlog of the portable form."""
    if op != "select" or level != 1:
        return None
    p, x, r = _names(t)
    x = x if t.elem.kind == "f" else "epi8"
    return f"return ($T){p}_blendv_{x}(({r})b, ({r})a, ({r})m);"


def _scalar(level: int, op: str, t: VType) -> str | None:
    single = t.elem.bits == 32
    get, put, x = ("_mm_cvtss_f32", "_mm_set_ss", "ss") if single else ("_mm_cvtsd_f64", "_mm_set_sd", "sd")
    if op in ("fma", "fnma") and level:
        sign = "-" if op == "fnma" else ""
        return f"return __builtin_fma{'f' if single else ''}({sign}a, b, c);"
    if op == "sqrt":
        arguments = f"{put}(a)" if single else f"{put}(a), {put}(a)"
        return f"return {get}(_mm_sqrt_{x}({arguments}));"
    if op in _ROUND and level:
        return f"return {get}(_mm_round_{x}({put}(a), {put}(a), {_ROUND[op]}));"
    return None


def _convert(level: int, t: VType, s: VType) -> str | None:
    """f32 and f64 in one instruction, f16 and f32 by F16C."""
    names, size = {t.elem.name, s.elem.name}, max(t.bytes, s.bytes)
    if names == {"f32", "f64"} and t.lanes == s.lanes and 32 <= size <= 16 << level:
        if t.elem.bits == 64:
            return f"return ($T){_PREFIX[size]}_cvtps_pd((__m{size * 4})a);"
        return f"return ($T){_PREFIX[size]}_cvtpd_ps((__m{size * 8}d)a);"
    if names != {"f16", "f32"} or t.lanes != s.lanes:
        return None
    number = t if t.elem.kind == "f" else s
    to_half = t.elem.kind == "h"
    if number.lanes == 1:
        if to_half:
            return "return (uint16_t)_mm_extract_epi16(_mm_cvtps_ph(_mm_set_ss(a), 0), 0);"
        return "return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(a)));"
    if number.bytes > 16 << level or number.bytes < 16:
        return None
    p = _PREFIX[number.bytes]
    if number.lanes == 4:
        if to_half:
            return "return ($T)_mm_cvtsi128_si64(_mm_cvtps_ph((__m128)a, 0));"
        return "return ($T)_mm_cvtph_ps(_mm_cvtsi64_si128((long long)a));"
    if to_half:
        return f"return ($T){p}_cvtps_ph((__m{number.bytes * 8})a, 0);"
    return f"return ($T){p}_cvtph_ps((__m{number.bytes * 4}i)a);"
