"""Measure the vector math functions against the C library's long double, and write docs/reference/vmath.md.

    python -m tools.vmath_errors

Errors are in units in the last place (ULP) of the exact result. Needs a C library whose long double has 80
bits or more.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headrace.codegen import vmath
from headrace.targets import simd
from headrace.targets.host import host_arch, host_features, host_triple
from headrace.targets.link import compile_library, library_name
from headrace.targets.toolchain import Toolchain, find_toolchain

Array = npt.NDArray[np.floating]
Kernel = Callable[[Array, Array], Array]
DTYPES: dict[str, type[np.floating]] = {"f32": np.float32, "f64": np.float64}
TABLE = Path(__file__).parents[1] / "docs/reference/vmath.md"

REFERENCE = """\
#include <math.h>
typedef long double R;
static R sigmoid(R x) { R e = expl(-fabsl(x)); return x < 0 ? e / (1 + e) : 1 / (1 + e); }
static R softplus(R x) { return fmaxl(x, 0) + log1pl(expl(-fabsl(x))) + (x != x ? x : 0); }
static R mish(R x) {
    if (x < -11000) return -0.0L;
    R e = expl(x > 50 ? 50 : x), w = e * (e + 2);
    return x * (w / (w + 2));
}
static R gelu(R x) {
    return x < -200 ? -0.0L : x * (0.5L * erfcl(-x * 0.707106781186547524400844362104849039285L));
}
static R rsqrt(R x) { return 1 / sqrtl(x); }
static R mod(R x, R y) {
    R r = fmodl(x, y);
    return r == 0 ? copysignl(r, y) : (r < 0) != (y < 0) ? r + y : r;
}
#define BINARY(n, f) \\
    void ref_##n(const double *x, const double *y, R *z, long c) { \\
        for (long i = 0; i < c; i++) z[i] = f(x[i], y[i]); \\
    }
#define UNARY(n, f) \\
    void ref_##n(const double *x, const double *y, R *z, long c) { \\
        (void)y; \\
        for (long i = 0; i < c; i++) z[i] = f(x[i]); \\
    }
