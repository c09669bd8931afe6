"""Sums of products of words that tile registers can compute, and what a Tensorize step asks of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.program.access import flat
from headrace.program.byte_dot import TOP_BITS
from headrace.program.expr import Axis, Expr, is_const, walk
from headrace.program.index import coefficient, free_vars
from headrace.program.ir import Define, Module, Statement, nested
from headrace.schedule import steps as st
from headrace.targets.tile import ROWS, TileProduct, find

_BYTES = 4  # of a word
_PLAIN = frozenset(("const", "var", "sym", "add", "sub", "mul", "floordiv", "mod", "min", "max"))


@dataclass(frozen=True)
class WordSum:
    """sum over axes of dot(word(x…), w): `data` loads the first element of the word, `weight` a word of constants.

    along: the axis of the reduction whose words lie side by side; top_bits: the top bits of a signed x are turned,
    which adds 128 to every element; product: the instruction, of x as it lies in memory.
    """

    reduce: Expr
    data: Expr
    weight: Expr
    along: Axis
    top_bits: bool
    product: TileProduct

    @property
    def axes(self) -> tuple[Axis, ...]:
        axes: tuple[Axis, ...] = self.reduce.arg[1]
        return axes

    @property
    def offset(self) -> Expr:
        """Where x lies, in elements."""
        return flat(self.data.arg, self.data.args)

    @property
    def phases(self) -> tuple[tuple[int, int, int], ...]:
        """(first word, steps, words of a step) along the axis: equal steps, or whole tiles and what is left."""
        extent, steps = self.along.bound, -(-self.along.bound // ROWS)
        if extent % steps == 0:
            return ((0, steps, extent // steps),)
        return (0, steps - 1, ROWS), ((steps - 1) * ROWS, 1, extent % ROWS)

    @property
    def around(self) -> int:
        """Passes over `along` for one point."""
        out = 1
        for a in self.axes:
            out *= a.bound if a is not self.along else 1
        return out


def word_sums(define: Define) -> tuple[WordSum, ...]:
    """The sums of this form that every point of a Define is sure to need."""
    matched = map(_match, st.sure_reductions(s.value for s in define.stores))
    return tuple(m for m in matched if m is not None)


def _match(e: Expr) -> WordSum | None:
    value, axes = e.args[0], e.arg[1]
    if e.arg[0] != "sum" or value.op not in ("dot4", "dot2") or not all(isinstance(a.extent, int) for a in axes):
        return None
    bits, weight = value.args
    top_bits = bits.op == "xor" and is_const(bits.args[1], TOP_BITS)
    bits = bits.args[0] if top_bits else bits
    if bits.op != "word" or any(p.op != "load" for p in bits.args) or weight.op != "load":
        return None
    first, size = bits.args[0], len(bits.args)
    dtype = first.dtype
    right = "bf16" if value.op == "dot2" else "i8"
    product = find(value.op, dtype, right)
    is_one = product is not None and size == product.terms and top_bits == (dtype == "i8")
    if not is_one or first.arg.space == "const" or weight.arg.space != "const":
        return None
    offset = flat(first.arg, first.args)
    if any(p.arg is not first.arg or flat(p.arg, p.args) is not offset + n for n, p in enumerate(bits.args)):
        return None
    along = next((a for a in axes if coefficient(offset, a.var) == size and a.bound > 0), None)
    if along is None or product is None or any(n.op not in _PLAIN for n in walk(offset)):
        return None
    return WordSum(e, first, weight, along, top_bits, product)


def tiled(define: Define, row: int, column: int) -> tuple[WordSum, ...]:
    """The sums that tiles can compute with these axes as rows and columns of C."""
    return tuple(s for s in word_sums(define) if _fits(s, define, define.axes[row], define.axes[column]))


def _fits(s: WordSum, define: Define, row: Axis, column: Axis) -> bool:
    """Whether rows of x lie evenly and are the same for all columns, and columns of weights for all rows."""
    used = frozenset(v for i in s.weight.args for v in free_vars(i))
    known = {a.var for a in (*define.axes, *s.axes) if isinstance(a.extent, int)}
    if row.var not in known or row.var in used or not {column.var, s.along.var} <= used <= known:
        return False
    step = coefficient(s.offset, row.var)
    return step is not None and step > 0 and column.var not in free_vars(s.offset)


def fault(define: Define, step: st.Tensorize, schedule: st.Schedule) -> str | None:
    """Why a Tensorize step is not legal among the others; None where it is."""
    if not 0 <= step.axis < len(define.axes):
        return f"the Define has {len(define.axes)} axes"
    if define.ordered:
        return "the Define runs in order"
    if step.tiles not in (1, 2):
        return "a block has one or two tiles of rows"
    vector = next((s for s in schedule if isinstance(s, st.Vectorize)), None)
    if vector is None or vector.axis >= len(define.axes) or vector.axis == step.axis:
        return "no other axis of the Define is vectorised"
    if vector.lanes != ROWS or vector.registers > 2:
        return f"a block has one or two vectors of {ROWS} lanes"
    order = next((s.axes for s in schedule if isinstance(s, st.Order)), tuple(range(len(define.axes))))
    if order[-1] != step.axis:
        return "the axis is not the innermost"
    if st.Pack() not in schedule:
        return "the constants are not packed"
    if any(isinstance(s, st.RegisterTile | st.Block) for s in schedule):
        return "another axis is tiled"
    if not tiled(define, step.axis, vector.axis):
        return "there is no sum of products of words with rows along it"
    return None


def sums_of(define: Define, schedule: st.Schedule) -> tuple[WordSum, ...]:
    """The sums that tiles compute under a schedule; () without a Tensorize step."""
    step = next((s for s in schedule if isinstance(s, st.Tensorize)), None)
    vector = next((s for s in schedule if isinstance(s, st.Vectorize)), None)
    return tiled(define, step.axis, vector.axis) if step is not None and vector is not None else ()


def candidates(define: Define) -> list[tuple[int, int]]:
    """(row, column) axes between which tiles can multiply something."""
    if define.ordered:
        return []
    axes, sums = list(enumerate(define.axes)), word_sums(define)
    return [(n, m) for n, r in axes for m, c in axes if n != m and any(_fits(s, define, r, c) for s in sums)]


def uses_tiles(module: Module, schedule: Callable[[Define], st.Schedule]) -> bool:
    """Whether `schedule` takes tiles for any Define of a module."""

    def takes(s: Statement) -> bool:
        if isinstance(s, Define):
            return bool(word_sums(s)) and any(isinstance(x, st.Tensorize) for x in schedule(s))
        return any(map(takes, nested(s)))

    return any(map(takes, module.body))
