"""Cutting the box of a Define where a condition changes or an index is clamped, so that no point has to ask.

    y[i] = select(i < 3, a[i], b[i-3])   for i < 8    →   y[i] = a[i] for i < 3;  y[i+3] = b[i] for i < 5

and splitting axes so that // and % by constants go away:

    y[i] = x[i // 4, i % 4]   for i < 12   →   y[4*i + j] = x[i, j]   for i < 3, j < 4
"""

from __future__ import annotations

from headrace.program.expr import Axis, Expr, fresh, make, substitute, transform, walk
from headrace.program.index import ONE, index_binary, terms
from headrace.program.ir import Define, Module, Statement
from headrace.program.pad import conjuncts
from headrace.program.rewrite import each_list, map_expressions, replace_body, substitute_axes

MAX_PIECES = 64


def split_guards(module: Module) -> Module:
    """Cut Defines where conditions on one axis change."""

    def run(body: list[Statement]) -> list[Statement]:
        out: list[Statement] = []
        for s in body:
            pieces = _pieces(s) if isinstance(s, Define) and not s.ordered else [s]
            out += pieces if len(pieces) <= MAX_PIECES else [s]
        return out

    return replace_body(module, each_list(module.body, run))


def _pieces(s: Define) -> list[Statement]:
    for n, a in enumerate(s.axes):
        if not isinstance(a.extent, int) or a.extent <= 1:
            continue
        cuts = sorted(_cuts(s, a))
        if not cuts:
            continue
        out: list[Statement] = []
        for low, high in zip([0, *cuts], [*cuts, a.extent], strict=True):
            axis = fresh("i", high - low)
            axes = (*s.axes[:n], axis, *s.axes[n + 1 :])
            out += _pieces(substitute_axes(s, axes, {a.var: axis.var + low}))
            if len(out) > MAX_PIECES:
                return [s]
        return out
    return [s]


def _cuts(s: Define, a: Axis) -> set[int]:
    """Values of the axis at which some condition on it alone changes."""
    out: set[int] = set()
    for st in s.stores:
        for n in walk(st.value):
            if n.op == "select":
                for c in conjuncts(n.args[0]):
                    cut = _cut(c, a)
                    if cut is not None and 0 < cut < a.bound:
                        out.add(cut)
            elif n.op in ("min", "max") and n.dtype == "index":
                cut = _cut(index_binary("le", *n.args), a)
                if cut is not None and 0 < cut < a.bound:
                    out.add(cut)
    return out


def _cut(c: Expr, a: Axis) -> int | None:
    if c.op == "not":
        return _cut(c.args[0], a)
    if c.op not in ("lt", "le") or c.args[0].dtype != "index":
        return None
    parts = terms(index_binary("sub", c.args[0], c.args[1]))
    rest = {x: k for x, k in parts.items() if x is not a.var and x.op != "const"}
    k = parts.get(a.var, 0)
    if rest or not k:
        return None
    constant = parts.get(ONE, 0)
    # k*a + constant < 0 (or <= 0) changes once
    limit = -constant - (1 if c.op == "lt" else 0)  # k*a <= limit
    return limit // k + 1 if k > 0 else -(limit // -k)


def split_axes(module: Module) -> Module:
    """Split axes, of Defines and of their reductions, by the constants that // and % take."""

    def run(body: list[Statement]) -> list[Statement]:
        return [_split_all(s) if isinstance(s, Define) else s for s in body]

    return replace_body(module, each_list(module.body, run))


def _split_all(s: Define) -> Define:
    for _ in range(8):
        factor = _factor(s, {a.var: a for a in s.axes})
        if factor is not None:
            axis, c = factor
            outer, inner = fresh("i", axis.bound // c), fresh("i", c)
            n = s.axes.index(axis)
            s = substitute_axes(s, (*s.axes[:n], outer, inner, *s.axes[n + 1 :]), {axis.var: outer.var * c + inner.var})
            continue
        reduced = _reduced_axes(s)
        factor = _factor(s, reduced)
        if factor is None:
            break
        s = _split_reduction(s, *factor)
    return s


def _reduced_axes(s: Define) -> dict[Expr, Axis]:
    return {
        a.var: a
        for st in s.stores
        for n in walk(st.value)
        if n.op == "reduce" and not n.arg[0].startswith("arg")
        for a in n.arg[1]
    }


def _factor(s: Define, axes: dict[Expr, Axis]) -> tuple[Axis, int] | None:
    """An axis and a constant that divides its extent, such that some // or % of it would go away."""
    for st in s.stores:
        for root in (st.value, *st.index):
            for n in walk(root):
                if n.op not in ("floordiv", "mod") or n.dtype != "index" or n.args[1].op != "const":
                    continue
                c = n.args[1].arg
                for atom, k in terms(n.args[0]).items():
                    axis = axes.get(atom)
                    if axis is None or not isinstance(axis.extent, int) or k <= 0 or c % k:
                        continue
                    by = c // k
                    if 1 < by < axis.extent and axis.extent % by == 0:
                        return axis, by
    return None


def _split_reduction(s: Define, axis: Axis, c: int) -> Define:
    outer, inner = fresh("r", axis.bound // c), fresh("r", c)
    mapping = {axis.var: outer.var * c + inner.var}

    def rule(e: Expr) -> Expr | None:
        if e.op != "reduce" or axis not in e.arg[1]:
            return None
        n = e.arg[1].index(axis)
        axes = (*e.arg[1][:n], outer, inner, *e.arg[1][n + 1 :])
        return make("reduce", e.dtype, e.args, (e.arg[0], axes))

    def go(e: Expr) -> Expr:
        return transform(substitute(e, mapping), rule)

    out = map_expressions(s, go)
    assert isinstance(out, Define)
    return out
