"""Operands of contractions of data with data, laid out for vectors.

    s[i, j] = sum(k: q[i, k] * p[j, k])    →    p lies as [k, j], so that a vector holds neighbours in j

Without this both operands are contiguous only along the reduction, and every element of s ends with a sum
over the lanes. A scratch buffer that has no other reader changes its own layout; any other operand gets a
transposed copy where each of its elements is used often enough to pay for that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from headrace.program.expr import Axis, Expr, fresh, load, transform, walk
from headrace.program.index import coefficient, free_vars
from headrace.program.ir import Buffer, Define, Statement, Store, loads, nested
from headrace.program.rewrite import each_list, innermost, map_expressions

REUSE_MOVE = 8  # uses of an element from which a strided store of its producer pays
REUSE_COPY = 32  # uses of an element from which a copy pays


@dataclass(frozen=True)
class Operand:
    """The operand `load` of a contraction and the dimension of its buffer that vectors should follow."""

    load: Expr
    dimension: int
    reuse: int


def operands(s: Define, lanes: int) -> list[Operand]:
    """Operands of a Define that would better lie transposed."""
    if s.ordered or not s.stores or any(not isinstance(a.extent, int) for a in s.axes):
        return []
    column = _column(s, lanes)
    if column is None:
        return []
    found: dict[Expr, Operand] = {}
    for r in walk(*(st.value for st in s.stores)):
        if r.op == "reduce" and r.arg[0] == "sum":
            for x in _pair(r):
                fit = _operand(s, r, x, column)
                if fit is not None:
                    found[x] = fit
    return list(found.values())


def _column(s: Define, lanes: int) -> Axis | None:
    """The axis along which all stores are contiguous, if it fills a vector."""
    for a in s.axes:
        if a.bound >= lanes and all(
            st.index and coefficient(st.index[-1], a.var) == 1 and not any(a.var in free_vars(i) for i in st.index[:-1])
            for st in s.stores
        ):
            return a
    return None


def _pair(r: Expr) -> tuple[Expr, ...]:
    """The two factors of a sum of products of loaded data."""
    body = r.args[0]
    if body.op != "mul" or any(x.op != "load" or x.arg.space == "const" for x in body.args):
        return ()
    return body.args


def _operand(s: Define, r: Expr, x: Expr, column: Axis) -> Operand | None:
    other = next((y for y in r.args[0].args if y is not x), None)
    if other is None or column.var in free_vars(other) or not x.args:
        return None
    inner = {a.var for a in r.arg[1]}
    where = [d for d, i in enumerate(x.args) if column.var in free_vars(i)]
    if len(where) != 1 or where[0] == len(x.args) - 1 or abs(coefficient(x.args[where[0]], column.var) or 0) != 1:
        return None
    if not free_vars(x.args[-1]) & inner:
        return None
    return Operand(x, where[0], prod(a.bound for a in s.axes if a.var not in free_vars(x)))


def wanted_dimensions(body: Sequence[Statement], lanes: int) -> dict[Buffer, int]:
    """Scratch buffers of one reader that should lie with a dimension innermost."""
    readers: Counter[Buffer] = Counter()
    wanted: dict[Buffer, int] = {}
    for s in _flat(body):
        readers.update(e.arg for e in loads(s))
        for o in operands(s, lanes) if isinstance(s, Define) else ():
            if o.reuse >= REUSE_MOVE:
                wanted[o.load.arg] = o.dimension
    return {b: d for b, d in wanted.items() if b.space == "scratch" and readers[b] == 1}


def _flat(body: Sequence[Statement]) -> list[Statement]:
    return [x for s in body for x in (s, *_flat(nested(s)))]


def copy_operands(body: Sequence[Statement], lanes: int) -> list[Statement]:
    """Transposed copies of operands that keep their own layout, made just before the contraction."""

    def run(statements: list[Statement]) -> list[Statement]:
        return [x for s in statements for x in (_with_copies(s, lanes) if isinstance(s, Define) else [s])]

    return each_list(body, run)


def _with_copies(s: Define, lanes: int) -> list[Statement]:
    out: list[Statement] = []
    for o in operands(s, lanes):
        if o.reuse >= REUSE_COPY and all(isinstance(e, int) for e in o.load.arg.shape):
            made, s = _copied(s, o)
            out.append(made)
    return [*out, s]


def _copied(s: Define, o: Operand) -> tuple[Define, Define]:
    """(the copy, the Define reading it)."""
    old: Buffer = o.load.arg
    new, place = innermost(old, o.dimension, f"{old.name}.packed")
    axes = tuple(fresh("i", e) for e in old.shape)
    point = tuple(a.var for a in axes)
    made = Define(axes, (Store(new, place(point), load(old, point)),), s.nodes)
    target = load(new, place(o.load.args))
    changed = map_expressions(s, lambda e: transform(e, lambda n: target if n is o.load else None, {}))
    assert isinstance(changed, Define)
    return made, changed
