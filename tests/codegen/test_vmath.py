"""Vector math in generated C, compiled and run, against the C library's long double."""

from __future__ import annotations

import ctypes
import functools
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.artifact.elf import undefined_symbols
from headrace.codegen import vmath
from headrace.targets import simd
from headrace.targets.host import host_triple
from headrace.targets.toolchain import CFLAGS, SANITIZE, SANITIZERS, find_toolchains, run_compiler
from tools import vmath_errors as harness

ISAS = [isa for isa in simd.ISAS.values() if harness.runnable(isa) and not isa.tiles]
TOOLCHAINS = [t for t in find_toolchains() if t.builds_for(host_triple())]
# the portable set and the widest of this machine, one compiler each; everything in the slow tests
EVERYDAY = (ISAS[0], max(ISAS, key=lambda isa: isa.lanes))
QUICK = [(isa, TOOLCHAINS[i % len(TOOLCHAINS)]) for i, isa in enumerate(EVERYDAY)]
ISA_CASES = [
    pytest.param(isa, id=isa.name, marks=[] if isa in EVERYDAY else [pytest.mark.slow]) for isa in simd.ISAS.values()
]
RUNNABLE_CASES = [c for c in ISA_CASES if c.values[0] in ISAS]
DEEP = [(isa, t) for isa in ISAS for t in TOOLCHAINS if (isa, t) not in QUICK]
ALL = [pytest.param(*c, id=f"{c[0].name}-{c[1].kind}") for c in QUICK] + [
    pytest.param(*c, id=f"{c[0].name}-{c[1].kind}", marks=pytest.mark.slow) for c in DEEP
]
pytestmark = [
    pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than double"),
    pytest.mark.xdist_group("vmath"),  # which share libraries
]


def types(isa: simd.Isa) -> list[str]:
    """Scalars, a register of each element, and a type of two registers."""
    return ["f32", f"f32x{isa.lanes}", "f64", f"f64x{isa.lanes // 2}", f"f64x{isa.lanes}"]


