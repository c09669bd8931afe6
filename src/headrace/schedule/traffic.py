"""Bytes that the loops of a Define bring into each cache.

A loop that does not change where an array is read finds it again if everything that one pass touches fits
the cache; otherwise every pass brings it in anew.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.program.dtypes import size_of
from headrace.program.expr import Expr, substitute, var
from headrace.program.index import bounds, free_vars
from headrace.program.ir import Buffer, Define, loads
from headrace.schedule.steps import reductions
from headrace.schedule.turns import Turn

LINE = 64  # bytes that come at a time


class Traffic:
    """The arrays of a Define under its loops, outermost first."""

    def __init__(self, define: Define, loops: Sequence[Turn], packed: bool) -> None:
        self.loops = loops
        accesses: dict[Buffer, list[tuple[Expr, ...]]] = {}
        same = _shared_loops(define, {t.var for t in loops})
        for e in loads(define):
            accesses.setdefault(e.arg, []).append(tuple(substitute(i, same) for i in e.args))
        for s in define.stores:
            accesses.setdefault(s.buffer, []).append(s.index)
        self.arrays = [_Array(b, found, loops, packed and b.space == "const") for b, found in accesses.items()]

    @property
    def once(self) -> float:
        """Bytes of all arrays, each counted once."""
        return sum(a.footprint[0] for a in self.arrays)

    def into(self, cache: int) -> float:
        """Bytes that come into a cache of so many bytes, from an empty one."""
        inside = [sum(a.footprint[d] for a in self.arrays) for d in range(len(self.loops) + 1)]
        depth = next(d for d, nbytes in enumerate(inside) if nbytes <= cache or d == len(self.loops))
        out = 0.0
        for a in self.arrays:
            nbytes = a.footprint[depth]
            for j in range(depth):
                if self.loops[j].var in a.uses or inside[j + 1] > cache:
                    nbytes *= self.loops[j].turns
            out += nbytes
        return out


def _shared_loops(define: Define, present: set[Expr]) -> dict[Expr, Expr]:
    """Variables of reductions that run in the loops of another one of the same extents."""
    every = reductions(define)
    main = next((r for r in every if any(a.var in present for a in r.arg[1])), None)
    if main is None:
        return {}
    extents = [a.extent for a in main.arg[1]]
    pairs = [
        (a.var, b.var)
        for r in every
        if [a.extent for a in r.arg[1]] == extents
        for a, b in zip(r.arg[1], main.arg[1], strict=True)
    ]
    return {a: b for a, b in pairs if a is not b}


class _Array:
    """footprint[d]: bytes touched inside the first `d` loops."""

    def __init__(self, b: Buffer, found: list[tuple[Expr, ...]], loops: Sequence[Turn], dense: bool) -> None:
        self.uses = frozenset(v for index in found for i in index for v in free_vars(i))
        lines = 1.0 if dense else _lines(b, _box(b, found))
        self.footprint = [lines * self._bytes(b, found, loops[:d]) for d in range(len(loops) + 1)]

    def _bytes(self, b: Buffer, found: list[tuple[Expr, ...]], fixed: Sequence[Turn]) -> float:
        small = {t.var: var(f"{t.var.arg[0]}.tile", t.tile) for t in fixed if t.var in self.uses}
        inner = [tuple(substitute(i, small) for i in index) for index in found]
        points = 0
        for index in inner:
            count = 1
            for v in {v for i in index for v in free_vars(i)}:
                count *= bounds(v)[1] + 1
            points += count
        size = 1
        for extent in _box(b, inner):
            size *= extent
        return float(size_of(b.dtype) * min(size, points))


def _box(b: Buffer, found: list[tuple[Expr, ...]]) -> list[int]:
    """Extents of the box around all accesses."""
    ranges = [[bounds(i) for i in index] for index in found]
    spans = [(min(low for low, _ in dim), max(high for _, high in dim)) for dim in zip(*ranges, strict=True)]
    return [min(high - low + 1, extent) for (low, high), extent in zip(spans, b.bound, strict=True)]


def _lines(b: Buffer, box: list[int]) -> float:
    """Bytes of the cache lines that hold a box, as a multiple of its own."""
    size = size_of(b.dtype)
    if not box or box[-1] == b.bound[-1]:
        return 1.0
    row = size * box[-1]
    return -(-row // LINE) * LINE / row
