"""Work of linear operators, to compare one way of computing something with another before it is scheduled.

    work = multiply-adds · 1 or 2  +  2 · outputs  +  2 · weights

in units of one multiply-add of a kernel that is bound by arithmetic. A depthwise convolution loads both
operands of every multiply-add, so each counts 2. Every output is stored and read once more. Every weight
comes from the second cache level or beyond at least once in a run, which is what small runs cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from headrace.graph.symbolic import Dim, Symbols, product, provably

OUTPUT = 2
WEIGHT = 2


def convolution_macs(dims: Sequence[Dim], weights: Sequence[int]) -> Dim:
    """Multiply-adds for an output of extents `dims` and weights (outputs, inputs / groups, *kernel)."""
    return product(*dims, *weights[1:])


def convolution_work(dims: Sequence[Dim], weights: Sequence[int], groups: int) -> Dim:
    """Work of a convolution with an output of extents `dims` (batch, outputs, *spatial)."""
    each = 2 if weights[0] == groups else 1
    return product(*dims, each * math.prod(weights[1:]) + OUTPUT) + WEIGHT * math.prod(weights)


def dense_work(rows: Dim, inner: int, outputs: int) -> Dim:
    """Work of a product (rows, inner) · (inner, outputs)."""
    return product(rows, outputs, inner + OUTPUT) + WEIGHT * inner * outputs


def is_less(left: Dim, right: Dim, symbols: Symbols) -> bool:
    """Whether left < right whatever the open extents are."""
    return provably(left, "<", right, symbols) is True