@pytest.fixture(scope="module")
def libm(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return harness.reference(tmp_path_factory.mktemp("libm"), TOOLCHAINS[0])


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Libraries with every function by (instruction set, compiler), each compiled once."""

    @functools.cache
    def make(isa: simd.Isa, toolchain: Any) -> ctypes.CDLL:
        folder = tmp_path_factory.mktemp("vmath")
        return harness.build(isa, toolchain, folder, vmath.FUNCTIONS, types(isa))

    return make


def check(library: Any, libm: Any, name: str, elem: str, x: Any, y: Any) -> None:
    """Errors within the bound, and a message that shows the worst argument."""
    want = harness.exact(libm, name, x, y)
    got = harness.values(library, name, elem, x, y)
    error = harness.ulp_errors(got, want)
    i = int(np.argmax(error))
    bound = vmath.FUNCTIONS[name].max_ulp[elem]
    assert error[i] <= bound, f"{name} {elem} of {x[i]!r}, {y[i]!r}: {got[i]!r} is not {want[i]!r}: {error[i]:.2f} ULP"


@pytest.mark.parametrize(("isa", "toolchain"), ALL)
def test_errors_stay_within_the_bounds(
    isa: simd.Isa, toolchain: Any, build: Any, libm: Any, rng: np.random.Generator
) -> None:
    library = build(isa, toolchain)
    for name in vmath.FUNCTIONS:
        for elem in harness.DTYPES:
            check(library, libm, name, elem, *harness.arguments(name, elem, 4000, rng))


@pytest.mark.parametrize(("isa", "toolchain"), ALL)
def test_lanes_do_not_change_the_result(isa: simd.Isa, toolchain: Any, build: Any, rng: np.random.Generator) -> None:
    """Bit for bit, also against another instruction set and compiler with the same fma."""
    library = build(isa, toolchain)
    other = next((i, t) for i, t in QUICK if i.fma == isa.fma)
    for name in vmath.FUNCTIONS:
        for elem in harness.DTYPES:
            x, y = harness.arguments(name, elem, 4000, rng)
            want = harness.values(build(*other), name, elem, x, y)
            bits = f"u{want.dtype.itemsize}"
            for t in types(isa):
                if t.startswith(elem):
                    got = harness.values(library, name, t, x, y)
                    differ = (got.view(bits) != want.view(bits)) & ~(np.isnan(got) & np.isnan(want))
                    i = int(np.argmax(differ))
                    assert not differ.any(), (
                        f"{name} {t} of {x[i]!r}, {y[i]!r}: {got[i]!r}, {other[0].name} {want[i]!r}"
                    )


SPECIAL = [
    ("exp", -np.inf, 0.0), ("exp", np.inf, np.inf), ("log", 0.0, -np.inf), ("log", -0.0, -np.inf),
    ("log", -1, np.nan), ("log1p", -1, -np.inf), ("log1p", -0.0, -0.0), ("tanh", np.inf, 1.0),
    ("tanh", -0.0, -0.0), ("sigmoid", -np.inf, 0.0), ("sigmoid", np.inf, 1.0), ("erf", np.inf, 1.0),
    ("erfc", np.inf, 0.0), ("erfc", -np.inf, 2.0), ("gelu", np.inf, np.inf), ("gelu", -np.inf, -0.0),
    ("sin", np.inf, np.nan), ("sin", -0.0, -0.0), ("atan", np.inf, np.pi / 2), ("asin", 1.5, np.nan),
    ("acosh", 0.5, np.nan), ("acosh", -5, np.nan), ("atanh", 1, np.inf), ("atanh", -2, np.nan),
    ("sinh", -np.inf, -np.inf), ("cosh", -np.inf, np.inf), ("cbrt", -27, -3.0), ("rsqrt", 0.0, np.inf),
    ("rsqrt", -1, np.nan), ("softplus", -np.inf, 0.0), ("mish", np.inf, np.inf), ("mish", -np.inf, -0.0),
    ("expm1", -np.inf, -1.0), ("expm1", -0.0, -0.0),
]  # fmt: skip
SPECIAL_PAIRS = [
    ("pow", np.nan, 0.0, 1.0), ("pow", 1.0, np.nan, 1.0), ("pow", -8.0, 3.0, -512.0),
    ("pow", -8.0, 2.0, 64.0), ("pow", -8.0, 0.5, np.nan), ("pow", 0.0, -1.0, np.inf),
    ("pow", -0.0, -1.0, -np.inf), ("pow", -0.0, -2.0, np.inf), ("pow", -0.0, 3.0, -0.0),
    ("pow", -1.0, np.inf, 1.0), ("pow", -1.0, np.nan, np.nan), ("pow", -np.inf, 3.0, -np.inf),
    ("pow", -np.inf, 0.5, np.inf), ("pow", -np.inf, -3.0, -0.0), ("pow", 0.5, -np.inf, np.inf),
    ("pow", 2.0, -np.inf, 0.0), ("pow", np.inf, -1.0, 0.0), ("pow", 0.0, np.inf, 0.0),
    ("pow", np.nan, 1.0, np.nan), ("pow", -2.0, 1e9 + 1, -np.inf), ("fmod", 5.5, -2.0, 1.5),
    ("fmod", -5.5, 2.0, -1.5), ("fmod", 1.0, 0.0, np.nan), ("fmod", np.inf, 2.0, np.nan),
    ("fmod", 3.0, np.inf, 3.0), ("fmod", -4.0, 2.0, -0.0), ("mod", 5.5, -2.0, -0.5),
    ("mod", -5.5, 2.0, 0.5),
]  # fmt: skip


@pytest.mark.parametrize("isa", RUNNABLE_CASES)
def test_special_values(isa: simd.Isa, build: Any) -> None:
    """Written out, so that the table does not rest on the C library alone."""
    library = build(*next(q for q in QUICK if q[0] is isa))
    for name, *arguments, want in [*SPECIAL, *SPECIAL_PAIRS]:
        for elem, d in harness.DTYPES.items():
            if (name, arguments[-1], elem) == ("pow", 1e9 + 1, "f32"):
                continue  # even as a float
            x, y = np.array([arguments[0]], d), np.array([arguments[-1]], d)
            got = harness.values(library, name, elem, x, y)[0]
            same = np.isnan(got) if np.isnan(want) else got == d(want) and np.signbit(got) == np.signbit(want)
            assert same, f"{name} {elem} {arguments}: {got}"
    for name in vmath.FUNCTIONS:
        for elem, d in harness.DTYPES.items():
            nan = np.array([np.nan], d)
            assert np.isnan(harness.values(library, name, elem, nan, nan)[0]), name


@pytest.mark.slow
@pytest.mark.parametrize("isa", RUNNABLE_CASES)
def test_every_thousandth_float(isa: simd.Isa, build: Any, libm: Any) -> None:
    library = build(*next(q for q in QUICK if q[0] is isa))
    for start in range(0, 2**32, 2**28):
        x = np.arange(start + start // 2**28, start + 2**28, 1009, dtype=np.uint64).astype(np.uint32).view(np.float32)
        for name, function in vmath.FUNCTIONS.items():
            if function.arity == 1:
                check(library, libm, name, "f32", x, x)


@pytest.mark.parametrize("isa", ISA_CASES)
def test_no_warnings_no_libm(isa: simd.Isa, tmp_path: Path) -> None:
    machine = "aarch64" if isa.header == "arm_neon.h" else "x86_64"
    (tmp_path / "x.c").write_text(harness.kernels_source(isa, vmath.FUNCTIONS, types(isa)))
    toolchain = next(t for t in find_toolchains() if t.builds_for(f"{machine}-linux-gnu"))
    triple = f"{machine}-linux-musl" if toolchain.kind == "zig" else f"{machine}-linux-gnu"
    flags = (*toolchain.flags_for(triple), *CFLAGS, "-O1", "-Wall", "-Wextra", "-c", "-o", "x.o", "x.c")
    assert run_compiler(toolchain, flags, tmp_path) == ""
    assert (undefined_symbols((tmp_path / "x.o").read_bytes()) or frozenset()) <= {"memcpy", "memset"}


@pytest.mark.slow
@pytest.mark.parametrize("isa", RUNNABLE_CASES)
def test_sanitized(isa: simd.Isa, tmp_path: Path) -> None:
    """No function has undefined behaviour for any argument."""
    kinds = [t for t in TOOLCHAINS if t.kind != "zig"]
    if not kinds:
        pytest.skip("needs gcc or clang for the sanitizers")
    text = harness.kernels_source(isa, vmath.FUNCTIONS, types(isa))
    x = {e: harness.samples(e, 50, np.random.default_rng(0)) for e in harness.DTYPES}
    arrays = []
    for elem, c in (("f32", "float"), ("f64", "double")):
        values = np.resize(x[elem], -(-len(x[elem]) // 64) * 64)
        bits = ", ".join(
            str(b) + ("u" if elem == "f32" else "ull") for b in values.view(f"u{values.itemsize}").tolist()
        )
        arrays.append(f"static const uint{8 * values.itemsize}_t x_{elem}[] = {{{bits}}};")
        arrays.append(f"static {c} a_{elem}[{len(values)}], b_{elem}[{len(values)}], r_{elem}[{len(values)}];")
        arrays.append(f"enum {{ n_{elem} = {len(values)} }};")
    setup = "".join(
        f"    for (int i = 0; i < n_{e}; i++) {{ memcpy(&a_{e}[i], &x_{e}[i], sizeof a_{e}[i]);"
        f" memcpy(&b_{e}[i], &x_{e}[(i * 7 + 3) % n_{e}], sizeof b_{e}[i]); }}\n"
        for e in harness.DTYPES
    )
    calls = "".join(
        f"    k_{name}_{t}(a_{t[:3]}, b_{t[:3]}, r_{t[:3]}, n_{t[:3]});\n"
        for name in vmath.FUNCTIONS
        for t in types(isa)
    )
    main = "#include <string.h>\n" + "\n".join(arrays) + f"\nint main(void) {{\n{setup}{calls}    return 0;\n}}\n"
    (tmp_path / "s.c").write_text(text + main)
    run_compiler(kinds[-1], (*SANITIZE, *SANITIZERS, "-o", "s", "s.c"), tmp_path)
    done = subprocess.run([tmp_path / "s"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[:2000]


def test_only_what_is_needed() -> None:
    text = vmath.emit(simd.ISAS["avx512"], {("exp", "f32x16")})
    assert re.findall(r"^HR_INLINE \w+ (hr_\w+)\(", text, re.M) == ["hr_exp_f32x16"]
    assert "hr_ldexp_f32x16" in vmath.primitives(simd.ISAS["avx512"], {("exp", "f32x16")})
    assert vmath.primitives(simd.ISAS["avx2"], {("sqrt", "f32x8")}) == {"hr_sqrt_f32x8"}
    assert vmath.emit(simd.ISAS["avx2"], {("sqrt", "f32x8")}).strip() == ""


def test_support_finds_what_code_uses() -> None:
    text = vmath.support(simd.ISAS["neon"], "f32x4 y = hr_gelu_f32x4(hr_load_f32x4(p)); i8x4 q;")
    for name in ("hr_load_f32x4(", "hr_exp_sum_f32x4(", "hr_gelu_f32x4(", "i8x4 __attribute__"):
        assert name in text


@pytest.mark.parametrize(("name", "t"), [("expo", "f32"), ("exp", "i32"), ("exp", "f32x3"), ("exp", "bf16")])
def test_an_unknown_function_is_refused(name: str, t: str) -> None:
    with pytest.raises(ValueError, match=r"math function|power of two"):
        vmath.emit(simd.ISAS["generic"], {(name, t)})


def test_an_unknown_call_is_refused() -> None:
    with pytest.raises(ValueError, match="hr_frobnicate"):
        vmath.support(simd.ISAS["generic"], "x = hr_frobnicate(y);")


def test_the_table_states_the_bounds() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| .* \| ([\d.]+) \| [^|]+ \| ([\d.]+) \| [^|]+ \|$", harness.TABLE.read_text(), re.M
    )
    want = [(n, f"{f.max_ulp['f32']:g}", f"{f.max_ulp['f64']:g}") for n, f in vmath.FUNCTIONS.items()]
    assert rows == want
