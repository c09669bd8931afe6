"""Bytes that the loops of a Define bring into each cache.

A loop that does not change where an array is read finds it again if everything that one pass touches fits
the cache; otherwise every pass brings it in anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.program.dtypes import size_of
from headrace.program.expr import Expr, Extent, substitute, var
from headrace.program.index import bounds, free_vars
from headrace.program.ir import Buffer, Define
from headrace.schedule.turns import Nest, Turn

LINE = 64  # bytes that come at a time
OUTSIDE = -1  # the group of what stands in no reduction

Index = tuple[Expr, ...]


class Traffic:
    """The arrays of a Define under the loops of a schedule.

    once: bytes of all arrays, each counted once.
    """

    def __init__(self, define: Define, nest: Nest) -> None:
        self.outer = len(nest.outer)
        groups = _groups(nest)
        accesses: dict[tuple[Buffer, int], list[Index]] = {}
        for e, group, same in _loads(define, groups):
            index = tuple(substitute(i, same) for i in e.args)
            accesses.setdefault((e.arg, group), []).append(index)
        for s in define.stores:
            accesses.setdefault((s.buffer, OUTSIDE), []).append(s.index)
        self.arrays = []
        whole: dict[Buffer, list[Index]] = {}
        for (b, group), found in accesses.items():
            loops = [*nest.outer, *(groups[group].loops if group != OUTSIDE else ())]
            self.arrays.append(_Array(b, group, found, loops, _dense(b, nest)))
            whole.setdefault(b, []).extend(found)
        self.once = sum(_Array(b, OUTSIDE, found, [], _dense(b, nest)).footprint[0] for b, found in whole.items())
        self.twice = sum(a.footprint[0] for a in self.arrays) - self.once  # buffers in several groups

    def into(self, cache: int) -> float:
        """Bytes that come into a cache of so many bytes, from an empty one."""
        out = 0.0
        for a in self.arrays:
            inside = [self._inside(a.group, d) for d in range(len(a.loops) + 1)]
            depth = next((d for d, nbytes in enumerate(inside) if nbytes <= cache), len(a.loops))
            nbytes = a.footprint[depth]
            for j in range(depth):
                if a.loops[j].var in a.uses or inside[j + 1] > cache:
                    nbytes *= a.loops[j].turns
            out += nbytes
        return max(out - self.twice, self.once)

    def _inside(self, group: int, depth: int) -> float:
        """Bytes that one turn touches inside the first `depth` loops around a group of reductions."""
        if depth <= self.outer:
            return sum(a.footprint[depth] for a in self.arrays)
        return sum(a.footprint[min(depth, len(a.loops))] for a in self.arrays if a.group in (group, OUTSIDE))


@dataclass(frozen=True)
class _Group:
    """Reductions of the same extents, which share their loops. same: variables of each -> those of the loops."""

    loops: list[Turn]
    same: dict[Expr, dict[Expr, Expr]]


def _groups(nest: Nest) -> list[_Group]:
    out: dict[tuple[Extent, ...], _Group] = {}
    for r, loops in nest.reduced.items():
        extents = tuple(a.extent for a in r.arg[1])
        first = out.setdefault(extents, _Group(loops, {}))
        pairs = zip(loops, first.loops, strict=True)
        first.same[r] = {mine.var: theirs.var for mine, theirs in pairs if mine.var is not theirs.var}
    return list(out.values())


def _loads(define: Define, groups: list[_Group]) -> list[tuple[Expr, int, dict[Expr, Expr]]]:
    """Every load, the group of reductions around it, and what its variables are called there."""
    out: dict[tuple[Expr, int], dict[Expr, Expr]] = {}
    seen: set[tuple[Expr, int]] = set()

    def go(e: Expr, group: int, same: dict[Expr, Expr]) -> None:
        if (e, group) in seen and not same:
            return
        seen.add((e, group))
        if e.op == "reduce" and group == OUTSIDE:
            group = next((n for n, g in enumerate(groups) if e in g.same), OUTSIDE)
            same = groups[group].same[e] if group != OUTSIDE else same
        if e.op == "load":
            out[(e, group)] = same
        for a in e.args:
            go(a, group, same)

    for s in define.stores:
        for root in (s.value, *s.index):
            go(root, OUTSIDE, {})
    return [(e, group, same) for (e, group), same in out.items()]


class _Array:
    """One buffer, outside reductions or inside a group. footprint[d]: bytes touched inside the first `d` loops."""

    def __init__(self, b: Buffer, group: int, found: list[Index], loops: Sequence[Turn], dense: bool) -> None:
        self.group, self.loops = group, loops
        self.uses = frozenset(v for index in found for i in index for v in free_vars(i))
        lines = 1.0 if dense else _lines(b, _box(b, found))
        self.footprint = [lines * self._bytes(b, found, loops[:d]) for d in range(len(loops) + 1)]

    def _bytes(self, b: Buffer, found: list[Index], fixed: Sequence[Turn]) -> float:
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


def _dense(b: Buffer, nest: Nest) -> bool:
    """Whether a buffer lies as it is read, so that no part of a cache line comes in vain."""
    return nest.packed and b.space == "const"


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
