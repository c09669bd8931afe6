"""Sums of products of bf16 that are formed in f32, two at a time, for processors with an instruction for it.

    sum(k < 64: f32(x[i, k]) * f32(w[k, j]))
    →  sum(q < 32: dot2(word(x[i, 2q], x[i, 2q+1]), W[q, j]))

x is bf16, and every constant w is exactly one: W[q, j] holds w[2q, j] and w[2q+1, j]. Products of bf16 are
exact in f32, so only the order of the sum changes; but the instruction takes numbers below 2**-126 as zero.
"""

from __future__ import annotations

import numpy as np

from headrace.program.dtypes import numpy_dtype
from headrace.program.expr import Axis, Expr, binary, walk, word
from headrace.program.index import free_vars
from headrace.program.ir import Define, Module, Statement, nested
from headrace.program.words import Array, is_constant, rewrite_sums, side_by_side, sum_of_words, table

MIN_EXTENT = 2  # of the axis that is taken in pairs
LEAST = 2.0**-126  # the instruction takes smaller weights as zero


def dot_pairs(module: Module) -> Module:
    """Rewrite every sum that has this form, at every nesting level."""
    return rewrite_sums(module, _sum)


def uses_pairs(module: Module) -> bool:
    """Whether a sum was rewritten."""

    def holds(s: Statement) -> bool:
        if isinstance(s, Define):
            return any(n.op == "dot2" for st in s.stores for n in walk(st.value))
        return any(map(holds, nested(s)))

    return any(map(holds, module.body))


def _sum(e: Expr, around: dict[Expr, Axis]) -> Expr | None:
    """The sum by pairs, or None where it has not the form. around: axes of the Define, of known extent."""
    if e.op != "reduce" or e.arg[0] != "sum" or e.dtype != "f32" or e.args[0].op != "mul":
        return None
    axes: tuple[Axis, ...] = e.arg[1]
    product = _product(e.args[0])
    if product is None or not all(isinstance(a.extent, int) for a in axes):
        return None
    x, weight = product
    pairs = side_by_side(x, axes, MIN_EXTENT)
    outer = [around[v] for v in around if v in free_vars(weight)]
    if pairs is None or not free_vars(weight) <= {a.var for a in (*axes, *outer)}:
        return None
    weights = table(weight, (*outer, *axes))
    if weights is None or not _are_pairs(weights):
        return None
    return sum_of_words(x, pairs, axes, outer, weights.astype(numpy_dtype("bf16")), _dot)


def _product(e: Expr) -> tuple[Expr, Expr] | None:
    """(x, an element of bf16, and the expression of constants that it is multiplied with)."""
    for left, weight in (e.args, e.args[::-1]):
        if left.op == "cast" and left.args[0].op == "load" and is_constant(weight):
            x = left.args[0]
            if x.dtype == "bf16" and x.arg.space != "const":
                return x, weight
    return None


def _are_pairs(weights: Array) -> bool:
    """Whether bf16 holds all of them, and none is so small that the instruction takes it as zero."""
    with np.errstate(all="ignore"):
        exact = weights.astype(numpy_dtype("bf16")).astype(np.float32) == weights
    return bool((exact & ((weights == 0) | (np.abs(weights) >= LEAST))).all())


def _dot(parts: list[Expr], weights: Expr) -> Expr:
    return binary("dot2", word(parts), weights)
