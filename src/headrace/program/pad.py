"""Padding by copying: a guarded load inside a reduction reads a padded copy instead.

    y[t] = sum(k: select(0 <= t+k-1 < T, x[t+k-1], 0) * w[k])
    →  p[i] = select(1 <= i < T+1, x[i-1], 0);  y[t] = sum(k: p[t+k] * w[k])

The copy usually disappears: `split` cuts it into border and interior, and `forward` lets the producer of
x write the interior. Small windows may be left for `clip`, which needs no padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.program.expr import Expr, all_of, fresh, index, load, select, transform, walk
from headrace.program.index import bounds, free_vars, from_terms, index_binary, terms
from headrace.program.ir import Buffer, Define, Module, Statement, Store, writes
from headrace.program.rewrite import each_list, map_expressions, replace_body

MAX_GROWTH = 3.0


def pad_guarded(module: Module, leave: Callable[[Define], object] = lambda s: False) -> Module:
    """Give every guarded load inside a reduction a padded copy, but in Defines that are to be left."""
    return replace_body(module, each_list(module.body, _Pads(leave).run))


@dataclass(frozen=True)
class _Pads:
    """Padded copies within one list of statements."""

    leave: Callable[[Define], object]

    def run(self, body: list[Statement]) -> list[Statement]:
        out: list[Statement] = []
        made: dict[tuple[object, ...], Buffer] = {}
        for s in body:
            if isinstance(s, Define) and not s.ordered and not self.leave(s):
                s = self._define(s, out, made)
            out.append(s)
            changed = set(writes(s))
            made = {key: buffer for key, buffer in made.items() if key[0] not in changed}
        return out

    def _define(self, s: Define, out: list[Statement], made: dict[tuple[object, ...], Buffer]) -> Define:
        inner: set[Expr] = set()
        for st in s.stores:
            for r in walk(st.value):
                if r.op == "reduce":
                    inner |= {a.var for a in r.arg[1]}

        def rule(e: Expr) -> Expr | None:
            if e.op == "select" and free_vars(e.args[0]) & inner:
                return self._padded(e, s, out, made)
            return None

        new = map_expressions(s, lambda e: transform(e, rule))
        assert isinstance(new, Define)
        return new

    def _padded(self, e: Expr, s: Define, out: list[Statement], made: dict[tuple[object, ...], Buffer]) -> Expr | None:
        cond, x, fill = e.args
        if x.op != "load" or fill.op != "const" or x.arg.space == "const":
            return None
        source: Buffer = x.arg
        if any(n.op in ("load", "check", "reduce") for a in x.args for n in walk(a)):
            return None
        limits = _limits(cond, x.args)
        if limits is None or not all(isinstance(n, int) for n in source.shape):
            return None
        if any(
            d not in limits and not _stays_inside(i, n)
            for d, (i, n) in enumerate(zip(x.args, source.bound, strict=True))
        ):
            return None
        lows, extents = [], []
        for i, extent in zip(x.args, source.bound, strict=True):
            lo, hi = min(bounds(i)[0], 0), max(bounds(i)[1], extent - 1)
            lows.append(lo)
            extents.append(hi - lo + 1)
        size = 1
        for n in extents:
            size *= n
        if size > MAX_GROWTH * _count(source) + 4096:
            return None
        key = (source, tuple(lows), tuple(extents), fill, tuple(sorted((d, *v) for d, v in limits.items())))
        buffer = made.get(key)
        if buffer is None:
            buffer = made[key] = Buffer(f"{source.name}.pad", x.dtype, tuple(extents))
            out.append(_copy(source, buffer, lows, limits, fill, s.nodes))
        return load(buffer, tuple(i - lo for i, lo in zip(x.args, lows, strict=True)))


def _stays_inside(i: Expr, extent: int) -> bool:
    low, high = bounds(i)
    return low >= 0 and high < extent


def _count(b: Buffer) -> int:
    n = 1
    for e in b.bound:
        n *= e
    return n


def _copy(
    source: Buffer,
    target: Buffer,
    lows: list[int],
    limits: dict[int, tuple[int, int]],
    fill: Expr,
    nodes: tuple[str, ...],
) -> Define:
    axes = tuple(fresh("p", n) for n in target.shape)
    at = [a.var + lo for a, lo in zip(axes, lows, strict=True)]
    conds = []
    for d, (low, high) in limits.items():
        low, high = max(low, 0), min(high, source.bound[d] - 1)  # beyond, another condition keeps loads away
        conds += [index(low) <= at[d], at[d] <= index(high)]
    value = select(all_of(conds), load(source, tuple(at)), fill)
    return Define(axes, (Store(target, tuple(a.var for a in axes), value),), nodes)


def _limits(cond: Expr, idx: tuple[Expr, ...]) -> dict[int, tuple[int, int]] | None:
    """The condition as inclusive limits of the load's indices; None when it says anything else."""
    out: dict[int, tuple[int, int]] = {}
    for c in conjuncts(cond):
        found = _limit(c, idx)
        if found is None:
            return None
        d, low, high = found
        a, b = out.get(d, (-(1 << 40), 1 << 40))
        out[d] = (max(a, low), min(b, high))
    for d, (low, high) in out.items():
        reach = bounds(idx[d])
        out[d] = (max(low, reach[0]), min(high, reach[1]))
    return out


def conjuncts(cond: Expr) -> list[Expr]:
    """The parts of a conjunction."""
    if cond.op == "and" and cond.dtype == "bool":
        return conjuncts(cond.args[0]) + conjuncts(cond.args[1])
    return [cond]


def _limit(c: Expr, idx: tuple[Expr, ...]) -> tuple[int, int, int] | None:
    """(dimension, lowest, highest) that one comparison allows."""
    if c.op not in ("lt", "le") or c.args[0].dtype != "index":
        return None
    difference = terms(index_binary("sub", c.args[0], c.args[1]))
    slack = 1 if c.op == "lt" else 0
    for d, i in enumerate(idx):
        own = terms(i)
        for sign in (1, -1):
            rest = dict(difference)
            for atom, k in own.items():
                rest[atom] = rest.get(atom, 0) - sign * k
            left = from_terms({a: k for a, k in rest.items() if k})
            if left.op == "const":
                # sign*i + left + slack <= 0
                if sign == 1:
                    return d, -(1 << 40), -left.arg - slack
                return d, left.arg + slack, 1 << 40
    return None
