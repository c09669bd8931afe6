"""Which part of a buffer a store certainly fills, and where a buffer's old contents end.

A store fills a box when each dimension's index runs over an interval. Boxes add up: two halves of a
concatenation, or the slices that the passes of a loop stack up, replace the whole contents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from headrace.program.expr import Axis, Expr, Extent
from headrace.program.index import ONE, bounds, free_vars, terms
from headrace.program.ir import Buffer, Define, Loop, Statement, Store, reads

Interval = tuple[int, int] | None  # [low, high); None: the whole dimension
Box = tuple[Interval, ...]


def store_box(store: Store, axes: Mapping[Expr, Extent]) -> Box | None:
    """The box that `store` fills when `axes` (variable → extent) run through; None if it is not known."""
    box: list[Interval] = []
    used: set[Expr] = set()
    for extent, index in zip(store.buffer.shape, store.index, strict=True):
        variables = free_vars(index)
        if variables & used or not variables <= axes.keys():
            return None
        used |= variables
        if index in axes and axes[index] == extent:
            box.append(None)
            continue
        interval = _interval(index, axes)
        if interval is None or not isinstance(extent, int) or interval[0] < 0 or interval[1] > extent:
            return None
        box.append(None if interval == (0, extent) else interval)
    idle = (extent for v, extent in axes.items() if v not in used)
    return tuple(box) if all(_at_least_one(extent) for extent in idle) else None


def _at_least_one(extent: Extent) -> bool:
    return (extent if isinstance(extent, int) else bounds(extent)[0]) >= 1


def _interval(index: Expr, axes: Mapping[Expr, Extent]) -> tuple[int, int] | None:
    """[low, high) if `index` takes every value in it: digits of a mixed radix, in either direction."""
    low, digits = 0, []
    for atom, k in terms(index).items():
        extent = axes.get(atom)
        if atom is ONE:
            low += k
        elif isinstance(extent, int) and extent > 0:
            low += min(0, k * (extent - 1))
            digits.append((abs(k), extent))
        else:
            return None
    span = 1
    for k, extent in sorted(digits):
        if extent > 1 and k != span:
            return None
        span *= extent
    return low, low + span


@dataclass
class _Cover:
    """Disjoint boxes of one buffer and their volume."""

    start: int  # position of the statement that began it
    boxes: list[Box] = field(default_factory=list)
    volume: int = 0

    def add(self, shape: tuple[Extent, ...], box: Box) -> bool:
        """Take one more box; True when the whole buffer is filled. A box that overlaps is ignored."""
        if any(all(_meet(a, b) for a, b in zip(box, other, strict=True)) for other in self.boxes):
            return False
        self.boxes.append(box)
        volume = total = 1
        for interval, extent in zip(box, shape, strict=True):
            if isinstance(extent, int):
                total *= extent
                volume *= extent if interval is None else interval[1] - interval[0]
        self.volume += volume
        return self.volume == total


def _meet(a: Interval, b: Interval) -> bool:
    return a is None or b is None or (a[0] < b[1] and b[0] < a[1])


def _boxes(s: Statement, axes: dict[Expr, Extent]) -> Iterator[tuple[Buffer, Box]]:
    """Boxes that the statement certainly fills; `axes` are those of the loops around it."""
    if isinstance(s, Define):
        around = {**axes, **_extents(s.axes)}
        for store in s.stores:
            box = store_box(store, around) if store.combiner is None else None
            if box is not None:
                yield store.buffer, box
    elif isinstance(s, Loop) and s.until is None:
        for inner in s.body:
            yield from _boxes(inner, {**axes, **_extents((s.axis,))})


def _extents(axes: Sequence[Axis]) -> dict[Expr, Extent]:
    return {a.var: a.extent for a in axes}


def fresh_starts(body: Sequence[Statement]) -> dict[int, set[Buffer]]:
    """Position in `body` → buffers whose contents are replaced from there on.

    At such a position the old contents are of no use any more: the statements that follow fill the whole
    buffer before anything reads it. Statements inside loops and branches are not looked at by themselves.
    """
    fresh: dict[int, set[Buffer]] = {}
    open_covers: dict[Buffer, _Cover] = {}
    for n, s in enumerate(body):
        read = set(reads(s))
        for b in read:
            open_covers.pop(b, None)
        for b, box in _boxes(s, {}):
            if b in read:
                continue
            cover = open_covers.setdefault(b, _Cover(n))
            if cover.add(b.shape, box):
                fresh.setdefault(cover.start, set()).add(b)
                del open_covers[b]
    return fresh
