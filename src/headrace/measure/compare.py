"""How far two arrays are apart, in the units that decide whether they count as equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.artifact.ports import Array

# Largest difference that counts as rounding, as a part of the largest element of the reference.
TOLERANCE = {"float64": 1e-10, "float32": 1e-4, "float16": 2e-3, "bfloat16": 2e-2}
TOLERANCE_BELOW = 0.1  # floats of eight bits and fewer
SMALL = 1e-3  # elements nearer to zero say nothing about accuracy in ULP
COMPLEX = {"complex64": "float32", "complex128": "float64"}


@dataclass(frozen=True)
class Difference:
    """One array against its reference.

    max_abs: largest absolute difference; scale: largest finite magnitude in the reference; max_ulp: largest
    distance in representable numbers of the dtype, of elements not smaller than SMALL * scale (None for
    integers); tolerance: allowed share of scale, 0 where every element must be the same; at, got, expected:
    the worst element; fault: a difference that no number measures (dtype, shape, NaN or infinity on one
    side only), "" where there is none.
    """

    max_abs: float
    scale: float
    max_ulp: int | None
    tolerance: float
    wrong: int
    size: int
    at: tuple[int, ...]
    got: str
    expected: str
    fault: str = ""

    @property
    def relative(self) -> float:
        """Largest difference as a share of the largest element of the reference."""
        if self.fault:
            return float("inf")
        if self.max_abs == 0:
            return 0.0
        return self.max_abs / self.scale if self.scale else float("inf")

    @property
    def ok(self) -> bool:
        return not self.fault and self.relative <= self.tolerance

    def describe(self) -> str:
        """One line for people."""
        if self.fault:
            return self.fault
        if self.max_abs == 0:
            return "identical"
        where = f"[{', '.join(map(str, self.at))}] is {self.got}, expected {self.expected}"
        if self.tolerance == 0:
            return f"{self.wrong} of {self.size} elements differ; {where}"
        return f"{self.relative:.1e} of the largest element; {where}"


def tolerance_of(dtype: str) -> float:
    """Share of the largest element within which values of this dtype count as equal; 0 for exact types."""
    dtype = COMPLEX.get(dtype, dtype)
    if dtype in TOLERANCE:
        return TOLERANCE[dtype]
    return TOLERANCE_BELOW if dtype.startswith("float") else 0.0


def compare(got: Array, expected: Array, tolerance: float | None = None) -> Difference:
    """`got` against `expected`; the tolerance follows the dtype of `expected` unless given."""
    allowed = tolerance_of(expected.dtype.name) if tolerance is None else tolerance
    if got.dtype != expected.dtype:
        return _faulty(f"dtype {got.dtype.name}, expected {expected.dtype.name}", expected, allowed)
    if got.shape != expected.shape:
        return _faulty(f"shape {list(got.shape)}, expected {list(expected.shape)}", expected, allowed)
    if expected.size == 0:
        return Difference(0.0, 0.0, None, allowed, 0, 0, (), "", "")
    if expected.dtype.kind in "OSU":
        return _exact(got != expected, np.asarray(got != expected, float), got, expected)
    if expected.dtype.kind in "biu":
        return _exact(got != expected, _distance(got, expected), got, expected)
    if allowed == 0.0:  # four-bit integers
        return _exact(got != expected, _distance(got.astype(int), expected.astype(int)), got, expected)
    return _close(got, expected, allowed)


def ulp_distance(a: Array, b: Array) -> int:
    """Largest number of representable steps between finite elements of the same float dtype."""
    finite = np.isfinite(a.astype(np.float64)) & np.isfinite(b.astype(np.float64))
    if not finite.any():
        return 0
    left, right = _ordered(a[finite]), _ordered(b[finite])
    return int((np.maximum(left, right) - np.minimum(left, right)).max())


def _ulp_of_large(got: Array, expected: Array, scale: float) -> int:
    large = np.abs(expected.astype(np.float64)) >= SMALL * scale
    return ulp_distance(got[large], expected[large])


def _close(got: Array, expected: Array, tolerance: float) -> Difference:
    if expected.dtype.kind == "c":
        return _close(_parts(got), _parts(expected), tolerance)
    a, b = got.astype(np.float64), expected.astype(np.float64)
    unlike = ~np.isfinite(b) | ~np.isfinite(a)
    broken = unlike & ~((a == b) | (np.isnan(a) & np.isnan(b)))
    distance = np.where(unlike, 0.0, np.abs(np.where(unlike, 0.0, a) - np.where(unlike, 0.0, b)))
    scale = float(np.abs(np.where(np.isfinite(b), b, 0.0)).max())
    at = _index((broken if broken.any() else distance).argmax(), b.shape)
    fault = ""
    if broken.any():
        place = f"[{', '.join(map(str, at))}]"
        fault = f"{int(broken.sum())} of {b.size} are not finite alike; {place} is {a[at]}, expected {b[at]}"
    return Difference(
        max_abs=float(distance.max()),
        scale=scale,
        max_ulp=_ulp_of_large(got, expected, scale),
        tolerance=tolerance,
        wrong=int((distance > tolerance * scale).sum() + broken.sum()),
        size=b.size,
        at=at,
        got=f"{a[at]:.9g}",
        expected=f"{b[at]:.9g}",
        fault=fault,
    )


def _exact(unequal: Any, distance: Any, got: Array, expected: Array) -> Difference:
    unequal = np.asarray(unequal, bool)
    at = _index(np.asarray(distance).argmax(), expected.shape)
    numbers = expected.dtype.kind in "biu"
    return Difference(
        max_abs=float(np.max(distance)),
        scale=float(np.abs(expected.astype(np.float64)).max()) if numbers else 1.0,
        max_ulp=None,
        tolerance=0.0,
        wrong=int(unequal.sum()),
        size=expected.size,
        at=at,
        got=str(got[at]),
        expected=str(expected[at]),
    )


def _distance(got: Array, expected: Array) -> Array:
    """Absolute difference of integers as float64, without overflow."""
    if expected.dtype.kind == "b":
        return np.asarray(got != expected, np.float64)
    high, low = np.maximum(got, expected), np.minimum(got, expected)
    distance = np.maximum(high.astype(np.float64) - low.astype(np.float64), 1.0)
    return np.asarray(np.where(high == low, 0.0, distance))


def _parts(array: Array) -> Array:
    """Real and imaginary parts along a new last axis."""
    return np.stack([array.real, array.imag], axis=-1)


def _ordered(array: Array) -> Array:
    """Floats as unsigned integers in the same order, neighbours one apart, both zeros alike."""
    bits = array.dtype.itemsize * 8
    raw = np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").astype(np.uint64)
    sign = np.uint64(1 << (bits - 1))
    return np.asarray(np.where(raw & sign, sign - (raw & ~sign), sign + raw))


def _index(flat: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(flat), shape))


def _faulty(fault: str, expected: Array, tolerance: float) -> Difference:
    size = int(expected.size)
    return Difference(float("inf"), 0.0, None, tolerance, size, size, (), "", "", fault)
