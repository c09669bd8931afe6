"""Merging neighbouring loops whose points lie evenly in every buffer.

    y[i, j] = f(x[i, j])   for i < 5, j < 8     →     y[p // 8, p % 8] = f(x[p // 8, p % 8])   for p < 40

The flat addresses become plain p again; fewer, longer loops leave less over at the end of vectors.
"""

from __future__ import annotations

from headrace.program.access import flat
from headrace.program.expr import Axis, Expr, fresh, index, make, substitute, transform, walk
from headrace.program.index import coefficient, free_vars
from headrace.program.ir import Define, Module, Statement
from headrace.program.rewrite import each_list, map_expressions, replace_body, substitute_axes


def merge_axes(module: Module) -> Module:
    """Merge axes of Defines, and of their reductions, wherever addresses allow."""

    def run(body: list[Statement]) -> list[Statement]:
        return [_merge(s) if isinstance(s, Define) and not s.ordered else s for s in body]

    return replace_body(module, each_list(module.body, run))


def _merge(s: Define) -> Define:
    s = _drop_units(s)
    while True:
        pair = _pair(s, s.axes)
        if pair is None:
            break
        outer, inner = pair
        axis = fresh("i", outer.bound * inner.bound)
        axes = tuple(axis if a is outer else a for a in s.axes if a is not inner)
        s = substitute_axes(s, axes, _split(outer, inner, axis))
    return _merge_reductions(s)


def _split(outer: Axis, inner: Axis, axis: Axis) -> dict[Expr, Expr]:
    return {outer.var: axis.var // inner.bound, inner.var: axis.var % inner.bound}


def _drop_units(s: Define) -> Define:
    units = {a.var: index(0) for a in s.axes if a.extent == 1}
    if not units:
        return s
    return substitute_axes(s, tuple(a for a in s.axes if a.extent != 1), dict(units))


def _pair(s: Define, axes: tuple[Axis, ...]) -> tuple[Axis, Axis] | None:
    addresses, others = _uses(s)
    for outer in axes:
        for inner in axes:
            if inner is not outer and _mergeable(outer, inner, addresses, others):
                return outer, inner
    return None


def _mergeable(outer: Axis, inner: Axis, addresses: list[Expr], others: frozenset[Expr]) -> bool:
    if not isinstance(outer.extent, int) or not isinstance(inner.extent, int):
        return False
    if outer.extent == 1 or inner.extent == 1 or outer.var in others or inner.var in others:
        return False
    for a in addresses:
        big, small = coefficient(a, outer.var), coefficient(a, inner.var)
        if big is None or small is None or big != small * inner.extent:
            return False
    return True


def _uses(s: Define) -> tuple[list[Expr], frozenset[Expr]]:
    """Flat addresses of all loads and stores; variables that values use in other ways."""
    addresses = [flat(t.buffer, t.index) for t in s.stores]
    others: frozenset[Expr] = frozenset()
    for n in walk(*(t.value for t in s.stores)):
        if n.op == "load":
            addresses.append(flat(n.arg, n.args))
            if any(x.op == "load" for x in walk(*n.args)):
                others |= free_vars(n)
        elif n.dtype != "index":
            for a in n.args:
                if a.dtype == "index":
                    others |= free_vars(a)
        elif n.op == "check" or (n.op == "reduce" and n.arg[0].startswith("arg")):
            others |= free_vars(n) | {a.var for a in (n.arg[1] if n.op == "reduce" else ())}
    return addresses, others


def _merge_reductions(s: Define) -> Define:
    for _ in range(16):
        found = _reduction_pair(s)
        if found is None:
            return s
        axes, outer, inner = found
        axis = fresh("r", outer.bound * inner.bound)
        mapping = _split(outer, inner, axis)

        def rule(
            e: Expr, axes: tuple[Axis, ...] = axes, old: tuple[Axis, Axis] = (outer, inner), new: Axis = axis
        ) -> Expr | None:
            if e.op != "reduce" or e.arg[1] != axes:
                return None
            merged = tuple(new if a is old[0] else a for a in axes if a is not old[1])
            return make("reduce", e.dtype, e.args, (e.arg[0], merged))

        def go(e: Expr, mapping: dict[Expr, Expr] = mapping) -> Expr:
            return transform(substitute(e, mapping), rule)

        new = map_expressions(s, go)
        assert isinstance(new, Define)
        s = new
    return s


def _reduction_pair(s: Define) -> tuple[tuple[Axis, ...], Axis, Axis] | None:
    for n in walk(*(t.value for t in s.stores)):
        if n.op != "reduce" or n.arg[0].startswith("arg"):
            continue
        loads = [x for x in walk(n.args[0]) if x.op == "load"]
        addresses = [flat(x.arg, x.args) for x in loads if x.arg.space != "const"]
        _, others = _uses(s)
        for outer in n.arg[1]:
            for inner in n.arg[1]:
                if inner is not outer and _mergeable(outer, inner, addresses, others):
                    return n.arg[1], outer, inner
    return None
