"""Small windows over padded data, without the padding: taps that meet it are never multiplied.

    y[t, c] = sum(k: select(0 <= t+k-4 < 21, x[t+k-4, c], 0) * w[k, c])
    →  y[t, c] = sum(k: select(0 <= t+k-4 < 21, x[t+k-4, c] * w[k, c], 0))

Once all t and k are written out, every condition is a constant: a term is there or it is not. A model of
some tens of frames multiplies more padding than data in its wide windows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from headrace.program.access import flat
from headrace.program.expr import Axis, Expr, index, is_const, reduce_over, select, substitute, walk
from headrace.program.index import coefficient, free_vars
from headrace.program.ir import Buffer, Define, Module, Statement
from headrace.program.rewrite import each_list, map_expressions, replace_body

MAX_TERMS = 512  # points times taps that are written out
MIN_ELEMENTS = 4  # along the axis that is left for vectors


@dataclass(frozen=True)
class Window:
    """Positions of a Define's axis of points and of its reduction's axis of taps."""

    points: int
    taps: int


@dataclass(frozen=True)
class _Term:
    """What a sum adds up: `data` times `weight` where `inside`, else nothing."""

    inside: Expr
    data: Expr
    weight: Expr


def clip_windows(module: Module, lanes: int) -> Module:
    """Clip the windows whose vectors of `lanes` elements lie in memory side by side."""

    def statements(body: list[Statement]) -> list[Statement]:
        return [_clip(s) if isinstance(s, Define) and _has_vectors(s, lanes) else s for s in body]

    return replace_body(module, each_list(module.body, statements))


def may_be_clipped(define: Define) -> bool:
    """Whether a Define is such a window, small enough, and of finite weights."""
    return _guarded(define) is not None


def clipped(define: Define) -> Window | None:
    """The window of a Define that clip_windows() has made."""
    total = _sum(define)
    if total is None or total.args[0].op != "select":
        return None
    inside, product, other = total.args[0].args
    return _window(define, total, inside) if product.op == "mul" and is_const(other, 0) else None


def computed_share(define: Define) -> float:
    """Terms that are there by all terms of a clipped Define; 1 for others."""
    window, total = clipped(define), _sum(define)
    if window is None or total is None:
        return 1.0
    return _share(total.args[0].args[0], define.axes[window.points], total.arg[1][window.taps])


@lru_cache(maxsize=256)
def _share(inside: Expr, points: Axis, taps: Axis) -> float:
    pairs = [(index(t), index(k)) for t in range(points.bound) for k in range(taps.bound)]
    there = sum(bool(substitute(inside, {points.var: t, taps.var: k}).arg) for t, k in pairs)
    return there / len(pairs)


def _sum(define: Define) -> Expr | None:
    """The only reduction of a Define with one store, when that is a sum."""
    if define.ordered or len(define.stores) != 1 or define.stores[0].combiner is not None:
        return None
    found = [e for e in walk(define.stores[0].value, *define.stores[0].index) if e.op == "reduce"]
    return found[0] if len(found) == 1 and found[0].arg[0] == "sum" else None


def _guarded(define: Define) -> tuple[Expr, _Term, Window] | None:
    """The sum of a window that may be clipped, its terms, and its axes."""
    total = _sum(define)
    term = _term(total) if total is not None else None
    if total is None or term is None:
        return None
    window = _window(define, total, term.inside)
    return None if window is None else (total, term, window)


def _term(total: Expr) -> _Term | None:
    product = total.args[0]
    if product.op != "mul":
        return None
    for guarded, weight in (product.args, product.args[::-1]):
        if guarded.op != "select" or weight.op != "load" or guarded.args[1].op != "load":
            continue
        inside, data, other = guarded.args
        values = weight.arg.data
        if is_const(other, 0) and values is not None and np.isfinite(values).all():
            return _Term(inside, data, weight)
    return None


def _window(define: Define, total: Expr, inside: Expr) -> Window | None:
    """The two axes that a condition is about, when their points may be written out."""
    used = free_vars(inside)
    points = [n for n, a in enumerate(define.axes) if a.var in used]
    taps = [n for n, a in enumerate(total.arg[1]) if a.var in used]
    if len(points) != 1 or len(taps) != 1 or len(used) != 2:
        return None
    rows, box = define.axes[points[0]], total.arg[1]
    alone = all(a.extent == 1 for n, a in enumerate(box) if n != taps[0])
    static = isinstance(rows.extent, int) and isinstance(box[taps[0]].extent, int)
    if not (alone and static and rows.bound * box[taps[0]].bound <= MAX_TERMS):
        return None
    wide = any(a.bound >= MIN_ELEMENTS for n, a in enumerate(define.axes) if n != points[0])
    return Window(points[0], taps[0]) if wide else None


def may_lie_in_vectors(define: Define, lanes: int) -> bool:
    """Whether the data of a window lies side by side along another axis, or may still be laid out so."""
    return _has_vectors(define, lanes, lambda b: b.space == "scratch")


def _has_vectors(define: Define, lanes: int, is_free: Callable[[Buffer], bool] = lambda b: False) -> bool:
    """Whether data and result lie side by side along another axis than the window's, those in free buffers apart."""
    guarded = _guarded(define)
    if guarded is None or lanes < MIN_ELEMENTS:
        return False
    _, term, window = guarded
    found = [(term.data.arg, term.data.args), *((s.buffer, s.index) for s in define.stores)]
    places = [flat(b, at) for b, at in found if not is_free(b)]
    return any(
        n != window.points and a.bound >= MIN_ELEMENTS and all(coefficient(i, a.var) == 1 for i in places)
        for n, a in enumerate(define.axes)
    )


def _clip(s: Define) -> Statement:
    guarded = _guarded(s)
    assert guarded is not None
    total, term, _ = guarded
    new = reduce_over("sum", total.arg[1], select(term.inside, term.data * term.weight, 0))
    return map_expressions(s, lambda e: substitute(e, {total: new}))
