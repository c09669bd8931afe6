"""Correlations with three taps as products of transformed tiles: fewer multiplications (Winograd's minimal filtering).

    y[o, p, q] = f(sum(c, r, s: x[c, p + r, q + s] * w[o, c, r, s]))          for m x m outputs of a tile t
    →  v[i, j, t, c] = sum(a, b: B[i, a] * B[j, b] * x[c, m*t.p + a, m*t.q + b])
       u[i, j, t, o] = sum(c: v[i, j, t, c] * g[i, j, o, c])                   (m + 2)² products for m² · 9
       y[o, m*t.p + a, m*t.q + b] = f(sum(i, j: A[a, i] * A[b, j] * u[i, j, t, o]))

The sums with A and B are written out; g is made here, in float64, and rounded once. Tiles at the end that are
not full have Defines of their own, which read and write nothing beyond the ends. Errors grow by a small factor
(docs/design/winograd.md); a value that is not finite reaches every output of its tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from headrace.program.correlation import Correlation, correlations
from headrace.program.expr import Axis, Expr, const, fresh, load, make, substitute, walk
from headrace.program.ir import Buffer, Define, Loop, Module, Statement, Store
from headrace.program.linear import Matrix, Values, apply
from headrace.program.rewrite import each_list, replace_body, substitute_axes
from headrace.program.toom_cook import Filtering, filtering
from headrace.program.winograd_cost import Choice, Shape, chosen

TAPS = 3
Element = Callable[[tuple[int, ...]], Expr | None]
GAP = 16  # elements: a line of the cache


@dataclass(frozen=True)
class Tiling:
    """One correlation cut into tiles: of filters[d].m outputs along taps[d].at.

    transformed: v [products, (*others, *tiles, *channels) and a gap], summed: u [products, (*others, *tiles, column)
    and a gap], for the tiles of one strip. The gaps keep products apart in caches that find lines by a few bits.
    """

    found: Correlation
    filters: tuple[Filtering, ...]
    transformed: Buffer
    summed: Buffer
    weights: Buffer


@dataclass(frozen=True)
class Region:
    """Tiles first … first + count - 1 of a strip along one axis; they have `size` outputs each."""

    first: int
    count: int
    size: int


@dataclass(frozen=True)
class Strip:
    """Some rows of tiles: tile t of axis d is tile starts[d] + t of the whole axis.

    counts: tiles along each axis; sides: they apart into those that are full and those that are not.
    """

    starts: tuple[Expr, ...]
    counts: tuple[int, ...]
    sides: tuple[tuple[Region, ...], ...]

    @property
    def regions(self) -> Iterator[tuple[Region, ...]]:
        return product(*self.sides)


def filter_minimally(module: Module, lanes: int) -> Module:
    """Rewrite the correlations that win by it; a note for each that was weighed. lanes: f32 elements of a vector.

    Step programs stay as they are: what a frame that is not valid holds must not reach those beside it.
    """
    if module.states:
        return module
    notes = list(module.notes)
    constants = sum(b.nbytes for b in module.buffers() if b.space == "const")

    def run(body: list[Statement]) -> list[Statement]:
        out: list[Statement] = []
        for s in body:
            out += _rewritten(s, lanes, constants, notes) if isinstance(s, Define) else [s]
        return out

    new = replace_body(module, each_list(module.body, run))
    new.notes = notes
    return new


def _rewritten(s: Define, lanes: int, constants: int, notes: list[str]) -> list[Statement]:
    for c in correlations(s, TAPS):
        choice = chosen(_shape(c), lanes, constants)
        if choice.note:
            notes.append(f"{', '.join(s.nodes[-1:])}: {choice.note}")
        if choice.tile is not None:
            before, s = _without_other_sums(s, c.reduce)
            return [*before, *_strips(s, c, choice)]
    return [s]


def _shape(c: Correlation) -> Shape:
    return Shape(
        prod(a.bound for a in c.others),
        tuple(t.at.bound for t in c.taps),
        prod(a.bound for a in c.channels),
        c.column.bound,
    )


def _without_other_sums(s: Define, kept: Expr) -> tuple[list[Statement], Define]:
    """(Defines of the sums beside the one of the tiles, the Define that reads their results)."""
    sums = {r: None for st in s.stores for r in walk(st.value) if r.op == "reduce" and r is not kept}
    before: list[Statement] = []
    mapping: dict[Expr, Expr] = {}
    for r in sums:
        buffer = Buffer(f"{s.stores[0].buffer.name}.sum", r.dtype, tuple(a.extent for a in s.axes))
        point = tuple(a.var for a in s.axes)
        before.append(_renamed(Define(s.axes, (Store(buffer, point, r),), s.nodes)))
        mapping[r] = load(buffer, point)
    stores = tuple(Store(t.buffer, t.index, substitute(t.value, mapping), t.combiner) for t in s.stores)
    return before, Define(s.axes, stores, s.nodes)


def _renamed(s: Define) -> Define:
    axes = tuple(fresh("i", a.extent) for a in s.axes)
    return substitute_axes(s, axes, {a.var: b.var for a, b in zip(s.axes, axes, strict=True)})


# --- strips ------------------------------------------------------------------------------------------


def _strips(s: Define, c: Correlation, choice: Choice) -> list[Statement]:
    """A loop over strips of choice.rows rows of tiles, and what is left."""
    assert choice.tile is not None
    filters = tuple(filtering(m) for m in choice.tile)
    sides = [_sides(tap.at.bound, f.m) for tap, f in zip(c.taps, filters, strict=True)]
    counts = [sum(r.count for r in side) for side in sides]
    rows = min(choice.rows, counts[0])
    weights = _weights(c, filters)
    zero = const(0, "index")

    def strip(start: Expr, side: tuple[Region, ...]) -> list[Statement]:
        count = sum(r.count for r in side)
        found = Strip((start, *(zero for _ in sides[1:])), (count, *counts[1:]), (side, *sides[1:]))
        return _strip(s, c, filters, weights, found)

    times = c.taps[0].at.bound // filters[0].m // rows
    if counts[0] <= rows:
        return strip(zero, sides[0])
    full = (Region(0, rows, filters[0].m),)
    out: list[Statement] = []
    if times == 1:
        out += strip(zero, full)
    else:
        axis = fresh("s", times)
        out.append(Loop(axis, tuple(strip(axis.var * rows, full)), nodes=s.nodes))
    left = _sides(c.taps[0].at.bound - times * rows * filters[0].m, filters[0].m)
    return [*out, *strip(const(times * rows, "index"), left)] if left else out


def _sides(extent: int, m: int) -> tuple[Region, ...]:
    """Full tiles, and the one that is not."""
    full, rest = divmod(extent, m)
    return tuple(r for r in (Region(0, full, m), Region(full, 1, rest)) if r.count and r.size)


def _strip(s: Define, c: Correlation, filters: tuple[Filtering, ...], weights: Buffer, strip: Strip) -> list[Statement]:
    n = prod(f.products for f in filters)
    tiles = prod(a.bound for a in c.others) * prod(strip.counts)
    name = next(e.arg.name for e in walk(c.data) if e.op == "load" and e.arg.space != "const")
    transformed = Buffer(f"{name}.tiles", "f32", (n, tiles * prod(a.bound for a in c.channels) + GAP))
    summed = Buffer(f"{name}.products", "f32", (n, tiles * c.column.bound + GAP))
    t = Tiling(c, filters, transformed, summed, weights)
    return [*_inputs(s, t, strip), _products(s, t, strip), *_outputs(s, t, strip)]


def _flat(extents: Sequence[int], at: Sequence[Expr]) -> Expr:
    """Row-major position."""
    out: Expr = const(0, "index")
    for extent, i in zip(extents, at, strict=True):
        out = out * extent + i
    return out


def _weights(c: Correlation, filters: tuple[Filtering, ...]) -> Buffer:
    """[products, column, *channels]"""
    weights = c.weights.astype(np.float64)
    for d, f in enumerate(filters):
        axis = weights.ndim - len(filters) + d
        weights = np.moveaxis(np.tensordot(f.weights, weights, (1, axis)), 0, axis)
    inner = weights.shape[: -len(filters)]
    weights = np.ascontiguousarray(np.moveaxis(weights.reshape(*inner, -1), -1, 0).astype(np.float32))
    return Buffer("tile.weights", "f32", weights.shape, "const", weights)


# --- the three steps ---------------------------------------------------------------------------------


def _inputs(s: Define, t: Tiling, strip: Strip) -> Iterator[Define]:
    """Tiles of data, transformed."""
    c = t.found
    extents = [*(a.bound for a in c.others), *strip.counts, *(a.bound for a in c.channels)]
    for regions in strip.regions:
        others = [fresh("i", a.extent) for a in c.others]
        channels = [fresh("c", a.extent) for a in c.channels]
        tiles = [fresh("t", r.count) for r in regions]
        names = dict(zip((a.var for a in (*c.others, *c.channels)), (a.var for a in (*others, *channels)), strict=True))
        first = [n + (a.var + r.first) for n, a, r in zip(strip.starts, tiles, regions, strict=True)]
        values = _transformed([f.inputs for f in t.filters], _data(t, regions, first, names))
        place = [a.var + r.first for a, r in zip(tiles, regions, strict=True)]
        at = _flat(extents, [*(a.var for a in others), *place, *(a.var for a in channels)])
        stores = tuple(
            Store(t.transformed, (const(n, "index"), at), const(0.0, "f32") if v is None else v)
            for n, v in enumerate(values)
        )
        yield Define((*others, *tiles, *channels), stores, s.nodes)


def _data(t: Tiling, regions: tuple[Region, ...], tile: Sequence[Expr], names: dict[Expr, Expr]) -> Element:
    """The data at a place in a tile; None beyond what its outputs need."""
    c = t.found

    def element(at: tuple[int, ...]) -> Expr | None:
        here = dict(names)
        for n, (tap, f, r) in enumerate(zip(c.taps, t.filters, regions, strict=True)):
            if at[n] >= r.size + TAPS - 1:
                return None
            here[tap.at.var] = tile[n] * f.m + at[n]
            here[tap.k.var] = const(0, "index")
        return substitute(c.data, here)

    return element


def _products(s: Define, t: Tiling, strip: Strip) -> Define:
    """For every product of a tile the sum over channels."""
    c = t.found
    tiles = prod(a.bound for a in c.others) * prod(strip.counts)
    n, tile, o = fresh("p", t.weights.bound[0]), fresh("t", tiles), fresh("i", c.column.bound)
    channels = tuple(fresh("r", a.extent) for a in c.channels)
    k = tuple(a.var for a in channels)
    at = _flat([tiles, *(a.bound for a in channels)], [tile.var, *k])
    body = load(t.transformed, (n.var, at)) * load(t.weights, (n.var, o.var, *k))
    total = make("reduce", "f32", (body,), ("sum", channels))
    return Define((n, tile, o), (Store(t.summed, (n.var, tile.var * o.bound + o.var), total),), s.nodes)


def _outputs(s: Define, t: Tiling, strip: Strip) -> Iterator[Define]:
    """What the Define stores, a tile at a time, with sums of products in the place of the correlation."""
    c = t.found
    for regions in strip.regions:
        tiles = {tap.at: fresh("t", r.count) for tap, r in zip(c.taps, regions, strict=True)}
        axes = tuple(tiles.get(a) or fresh("i", a.extent) for a in s.axes)
        names = {a.var: b.var for a, b in zip(s.axes, axes, strict=True) if a not in tiles}
        sums = _sums(t, strip, regions, tiles, names)
        stores: list[Store] = []
        for at in product(*(range(r.size) for r in regions)):
            mapping = dict(names)
            for n, (tap, f, r) in enumerate(zip(c.taps, t.filters, regions, strict=True)):
                mapping[tap.at.var] = (strip.starts[n] + (tiles[tap.at].var + r.first)) * f.m + at[n]
            for st in s.stores:
                value = _replaced(st.value, c.reduce, sums[at], mapping)
                stores.append(Store(st.buffer, tuple(substitute(i, mapping) for i in st.index), value, st.combiner))
        yield Define(axes, tuple(stores), s.nodes)


def _sums(
    t: Tiling, strip: Strip, regions: tuple[Region, ...], tiles: dict[Axis, Axis], names: dict[Expr, Expr]
) -> dict[tuple[int, ...], Expr]:
    """The correlation at every output of a tile."""
    c = t.found
    place = [tiles[tap.at].var + r.first for tap, r in zip(c.taps, regions, strict=True)]
    extents = [*(a.bound for a in c.others), *strip.counts, c.column.bound]
    point = _flat(extents, [*(names[a.var] for a in c.others), *place, names[c.column.var]])
    counts = [f.products for f in t.filters]

    def element(at: tuple[int, ...]) -> Expr | None:
        return load(t.summed, (const(int(np.ravel_multi_index(at, counts)), "index"), point))

    matrices = [f.outputs[: r.size] for f, r in zip(t.filters, regions, strict=True)]
    values = _transformed(matrices, element)
    found = zip(product(*(range(r.size) for r in regions)), values, strict=True)
    return {at: v for at, v in found if v is not None}


def _replaced(value: Expr, reduce: Expr, total: Expr, mapping: dict[Expr, Expr]) -> Expr:
    """The value with other variables, and the total in the place of the correlation."""
    mark = make("total", "f32")
    return substitute(substitute(substitute(value, {reduce: mark}), mapping), {mark: total})


def _transformed(matrices: Sequence[Matrix], element: Element) -> list[Expr | None]:
    """One matrix applied along each dimension of a box of expressions; None is zero. Row-major."""
    shape = [m.shape[1] for m in matrices]
    values: Values = np.empty(shape, object)
    for at in np.ndindex(*shape):
        values[at] = element(at)
    for d, m in enumerate(matrices):
        moved = np.moveaxis(values, d, 0)
        rows = moved.reshape(moved.shape[0], -1)
        out = np.empty((m.shape[0], rows.shape[1]), object)
        for column in range(rows.shape[1]):
            out[:, column] = apply(m, list(rows[:, column]))
        values = np.moveaxis(out.reshape(m.shape[0], *moved.shape[1:]), 0, d)
    return list(values.reshape(-1))