UNARY(sigmoid, sigmoid) UNARY(softplus, softplus) UNARY(mish, mish) UNARY(gelu, gelu) UNARY(rsqrt, rsqrt)
BINARY(mod, mod) BINARY(pow, powl) BINARY(fmod, fmodl)
"""
_LIBM = "exp exp2 expm1 log log2 log10 log1p tanh sinh cosh asinh acosh atanh erf erfc sin cos tan asin acos atan cbrt"


def reference(folder: Path, toolchain: Toolchain) -> ctypes.CDLL:
    """Library of ref_<name>(const double *x, const double *y, long double *z, long n) for every function."""
    plain = "\n".join(f"UNARY({name}, {name}l)" for name in _LIBM.split())
    (folder / "reference.c").write_text(REFERENCE + plain + "\n")
    library = library_name("reference", host_triple())
    compile_library(toolchain, host_triple(), ["reference.c", "-lm"], library, folder)
    return ctypes.CDLL(str(folder / library))


def exact(library: ctypes.CDLL, name: str, x: Array, y: Array) -> Array:
    """Function values in long double."""
    with np.errstate(invalid="ignore"):
        a, b = np.ascontiguousarray(x, np.float64), np.ascontiguousarray(y, np.float64)
    z = np.zeros(len(a), np.longdouble)
    getattr(library, f"ref_{name}")(_pointer(a), _pointer(b), _pointer(z), ctypes.c_long(len(a)))
    return z


def runnable(isa: simd.Isa) -> bool:
    """Whether this machine can execute code for the instruction set."""
    needs = {"immintrin.h": "x86_64", "arm_neon.h": "aarch64"}.get(isa.header)
    here = {f.replace("_", "") for f in host_features()}  # Linux writes avx512_vnni, compilers avx512vnni
    return needs in (None, host_arch()) and set(isa.features) <= here


def kernels_source(isa: simd.Isa, functions: Iterable[str], types: Iterable[str]) -> str:
    """C file of k_<name>_<type>(const E *x, const E *y, E *z, long n), n a multiple of the lanes."""
    types = list(types)
    texts = []
    for name in functions:
        second = vmath.FUNCTIONS[name].arity == 2
        for t in types:
            elem, _, lanes = t.partition("x")
            c = {"f32": "float", "f64": "double"}[elem]
            call = f"hr_{name}_{t}(hr_load_{t}(x + i){f', hr_load_{t}(y + i)' if second else ''})"
            texts.append(
                f"void k_{name}_{t}(const {c} *x, const {c} *y, {c} *z, long n);\n"
                f"{isa.target_attribute}\n"
                f"void k_{name}_{t}(const {c} *x, const {c} *y, {c} *z, long n) {{\n"
                f"    (void)y;\n"
                f"    for (long i = 0; i < n; i += {lanes or 1}) hr_store_{t}(z + i, {call});\n}}"
            )
    code = "\n".join(texts)
    return vmath.support(isa, code) + code + "\n"


def build(
    isa: simd.Isa, toolchain: Toolchain, folder: Path, functions: Iterable[str], types: Iterable[str]
) -> ctypes.CDLL:
    """Shared library of `kernels_source`."""
    name = f"vmath_{isa.name}_{toolchain.kind}"
    (folder / f"{name}.c").write_text(kernels_source(isa, functions, types))
    library = library_name(name, host_triple())
    compile_library(toolchain, host_triple(), [f"{name}.c"], library, folder)
    return ctypes.CDLL(str(folder / library))


def values(library: ctypes.CDLL, name: str, t: str, x: Array, y: Array) -> Array:
    """Function values computed by the generated C for type t ("f32", "f32x16", …)."""
    dtype = DTYPES[t[:3]]
    size = -(-len(x) // 64) * 64
    a, b, z = (np.zeros(size, dtype) for _ in range(3))
    a[: len(x)], b[: len(y)] = x, y
    getattr(library, f"k_{name}_{t}")(_pointer(a), _pointer(b), _pointer(z), ctypes.c_long(size))
    return z[: len(x)]


def _pointer(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


SPECIAL = (
    0.0, -0.0, 1, -1, 0.5, -0.5, 2, -2, 3, -3, 0.25, 1.5, np.pi, -np.pi, 10, -10, 100, -100, 1e-30, -1e-30,
    np.inf, -np.inf, np.nan, 9, 20, 88.72, 88.73, 89.41, -17, -87.4, -103, -103.98, -104, -105, -150, 128,
    709.7, 709.8, 710.5, -708.5, -745, -746, 1023.9, 1024, -1074, -1075, 131072, -131072, 1e10, 1e22,
)  # fmt: skip


def samples(elem: str, n: int, rng: np.random.Generator) -> Array:
    """Special values, every exponent, n random bit patterns, n values of each of several ranges."""
    dtype = DTYPES[elem]
    info = np.finfo(dtype)
    bits = np.uint32 if elem == "f32" else np.uint64
    edges = [info.max, info.tiny, info.smallest_subnormal, info.tiny / 2, info.eps]
    exponents = np.ldexp(dtype(1), np.arange(info.minexp - info.nmant, info.maxexp)).astype(dtype)
    ranges = (
        rng.uniform(-1, 1, n), rng.normal(0, 4, n), rng.uniform(-110, 110, n), 1 + rng.normal(0, 1e-3, n),
        np.exp(rng.uniform(-20, 20, n)) * rng.choice([-1, 1], n),
        rng.uniform(-760, 760, n if elem == "f64" else 0),
    )  # fmt: skip
    patterns = rng.integers(0, 2 ** (8 * info.bits // 8), n, dtype=bits).view(dtype)
    with np.errstate(all="ignore"):
        parts = [np.array([*SPECIAL, *edges, *(-e for e in edges)], dtype), exponents, -exponents, patterns]
        parts += [1.4 * exponents] + [r.astype(dtype) for r in ranges]
        return np.concatenate(parts).astype(dtype)


def arguments(name: str, elem: str, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """x and y for a function; y is x itself when there is one argument."""
    x = samples(elem, n, rng)
    if vmath.FUNCTIONS[name].arity == 1:
        return x, x
    special = x[: len(SPECIAL) + 10]
    a, b = (g.ravel() for g in np.meshgrid(special, special))
    y = rng.permutation(x)
    near = np.clip(rng.normal(0, 10, len(x)), -30, 30).astype(x.dtype)
    return np.concatenate([a, x, np.abs(x), np.abs(x), x]), np.concatenate([b, y, y, near, np.trunc(near)])


def ulp_errors(got: Array, want: Array) -> Array:
    """Error of each value in ULP of the exact one; inf where a NaN, an infinity or a zero's sign is wrong.

    A result that overflows is right if the exact value is within rounding of the largest number.
    """
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        rounded = want.astype(got.dtype)
        exponent = np.maximum(np.frexp(np.abs(want))[1] - 1, info.minexp)
        unit = np.ldexp(np.longdouble(1), exponent - info.nmant)
        error = np.abs(got.astype(np.longdouble) - want) / unit
        top = np.longdouble(info.max)
        edge = np.ldexp(np.longdouble(1), info.maxexp - 1 - info.nmant)
        finite = np.where(np.isfinite(got), got.astype(np.longdouble), np.copysign(top + edge, got))
        goal = np.where(np.isfinite(want), np.clip(want, -top - edge, top + edge), np.copysign(top + edge, want))
        error = np.where(np.isfinite(got) & np.isfinite(rounded), error, np.abs(finite - goal) / edge)
        same = (np.isnan(got) & np.isnan(want)) | (got == rounded) & ~np.isfinite(rounded)
        wrong = (np.isnan(got) != np.isnan(want)) | (np.signbit(got) != np.signbit(rounded)) & ~np.isnan(want)
        wrong &= ~((got == 0) & (want != 0)) | np.isnan(got)
    return np.where(same, 0, np.where(wrong, np.inf, error)).astype(np.float64)


def measure(n: int = 200_000) -> dict[tuple[str, str], tuple[float, float]]:
    """Largest errors by (function, element type): with fused multiply-add, and without."""
    toolchain = find_toolchain(None, host_triple())
    rng = np.random.default_rng(1)
    fused = [isa for isa in simd.ISAS.values() if isa.fma and runnable(isa)][-1]
    result = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        libm = reference(folder, toolchain)
        libraries = [build(isa, toolchain, folder, vmath.FUNCTIONS, DTYPES) for isa in (fused, simd.ISAS["generic"])]
        for function in vmath.FUNCTIONS:
            for elem in DTYPES:
                x, y = arguments(function, elem, n, rng)
                want = exact(libm, function, x, y)
                worst = [float(ulp_errors(values(lib, function, elem, x, y), want).max()) for lib in libraries]
                result[function, elem] = (worst[0], worst[1])
    return result


def table(measured: dict[tuple[str, str], tuple[float, float]]) -> str:
    """The Markdown page."""
    head = """\
