"""How often a schedule evaluates what stands in a Define: its loops in order, and the turns of each."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.program.expr import Axis, Expr
from headrace.schedule import steps as st
from headrace.schedule.access import Facts
from headrace.schedule.tile import WordSum, sums_of
from headrace.targets.tile import ROWS


@dataclass(frozen=True)
class Turn:
    """One loop between tiles.

    turns: its passes; points: vectors or rows in all of them; extent: values of its variable.
    """

    var: Expr
    turns: int
    points: int
    extent: int

    @property
    def tile(self) -> int:
        """Values of the variable in one pass."""
        return -(-self.extent // self.turns)


class Nest:
    """The loops that code generation makes of a Define and a schedule. Steps of other kinds change nothing here.

    outer: the loops of the Define; reduced: those of each outermost reduction, inside the outer ones;
    lanes: of a vector, 1 where nothing is vectorised; vector: the variable that is; ways: independent sums
    of one point; packed: constants lie as they are read; tiled: the sums that tile registers compute, which
    `in_vectors` and `nodes` leave out.
    """

    def __init__(self, facts: Facts, schedule: st.Schedule) -> None:
        self.facts = facts
        self.order: tuple[int, ...] = tuple(range(len(facts.axes)))
        self.reduce_order: tuple[int, ...] = ()
        self.rows: dict[int, int] = {}
        self.block: st.Block | None = None
        self.tensor: Expr | None = None  # the axis of rows of tiles
        self.tile_rows = 0  # of a block, in tiles
        self.tiled: tuple[WordSum, ...] = sums_of(facts.define, schedule)
        self.position, self.lanes, self.registers, self.ways, self.packed = -1, 1, 1, 1, False
        for step in schedule:
            self._take(step)
        axes = (*facts.axes, *facts.reduced)
        self.along_reduction = self.position >= len(facts.axes)
        self.vector = axes[self.position].var if 0 <= self.position < len(axes) else None
        if self.along_reduction:
            self.ways = max(self.ways, self.registers)
        self.outer = [*self._blocks(), *(self._outer(n, facts.axes[n]) for n in self.order)]
        self.reduced = {r: self.loops_of(r) for r in facts.reductions}
        in_tiles = {s.reduce for s in self.tiled}
        self.in_vectors = {r: loops for r, loops in self.reduced.items() if r not in in_tiles}

    def _take(self, step: st.Step) -> None:
        if isinstance(step, st.Order):
            self.order = step.axes
        elif isinstance(step, st.OrderReduce):
            self.reduce_order = step.axes
        elif isinstance(step, st.Vectorize):
            self.position, self.lanes, self.registers = step.axis, step.lanes, step.registers
        elif isinstance(step, st.RegisterTile):
            self.rows[step.axis] = step.count
        elif isinstance(step, st.Tensorize):
            self.rows[step.axis], self.tensor = ROWS * step.tiles, self.facts.axes[step.axis].var
            self.tile_rows = step.tiles
        elif isinstance(step, st.Block):
            self.block = step
        elif isinstance(step, st.Accumulators):
            self.ways = step.count
        elif isinstance(step, st.Pack):
            self.packed = True

    def _blocks(self) -> list[Turn]:
        """The loop over blocks, around all others."""
        if self.block is None:
            return []
        axis = self.facts.axes[self.block.axis]
        count = -(-max(axis.bound, 1) // self.block.count)
        return [Turn(axis.var, count, count, max(axis.bound, 1))]

    def _outer(self, n: int, axis: Axis) -> Turn:
        bound = max(axis.bound, 1)
        if self.block is not None and self.block.axis == n:
            bound = min(bound, self.block.count)
        if n == self.position:
            vectors = -(-bound // self.lanes)
            return Turn(axis.var, -(-vectors // self.registers), vectors, bound)
        return Turn(axis.var, -(-bound // self.rows.get(n, 1)), bound, bound)

    def loops_of(self, r: Expr) -> list[Turn]:
        """The loops of a reduction, outermost first; the vectorised one is the innermost."""
        axes: tuple[Axis, ...] = r.arg[1]
        order = list(self.reduce_order if len(self.reduce_order) == len(axes) else range(len(axes)))
        along = self.position - len(self.facts.axes)
        if along in order:
            order.remove(along)
            order.append(along)
        turns = []
        for n in order:
            bound = max(axes[n].bound, 1)
            count = -(-bound // self.lanes) if n == along else bound
            turns.append(Turn(axes[n].var, count, count, bound))
        return turns

    def count(self, uses: frozenset[Expr], inside: list[Turn]) -> float:
        """Evaluations of what depends on `uses`, outside or among the loops of a reduction.

        It stands in the innermost loop whose variable it uses; there it is evaluated for every point of
        the tile that differs for it, and again for every turn of the other loops around.
        """
        loops = [*self.outer, *inside]
        deepest = max((n for n, t in enumerate(loops) if t.var in uses), default=-1)
        out = 1.0
        for t in loops[: deepest + 1]:
            out *= t.points if t.var in uses else t.turns
        return out

    @property
    def tiles(self) -> float:
        """Register tiles of the whole Define; of blocks of tile registers every row is one."""
        out = 1.0
        for t in self.outer:
            out *= t.turns if t.var is not self.tensor else t.points
        return out

    @property
    def width(self) -> float:
        """Vectors (or numbers) that are computed together: those of a register tile."""
        out = 1.0
        for t in self.outer:
            out *= t.points / t.turns if t.var is not self.tensor else 1.0
        return out

    def nodes(self) -> list[tuple[Expr, list[Turn]]]:
        """Every node that is evaluated, with the loops of the reduction that it stands in."""
        out: list[tuple[Expr, list[Turn]]] = []
        seen: set[tuple[Expr, int]] = set()

        def go(e: Expr, inside: list[Turn]) -> None:
            if (e, id(inside)) in seen or e in in_tiles:
                return
            seen.add((e, id(inside)))
            out.append((e, inside))
            body = (self.reduced.get(e) or self.loops_of(e)) if e.op == "reduce" else inside
            for a in e.args:
                go(a, body)

        none: list[Turn] = []
        in_tiles = {s.reduce for s in self.tiled}
        for s in self.facts.define.stores:
            for root in (s.value, *s.index):
                go(root, none)
        return out
