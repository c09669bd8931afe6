"""Minimal filtering F(m, r): m neighbouring outputs of a correlation with r taps, with m + r - 1 products.

    y[i] = sum(k: x[i + k] * w[k])  for i < m    =    outputs @ ((weights @ w) * (inputs @ x))

The matrices are those of Toom and Cook, from the values of polynomials at m + r - 2 points and at infinity,
transposed (S. Winograd, Arithmetic Complexity of Computations, 1980; A. Lavin and S. Gray, Fast Algorithms
for Convolutional Neural Networks, arXiv:1509.09308).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
POINTS = {2: (0, 1, -1), 4: (0, Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2))}


@dataclass(frozen=True)
class Filtering:
    """F(m, r). outputs: [m, n], weights: [n, r], inputs: [n, n] with n = m + r - 1.

    outputs and inputs are exact in float32; a quotient in weights is rounded to float64.
    """

    m: int
    r: int
    outputs: Array
    weights: Array
    inputs: Array

    @property
    def products(self) -> int:
        return self.m + self.r - 1


@lru_cache(maxsize=16)
def filtering(m: int, r: int = 3) -> Filtering:
    """F(m, 3) at points whose values need few binary digits and differ little in size, which keeps errors small."""
    n = m + r - 1
    finite = [Fraction(p) for p in POINTS[m][: n - 1]]
    outputs = [[p**i for p in finite] + [Fraction(int(i == m - 1))] for i in range(m)]
    weights, inputs = [], []
    for p in finite:
        others = [q for q in finite if q != p]
        divisor = Fraction(1)
        for q in others:
            divisor *= p - q
        inputs.append([*_from_roots(others), Fraction(0)])
        weights.append([p**k / divisor for k in range(r)])
    inputs.append(_from_roots(finite))
    weights.append([Fraction(int(k == r - 1)) for k in range(r)])
    return Filtering(m, r, _array(outputs), _array(weights), _array(inputs))


def _from_roots(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients of the product of (x - root), the constant first."""
    out = [Fraction(1)]
    for q in roots:
        out = [a - q * b for a, b in zip([Fraction(0), *out], [*out, Fraction(0)], strict=True)]
    return out


def _array(rows: list[list[Fraction]]) -> Array:
    return np.array([[float(x) for x in row] for row in rows])
