"""Sums of products of bytes, four at a time, for processors that have an instruction for it.

    sum(k < 64: (i32(x[i, k]) - z) * i32(w[k, j]))
    →  sum(q < 16: dot4(word(x[i, 4q], x[i, 4q+1], x[i, 4q+2], x[i, 4q+3]), W[q, j])) - z * S[j]

x is u8, W[q, j] holds the bytes w[4q, j] … w[4q+3, j], and S[j] = sum(k: w[k, j]). A signed x is made
unsigned by turning its top bits, which adds 128 to every element: then it is z + 128 that S[j] is taken
times. What is left over of an axis that is no multiple of 4 becomes a sum of its own. All in i32, which
wraps, so that the result is the same to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headrace.program.expr import Axis, Expr, binary, const, word
from headrace.program.index import free_vars
from headrace.program.ir import Module
from headrace.program.words import is_constant, load_table, rewrite_sums, side_by_side, sum_of_words, table

MIN_EXTENT = 3  # of the axis that is taken in fours
TOP_BITS = -0x7F7F7F80  # 0x80808080


@dataclass(frozen=True)
class _Product:
    """A sum of products: x, an element of u8 or i8, less `zero`, times `weight`, an expression of constants."""

    x: Expr
    zero: Expr | None
    weight: Expr


def dot_bytes(module: Module) -> Module:
    """Rewrite every sum that has this form, at every nesting level."""
    return rewrite_sums(module, _sum)


def _sum(e: Expr, around: dict[Expr, Axis]) -> Expr | None:
    """The sum by words, or None where it has not the form. around: axes of the Define, of known extent."""
    if e.op != "reduce" or e.arg[0] != "sum" or e.dtype != "i32" or e.args[0].op != "mul":
        return None
    axes: tuple[Axis, ...] = e.arg[1]
    product = _product(e.args[0], {a.var for a in axes})
    if product is None or not all(isinstance(a.extent, int) for a in axes):
        return None
    fours = side_by_side(product.x, axes, MIN_EXTENT)
    outer = [around[v] for v in around if v in free_vars(product.weight)]
    if fours is None or not free_vars(product.weight) <= {a.var for a in (*axes, *outer)}:
        return None
    weights = table(product.weight, (*outer, *axes))
    if weights is None or weights.min() < -128 or weights.max() > 127:
        return None
    total = sum_of_words(product.x, fours, axes, outer, weights.astype(np.int8), _dot)
    shift = const(128 if product.x.dtype == "i8" else 0, "i32")
    zero = shift if product.zero is None else product.zero + shift
    if zero.op == "const" and zero.arg == 0:
        return total
    sums = weights.sum(axis=tuple(range(len(outer), weights.ndim)), dtype=np.int32)
    return total - zero * load_table(sums, "sums", outer)


def _product(e: Expr, inside: set[Expr]) -> _Product | None:
    for left, weight in (e.args, e.args[::-1]):
        if not is_constant(weight):
            continue
        zero = None
        if left.op == "sub" and not free_vars(left.args[1]) & inside:
            left, zero = left.args
        if left.op == "cast" and left.dtype == "i32" and left.args[0].op == "load":
            x = left.args[0]
            if x.dtype in ("u8", "i8") and x.arg.space != "const":
                return _Product(x, zero, weight)
    return None


def _dot(parts: list[Expr], weights: Expr) -> Expr:
    bits = word(parts)
    if parts[0].dtype == "i8":
        bits = binary("xor", bits, const(TOP_BITS, "i32"))
    return binary("dot4", bits, weights)
