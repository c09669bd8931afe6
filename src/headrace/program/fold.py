"""Reductions of constants become constants; constants that are all one value become literals.

    h[i] = tanh(x[i] + sum(k: zeros[k] * r[i, k]))   →   h[i] = tanh(x[i])

A constant initial state goes away this way.
"""

from __future__ import annotations

import numpy as np

from headrace.program.expr import Axis, Expr, const, fresh, load, substitute, transform, walk
from headrace.program.index import free_vars
from headrace.program.interp import run
from headrace.program.ir import Buffer, Define, Module, Statement, Store
from headrace.program.rewrite import each_list, map_expressions, replace_body

MAX_WORK = 1 << 24
MAX_SIZE = 1 << 20


def fold_constants(module: Module) -> Module:
    """Fold at every nesting level."""

    def statements(body: list[Statement]) -> list[Statement]:
        return [_fold(s) if isinstance(s, Define) else s for s in body]

    return replace_body(module, each_list(module.body, statements))


def _fold(s: Define) -> Define:
    axes = {a.var: a for a in s.axes}

    def rule(e: Expr) -> Expr | None:
        if e.op == "load":
            return _literal(e)
        if e.op == "reduce" and not e.arg[0].startswith("arg"):
            return _table(e, axes)
        if e.op == "add":
            for x, y in (e.args, e.args[::-1]):
                if y.op == "const" and y.arg == 0:
                    return x
        return None

    out = map_expressions(s, lambda e: transform(e, rule))
    assert isinstance(out, Define)
    return out


def _literal(e: Expr) -> Expr | None:
    """The value of a constant that is the same everywhere; only where the index cannot be out of range."""
    data = e.arg.data
    if data is None or data.size == 0 or any(n.op == "check" for a in e.args for n in walk(a)):
        return None
    first = data.reshape(-1)[0]
    if data.size > 1 and not (data == first).all():
        return None
    if data.dtype.kind == "f" and first == 0 and np.signbit(data).any():
        return None
    return const(first.item(), e.dtype)


def _table(e: Expr, axes: dict[Expr, Axis]) -> Expr | None:
    """A sum (or other reduction) of constants as a load from a table over the axes that it depends on."""
    loads = [n for n in walk(e) if n.op == "load"]
    if not loads or any(n.arg.space != "const" for n in loads) or any(n.op == "check" for n in walk(e)):
        return None
    used = [v for v in axes if v in free_vars(e)]
    if len(used) != len(free_vars(e)) or any(not isinstance(axes[v].extent, int) for v in used):
        return None
    size = 1
    for v in used:
        size *= axes[v].bound
    work = size
    for a in e.arg[1]:
        work *= a.bound
    if work > MAX_WORK or size > MAX_SIZE:
        return None
    own = [fresh("i", axes[v].bound) for v in used]
    out = Buffer("table", e.dtype, tuple(a.bound for a in own), "output")
    value = substitute(e, {v: a.var for v, a in zip(used, own, strict=True)})
    define = Define(tuple(own), (Store(out, tuple(a.var for a in own), value),))
    data = run(Module("table", [], [out], [define]), {})["table"]
    table = Buffer("folded", e.dtype, out.shape, "const", np.ascontiguousarray(data))
    found = load(table, tuple(used))
    literal = _literal(found)
    return found if literal is None else literal
