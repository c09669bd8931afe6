"""The intrinsics that tests emulate, and where this processor has them its own, against NumPy."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from headrace.errors import ToolchainError
from headrace.targets import simd
from headrace.targets.host import host_triple
from headrace.targets.toolchain import CFLAGS, find_toolchain, find_toolchains, run_compiler
from tests.emulate.build import FLAGS, HEADER, KIND, emulated, lacking
from tests.targets.simd_cases import fused

Array = np.ndarray[Any, Any]
ROWS, BYTES = 96, 64
ISA = simd.ISAS["avx512fp16"]
HAS_GCC = any(t.kind == KIND for t in find_toolchains())
pytestmark = pytest.mark.skipif(not (HAS_GCC and (emulated(ISA) or not lacking(ISA))), reason="needs gcc and AVX2")


@dataclass(frozen=True)
class Case:
    """call: C text on A, B, C, the mask k and the pointers pa and pr; want: bytes of the result."""

    call: str
    operand: str
    result: str
    want: Callable[[Array, Array, Array, Array], Array]
    of: str = ""  # NumPy type of the operands, for values worth testing

    @property
    def name(self) -> str:
        return self.call[: self.call.index("(")]


def parts(x: Array, kind: str, size: int = BYTES) -> Array:
    """The first `size` bytes of every row as elements."""
    return np.ascontiguousarray(x[:, :size]).view(kind)


def elementwise(kind: str, size: int, f: Callable[..., Array]) -> Callable[..., Array]:
    """bytes of f(a, b, c) on elements of one type."""

    def want(a: Array, b: Array, c: Array, _k: Array) -> Array:
        with np.errstate(all="ignore"):
            out = f(*(parts(x, kind, size) for x in (a, b, c)))
        return np.ascontiguousarray(out.astype(kind)).view(np.uint8)

    return want


def with_mask(kind: str, size: int, f: Callable[..., Array]) -> Callable[..., Array]:
    """bytes of f(mask, a, b), the mask as booleans."""

    def want(a: Array, b: Array, _c: Array, k: Array) -> Array:
        x, y = parts(a, kind, size), parts(b, kind, size)
        mask = (k[:, None] >> np.arange(x.shape[1], dtype=np.uint64)) & np.uint64(1)
        return np.ascontiguousarray(f(mask.astype(bool), x, y).astype(kind)).view(np.uint8)

    return want


def bits(kind: str, size: int, f: Callable[..., Array]) -> Callable[..., Array]:
    """f(a, b), booleans, as the bits of a 64-bit mask."""

    def want(a: Array, b: Array, _c: Array, _k: Array) -> Array:
        yes = f(parts(a, kind, size), parts(b, kind, size)).astype(np.uint64)
        k = (yes << np.arange(yes.shape[1], dtype=np.uint64)).sum(1, dtype=np.uint64)
        return k[:, None].view(np.uint8)

    return want


def scalef(x: Array, y: Array, _c: Array) -> Array:
    """x * 2**floor(y), rounded once; an infinite y decides over every x but the opposite infinity and zero."""
    power = np.clip(np.nan_to_num(np.floor(y), nan=0), -5000, 5000).astype(np.int32)
    out = np.where(np.isnan(y), np.nan, np.ldexp(x, power))
    up = np.where(x == 0, np.nan, np.where(np.isnan(x), np.inf, np.copysign(np.inf, x)))
    down = np.where(np.isinf(x), np.nan, np.where(np.isnan(x), 0, np.copysign(0, x)))
    return np.where(y == np.inf, up, np.where(y == -np.inf, down, out))


def fma(sign: int) -> Callable[..., Array]:
    """sign * x * y + z, rounded once."""

    def one(x: Any, y: Any, z: Any) -> Any:
        if np.isinf(z) and np.isfinite(x) and np.isfinite(y):
            return z  # although x * y alone may overflow
        return fused(sign * x, y, z, type(x))

    def apply(x: Array, y: Array, z: Array) -> Array:
        flat = [one(p, q, r) for p, q, r in zip(x.ravel(), y.ravel(), z.ravel(), strict=True)]
        return np.array(flat, x.dtype).reshape(x.shape)

    return apply


def dpbusd(size: int) -> Callable[..., Array]:
    """c plus the products of unsigned bytes of a and signed bytes of b, by fours, wrapping."""

    def want(a: Array, b: Array, c: Array, _k: Array) -> Array:
        products = parts(a, "u1", size).astype(np.int32) * parts(b, "i1", size).astype(np.int32)
        total = products.reshape(ROWS, -1, 4).sum(-1, dtype=np.int32) + parts(c, "i4", size)
        return total.view(np.uint8)

    return want


def flushed(x: Array) -> Array:
    """Numbers below the normal ones as zero."""
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)


def dpbf16(size: int) -> Callable[..., Array]:
    """c plus the products of upper, then of lower bf16, each added with one rounding."""

    def want(a: Array, b: Array, c: Array, _k: Array) -> Array:
        x, y = (flushed(parts(v, "V2", size).view(ml_dtypes.bfloat16).astype(np.float32)) for v in (a, b))
        total, f = flushed(parts(c, "f4", size)), fma(1)
        with np.errstate(all="ignore"):
            for half in (1, 0):
                total = flushed(f(x[:, half::2], y[:, half::2], total))
        return np.ascontiguousarray(total).view(np.uint8)

    return want


def halves(*pick: tuple[int, int]) -> Callable[..., Array]:
    """Halves (operand, which) side by side."""
    return lambda *x: np.concatenate([x[n][:, 32 * h : 32 * h + 32] for n, h in pick], 1)


def interleaved(kind: str, high: int) -> Callable[..., Array]:
    def want(a: Array, b: Array, _c: Array, _k: Array) -> Array:
        x, y = (parts(v, kind).reshape(ROWS, 4, -1) for v in (a, b))
        n = x.shape[-1] // 2
        part = slice(high * n, high * n + n)
        return np.ascontiguousarray(np.stack([x[..., part], y[..., part]], -1)).view(np.uint8).reshape(ROWS, BYTES)

    return want


def shuffled(pick: int) -> Callable[..., Array]:
    def want(a: Array, b: Array, _c: Array, _k: Array) -> Array:
        x, y = a.reshape(ROWS, 4, 16), b.reshape(ROWS, 4, 16)
        chosen = [(x, y)[i // 2][:, pick >> 2 * i & 3] for i in range(4)]
        return np.concatenate(chosen, 1)

    return want


def converted(kind: str, size: int, to: str) -> Callable[..., Array]:
    def want(a: Array, _b: Array, _c: Array, _k: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.ascontiguousarray(parts(a, kind, size).astype(to)).view(np.uint8)

    return want


def narrowed(width: int, to: str, size: int) -> Callable[..., Array]:
    """The lower bits of integers of 32 bits, and zeros up to `size` bytes."""

    def want(a: Array, _b: Array, _c: Array, _k: Array) -> Array:
        out = np.ascontiguousarray(parts(a, "i4", width).astype(to)).view(np.uint8)
        return np.pad(out, ((0, 0), (0, size - out.shape[1])))

    return want


def rounded(a: Array, _b: Array, _c: Array, k: Array) -> Array:
    """The nearest integer under the mask, elsewhere 0; what no integer of 32 bits is becomes the least of them."""
    x = parts(a, "f4")
    with np.errstate(all="ignore"):
        near = np.where(np.abs(x) < 2.0**31, np.rint(x), -(2.0**31)).astype(np.int32)
    taken = (k[:, None] >> np.arange(16, dtype=np.uint64)) & np.uint64(1)
    return np.ascontiguousarray(np.where(taken == 1, near, 0).astype(np.int32)).view(np.uint8)


def cases() -> list[Case]:
    out = [case for width in (16, 32, 64) for case in every_width(width)]
    for x, kind in [(f"ep{s}{b}", f"{s}{b // 8}") for s in "iu" for b in (8, 16, 32)]:
        out += [whole(f"min_{x}(A, B)", kind, np.minimum), whole(f"max_{x}(A, B)", kind, np.maximum)]
    for b in (8, 16, 32):
        out.append(whole(f"abs_epi{b}(A)", f"i{b // 8}", lambda x, *_: np.abs(x)))
    out += [
        whole("add_epi32(A, B)", "u4", np.add), whole("and_si512(A, B)", "u8", np.bitwise_and),
        whole("set1_epi16((short)k)", "i2", np.add, splat_mask),
        whole("madd_epi16(A, B)", "i2", np.add, madd),
        Case("_mm512_loadu_ps(pa)", "__m512", "__m512", lambda a, *_: a),
    ]  # fmt: skip
    for s in (0, 1, 8, 15, 16, 17):
        out += [
            whole(f"slli_epi16(A, {s})", "u2", lambda x, *_, s=s: x.astype(np.uint64) << s),
            whole(f"srli_epi16(A, {s})", "u2", lambda x, *_, s=s: x.astype(np.uint64) >> s),
            whole(f"srai_epi16(A, {s})", "i2", lambda x, *_, s=s: x.astype(np.int64) >> s),
        ]
    for x, r, kind in (("ps", "__m512", "f4"), ("pd", "__m512d", "f8")):
        out += [
            wide(f"min_{x}(A, B)", r, kind, lambda a, b, _: np.where(a < b, a, b)),
            wide(f"max_{x}(A, B)", r, kind, lambda a, b, _: np.where(a > b, a, b)),
            wide(f"sqrt_{x}(A)", r, kind, lambda a, *_: np.sqrt(a)),
            wide(f"fmadd_{x}(A, B, C)", r, kind, fma(1)), wide(f"fnmadd_{x}(A, B, C)", r, kind, fma(-1)),
            Case(f"_mm512_unpacklo_{x}(A, B)", r, r, interleaved(kind, 0)),
            Case(f"_mm512_unpackhi_{x}(A, B)", r, r, interleaved(kind, 1)),
        ]  # fmt: skip
        for how, f in ((8, np.rint), (9, np.floor), (10, np.ceil), (11, np.trunc)):
            out.append(wide(f"roundscale_{x}(A, {how})", r, kind, lambda a, *_, f=f: f(a)))
    for pick in (0x44, 0xEE, 0x88, 0xDD, 0x1B):
        out.append(Case(f"_mm512_shuffle_f32x4(A, B, {pick})", "__m512", "__m512", shuffled(pick)))
    out += [
        Case("_mm512_cvtps_pd(A)", "__m256", "__m512d", converted("f4", 32, "f8"), "f4"),
        Case("_mm512_cvtpd_ps(A)", "__m512d", "__m256", converted("f8", 64, "f4"), "f8"),
        Case("_mm512_cvtph_ps(A)", "__m256i", "__m512", converted("f2", 32, "f4"), "f2"),
        Case("_mm512_cvtps_ph(A, 0)", "__m512", "__m256i", converted("f4", 64, "f2"), "f4"),
    ]
    for b, register in ((8, "__m128i"), (16, "__m256i")):
        for s in "iu":
            kind = f"{s}{b // 8}"
            call = f"_mm512_cvtep{s}{b}_epi32(A)"
            out.append(Case(call, register, "__m512i", converted(kind, 2 * b, "i4"), kind))
        for width, p in ((64, "_mm512"), (32, "_mm256"), (16, "_mm")):
            narrow = register if width == 64 else "__m128i"
            filled = narrowed(width, f"i{b // 8}", 2 * b if width == 64 else 16)
            out.append(Case(f"{p}_cvtepi32_epi{b}(A)", f"__m{8 * width}i", narrow, filled, "i4"))
    out.append(Case("_mm512_set1_ps((float)(short)k)", "__m512", "__m512", splat_float))
    out.append(Case("_mm512_maskz_cvtps_epi32((__mmask16)k, A)", "__m512", "__m512i", rounded, "f4"))
    return out + [case for family in HALVES for case in half_cases(*family)]


HALVES = (("ps", "", "f32x8", "_ps"), ("pd", "d", "f64x4", "_pd"), ("si", "i", "i64x4", "_epi64"))


def half_cases(x: str, end: str, part: str, suffix: str) -> list[Case]:
    """Casts, extracts and inserts; of a cast to the wide type only the lower half means anything."""
    w, n = f"__m512{end}", f"__m256{end}"
    short, long_ = f"{x}256", f"{x}512"
    up = f"_mm512_cast{short}_{long_}"
    out = [
        Case(f"_mm512_cast{long_}_{short}(A)", w, n, halves((0, 0))),
        Case(f"{up}(_mm512_cast{long_}_{short}(A))", w, w, halves((0, 0))),
    ]
    for which in (0, 1):
        out.append(Case(f"_mm512_extract{part}{suffix}(A, {which})", w, n, halves((0, which))))
        low = f"_mm512_cast{long_}_{short}(B)"
        keep = ((1, 0), (0, 1)) if which == 0 else ((0, 0), (1, 0))
        out.append(Case(f"_mm512_insert{part}(A, {low}, {which})", w, w, halves(*keep)))
    return out


def splat_mask(_a: Array, _b: Array, _c: Array, k: Array) -> Array:
    """The lower 16 bits of the mask in every lane."""
    return np.repeat(k.view(np.uint16)[::4], 32).view(np.uint8).reshape(ROWS, BYTES)


def splat_float(_a: Array, _b: Array, _c: Array, k: Array) -> Array:
    """The lower 16 bits of the mask as a float in every lane."""
    return np.repeat(k.view(np.int16)[::4].astype(np.float32), 16).view(np.uint8).reshape(ROWS, BYTES)


def madd(a: Array, b: Array, _c: Array, _k: Array) -> Array:
    products = parts(a, "i2").astype(np.int64) * parts(b, "i2").astype(np.int64)
    return products.reshape(ROWS, -1, 2).sum(-1).astype(np.int32).view(np.uint8)


def whole(call: str, kind: str, f: Callable[..., Array], want: Callable[..., Array] | None = None) -> Case:
    """A case on integers of 512 bits."""
    given = want or elementwise(
        kind, BYTES, f if not isinstance(f, np.ufunc) or f.nin > 2 else (lambda a, b, _: f(a, b))
    )
    return Case(f"_mm512_{call}", "__m512i", "__m512i", given, kind)


def wide(call: str, register: str, kind: str, f: Callable[..., Array]) -> Case:
    return Case(f"_mm512_{call}", register, register, elementwise(kind, BYTES, f), kind)


def every_width(width: int) -> list[Case]:
    p = {16: "_mm", 32: "_mm256", 64: "_mm512"}[width]
    m = f"__m{8 * width}"
    i, out = m + "i", []
    for s, ufunc in (("min", np.minimum), ("max", np.maximum)):
        for kind in "iu":
            f = elementwise(f"{kind}8", width, lambda a, b, _, ufunc=ufunc: ufunc(a, b))
            out.append(Case(f"{p}_{s}_ep{kind}64(A, B)", i, i, f, f"{kind}8"))
    out.append(Case(f"{p}_abs_epi64(A)", i, i, elementwise("i8", width, lambda a, *_: np.abs(a)), "i8"))
    out.append(Case(f"{p}_dpbusd_epi32(C, A, B)", i, i, dpbusd(width), "u1"))
    out.append(Case(f"{p}_dpbf16_ps(C, ({m}bh)A, ({m}bh)B)", m, m, dpbf16(width), "f4"))
    h = m + "h"
    for op, g in (("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div", np.divide)):
        f = elementwise("f2", width, lambda a, b, _, g=g: g(a, b))
        out.append(Case(f"{p}_{op}_ph(A, B)", h, h, f, "f2"))
    out.append(Case(f"{p}_fmadd_ph(A, B, C)", h, h, elementwise("f2", width, fma(1)), "f2"))
    out.append(Case(f"{p}_fnmadd_ph(A, B, C)", h, h, elementwise("f2", width, fma(-1)), "f2"))
    if width < 64:
        out.append(Case(f"{p}_dpbusd_avx_epi32(C, A, B)", i, i, dpbusd(width), "u1"))
    for b in (8, 16, 32, 64):
        out += memory(p, f"epi{b}", i, f"u{b // 8}", width)
        out.append(Case(f"{p}_movepi{b}_mask(A)", i, "uint64_t", bits(f"i{b // 8}", width, lambda a, _: a < 0)))
    for x, r, kind in (("ps", m, "f4"), ("pd", m + "d", "f8")):
        out += memory(p, x, r, "u" + kind[1], width)
        f = elementwise(kind, width, scalef)
        out.append(Case(f"{p}_scalef_{x}(A, B)", r, r, f, kind))
        choose = with_mask("u" + kind[1], width, lambda k, a, b: np.where(k, b, a))
        out += [Case(f"{p}_mask_mov_{x}(A, k, B)", r, r, choose), Case(f"{p}_mask_blend_{x}(k, A, B)", r, r, choose)]
        unordered: Callable[..., Array] = lambda a, b: np.isnan(a) | np.isnan(b)  # noqa: E731
        ordered: Callable[..., Array] = lambda a, b: ~(np.isnan(a) | np.isnan(b))  # noqa: E731
        for how, g in (("_CMP_LT_OQ", np.less), ("_CMP_UNORD_Q", unordered), ("_CMP_ORD_Q", ordered)):
            out.append(Case(f"{p}_cmp_{x}_mask(A, B, {how})", r, "uint64_t", bits(kind, width, g), kind))
    return out


def memory(p: str, x: str, register: str, kind: str, width: int) -> list[Case]:
    load = with_mask(kind, width, lambda k, a, _: np.where(k, a, 0))
    store = with_mask(kind, width, lambda k, a, _: np.where(k, a, np.iinfo(a.dtype).max))
    return [
        Case(f"{p}_maskz_loadu_{x}(k, pa)", register, register, load),
        Case(f"{p}_mask_storeu_{x}(pr, k, A)", register, "void", store),
    ]


CASES = cases()


def kernel(n: int, c: Case) -> str:
    """void t<n>(a, b, c, mask, result) over rows of 64 bytes; the result holds all ones before."""
    result = f"{c.result} x = {c.call}; __builtin_memcpy(pr, &x, sizeof x);" if c.result != "void" else f"{c.call};"
    used = [v for v in "ABC" if re.search(rf"\b{v}\b", c.call)]
    loads = " ".join(f"{c.operand} {v}; __builtin_memcpy(&{v}, p{v.lower()}, sizeof {v});" for v in used)
    return (
        f"{ISA.target_attribute}\n"
        f"void t{n}(const char *pa, const char *pb, const char *pc, const uint64_t *m, char *pr) {{\n"
        f"    for (int i = 0; i < {ROWS}; i++, pa += 64, pb += 64, pc += 64, pr += 64) {{\n"
        f"        const uint64_t k = m[i]; (void)k; (void)pb; (void)pc; {loads}\n        {result}\n    }}\n}}"
    )


@pytest.fixture(scope="module", params=["emulated", "native"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    missing = lacking(ISA)
    if request.param == "native" and missing:
        pytest.skip(f"needs a processor with {', '.join(sorted(missing))}")
    own = [c for c in CASES if request.param == "emulated" or "_avx_" not in c.name]
    folder = tmp_path_factory.mktemp("intrinsics")
    text = "\n".join(kernel(n, c) for n, c in enumerate(CASES) if c in own)
    (folder / "x.c").write_text(f"#include <immintrin.h>\n#include <stdint.h>\n{text}\n")
    more = FLAGS if request.param == "emulated" else ()
    flags = (*CFLAGS, "-O1", *more, "-fPIC", "-shared", "-o", "x.so", "x.c")
    run_compiler(find_toolchain(KIND, host_triple()), flags, folder)
    return ctypes.CDLL(str(folder / "x.so"))


def operand(kind: str, rng: np.random.Generator) -> Array:
    """ROWS rows of 64 bytes, the edges of the range among them."""
    n = ROWS * BYTES // np.dtype(kind).itemsize
    info: Any = np.finfo(kind) if kind[0] == "f" else np.iinfo(kind)
    edges: list[Any] = [info.min, info.max, 0, 1, info.max // 2 if kind[0] != "f" else 1.5]
    if kind[0] == "f":
        edges += [-0.0, np.inf, -np.inf, np.nan, info.tiny, info.smallest_subnormal, 0.5, 2.5, -1.5, -0.5]
        small = rng.normal(0, 40, n)
        values = np.where(rng.random(n) < 0.3, rng.choice(np.array(edges), n), small).astype(kind)
    else:
        anything = rng.integers(info.min, info.max, n, dtype=kind, endpoint=True)
        values = np.where(rng.random(n) < 0.3, rng.choice(np.array(edges, kind), n), anything).astype(kind)
    return values.view(np.uint8).reshape(ROWS, BYTES)


@pytest.mark.parametrize("name", sorted({c.name for c in CASES}))
def test_intrinsic(library: ctypes.CDLL, name: str) -> None:
    for n, c in enumerate(CASES):
        if c.name != name or not hasattr(library, f"t{n}"):
            continue
        rng = np.random.default_rng(n)
        a, b, d = (operand(c.of or "u8", rng) for _ in range(3))
        k = rng.integers(0, 1 << 64, ROWS, dtype=np.uint64)
        k[:2] = 0, np.uint64(2**64 - 1)
        got = np.full((ROWS, BYTES), 255, np.uint8)
        pointers = [ctypes.c_void_p(x.ctypes.data) for x in (a, b, d, k, got)]
        getattr(library, f"t{n}")(*pointers)
        want = c.want(a, b, d, k)
        compare(got[:, : want.shape[1]], want, c)
        assert (got[:, want.shape[1] :] == 255).all() or "cast" in name, c.call


def compare(got: Array, want: Array, c: Case) -> None:
    """Equal bits; of a float result any NaN for a NaN."""
    if c.of[:1] == "f" and c.result.startswith("__m"):
        kind = {"d": "f8", "i": "f2", "h": "f2"}.get(c.result[-1], "f4")
        x, y = np.ascontiguousarray(got).view(kind), np.ascontiguousarray(want).view(kind)
        same = (np.isnan(x) & np.isnan(y)) | (x.view(f"u{kind[1]}") == y.view(f"u{kind[1]}"))
        where = np.argwhere(~same)
        assert same.all(), f"{c.call}: {x[tuple(where[0])]} is not {y[tuple(where[0])]}"
        return
    assert (got == want).all(), c.call


def test_every_emulated_intrinsic_is_tested(tmp_path: Path) -> None:
    (tmp_path / "x.c").write_text("")
    flags = ("-E", "-P", *FLAGS, "-o", "x.i", "x.c")
    run_compiler(find_toolchain(KIND, host_triple()), flags, tmp_path)
    text = (tmp_path / "x.i").read_text()
    defined = set(re.findall(r"static __attribute__\(\(unused, noinline\)\) \w+ (_mm\w+)\(", text))
    assert len(defined) > 100
    assert defined == {n for c in CASES for n in re.findall(r"_mm\w*(?=\()", c.call)}


def test_an_unknown_intrinsic_stops_the_compiler(tmp_path: Path) -> None:
    (tmp_path / "x.c").write_text(
        "#include <immintrin.h>\n__m512i f(__m512i a);\n__m512i f(__m512i a) { return _mm512_rol_epi32(a, 3); }\n"
    )
    with pytest.raises(ToolchainError, match="_mm512_rol_epi32"):
        run_compiler(find_toolchain(KIND, host_triple()), (*FLAGS, "-c", "-o", "x.o", "x.c"), tmp_path)
    assert HEADER.is_file()
