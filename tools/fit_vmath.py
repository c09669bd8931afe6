"""Fit the polynomials of headrace.codegen.vmath and write its coefficients.py.

    python tools/fit_vmath.py

Each polynomial is the minimax fit of a function under a weight (the factor that its error has in the relative
error of the result), found by the Remez exchange in 40-digit arithmetic. Coefficients are then rounded to the
working precision one by one, lowest power first, and the rest fitted again around what is already rounded.
Needs mpmath.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mpmath import mp, mpf

Real = Callable[[mpf], mpf]
mp.dps = 40
DTYPES = ("f32", "f64")
TARGET = Path(__file__).parents[1] / "src/headrace/codegen/vmath/coefficients.py"


@dataclass(frozen=True)
class Fit:
    """g(x) ≈ Σ c[i] x**i on [low, high], least max |weight(x) * error|; degrees for f32 and f64.

    refit: whether to fit again after rounding each coefficient. Not where 0 lies inside the range, because
    the powers that are left then vanish together and the error cannot alternate.
    """

    name: str
    g: Real
    low: float
    high: float
    weight: Real
    f32: int | None
    f64: int | None
    refit: bool = True


def _ratio(numerator: Real, denominator: Real, at_zero: mpf) -> Real:
    """numerator/denominator with 60 more digits for the cancellation near 0, where it is at_zero."""

    def value(x: mpf) -> mpf:
        if abs(x) < mpf("1e-12"):
            return mpf(at_zero)
        with mp.extradps(60):
            return numerator(x) / denominator(x)

    return value


def _root(x: mpf) -> mpf:
    return mp.sqrt(x)


def _scaled(k: float) -> Callable[[mpf], mpf]:
    """The t of y = (t - k)/(t + k)."""
    return lambda y: k * (1 + y) / (1 - y)


def _erfcx(t: mpf) -> mpf:
    with mp.extradps(30):
        return mp.exp(t * t) * mp.erfc(t)


ERFCX_K = 3.0
PHI_K = 4.0
_T, _X = _scaled(ERFCX_K), _scaled(PHI_K)
_SIXTH = mpf(1) / 6

FITS = (
    Fit(
        "EXPM1",
        _ratio(lambda r: mp.expm1(r) - r, lambda r: r * r, mpf(0.5)),
        -0.3476,
        0.3476,
        lambda r: r / mp.expm1(r) * abs(r) if r else mpf(0),
        5,
        10,
    ),
    Fit(
        "LOG",
        _ratio(lambda f: mp.log1p(f) - f + f * f / 2, lambda f: f**3, mpf(1) / 3),
        -0.29292,
        0.41424,
        _ratio(lambda f: f**3, mp.log1p, mpf(0)),
        7,
        None,
    ),
    # with z = s**2, s = f/(2 + f): log(1 + f) = 2 s + s * z * (c0 + c1 z + …)
    Fit(
        "LOGS",
        _ratio(lambda z: 2 * mp.atanh(_root(z)) / _root(z) - 2, lambda z: z, mpf(2) / 3),
        0,
        0.02945,
        lambda z: z,
        None,
        7,
    ),
    # the same beyond the term 2/3
    Fit(
        "LOGS2",
        _ratio(lambda z: 2 * mp.atanh(_root(z)) / _root(z) - 2 - 2 * z / 3, lambda z: z * z, mpf(2) / 5),
        0,
        0.02945,
        lambda z: z * z,
        None,
        7,
    ),
    Fit(
        "ERF",
        _ratio(lambda z: mp.erf(_root(z)) - _root(z), _root, 2 / mp.sqrt(mp.pi) - 1),
        0,
        1.0,
        lambda z: mpf(1),
        6,
        12,
    ),
    Fit(
        "ERFCX",
        lambda y: _erfcx(_T(y)) * (_T(y) + ERFCX_K),
        -1,
        0.805,
        lambda y: 1 / (_erfcx(_T(y)) * (_T(y) + ERFCX_K)),
        10,
        26,
        False,
    ),
    # erf(t) = 1 - e**(-t Q(t)): what an error of Q does to it
    Fit(
        "ERFQ",
        lambda t: -mp.log(mp.erfc(t)) / t,
        1.0,
        4.0,
        lambda t: t * mp.erfc(t),
        5,
        None,
    ),
    Fit(
        "PHI",
        lambda x: _erfcx(_X(x) / mp.sqrt(2)) / 2 * (_X(x) + PHI_K),
        -1,
        0.813,
        lambda x: 1 / (_erfcx(_X(x) / mp.sqrt(2)) / 2 * (_X(x) + PHI_K)),
        10,
        26,
        False,
    ),
    Fit(
        "SIN",
        _ratio(lambda z: mp.sin(_root(z)) / _root(z) - 1, lambda z: z, -_SIXTH),
        0,
        0.6169,
        lambda z: z,
        2,
        5,
    ),
    Fit(
        "COS",
        _ratio(lambda z: mp.cos(_root(z)) - 1 + z / 2, lambda z: z * z, mpf(1) / 24),
        0,
        0.6169,
        lambda z: z * z,
        2,
        5,
    ),
    Fit(
        "ATAN",
        _ratio(lambda z: mp.atan(_root(z)) / _root(z) - 1, lambda z: z, -mpf(1) / 3),
        0,
        0.1717,
        lambda z: z,
        4,
        10,
    ),
    Fit(
        "ASIN",
        _ratio(lambda z: mp.asin(_root(z)) / _root(z) - 1, lambda z: z, _SIXTH),
        0,
        0.2501,
        lambda z: z,
        5,
        12,
    ),
)


def _solve(fit: Fit, fixed: list[mpf], degree: int, nodes: list[mpf]) -> list[mpf]:
    """Coefficients above the fixed ones whose weighted error alternates with one size on the nodes."""
    free = range(len(fixed), degree + 1)
    rows, right = mp.matrix(len(nodes), len(nodes)), mp.matrix(len(nodes), 1)
    for i, x in enumerate(nodes):
        w = fit.weight(x)
        for j, k in enumerate(free):
            rows[i, j] = w * x**k
        rows[i, len(free)] = (-1) ** i
        right[i] = w * (fit.g(x) - sum(c * x**k for k, c in enumerate(fixed)))
    return [*mp.lu_solve(rows, right)][:-1]


def _extremes(errors: list[mpf], xs: list[mpf], count: int) -> list[mpf]:
    """Where the error is largest in each run of one sign; of too many runs, the largest neighbours."""
    best: list[int] = []
    for i, e in enumerate(errors):
        if best and (e > 0) == (errors[best[-1]] > 0):
            if abs(e) > abs(errors[best[-1]]):
                best[-1] = i
        else:
            best.append(i)
    while len(best) > count:
        best.pop(0 if abs(errors[best[0]]) < abs(errors[best[-1]]) else -1)
    return [xs[i] for i in best]


def remez(fit: Fit, fixed: list[mpf], degree: int) -> tuple[list[mpf], mpf]:
    """Minimax coefficients of powers len(fixed) … degree beside the fixed ones, and the largest error."""
    count = degree + 2 - len(fixed)
    grid = 40 * (degree + 2)
    middle, half = mpf(fit.low + fit.high) / 2, mpf(fit.high - fit.low) / 2
    xs = [middle - half * mp.cos(mp.pi * (2 * i + 1) / (2 * grid)) for i in range(grid)]
    targets, weights = [fit.g(x) for x in xs], [fit.weight(x) for x in xs]
    nodes = [middle - half * mp.cos(mp.pi * (2 * i + 1) / (2 * count)) for i in range(count)]
    best: tuple[list[mpf], mpf] = ([], mpf("inf"))
    for _ in range(8):
        free = _solve(fit, fixed, degree, nodes) if count > 1 else []
        all_c = [*fixed, *free][::-1]
        errors = [w * (y - mp.polyval(all_c, x)) for x, y, w in zip(xs, targets, weights, strict=True)]
        worst = max(abs(e) for e in errors)
        if worst < best[1]:
            best = (free, worst)
        nodes = _extremes(errors, xs, count)
        if len(nodes) < count:
            break
    return best


def rounded(value: mpf, dtype: str) -> float:
    """Nearest float of the dtype."""
    return float(struct.unpack("f", struct.pack("f", float(value)))[0]) if dtype == "f32" else float(value)


def _degree(fit: Fit, dtype: str) -> int | None:
    return fit.f32 if dtype == "f32" else fit.f64


def coefficients(fit: Fit, dtype: str) -> tuple[list[float], float]:
    """Rounded coefficients and log2 of the largest weighted error."""
    degree = _degree(fit, dtype)
    if degree is None:
        raise ValueError(f"{fit.name} is not fitted for {dtype}")
    fixed: list[mpf] = []
    while len(fixed) <= degree:
        free, _ = remez(fit, fixed, degree)
        # the high powers need no refit of each: their rounding is far below the error
        step = 1 if fit.refit and (dtype == "f32" or len(fixed) < 3) else len(free)
        fixed += [mpf(rounded(c, dtype)) for c in free[:step]]
    xs = [mpf(fit.low) + (mpf(fit.high) - mpf(fit.low)) * i / 500 for i in range(501)]
    worst = max(abs(fit.weight(x) * (fit.g(x) - mp.polyval(fixed[::-1], x))) for x in xs)
    return [float(c) for c in fixed], float(mp.log(worst, 2))


HEADER = '''"""Minimax coefficients, lowest power first, and digits of 2/π.

