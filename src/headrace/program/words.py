"""Sums of products by words of 32 bits: what the passes for bytes and for pairs of bf16 share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from headrace.program.access import flat
from headrace.program.expr import Axis, Expr, fresh, index, load, reduce_over, substitute, transform, walk
from headrace.program.index import coefficient
from headrace.program.interp import run
from headrace.program.ir import Buffer, Define, Module, Statement, Store
from headrace.program.rewrite import each_list, map_expressions, replace_body

MAX_TABLE = 1 << 26  # elements of constants
Array = np.ndarray[Any, Any]
Dot = Callable[[list[Expr], Expr], Expr]  # (elements of x that lie side by side, a word of weights) → their product


def rewrite_sums(module: Module, rule: Callable[[Expr, dict[Expr, Axis]], Expr | None]) -> Module:
    """Every expression that `rule` rewrites, in every Define without order, at every nesting level.

    rule: (an expression, the axes of the Define of known extent by their variables) → what takes its place, or None.
    """

    def define(s: Define) -> Statement:
        axes = {a.var: a for a in s.axes if isinstance(a.extent, int)}
        return map_expressions(s, lambda e: transform(e, lambda n: rule(n, axes)))

    def statements(body: list[Statement]) -> list[Statement]:
        return [define(s) if isinstance(s, Define) and not s.ordered else s for s in body]

    return replace_body(module, each_list(module.body, statements))


def is_constant(weight: Expr) -> bool:
    """Whether an expression loads constants and nothing else."""
    loads = [n for n in walk(weight) if n.op == "load"]
    return bool(loads) and all(n.arg.space == "const" for n in loads) and all(n.op != "check" for n in walk(weight))


def side_by_side(x: Expr, axes: tuple[Axis, ...], least: int) -> Axis | None:
    """The longest axis, of at least `least` points, along which the elements that x loads lie side by side."""
    found = [a for a in axes if a.bound >= least and coefficient(flat(x.arg, x.args), a.var) == 1]
    return max(found, key=lambda a: a.bound, default=None)


def table(weight: Expr, axes: tuple[Axis, ...]) -> Array | None:
    """Values of an expression of constants over all of `axes`; None where they are too many."""
    size = 1
    for a in axes:
        size *= a.bound
    if not 0 < size <= MAX_TABLE:
        return None
    own = tuple(fresh("i", a.bound) for a in axes)
    out = Buffer("table", weight.dtype, tuple(a.bound for a in own), "output")
    value = substitute(weight, {a.var: o.var for a, o in zip(axes, own, strict=True)})
    define = Define(own, (Store(out, tuple(a.var for a in own), value),))
    return np.asarray(run(Module("table", [], [out], [define]), {})["table"])


def load_table(data: Array, name: str, axes: list[Axis]) -> Expr:
    """The element of a constant at the points of `axes`."""
    data = np.ascontiguousarray(data)
    return load(Buffer(name, "i32", data.shape, "const", data), tuple(a.var for a in axes))


def sum_of_words(x: Expr, along: Axis, axes: tuple[Axis, ...], outer: list[Axis], weights: Array, dot: Dot) -> Expr:
    """The sum over `axes` of x times weights, of shape [*outer, *axes], by words of elements along one axis.

    weights has the element type of the words. What does not fill a word at the end of `along` is a sum of its
    own, with zeros.
    """
    each = 4 // weights.dtype.itemsize
    place = len(outer) + axes.index(along)
    rows = np.moveaxis(weights, place, -1)
    zeros = np.zeros((*rows.shape[:-1], -along.bound % each), rows.dtype)
    words = np.ascontiguousarray(np.concatenate([rows, zeros], -1)).view(np.dtype("<i4"))
    packed = np.moveaxis(words.astype(np.int32), -1, place)
    whole, rest = along.bound // each, along.bound % each
    total = None
    if whole:
        q = fresh("q", whole)
        main = packed[(slice(None),) * place + (slice(0, whole),)]
        loaded = load_table(main, "words", [*outer, *(q if a is along else a for a in axes)])
        parts = [substitute(x, {along.var: q.var * each + n}) for n in range(each)]
        total = reduce_over("sum", tuple(q if a is along else a for a in axes), dot(parts, loaded))
    if rest:
        own = {a.var: fresh("r", a.bound) for a in axes if a is not along}
        renamed: dict[Expr, Expr] = {v: a.var for v, a in own.items()}
        loaded = load_table(np.asarray(packed.take(whole, axis=place)), "words", [*outer, *own.values()])
        parts = [substitute(x, {**renamed, along.var: index(each * whole + n)}) for n in range(rest)]
        last = dot(parts, loaded)
        last = reduce_over("sum", tuple(own.values()), last) if own else last
        total = last if total is None else total + last
    assert total is not None
    return total
