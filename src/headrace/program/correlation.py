"""Sums in a Define that correlate data with constants along axes of the result, found from the indices alone.

    sum(c, r, s: x[n, c, y + r, x + s] * w[o, c, r, s])     r and s: taps along y and x; o: the column

A reduction axis is a tap when every index of the data has it exactly as often as one axis of the result:
then the data is a function of their sum. Strides and dilations are not of this kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.program.access import harmless
from headrace.program.expr import Axis, Expr, walk
from headrace.program.index import coefficient, free_vars
from headrace.program.ir import Define
from headrace.program.ranges import evaluable, value

Array = np.ndarray[Any, Any]
LARGEST = 1e30  # weights below it stay finite in any small combination


@dataclass(frozen=True)
class Tap:
    """Axis `k` of a reduction beside axis `at` of the result."""

    at: Axis
    k: Axis


@dataclass(frozen=True)
class Correlation:
    """reduce = sum(channels, taps: data * weights), with data a function of others, channels and tap.at + tap.k.

    weights: [column, *channels, *taps].
    """

    reduce: Expr
    data: Expr
    taps: tuple[Tap, ...]
    column: Axis
    others: tuple[Axis, ...]
    channels: tuple[Axis, ...]
    weights: Array


def correlations(s: Define, taps: int) -> list[Correlation]:
    """The f32 correlations of a Define with `taps` taps on each of one or two axes."""
    if s.ordered or not all(isinstance(a.extent, int) for a in s.axes):
        return []
    sums = {r: None for st in s.stores for r in walk(st.value) if r.op == "reduce"}
    found = [_correlation(s, r, taps) for r in sums]
    return [c for c in found if c is not None]


def _correlation(s: Define, r: Expr, taps: int) -> Correlation | None:
    axes: tuple[Axis, ...] = r.arg[1]
    if r.arg[0] != "sum" or r.dtype != "f32" or r.args[0].op != "mul":
        return None
    if not all(isinstance(a.extent, int) for a in axes):
        return None
    for w, x in (r.args[0].args, r.args[0].args[::-1]):
        if w.op == "load" and w.arg.space == "const" and all(evaluable(i) for i in w.args):
            return _of_factors(s, r, w, x, taps)
    return None


def _of_factors(s: Define, r: Expr, w: Expr, x: Expr, taps: int) -> Correlation | None:
    axes: tuple[Axis, ...] = r.arg[1]
    if not all(n.dtype in ("f32", "index") and n.op not in ("select", "check", "reduce", "cast") for n in walk(x)):
        return None
    if not any(n.op == "load" and n.arg.space != "const" for n in walk(x)) or not harmless(x):
        return None
    columns = [a for a in s.axes if a.var in free_vars(w) and a.extent != 1]
    if len(columns) != 1 or columns[0].var in free_vars(x):
        return None
    pairs = _taps(s, x, [k for k in axes if k.extent == taps])
    if not pairs:
        return None
    inner = {p.k for p in pairs}
    channels = tuple(a for a in axes if a not in inner)
    at = {p.at for p in pairs}
    others = tuple(a for a in s.axes if a.var in free_vars(x) and a not in at)
    weights = _weights(w, (columns[0], *channels, *(p.k for p in pairs)), s.axes)
    if not np.all(np.abs(weights) < LARGEST):
        return None
    return Correlation(r, x, pairs, columns[0], others, channels, weights)


def _taps(s: Define, x: Expr, candidates: list[Axis]) -> tuple[Tap, ...]:
    """As many pairs of a tap and an axis as there are, the order of the axes that of the Define."""
    found: list[Tap] = []
    for at in s.axes:
        for k in candidates:
            if k not in [p.k for p in found] and at.bound > 1 and _is_sum(x, at.var, k.var):
                found.append(Tap(at, k))
                break
    return tuple(found[:2])


def _is_sum(x: Expr, a: Expr, b: Expr) -> bool:
    """Whether x depends on a and b only through a + b."""
    seen = False
    for n in walk(x):
        if n.op != "load":
            continue
        for i in n.args:
            one, two = coefficient(i, a), coefficient(i, b)
            if one is None or one != two:
                return False
            seen = seen or one != 0
    return seen


def _weights(w: Expr, axes: tuple[Axis, ...], units: tuple[Axis, ...]) -> Array:
    """The constant at every point of `axes`; other axes of the result in its index have one value."""
    grid: dict[Expr, Array] = {a.var: np.zeros(1, np.int64) for a in units}
    for d, a in enumerate(axes):
        grid[a.var] = np.arange(a.bound).reshape([-1 if k == d else 1 for k in range(len(axes))])
    at = tuple(np.broadcast_to(value(i, grid), tuple(a.bound for a in axes)) for i in w.args)
    data: Array = w.arg.data[at]
    return data
