"""The vector prelude, compiled and run, against NumPy."""

from __future__ import annotations

import ctypes
import functools
import mmap
import re
import subprocess
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from headrace.artifact.elf import undefined_symbols
from headrace.errors import ToolchainError
from headrace.targets import simd
from headrace.targets.host import host_triple
from headrace.targets.primitives import SIGNATURES
from headrace.targets.toolchain import (
    CFLAGS,
    SANITIZE,
    SANITIZERS,
    find_toolchain,
    find_toolchains,
    run_compiler,
)
from headrace.targets.vector_types import ELEMS, VType, parse
from tests.emulate.build import KIND, emulated
from tests.targets import simd_cases as cases
from tools.vmath_errors import runnable

# the vectors of avx512amx are those of avx512bf16
ISAS = [isa for isa in simd.ISAS.values() if runnable(isa) and not isa.tiles]
EMULATED = [isa for isa in simd.ISAS.values() if emulated(isa) and not isa.tiles]
TOOLCHAINS = [t for t in find_toolchains() if t.builds_for(host_triple())]
WARNINGS = ("-Wall", "-Wextra", "-c")
# the portable set and the widest of this machine, one compiler each; everything in the slow tests
EVERYDAY = (ISAS[0], max(ISAS, key=lambda isa: isa.lanes))
QUICK = [
    (isa, lanes, TOOLCHAINS[i % len(TOOLCHAINS)])
    for i, isa in enumerate(EVERYDAY)
    for lanes in ((1, isa.lanes) if i == 0 else (isa.lanes,))
]
QUICK += [(isa, isa.lanes, t) for isa in EMULATED[-1:] for t in TOOLCHAINS if t.kind == KIND]
DEEP = [(isa, lanes, t) for isa in ISAS for lanes in (1, isa.lanes // 2, isa.lanes, 2 * isa.lanes) for t in TOOLCHAINS]
DEEP += [(isa, n, t) for isa in EMULATED for n in (1, isa.lanes) for t in TOOLCHAINS if t.kind == KIND]
ALL = [pytest.param(*c, id=f"{c[0].name}-{c[1]}-{c[2].kind}") for c in QUICK] + [
    pytest.param(*c, id=f"{c[0].name}-{c[1]}-{c[2].kind}", marks=pytest.mark.slow) for c in DEEP if c not in QUICK
]
Library = ctypes.CDLL
pytestmark = pytest.mark.xdist_group("simd")  # which share libraries


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Libraries by (instruction set, lanes, compiler), each compiled once."""

    @functools.cache
    def make(isa: simd.Isa, lanes: int, toolchain: Any) -> Library:
        return cases.library(isa, lanes, toolchain, tmp_path_factory.mktemp("simd"))

    return make


def call(library: Library, name: str, *arrays: np.ndarray[Any, Any], result: np.ndarray[Any, Any]) -> None:
    arguments = [ctypes.c_void_p(a.ctypes.data) for a in arrays]
    arguments += [ctypes.c_void_p(0)] * (4 - len(arguments))
    getattr(library, f"k_{name}")(*arguments, ctypes.c_void_p(result.ctypes.data))


def same(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any], what: str) -> None:
    """Equal bits, any NaN for a NaN."""
    assert got.dtype == want.dtype, what
    if got.dtype.kind == "f":
        both_nan = np.isnan(got) & np.isnan(want)
        bits = f"u{got.dtype.itemsize}"
        ok = both_nan | (got.view(bits) == want.view(bits))
    else:
        ok = got == want
    bad = np.flatnonzero(~ok)
    assert bad.size == 0, f"{what}: {bad.size} lanes differ, first {bad[0]}: {got[bad[0]]} is not {want[bad[0]]}"


def operands(op: str, t: VType, rng: np.random.Generator) -> list[np.ndarray[Any, Any]]:
    """Four arrays that the operation is defined for."""
    arrays = [cases.inputs(t.elem, rng) for _ in range(4)]
    d = arrays[0].dtype
    if op == "select":
        arrays[0] = -rng.integers(0, 2, cases.N).astype(f"i{d.itemsize}")
    if op == "ldexp":
        reach = 252 if t.elem.bits == 32 else 2044
        arrays[0] = (rng.uniform(0.5, 4, cases.N) * rng.choice([-1, 1], cases.N)).astype(d)
        arrays[1] = rng.integers(-reach, reach + 1, cases.N).astype(d)
    if op in ("shlv", "shrv"):
        arrays[1] = rng.integers(0, min(2 * t.elem.bits, 250), cases.N).astype(d)
    if op in ("min", "max", "hmin", "hmax", "min_fast", "max_fast") and t.elem.kind == "f":
        for a in arrays:
            a[a == 0] = 0  # which of two zeros is smaller is nobody's promise
    return arrays


@pytest.mark.parametrize(("isa", "lanes", "toolchain"), ALL)
def test_elementwise(isa: simd.Isa, lanes: int, toolchain: Any, build: Any, rng: np.random.Generator) -> None:
    library = build(isa, lanes, toolchain)
    for op, reference in cases.ELEMENTWISE.items():
        for name, t, _ in cases.names(SIGNATURES[op], lanes):
            if t.elem.kind == "h":
                continue
            arrays = operands(op, t, rng)
            with np.errstate(all="ignore"):
                want = reference(*arrays)
            if op == "splat":
                want = np.repeat(want[::lanes], lanes)
            d = arrays[1].dtype if SIGNATURES[op].returns == "T" else np.dtype(f"i{arrays[0].dtype.itemsize}")
            got = np.zeros(cases.N, d)
            call(library, name, *arrays, result=got)
            want = want.astype(d)
            if op == "sqrt" and isa.name == "generic" and t.elem.name == "f64":
                finite = np.isfinite(want)
                np.testing.assert_array_max_ulp(got[finite], want[finite], 1)
                got[finite] = want[finite]
            same(got, want, f"{isa.name} {name}")


@pytest.mark.parametrize(("isa", "lanes", "toolchain"), ALL)
def test_multiply_add(isa: simd.Isa, lanes: int, toolchain: Any, build: Any, rng: np.random.Generator) -> None:
    library = build(isa, lanes, toolchain)
    for op, sign in (("fma", 1), ("fnma", -1)):
        for name, t, _ in cases.names(SIGNATURES[op], lanes):
            if t.elem.kind == "h":
                continue
            a, b, c, _unused = (x.copy() for x in operands(op, t, rng))
            b[: cases.N // 2] = -c[: cases.N // 2] / a[: cases.N // 2]  # cancellation shows the second rounding
            got = np.zeros_like(a)
            call(library, name, a, b, c, result=got)
            with np.errstate(all="ignore"):
                if isa.fma:
                    f = a.dtype.type
                    want = np.array([cases.fused(sign * x, y, z, f) for x, y, z in zip(a, b, c, strict=True)], f)
                else:
                    want = c + (a * b) * a.dtype.type(sign)
            same(got, want, f"{isa.name} {name}")


@pytest.mark.parametrize(("isa", "lanes", "toolchain"), ALL)
def test_arithmetic_of_16_bit_floats(
    isa: simd.Isa, lanes: int, toolchain: Any, build: Any, rng: np.random.Generator
) -> None:
    library, once = build(isa, lanes, toolchain), "avx512fp16" in isa.features
    for op, fn in (("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div", np.divide), ("fma", None)):
        for name, t, _ in cases.names(SIGNATURES[op], lanes):
            if t.elem.kind != "h":
                continue
            half = np.float16 if t.elem.name == "f16" else ml_dtypes.bfloat16
            bits = [rng.integers(0, 65536, cases.N, dtype=np.uint16) for _ in range(3)]
            bits[1][::2] = rng.normal(0, 9, cases.N // 2).astype(half).view(np.uint16)
            got = np.zeros(cases.N, np.uint16)
            call(library, name, *bits, result=got)
            a, b, c = (x.view(half).astype(np.float32) for x in bits)
            with np.errstate(all="ignore"):
                if fn is not None:
                    want = fn(a, b).astype(half)
                elif once and half is np.float16 and lanes >= 8:
                    want = np.array([cases.fused(*x, np.float16) for x in zip(a, b, c, strict=True)], half)
                else:
                    want = ((a * b).astype(half).astype(np.float32) + c).astype(half)
            same(got.view(half).astype(np.float32), want.astype(np.float32), f"{isa.name} {name}")


@pytest.mark.parametrize(("isa", "lanes", "toolchain"), ALL)
def test_nearest_within_bounds(isa: simd.Isa, lanes: int, toolchain: Any, build: Any, rng: np.random.Generator) -> None:
    library = build(isa, lanes, toolchain)
    ((name, _, s),) = cases.names(SIGNATURES["near"], lanes)
    assert s is not None
    for low, high in ((-128, 127), (0, 255), (-200, 55), (-(1 << 22), 1 << 22)):
        a, got = cases.inputs(s.elem, rng), np.zeros(cases.N, np.int32)
        call(library, name, a, np.full(cases.N, low, np.int32), np.full(cases.N, high, np.int32), result=got)
        want = np.where(np.isnan(a), 0, np.clip(np.rint(np.nan_to_num(a, nan=0.0)), low, high)).astype(np.int32)
        same(got, want, f"{isa.name} {name} {low} {high}")


@pytest.mark.parametrize(("isa", "lanes", "toolchain"), ALL)
def test_quotient(isa: simd.Isa, lanes: int, toolchain: Any, build: Any, rng: np.random.Generator) -> None:
    library = build(isa, lanes, toolchain)
    for name, t, _ in cases.names(SIGNATURES["quotient"], lanes):
        f = np.dtype(t.elem.name.replace("f", "float")).type
        a, got = cases.inputs(t.elem, rng), np.zeros(cases.N, f)
        b = f(0.0371)
        high = f(1 / b)
        low = f(abs(1 / np.longdouble(b) - np.longdouble(high)))
        with np.errstate(all="ignore"):
            want = np.array([cases.fused(x, high, f(x * low), f) for x in a], f) if isa.fma else a / b
        call(library, name, a, *(np.full(cases.N, v, f) for v in (b, high, low)), result=got)
        same(got, want, f"{isa.name} {name}")


@pytest.mark.parametrize(("isa", "lanes", "toolchain"), ALL)
def test_horizontal(isa: simd.Isa, lanes: int, toolchain: Any, build: Any, rng: np.random.Generator) -> None:
    library = build(isa, lanes, toolchain)
    for op, reference in cases.HORIZONTAL.items():
        for name, t, _ in cases.names(SIGNATURES[op], lanes):
            a = operands(op, t, rng)[0]
            if op in ("any", "all"):
                a = -np.repeat(rng.integers(0, 2, cases.N // lanes), lanes).astype(a.dtype)
                a[:: 3 * lanes] ^= -1
            elif op in ("hsum", "hprod") and t.elem.kind == "f":
                a = rng.choice([-1, 1, 2, -0.5] if op == "hprod" else np.arange(-9, 9), cases.N).astype(a.dtype)
            with np.errstate(all="ignore"):
                want = reference(a.reshape(-1, lanes))
            got = np.zeros_like(want)
            call(library, name, a, result=got)
            same(got, want, f"{isa.name} {name}")


@pytest.mark.parametrize(("isa", "lanes", "toolchain"), ALL)
def test_conversions(isa: simd.Isa, lanes: int, toolchain: Any, build: Any, rng: np.random.Generator) -> None:
    library = build(isa, lanes, toolchain)
    for op in ("cast", "cvt", "sat"):
        for name, t, s in cases.names(SIGNATURES[op], lanes):
            assert s is not None
            with np.errstate(all="ignore"):
                a, want = cases.converted(op, t.elem, s.elem, cases.inputs(s.elem, rng))
            got = np.zeros_like(want)
            call(library, name, np.ascontiguousarray(a), result=got)
            if t.elem.kind == "h" and s.elem.kind == "f":  # NaN payloads are free
                nan = np.isnan(a)
                exponent = {"f16": 0x7C00, "bf16": 0x7F80}[t.elem.name]
                assert np.all((got[nan] & 0x7FFF) > exponent), name
                got[nan] = want[nan]
            same(got, want, f"{isa.name} {name}")


@pytest.mark.parametrize(("isa", "lanes", "toolchain"), ALL)
def test_sixteen_bit_floats(isa: simd.Isa, lanes: int, toolchain: Any, build: Any) -> None:
    """All 65536 patterns there and back, and doubles just beside the middle of two 16-bit floats."""
    library = build(isa, lanes, toolchain)
    end = "" if lanes == 1 else f"x{lanes}"
    patterns = np.arange(65536, dtype=np.uint16).reshape(-1, cases.N)
    for half, exponent, unit in (("f16", 0x7C00, 2.0**-10), ("bf16", 0x7F80, 2.0**-7)):
        for number, d in (("f32", np.float32), ("f64", np.float64)):
            for row in patterns:
                wide, back = np.zeros(cases.N, d), np.zeros(cases.N, np.uint16)
                call(library, f"hr_cvt_{number}{end}_{half}{end}", row, result=wide)
                call(library, f"hr_cvt_{half}{end}_{number}{end}", wide, result=back)
                nan = (row & 0x7FFF) > exponent
                assert np.array_equal(np.isnan(wide), nan)
                assert np.array_equal(back[~nan], row[~nan]), f"{isa.name} {half} {number}"
        middle = np.array([1 + unit / 2, 1 + unit / 2 + 2.0**-40, 1 + unit / 2 - 2.0**-40, 1 + 3 * unit / 2])
        got = np.zeros(cases.N, np.uint16)
        call(library, f"hr_cvt_{half}{end}_f64{end}", np.resize(middle, cases.N), result=got)
        one = {"f16": 0x3C00, "bf16": 0x3F80}[half]
        assert (got[:4] - one).tolist() == [0, 1, 0, 2], f"{isa.name} {half}"


class Guarded:
    """Memory that ends where the process may read or write no further."""

    def __init__(self) -> None:
        self.map = mmap.mmap(-1, 2 * mmap.PAGESIZE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        libc = ctypes.CDLL(None)
        self.end = base + mmap.PAGESIZE
        assert libc.mprotect(ctypes.c_void_p(self.end), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0

    def array(self, count: int, d: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """The last `count` elements before the end."""
        size = count * d.itemsize
        return np.frombuffer((ctypes.c_char * size).from_address(self.end - size), d)


@pytest.mark.skipif(not hasattr(mmap, "PAGESIZE") or host_triple().endswith("windows-gnu"), reason="needs mprotect")
@pytest.mark.parametrize(("isa", "lanes", "toolchain"), ALL)
def test_loads_and_stores(isa: simd.Isa, lanes: int, toolchain: Any, build: Any, rng: np.random.Generator) -> None:
    library = build(isa, lanes, toolchain)
    near, far = Guarded(), Guarded()
    for elem in ELEMS.values():
        if elem.kind == "h":
            continue
        t, d = VType(elem, lanes), cases.dtype(elem)
        a = cases.inputs(elem, rng)

        def run(what: str, x: np.ndarray[Any, Any], r: np.ndarray[Any, Any], n: Any, name: str = t.name) -> None:
            size = ctypes.c_int(n) if isinstance(n, int) else ctypes.c_void_p(n.ctypes.data)
            getattr(library, f"m_{what}_{name}")(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(r.ctypes.data), size)

        for n in range(lanes + 1):
            source, target = near.array(n, d), far.array(n, d)
            source[:] = a[:n]
            run("tail", source, target, n)
            same(target.copy(), a[:n], f"store_n {n}")
            filled = np.ones(lanes, d)
            run("load_n", source, filled, n)
            same(filled, np.concatenate([a[:n], np.zeros(lanes - n, d)]), f"load_n {n}")
        for step in (1, 3, -2):
            start = 2 * lanes
            spread = np.zeros(5 * lanes + 5, d)
            run("to", a, spread[start:], step)
            index = start + step * np.arange(lanes)
            same(spread[index], a[:lanes], f"store_strided {step}")
            assert np.count_nonzero(np.delete(spread, index)) == 0
            out = np.zeros(lanes, d)
            run("from", a[start:], out, step)
            same(out, a[index], f"load_strided {step}")
        turned = np.zeros((lanes, lanes), d)
        wide = rng.permutation(np.resize(a, (lanes * (lanes + 3))))
        run("turn", wide, turned, lanes + 3)
        same(turned, np.ascontiguousarray(wide.reshape(lanes, -1)[:, :lanes].T), "load_transposed")
        out = np.zeros(2 * lanes, d)
        index = rng.integers(0, cases.N, lanes).astype(np.int32)
        run("gather", a, out, index)
        same(out[:lanes], a[index], "gather")
        run("iota", a, out, 0)
        same(out[:lanes], np.arange(lanes).astype(d), "iota")
        if lanes > 1:
            run("swap", a, out, 0)
            half = lanes // 2
            same(out[: lanes + half], np.concatenate([a[half:lanes], a[:half], a[half:lanes]]), "halves")


def compilers(isa: simd.Isa) -> list[tuple[Any, str]]:
    """Each compiler that can build for the instruction set, with the triple to ask for."""
    machine = "aarch64" if isa.header == "arm_neon.h" else "x86_64"
    triples = [(t, f"{machine}-linux-{'musl' if t.kind == 'zig' else 'gnu'}") for t in find_toolchains()]
    return [(t, triple) for t, triple in triples if t.builds_for(triple)]


def speaks_cxx(toolchain: Any, folder: Path) -> bool:
    """Whether the compiler has its C++ half."""
    (folder / "empty.c").write_text("")
    try:
        run_compiler(toolchain, ("-x", "c++", "-fsyntax-only", "empty.c"), folder)
    except ToolchainError:
        return False
    return True


WARNED = [(isa, t, triple, n) for isa in simd.ISAS.values() for n, (t, triple) in enumerate(compilers(isa))]


@pytest.mark.parametrize("wide", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("isa", "toolchain", "triple"),
    [
        pytest.param(
            isa, t, triple, id=f"{isa.name}-{t.kind}", marks=[pytest.mark.slow] if n or isa not in EVERYDAY else []
        )
        for isa, t, triple, n in WARNED
    ],
)
def test_no_warnings_no_libm(isa: simd.Isa, toolchain: Any, triple: str, wide: bool, tmp_path: Path) -> None:
    """C11, and at length also C++17 and types wider than a register; at most memcpy and memset are left undefined."""
    debug = "-O1" if toolchain.kind == "zig" else "-O0"  # zig adds its own checks to debug builds
    flags = (*toolchain.flags_for(triple), *CFLAGS[1:], *WARNINGS)
    cxx = speaks_cxx(toolchain, tmp_path)
    for lanes, level in ((isa.lanes, "-O1"), *([(2 * isa.lanes, debug)] if wide else [])):
        (tmp_path / "x.c").write_text(cases.source(isa, lanes))
        assert run_compiler(toolchain, (*flags, level, "-std=c11", "-o", "x.o", "x.c"), tmp_path) == ""
        assert (undefined_symbols((tmp_path / "x.o").read_bytes()) or frozenset()) <= {"memcpy", "memset"}
        if cxx and wide and lanes == isa.lanes:
            assert (
                run_compiler(toolchain, (*flags, debug, "-x", "c++", "-std=c++17", "-o", "y.o", "x.c"), tmp_path) == ""
            )


@pytest.mark.slow
@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_sanitized(isa: simd.Isa, tmp_path: Path) -> None:
    """No kernel has undefined behaviour on random bytes (conversions that name a range apart)."""
    kinds = [t for t in TOOLCHAINS if t.kind != "zig"]
    if not kinds:
        pytest.skip("needs gcc or clang for the sanitizers")
    for lanes in (1, isa.lanes):
        text = cases.source(isa, lanes)
        kernels = list(re.findall(r"^void (k_\w+)\(const void .*\{$", text, re.M))
        ranged = re.compile(r"k_hr_cvt_[iu]\w+_f(32|64)(x\d+)?$|k_hr_ldexp")
        calls = "\n".join(f"    {k}(a, b, c, d, r);" for k in kernels if not ranged.match(k))
        main = (
            "int main(void) {\n"
            "    static _Alignas(8) unsigned char a[4096], b[4096], c[4096], d[4096], r[4096];\n"
            "    uint32_t s = 1;\n    for (int i = 0; i < 4096; i++) {\n"
            "        s = s * 1664525u + 1013904223u;\n"
            "        a[i] = (unsigned char)(s >> 24); b[i] = (unsigned char)(s >> 16);\n"
            "        c[i] = (unsigned char)(i % 5 ? 255 : s >> 20);\n"
            "        d[i] = (unsigned char)(i % 3 ? 0 : s >> 12);\n"
            "    }\n"
            f"{calls}\n    return 0;\n}}\n"
        )
        (tmp_path / "s.c").write_text(text + main)
        run_compiler(kinds[-1], (*SANITIZE, *SANITIZERS, "-o", "s", "s.c"), tmp_path)
        done = subprocess.run([tmp_path / "s"], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[:2000]


def test_docstring_lists_every_primitive() -> None:
    assert simd.__doc__ is not None
    listed = re.findall(r"^    \w+ hr_(\w+?)_T(?:_S)?\(", simd.__doc__, re.M)
    assert listed == list(SIGNATURES)


def test_only_what_is_needed() -> None:
    text = simd.prelude(simd.ISAS["avx512"], {"hr_fma_f32x16"})
    assert re.findall(r"hr_\w+(?=\()", text) == ["hr_fma_f32x16"]
    assert text.count("typedef") == 1


def test_definitions_come_before_their_use() -> None:
    text = simd.prelude(simd.ISAS["generic"], {"hr_sat_i8x4_f32x4", "hr_mod_i32x4", "hr_sqrt_f64x4"})
    defined = re.findall(r"^HR_INLINE \w+ (hr_\w+?)_?\(", text, re.M)
    for i, name in enumerate(defined):
        body = text[text.index(f" {name}") :]
        body = body[: body.find("\nHR_INLINE") if "\nHR_INLINE" in body else None]
        assert {n.removesuffix("_") for n in simd.used(body)} <= set(defined[: i + 1]), name


@pytest.mark.parametrize("name", ["hr_exp_f32", "hr_fma_i32x4", "hr_lo_f32", "hr_cvt_f32x4", "hr_fma_f32x3", "fma_f32"])
def test_an_unknown_primitive_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name if name != "hr_fma_f32x3" else "power of two"):
        simd.prelude(simd.ISAS["generic"], {name})


def test_types() -> None:
    assert simd.ctype("f32", 16) == "f32x16"
    assert simd.ctype("bf16", 8) == "u16x8"
    assert simd.ctype("i8", 1) == "int8_t"
    assert parse("f64x2").bytes == 16
    assert find_toolchain(None, host_triple()) in TOOLCHAINS
