"""Is an index always inside its extent? Proofs with ranges and conditions, and counterexamples.

A fact is a pair (condition, whether it holds). What can be neither proved nor refuted is "unknown".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from headrace.program.dtypes import is_int
from headrace.program.expr import BINARY, Axis, Expr, Extent, extent_bound, index, walk
from headrace.program.index import bounds, coefficient, free_vars
from headrace.program.numeric import apply_binary

Fact = tuple[Expr, bool]
Facts = tuple[Fact, ...]
Verdict = Literal["inside", "outside", "unknown"]
Array = np.ndarray[Any, Any]

POINTS = 1 << 14


@lru_cache(maxsize=1 << 16)
def inside(i: Expr, extent: Extent, facts: Facts) -> Verdict:
    """Whether 0 ≤ i < extent wherever the facts hold."""
    limit = index(extent)
    gaps = (i, limit - 1 - i)
    if all(bounds(g)[0] >= 0 for g in gaps):
        return "inside"
    known = tuple(_known(facts, (i, limit)))
    if all(_not_negative(g, known) for g in gaps):
        return "inside"
    return _search(i, limit, facts)


def _not_negative(e: Expr, known: tuple[Expr, ...]) -> bool:
    """e ≥ 0, given that every expression in `known` is: e less one or two of them has a sign."""
    if bounds(e)[0] >= 0:
        return True
    rests = [e - k for k in known]
    if any(bounds(r)[0] >= 0 for r in rests):
        return True
    return any(bounds(r - k)[0] >= 0 for r in rests for k in known)


def _known(facts: Facts, about: tuple[Expr, ...]) -> Iterator[Expr]:
    """Expressions that are not negative: from the facts, and from loop variables with symbolic extents."""
    for cond, holds in _atoms(facts):
        if not cond.args or cond.args[0].dtype != "index":
            continue
        a, b = cond.args
        if cond.op == "lt":
            yield b - a - 1 if holds else a - b
        elif cond.op == "le":
            yield b - a if holds else a - b - 1
        elif cond.op == ("eq" if holds else "ne"):
            yield from (a - b, b - a)
    for e in about:
        for v in walk(e):
            if v.op == "var" and isinstance(v.arg[1], Expr):
                yield v.arg[1] - 1 - v


def _atoms(facts: Facts) -> Iterator[Fact]:
    """Facts without and, or, not."""
    for cond, holds in facts:
        if cond.op == ("and" if holds else "or"):
            yield from _atoms(tuple((a, holds) for a in cond.args))
        elif cond.op == "not":
            yield from _atoms(((cond.args[0], not holds),))
        else:
            yield cond, holds


def _search(i: Expr, limit: Expr, facts: Facts) -> Verdict:
    """Look for an assignment with the index outside."""
    if not (evaluable(i) and evaluable(limit)):
        return "unknown"
    conditions = [f for f in _atoms(facts) if evaluable(f[0])]
    roots = [i, limit, *(c for c, _ in conditions)]
    grid = assignments(roots)
    with np.errstate(all="ignore"):
        wrong = (value(i, grid) < 0) | (value(i, grid) >= value(limit, grid))
        for cond, holds in conditions:
            wrong = wrong & (value(cond, grid) == holds)
    if not wrong.any():
        return "unknown"
    return "outside" if len(conditions) == sum(1 for _ in _atoms(facts)) else "unknown"


@lru_cache(maxsize=1 << 16)
def evaluable(e: Expr) -> bool:
    """Whether the value follows from variables and symbols alone."""
    if e.op in ("const", "var", "sym"):
        return True
    if e.op == "select" or (e.op in BINARY and (is_int(e.args[0].dtype) or e.args[0].dtype == "bool")):
        return all(evaluable(a) for a in e.args)
    return e.op == "not" and e.dtype == "bool" and evaluable(e.args[0])


def value(e: Expr, grid: dict[Expr, Array]) -> Array:
    """The value of an evaluable expression for every assignment."""
    if e.op == "const":
        return np.asarray(e.arg)
    if e.op in ("var", "sym"):
        return grid[e]
    args = [value(a, grid) for a in e.args]
    if e.op == "select":
        return np.where(args[0], args[1], args[2])
    if e.op == "not":
        return np.logical_not(args[0])
    return apply_binary(e.op, e.args[0].dtype, args[0], args[1])


def assignments(roots: Sequence[Expr], points: int = POINTS) -> dict[Expr, Array]:
    """Values of all variables and symbols in `roots`: all of them, or a sample when there are too many."""
    nodes = {n: None for r in roots for n in walk(r)}
    variables = [n for n in nodes if n.op == "var"]
    extents = [n.arg[1] for n in variables if isinstance(n.arg[1], Expr)]
    symbols = list({n: None for n in (*nodes, *(x for e in extents for x in walk(e))) if n.op == "sym"})
    columns: dict[Expr, list[Array]] = {n: [] for n in (*symbols, *variables)}
    samples = [sorted({s.arg.divisor, min(2 * s.arg.divisor, s.arg.bound), s.arg.bound}) for s in symbols]
    for chosen in itertools.product(*samples):
        known = {s: np.asarray(n) for s, n in zip(symbols, chosen, strict=True)}
        sizes = [_size(v.arg[1], known) for v in variables]
        if 0 in sizes:
            continue
        full = math.prod(sizes) <= points
        axes = [np.arange(n) if full else _some(n, len(sizes), points) for n in sizes]
        mesh = np.meshgrid(*axes, indexing="ij") if axes else []
        count = mesh[0].size if mesh else 1
        for v, m in zip(variables, mesh, strict=True):
            columns[v].append(m.reshape(-1))
        for s in symbols:
            columns[s].append(np.full(count, known[s]))
    return {n: np.concatenate(c) if c else np.zeros(0, np.int64) for n, c in columns.items()}


def _size(extent: Extent, known: dict[Expr, Array]) -> int:
    if isinstance(extent, int):
        return extent
    return int(value(extent, known)) if evaluable(extent) and _closed(extent) else extent_bound(extent)


def _closed(e: Expr) -> bool:
    return not any(n.op == "var" for n in walk(e))


def _some(n: int, axes: int, points: int) -> Array:
    """Some of the numbers below n: neighbours at both ends, and a spread between."""
    count = max(4, int(points ** (1 / axes)))
    if n <= count:
        return np.arange(n)
    spread = np.linspace(0, n - 1, max(count // 4, 2)).astype(np.int64)
    return np.unique(np.concatenate([np.arange(count // 2), n - 1 - np.arange(count // 4), spread]))


def collision(axes: Sequence[Axis], targets: Sequence[tuple[Expr, ...]]) -> Verdict:
    """Whether two points of a box, or two targets, have one index: never "inside", surely "outside"."""
    if len(targets) == 1 and _distinct(axes, targets[0]):
        return "inside"
    if not all(evaluable(i) for t in targets for i in t):
        return "unknown"
    moving = [a.var for a in axes if a.bound > 1]
    grid = assignments([*(a.var for a in axes), *(i for t in targets for i in t)])
    count = max((column.size for column in grid.values()), default=1)
    around = [column for n, column in grid.items() if n not in moving]
    rows = [
        np.stack([np.broadcast_to(c, count) for c in (*around, *(value(i, grid) for i in t))], -1)
        for t in targets
        if around or t
    ]
    every = np.concatenate(rows) if rows else np.zeros((len(targets) * count, 1), np.int64)
    return "outside" if _repeats(every) else "inside"


def _repeats(rows: Array) -> bool:
    """Whether two rows of integers are equal."""
    low = rows.min(0)
    spans = [int(n) + 1 for n in rows.max(0) - low]
    if math.prod(spans) >= 1 << 62:
        return len(np.unique(rows, axis=0)) < len(rows)
    flat = np.zeros(len(rows), np.int64)
    for column, span in zip((rows - low).T, spans, strict=True):
        flat = flat * span + column
    flat.sort()
    return bool((flat[1:] == flat[:-1]).any())


def _distinct(axes: Sequence[Axis], target: tuple[Expr, ...]) -> bool:
    """Whether the variables follow from the index, one after the other."""
    free = {a.var: a.bound for a in axes if a.bound > 1}
    found = True
    while free and found:
        found = False
        for i in target:
            modulus = None
            if i.op == "check":
                i = i.args[0]
            elif i.op == "mod" and i.args[1].op == "const":
                i, modulus = i.args[0], int(i.args[1].arg)
            inner = free_vars(i) & free.keys()
            if len(inner) == 1:
                (v,) = inner
                slope = coefficient(i, v)
                if slope and (modulus is None or (abs(slope) == 1 and free[v] <= modulus)):
                    del free[v]
                    found = True
    return not free