Written by tools/fit_vmath.py; do not edit.
"""

COEFFICIENTS: dict[tuple[str, str], tuple[str, ...]] = {
'''


def main() -> None:
    lines = [HEADER]
    for fit in FITS:
        for dtype in DTYPES:
            if _degree(fit, dtype) is None:
                continue
            values, error = coefficients(fit, dtype)
            print(f"{fit.name} {dtype}: degree {len(values) - 1}, error 2^{error:.1f}")
            lines.append(f'    ("{fit.name}", "{dtype}"): (\n')
            lines += [f'        "{_hex(v, dtype)}",\n' for v in values]
            lines.append("    ),\n")
    TARGET.write_text("".join([*lines, "}\n", *_digits(38)]), encoding="utf-8")


def _digits(count: int) -> list[str]:
    """The first 32-bit digits of 2/π."""
    with mp.workprec(32 * count + 64):
        value = int(mp.floor(2 / mp.pi * mpf(2) ** (32 * count)))
    words = [f"0x{value >> 32 * (count - 1 - i) & 0xFFFFFFFF:08x}u" for i in range(count)]
    rows = [", ".join(words[i : i + 8]) for i in range(0, count, 8)]
    return ["TWO_OVER_PI_DIGITS = (\n", *(f'    "{row},",\n' for row in rows), ")\n"]


def _hex(value: float, dtype: str) -> str:
    """C hexadecimal literal without trailing zeros."""
    mantissa, exponent = value.hex().split("p")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}p{exponent}{'f' if dtype == 'f32' else ''}"


if __name__ == "__main__":
    main()
