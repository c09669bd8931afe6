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
from typing import Any

import numpy as np

from headrace.program.access import flat
from headrace.program.expr import (
    Axis,
    Expr,
    binary,
    const,
    fresh,
    index,
    load,
    reduce_over,
    substitute,
    transform,
    walk,
    word,
)
from headrace.program.index import coefficient, free_vars
from headrace.program.interp import run
from headrace.program.ir import Buffer, Define, Module, Statement, Store
from headrace.program.rewrite import each_list, map_expressions, replace_body

MIN_EXTENT = 3  # of the axis that is taken in fours
MAX_TABLE = 1 << 26  # elements of constants
TOP_BITS = -0x7F7F7F80  # 0x80808080
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Product:
    """A sum of products: x, an element of u8 or i8, less `zero`, times `weight`, an expression of constants."""

    x: Expr
    zero: Expr | None
    weight: Expr


def dot_bytes(module: Module) -> Module:
    """Rewrite every sum that has this form, at every nesting level."""

    def statements(body: list[Statement]) -> list[Statement]:
        return [_define(s) if isinstance(s, Define) and not s.ordered else s for s in body]

    return replace_body(module, each_list(module.body, statements))


def _define(s: Define) -> Define:
    axes = {a.var: a for a in s.axes if isinstance(a.extent, int)}
    out = map_expressions(s, lambda e: transform(e, lambda n: _sum(n, axes)))
    assert isinstance(out, Define)
    return out


def _sum(e: Expr, around: dict[Expr, Axis]) -> Expr | None:
    """The sum by words, or None where it has not the form. around: axes of the Define, of known extent."""
    if e.op != "reduce" or e.arg[0] != "sum" or e.dtype != "i32" or e.args[0].op != "mul":
        return None
    axes: tuple[Axis, ...] = e.arg[1]
    product = _product(e.args[0], {a.var for a in axes})
    if product is None or not all(isinstance(a.extent, int) for a in axes):
        return None
    fours = _fours(product.x, axes)
    outer = [around[v] for v in around if v in free_vars(product.weight)]
    if fours is None or not free_vars(product.weight) <= {a.var for a in (*axes, *outer)}:
        return None
    weights = _table(product.weight, (*outer, *axes))
    if weights is None or weights.min() < -128 or weights.max() > 127:
        return None
    total = _words(product.x, fours, axes, outer, weights)
    shift = const(128 if product.x.dtype == "i8" else 0, "i32")
    zero = shift if product.zero is None else product.zero + shift
    if zero.op == "const" and zero.arg == 0:
        return total
    sums = weights.sum(axis=tuple(range(len(outer), weights.ndim)), dtype=np.int32)
    return total - zero * _load(sums, "sums", outer)


def _product(e: Expr, inside: set[Expr]) -> _Product | None:
    for left, weight in (e.args, e.args[::-1]):
        loads = [n for n in walk(weight) if n.op == "load"]
        if not loads or any(n.arg.space != "const" for n in loads) or any(n.op == "check" for n in walk(weight)):
            continue
        zero = None
        if left.op == "sub" and not free_vars(left.args[1]) & inside:
            left, zero = left.args
        if left.op == "cast" and left.dtype == "i32" and left.args[0].op == "load":
            x = left.args[0]
            if x.dtype in ("u8", "i8") and x.arg.space != "const":
                return _Product(x, zero, weight)
    return None


def _fours(x: Expr, axes: tuple[Axis, ...]) -> Axis | None:
    """The longest axis along which x lies side by side."""
    found = [a for a in axes if a.bound >= MIN_EXTENT and coefficient(flat(x.arg, x.args), a.var) == 1]
    return max(found, key=lambda a: a.bound, default=None)


def _table(weight: Expr, axes: tuple[Axis, ...]) -> Array | None:
    """Values of an expression of constants over all of `axes`."""
    size = 1
    for a in axes:
        size *= a.bound
    if not 0 < size <= MAX_TABLE:
        return None
    own = tuple(fresh("i", a.bound) for a in axes)
    out = Buffer("table", "i32", tuple(a.bound for a in own), "output")
    value = substitute(weight, {a.var: o.var for a, o in zip(axes, own, strict=True)})
    define = Define(own, (Store(out, tuple(a.var for a in own), value),))
    return np.asarray(run(Module("table", [], [out], [define]), {})["table"])


def _words(x: Expr, fours: Axis, axes: tuple[Axis, ...], outer: list[Axis], weights: Array) -> Expr:
    """The sum of unsigned x times weights, of shape [*outer, *axes]."""
    place = len(outer) + axes.index(fours)
    rows = np.moveaxis(weights, place, -1).astype(np.int8)
    rows = np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, -fours.bound % 4)])
    packed = np.moveaxis(np.ascontiguousarray(rows).view("<i4").astype(np.int32), -1, place)
    whole, rest = fours.bound // 4, fours.bound % 4
    main = packed[(slice(None),) * place + (slice(0, whole),)]
    total = None
    if whole:
        q = fresh("q", whole)
        table = _load(main, "words", [*outer, *(q if a is fours else a for a in axes)])
        parts = [substitute(x, {fours.var: q.var * 4 + n}) for n in range(4)]
        total = reduce_over("sum", tuple(q if a is fours else a for a in axes), _dot(parts, table))
    if rest:
        others = [a for a in axes if a is not fours]
        own = {a.var: fresh("r", a.bound) for a in others}
        renamed: dict[Expr, Expr] = {v: a.var for v, a in own.items()}
        table = _load(np.asarray(packed.take(whole, axis=place)), "words", [*outer, *own.values()])
        parts = [substitute(x, {**renamed, fours.var: index(4 * whole + n)}) for n in range(rest)]
        last = _dot(parts, table)
        last = reduce_over("sum", tuple(own.values()), last) if own else last
        total = last if total is None else total + last
    assert total is not None
    return total


def _dot(parts: list[Expr], weights: Expr) -> Expr:
    bits = word(parts)
    if parts[0].dtype == "i8":
        bits = binary("xor", bits, const(TOP_BITS, "i32"))
    return binary("dot4", bits, weights)


def _load(data: Array, name: str, axes: list[Axis]) -> Expr:
    data = np.ascontiguousarray(data)
    return load(Buffer(name, "i32", data.shape, "const", data), tuple(a.var for a in axes))
