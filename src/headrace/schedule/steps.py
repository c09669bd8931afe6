"""Schedules: short, frozen, replayable lists of steps that say how one Define becomes a loop nest.

Axes are named by position: 0 … S-1 are the axes of the Define, S … are the axes of its first group of
reductions, in order. The same steps replay on every Define of the same structure, so a database may
store them under `key(define)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Union

from headrace.program.clip import computed_share
from headrace.program.expr import Axis, Expr, walk
from headrace.program.ir import Define


@dataclass(frozen=True)
class Order:
    """Nest the Define's own loops in this order, outermost first."""

    axes: tuple[int, ...]


@dataclass(frozen=True)
class OrderReduce:
    """Nest the loops of reductions in this order, outermost first; for groups with as many axes."""

    axes: tuple[int, ...]


@dataclass(frozen=True)
class Vectorize:
    """Compute `registers` vectors of `lanes` consecutive points of an axis at a time."""

    axis: int
    lanes: int
    registers: int = 1


@dataclass(frozen=True)
class RegisterTile:
    """Compute `count` consecutive points of an axis at a time, each in registers of its own."""

    axis: int
    count: int


@dataclass(frozen=True)
class UnrollTiles:
    """Write the tiles of an axis out one after the other, not as a loop: their indices are constants, and conditions
    on them fall away."""

    axis: int


@dataclass(frozen=True)
class Tensorize:
    """Compute sums of products of words by tile registers: blocks of `tiles` (1 or 2) tiles of 16 points of an axis,
    the innermost of the Define, by the vectors of 16 lanes of the vectorised axis. The rest of each value is
    computed in vectors, one point of the axis after the other."""

    axis: int
    tiles: int


@dataclass(frozen=True)
class Block:
    """Visit an axis in blocks of `count` points, a multiple of its register tile, one after the other around all
    other loops: what a block reads stays in a cache while the loops inside come back to it."""

    axis: int
    count: int


@dataclass(frozen=True)
class Unroll:
    """Repeat the body of the innermost reduction loop `count` times."""

    count: int


@dataclass(frozen=True)
class Accumulators:
    """Split a sum over its innermost axis into `count` independent ones that are added at the end."""

    count: int


@dataclass(frozen=True)
class Pack:
    """Store the constants of this Define in the order in which the loops read them."""


@dataclass(frozen=True)
class Prefetch:
    """While a tile reads its packed constants, ask for those of the next one, which lie behind them."""


@dataclass(frozen=True)
class Parallel:
    """Cut the loop over an axis, between its tiles, into `parts` that may run at the same time, on threads.

    Every point is computed by the same instructions whatever `parts` is. Programs of one thread, and Defines
    inside a Loop or Branch, ignore it.
    """

    axis: int
    parts: int


Step = Union[
    Order, OrderReduce, Vectorize, RegisterTile, UnrollTiles, Tensorize, Block, Unroll, Accumulators, Pack, Prefetch,
    Parallel,
]  # fmt: skip
Schedule = tuple[Step, ...]
KINDS: tuple[type[Step], ...] = (
    Order, OrderReduce, Vectorize, RegisterTile, UnrollTiles, Tensorize, Block, Unroll, Accumulators, Pack, Prefetch,
    Parallel,
)  # fmt: skip
STEPS = {c.__name__: c for c in KINDS}


def show(schedule: Schedule) -> str:
    """One line: "Order(0, 1) Vectorize(1, 16, 2)"."""
    return " ".join(_show(s) for s in schedule)


def _show(step: Step) -> str:
    values = [getattr(step, f.name) for f in fields(step)]
    flat = [str(x) for v in values for x in (v if isinstance(v, tuple) else (v,))]
    return f"{type(step).__name__}({', '.join(flat)})"


def parse(text: str) -> Schedule:
    """The inverse of show(). ValueError for what is not a schedule."""
    out: list[Step] = []
    for part in text.replace(") ", ")\n").splitlines():
        name, _, rest = part.strip().partition("(")
        if name not in STEPS or not rest.endswith(")"):
            raise ValueError(f"{part!r} is not a schedule step")
        cls = STEPS[name]
        try:
            values = [int(v) for v in rest[:-1].split(",") if v.strip()]
            out.append(cls(tuple(values)) if cls in (Order, OrderReduce) else cls(*values))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise ValueError(f"{part!r} is not a schedule step") from None
    return tuple(out)