# Vector math

Written by `python -m tools.vmath_errors`; do not edit.

Generated C computes these functions itself, without libm. The bound is what the tests enforce: the largest
error, in units in the last place of the exact result, over special values, every power of two and random
arguments of each type, also where the result is subnormal. Measured is the largest seen in this run among
more than a million arguments, with fused multiply-add and without. Every function is defined for every
argument; NaN and infinities come out as the C standard says.

| Function | Meaning | f32 bound | fma, without | f64 bound | fma, without |
|---|---|---|---|---|---|
"""
    rows = []
    for name, f in vmath.FUNCTIONS.items():
        cells = [f"`{name}`", f.doc]
        for elem in DTYPES:
            with_fma, without = measured[name, elem]
            cells += [f"{f.max_ulp[elem]:g}", f"{with_fma:.2f}, {without:.2f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return head + "\n".join(rows) + "\n"


def main() -> None:
    measured = measure()
    TABLE.write_text(table(measured), encoding="utf-8")
    for (name, elem), worst in measured.items():
        bound = vmath.FUNCTIONS[name].max_ulp[elem]
        print(
            f"{name} {elem}: {worst[0]:.3f} {worst[1]:.3f}, bound {bound:g}{'' if max(worst) <= bound else ' EXCEEDED'}"
        )


if __name__ == "__main__":
    main()
