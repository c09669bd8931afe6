"""What a statement has to do whatever its schedule: operations, function values, bytes touched once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from headrace.program.clip import computed_share
from headrace.program.dtypes import size_of
from headrace.program.expr import Expr, extent_bound, walk
from headrace.program.index import bounds, free_vars
from headrace.program.ir import Branch, Buffer, Define, Loop, Statement, nested
from headrace.schedule import steps as st
from headrace.schedule.access import around

FUNCTIONS = frozenset(
    "exp expm1 log log1p log2 tanh sigmoid erf softplus sin cos tan asin acos atan sinh cosh asinh acosh atanh "
    "pow atan2".split()
)
DIVIDES = frozenset(("div", "fmod", "sqrt", "rsqrt"))
FREE = frozenset(("const", "var", "sym", "load", "word", "item", "check"))

CONDITIONAL = frozenset(("select", "and", "lt", "le"))  # of windows that are clipped: known when they are written out

Box = list[tuple[int, int]]  # smallest and largest index in each dimension


@dataclass(frozen=True)
class Work:
    """One run of a statement.

    macs: multiply-adds of sums of products; operations: those and every other arithmetic operation on
    data, a function value being one; functions: exp, tanh and their like; constants, reads, writes:
    bytes touched, each counted once.
    """

    macs: int = 0
    operations: int = 0
    functions: int = 0
    constants: int = 0
    reads: int = 0
    writes: int = 0

    @property
    def nbytes(self) -> int:
        return self.constants + self.reads + self.writes


@dataclass
class _Touched:
    """The box around all accesses of each buffer, and how many elements these can be at most."""

    boxes: dict[Buffer, Box] = field(default_factory=dict)
    counts: dict[Buffer, int] = field(default_factory=dict)

    def add(self, buffer: Buffer, idx: Iterable[Expr]) -> None:
        index = tuple(idx)
        box = [_clip(bounds(i), extent) for i, extent in zip(index, buffer.bound, strict=True)]
        old = self.boxes.get(buffer)
        if old is not None:
            box = [(min(a, c), max(b, d)) for (a, b), (c, d) in zip(box, old, strict=True)]
        self.boxes[buffer] = box
        self.counts[buffer] = self.counts.get(buffer, 0) + _points(v for i in index for v in free_vars(i))

    def nbytes(self, b: Buffer) -> int:
        size = 1
        for low, high in self.boxes[b]:
            size *= high - low + 1
        return min(size, self.counts[b]) * size_of(b.dtype)


def work(s: Statement, constants: Iterable[Buffer] | None = None) -> Work:
    """The work of a statement with its extents at their bounds; of a Branch, that of the longer side.

    constants: those that its code reads, where they are not the ones that it names (packed ones are read
    as a whole).
    """
    loaded, stored = _Touched(), _Touched()
    macs, operations, functions = _collect(s, 1, loaded, stored)
    read = [b for b in loaded.boxes if b.space == "const"] if constants is None else list(constants)
    return Work(
        macs,
        operations,
        functions,
        constants=sum(loaded.nbytes(b) if b in loaded.boxes else b.nbytes for b in read),
        reads=sum(loaded.nbytes(b) for b in loaded.boxes if b.space != "const"),
        writes=sum(map(stored.nbytes, stored.boxes)),
    )


def _collect(s: Statement, times: int, loaded: _Touched, stored: _Touched) -> tuple[int, int, int]:
    if isinstance(s, Define):
        return _define(s, times, loaded, stored)
    if isinstance(s, Branch):
        sides = [[_collect(x, times, loaded, stored) for x in side] for side in (s.then, s.other)]
        return max((_total(side) for side in sides), key=lambda t: t[1])
    assert isinstance(s, Loop)
    for destination, source in s.carry:
        for b, touched in ((source, loaded), (destination, stored)):
            touched.boxes[b] = [(0, extent - 1) for extent in b.bound]
            touched.counts[b] = b.nbytes
    return _total([_collect(x, times * extent_bound(s.axis.extent), loaded, stored) for x in nested(s)])


def _total(parts: Iterable[tuple[int, int, int]]) -> tuple[int, int, int]:
    macs, operations, functions = 0, 0, 0
    for a, b, c in parts:
        macs, operations, functions = macs + a, operations + b, functions + c
    return macs, operations, functions


def _define(define: Define, times: int, loaded: _Touched, stored: _Touched) -> tuple[int, int, int]:
    every = list(walk(*(root for s in define.stores for root in (s.value, *s.index))))
    for n in every:
        if n.op == "load":
            loaded.add(n.arg, n.args)
    for s in define.stores:
        stored.add(s.buffer, s.index)
        if s.combiner is not None:
            loaded.add(s.buffer, s.index)
    operations = functions = 0
    fused, share = fused_products(every), computed_share(define)
    outer = around(define)
    for n in every:
        if n.dtype == "index" or n.op in FREE or n in fused or (share < 1 and n.op in CONDITIONAL):
            continue
        count = round(_points(_domain(n) - outer) * (share if n.op == "reduce" else 1))
        operations += count
        functions += count if n.op in FUNCTIONS else 0
    return times * st.macs(define), times * operations, times * functions


def fused_products(nodes: Iterable[Expr]) -> set[Expr]:
    """Products that only go into sums, so that both can be one operation."""
    every = list(nodes)
    fused: set[Expr] = set()
    used: set[Expr] = set()
    guarded = {n.args[0]: n for n in every if n.op == "reduce" and n.args[0].op == "select"}
    for n in every:
        takes = (n.op == "reduce" and n.arg[0] == "sum") or n.op in ("add", "sub")
        args = n.args[0].args[1:] if n.op == "reduce" and n.args[0] in guarded else n.args
        products = [a for a in args if a.op in ("mul", "dot4", "dot2")] if takes else []
        fused.update(products[:1])
        used.update(a for a in args if a not in products[:1] and n not in guarded)
    return fused - used


def _domain(n: Expr) -> frozenset[Expr]:
    """The variables for each of whose values a node is evaluated; a reduction makes a step for each of its points."""
    return free_vars(n) | ({a.var for a in n.arg[1]} if n.op == "reduce" else frozenset())


def _points(variables: Iterable[Expr]) -> int:
    count = 1
    for v in set(variables):
        count *= extent_bound(v.arg[1])
    return count


def _clip(pair: tuple[int, int], extent: int) -> tuple[int, int]:
    low, high = max(pair[0], 0), min(pair[1], extent - 1)
    return low, max(low, high)