def reductions(define: Define) -> list[Expr]:
    """The outermost reductions in a Define's values, each once, in order of appearance."""
    found: dict[Expr, None] = {}

    def go(e: Expr, seen: set[Expr]) -> None:
        if e in seen:
            return
        seen.add(e)
        if e.op == "reduce":
            found[e] = None
            return
        for a in e.args:
            go(a, seen)

    seen: set[Expr] = set()
    for s in define.stores:
        for root in (s.value, *s.index):
            go(root, seen)
    return list(found)


def sure_reductions(roots: Iterable[Expr]) -> list[Expr]:
    """The outermost reductions that evaluating the roots is sure to need: not those behind a condition."""
    found: dict[Expr, None] = {}
    seen: set[Expr] = set()

    def go(e: Expr) -> None:
        if e in seen:
            return
        seen.add(e)
        if e.op == "reduce":
            found[e] = None
            return
        for a in e.args[:1] if e.op == "select" else e.args:
            go(a)

    for root in roots:
        go(root)
    return list(found)


def reduce_axes(define: Define) -> tuple[Axis, ...]:
    """Axes of the reduction with the largest box; () when there is none."""
    best: tuple[Axis, ...] = ()
    size = -1
    for r in reductions(define):
        n = 1
        for a in r.arg[1]:
            n *= a.bound
        if n > size:
            best, size = r.arg[1], n
    return best


def key(define: Define, target: str) -> str:
    """Database key: a hash of the Define's structure (extents, dtypes, index arithmetic, not names) and the target."""
    names: dict[Expr, str] = {}
    buffers: dict[object, str] = {}

    def text(e: Expr) -> str:
        if e.op == "var":
            return names.setdefault(e, f"v{len(names)}")
        arg = ""
        if e.op == "load":
            arg = buffers.setdefault(e.arg, f"b{len(buffers)}:{e.arg.dtype}{e.arg.bound}{e.arg.space == 'const'}")
        elif e.op == "reduce":
            arg = e.arg[0] + ",".join(axis(a) for a in e.arg[1])
        elif e.op == "sym":
            arg = f"{e.arg.bound}/{e.arg.divisor}"
        else:
            arg = str(e.arg)
        return f"{e.op}{e.dtype}[{arg}]({','.join(text(a) for a in e.args)})"

    def axis(a: Axis) -> str:
        return f"{text(a.var)}<{'' if isinstance(a.extent, int) else 'run '}{a.bound}"

    parts = ["ordered" if define.ordered else "", *(axis(a) for a in define.axes)]
    for s in define.stores:
        parts.append(
            f"{s.buffer.dtype}{s.buffer.bound}{s.combiner}{','.join(text(i) for i in s.index)}={text(s.value)}"
        )
    return hashlib.sha256(f"{target}|{'|'.join(parts)}".encode()).hexdigest()[:32]


def macs(define: Define) -> int:
    """Multiply-accumulates at the bound: one for each point of each outermost sum of a product.

    Products of words count one for each element of a word, also outside of sums; terms that are clipped none.
    """
    points = 1
    for a in define.axes:
        points *= a.bound
    total, outermost = 0.0, reductions(define)
    for r in outermost:
        if r.arg[0] == "sum" and any(e.op in ("mul", "dot4", "dot2") for e in walk(r.args[0])):
            n = _elements(r.args[0]) or 1
            for a in r.arg[1]:
                n *= a.bound
            total += n * computed_share(define)
    inside = set(walk(*outermost))
    single = {e for e in walk(*(s.value for s in define.stores)) if e.op in ("dot4", "dot2")} - inside
    return round(points * (total + sum(map(_elements, single))))


def _elements(e: Expr) -> int:
    """Elements of the largest word in an expression; 0 where there is none."""
    return max((len(n.args) for n in walk(e) if n.op == "word"), default=0)
