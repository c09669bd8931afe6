"""When each buffer's contents are needed: control flow as points, and liveness over them.

Every Define is a point. A Loop has the points enter, head (`until` and the extent are evaluated; the
loop ends here) and carry (after each pass); a Branch has a point for its condition. The last point is
commit, where the states take their new values. A buffer occupies memory at a point if the point
touches it, or if it may have been written before and may be read after.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace.program.cover import fresh_starts
from headrace.program.ir import Branch, Buffer, Define, Loop, Module, Statement, loads

Copies = tuple[tuple[Buffer, Buffer], ...]  # (destination, source)


@dataclass(frozen=True, eq=False)
class Point:
    """One moment of the program.

    kind: define, enter, head, carry, branch or commit. fresh: buffers whose old contents nobody reads
    from here on. copies: what a carry or commit point copies, all at once. following: the positions of
    the points that may come next.
    """

    kind: str
    statement: Statement | None
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    fresh: frozenset[Buffer]
    copies: Copies
    following: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Lifetimes:
    """before[n], after[n]: buffers that hold needed contents just before and just after point n."""

    points: tuple[Point, ...]
    buffers: tuple[Buffer, ...]  # every planned buffer that appears, in order of appearance
    before: tuple[frozenset[Buffer], ...]
    after: tuple[frozenset[Buffer], ...]

    def occupied(self, n: int) -> frozenset[Buffer]:
        """Buffers that need memory of their own at point n."""
        p = self.points[n]
        return self.before[n] | self.after[n] | frozenset(b for b in p.reads + p.writes if planned(b))


def planned(b: Buffer) -> bool:
    """Whether the plan gives the buffer its memory (the rest is the caller's, or constant)."""
    return b.space in ("scratch", "state")


class _Flow:
    """Collects points in text order; `ends` are the points that lead to the next one added."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.following: list[list[int]] = []
        self.ends: list[int] = []

    def add(
        self,
        kind: str,
        statement: Statement | None,
        reads: Iterable[Buffer] = (),
        writes: Iterable[Buffer] = (),
        fresh: Iterable[Buffer] = (),
        copies: Copies = (),
    ) -> int:
        n = len(self.points)
        read, written = tuple(dict.fromkeys(reads)), tuple(dict.fromkeys(writes))
        self.points.append(Point(kind, statement, read, written, frozenset(fresh), copies, ()))
        self.following.append([])
        for e in self.ends:
            self.following[e].append(n)
        self.ends = [n]
        return n

    def body(self, statements: Sequence[Statement]) -> None:
        fresh = fresh_starts(statements)
        for n, s in enumerate(statements):
            if isinstance(s, Define):
                self.define(s, fresh.get(n, ()))
            elif isinstance(s, Loop):
                self.loop(s, fresh.get(n, ()))
            else:
                self.branch(s)

    def define(self, s: Define, fresh: Iterable[Buffer]) -> None:
        combined = [st.buffer for st in s.stores if st.combiner is not None]
        self.add("define", s, [e.arg for e in loads(s)] + combined, (st.buffer for st in s.stores), fresh)

    def loop(self, s: Loop, fresh: Iterable[Buffer]) -> None:
        self.add("enter", s, fresh=fresh)
        head = self.add("head", s, [e.arg for e in loads(s)])
        self.body(s.body)
        self.move("carry", s, s.carry)
        self.following[self.ends[0]].append(head)
        self.ends = [head]

    def branch(self, s: Branch) -> None:
        n = self.add("branch", s, [e.arg for e in loads(s)])
        self.body(s.then)
        then_ends, self.ends = self.ends, [n]
        self.body(s.other)
        self.ends = then_ends + [e for e in self.ends if e not in then_ends]

    def move(self, kind: str, s: Statement | None, copies: Copies) -> None:
        copies = tuple((dst, src) for dst, src in copies if dst is not src)
        written = [dst for dst, _ in copies]
        self.add(kind, s, (src for _, src in copies), written, written, copies)


def flow(module: Module) -> tuple[Point, ...]:
    """The points of the entry `run`, in text order; the last is commit."""
    f = _Flow()
    f.body(module.body)
    f.move("commit", None, tuple((p.buffer, p.update) for p in module.states if p.update is not None))
    return tuple(
        Point(p.kind, p.statement, p.reads, p.writes, p.fresh, p.copies, tuple(following))
        for p, following in zip(f.points, f.following, strict=True)
    )


class _Bits:
    """Sets of buffers as integers."""

    def __init__(self, points: tuple[Point, ...], module: Module) -> None:
        seen: dict[Buffer, None] = {p.buffer: None for p in module.states}
        for p in points:
            seen.update((b, None) for b in p.reads + p.writes if planned(b))
        self.buffers = list(seen)
        self.position = {b: n for n, b in enumerate(self.buffers)}

    def mask(self, buffers: Iterable[Buffer]) -> int:
        out = 0
        for b in buffers:
            if b in self.position:
                out |= 1 << self.position[b]
        return out

    def members(self, mask: int) -> frozenset[Buffer]:
        out = []
        while mask:
            low = mask & -mask
            out.append(self.buffers[low.bit_length() - 1])
            mask ^= low
        return frozenset(out)


def lifetimes(module: Module) -> Lifetimes:
    """Liveness of every planned buffer at every point."""
    points = flow(module)
    bits = _Bits(points, module)
    states = bits.mask(p.buffer for p in module.states)
    live_in, live_out = _needed(points, bits, states)
    held_in, held_out = _held(points, bits, states)
    before = tuple(bits.members(a & b) for a, b in zip(live_in, held_in, strict=True))
    after = tuple(bits.members(a & b) for a, b in zip(live_out, held_out, strict=True))
    return Lifetimes(points, tuple(bits.buffers), before, after)


def _needed(points: tuple[Point, ...], bits: _Bits, at_end: int) -> tuple[list[int], list[int]]:
    """Backward: may be read before it is replaced."""
    reads = [bits.mask(p.reads) for p in points]
    kept = [~bits.mask(p.fresh) for p in points]
    live_in, live_out = [0] * len(points), [0] * len(points)
    live_out[-1] = at_end
    changed = True
    while changed:
        changed = False
        for n in reversed(range(len(points))):
            for f in points[n].following:
                live_out[n] |= live_in[f]
            new = (live_out[n] & kept[n]) | reads[n]
            changed |= new != live_in[n]
            live_in[n] = new
    return live_in, live_out


def _held(points: tuple[Point, ...], bits: _Bits, at_start: int) -> tuple[list[int], list[int]]:
    """Forward: may have been written."""
    writes = [bits.mask(p.writes) for p in points]
    held_in, held_out = [0] * len(points), [0] * len(points)
    held_in[0] = at_start
    changed = True
    while changed:
        changed = False
        for n, p in enumerate(points):
            new = held_in[n] | writes[n]
            changed |= new != held_out[n]
            held_out[n] = new
            for f in p.following:
                held_in[f] |= new
    return held_in, held_out
