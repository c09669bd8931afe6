"""Verifies a memory plan without looking at lifetimes: who overwrites what, forward along the program.

At every point the check knows which buffers may hold contents and which of these may have been
overwritten by a buffer that lies over them. Reading one of the latter is the error that a plan must
not have.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from headrace.program.inplace import overwrites
from headrace.program.ir import Buffer, Define, Loop, Module
from headrace.program.lifetime import Copies, Point, flow, planned

if TYPE_CHECKING:
    from headrace.program.plan import Plan

Place = tuple[str, int, int]  # block, first byte, end


class PlanError(AssertionError):
    """The memory plan is wrong: a defect of the planner, never of the model."""


def check(module: Module, plan: Plan) -> None:
    """Raise PlanError, naming the buffers, if running `module` with `plan` could lose a value."""
    points = flow(module)
    memory = _Memory(module, plan, points)
    for n, p in enumerate(points):
        memory.check_writes(p)
        if p.kind in ("carry", "commit"):
            memory.check_moves(p, _planned_moves(plan, p))
        for f in p.following:
            if not 0 <= f < len(points):
                raise PlanError(f"point {n} leads nowhere")
    lost = _lost_before(points, memory, plan)
    for p, gone in zip(points, lost, strict=True):
        for b in p.reads:
            if b in gone:
                raise PlanError(f"{b!r} is read by {_text(p)} after {gone[b]!r} may have overwritten it")


def _planned_moves(plan: Plan, p: Point) -> Copies:
    return plan.carries[p.statement.carry] if isinstance(p.statement, Loop) else plan.commit


def _text(p: Point) -> str:
    nodes = getattr(p.statement, "nodes", ())
    return f"a {p.kind} point" + (f" of {', '.join(nodes)}" if nodes else "")


class _Memory:
    """Where everything lies, and who overlaps whom."""

    def __init__(self, module: Module, plan: Plan, points: tuple[Point, ...]) -> None:
        moves = [c for p in points if p.kind in ("carry", "commit") for c in _planned_moves(plan, p)]
        named = [b for p in points for b in p.reads + p.writes] + [b for pair in moves for b in pair]
        states = [pair.buffer for pair in module.states]
        self.buffers = [b for b in dict.fromkeys(states + named) if planned(b)]
        self.at = {b: self._place(plan, b) for b in self.buffers}
        for n, a in enumerate(states):
            for b in states[:n]:
                if self.overlap(a, b):
                    raise PlanError(f"the states {a!r} and {b!r} overlap")
        self.over = {b: [c for c in self.buffers if c is not b and self.overlap(b, c)] for b in self.buffers}

    @staticmethod
    def _place(plan: Plan, b: Buffer) -> Place:
        if b not in plan.state and b not in plan.scratch:
            raise PlanError(f"{b!r} has no memory")
        block, low = plan.place(b)
        if b.space == "state" and block != "state":
            raise PlanError(f"the state {b!r} does not lie in the state block")
        end = plan.state_bytes if block == "state" else plan.scratch_bytes
        if low < 0 or low % plan.align or low + b.nbytes > end:
            raise PlanError(f"{b!r} at {block} byte {low} is not aligned or not inside the block of {end} bytes")
        return block, low, low + b.nbytes

    def overlap(self, a: Buffer, b: Buffer) -> bool:
        (block, low, end), (other, first, last) = self.at[a], self.at[b]
        return block == other and max(low, first) < min(end, last)

    def check_writes(self, p: Point) -> None:
        """What one point writes must not overlap, except for proved in-place results."""
        for y in p.writes:
            if not planned(y):
                continue
            if any(z in p.writes for z in self.over[y]):
                raise PlanError(f"{_text(p)} writes {y!r} and another buffer to one place")
            if not isinstance(p.statement, Define):
                continue
            for x in p.reads:
                if planned(x) and x in self.over[y]:
                    exact = self.at[x][:2] == self.at[y][:2]
                    if not exact or not overwrites(p.statement, x, y):
                        raise PlanError(f"{y!r} lies over {x!r}, which the statement still reads elsewhere")

    def check_moves(self, p: Point, moves: Copies) -> None:
        """The listed copies, one after the other, do what the simultaneous copies should."""
        values: dict[Buffer | Place, Buffer | Place | None] = {}
        for dst, src in moves:
            value = values.get(self._cell(src), self._cell(src))
            for z in self.over.get(dst, ()):
                values[self._cell(z)] = None
            values[self._cell(dst)] = value
        for dst, src in p.copies:
            if dst.nbytes and values.get(self._cell(dst), self._cell(dst)) != self._cell(src):
                raise PlanError(f"{_text(p)} leaves a wrong value in {dst!r}; it should be that of {src!r}")

    def _cell(self, b: Buffer) -> Buffer | Place:
        return self.at.get(b, b)


Lost = dict[Buffer, Buffer]  # overwritten → by whom


def _lost_before(points: tuple[Point, ...], memory: _Memory, plan: Plan) -> list[Lost]:
    """For each point: buffers that may have been overwritten when it is reached."""
    full: list[set[Buffer]] = [set() for _ in points]
    lost: list[Lost] = [{} for _ in points]
    full[0] = {b for b in memory.buffers if b.space == "state"}
    waiting = dict.fromkeys(range(len(points)))
    while waiting:
        n = next(iter(waiting))
        del waiting[n]
        held, gone = _step(points[n], full[n], lost[n], memory, plan)
        for f in points[n].following:
            if not (held <= full[f] and gone.keys() <= lost[f].keys()):
                full[f] |= held
                lost[f] = gone | lost[f]
                waiting[f] = None
    return lost


def _step(p: Point, full: set[Buffer], lost: Lost, memory: _Memory, plan: Plan) -> tuple[set[Buffer], Lost]:
    """What holds contents and what is lost after the point."""
    held, gone = full - p.fresh, {b: by for b, by in lost.items() if b not in p.fresh}
    moved = _planned_moves(plan, p) if p.kind in ("carry", "commit") else ()
    written: Iterable[Buffer] = p.writes if p.kind == "define" else [dst for dst, _ in moved]
    for y in written:
        for z in memory.over.get(y, ()):
            if z in held:
                gone.setdefault(z, y)
    held |= {y for y in p.writes if planned(y)}
    for y in p.fresh & set(p.writes):
        gone.pop(y, None)
    return held, gone
