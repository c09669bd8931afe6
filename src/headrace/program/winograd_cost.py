"""Which tiles a correlation is computed in, by a count of cycles.

directly:  products / rate + weights / bandwidth
in tiles:  products of tiles / rate + weights of tiles / bandwidth + transformed elements

The figures were measured on an AVX2 core and are taken for wider vectors too: rates as a share of the peak that
grows with the rows that stand side by side, bandwidths for weights that the whole program has room for in caches
or has not.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod

TILES = (2, 4)
MIN_CHANNELS = 24
GAIN = 0.9  # tiles must take less than this share of the direct time
PORTS = 2.0  # vectors of products per cycle
SHARE = 0.78  # of that, where tiles of registers are full
TRANSFORM = 12.0  # cycles for one vector into a tile, or out of it
START = 2000.0  # cycles that more and shorter loops cost
CACHED = 16 << 20  # bytes of constants that outer caches hold from one run to the next
NEAR, FAR = 12.0, 4.0  # bytes per cycle of weights, from caches and from memory
STRIP = 1 << 20  # bytes of tiles that a second cache holds


@dataclass(frozen=True)
class Shape:
    """A correlation with three taps on each of some axes.

    repeats: of batch and the like; extents: of the axes with taps, rows first; channels: summed over; columns: of
    the result.
    """

    repeats: int
    extents: tuple[int, ...]
    channels: int
    columns: int

    def counts(self, tile: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(-(-n // m) for n, m in zip(self.extents, tile, strict=True))


@dataclass(frozen=True)
class Choice:
    """Outputs of a tile along each axis, and rows of tiles in a strip; no tile: computed directly.

    The note says why, "" where nothing was weighed.
    """

    tile: tuple[int, ...] | None
    rows: int = 0
    note: str = ""


def chosen(shape: Shape, lanes: int, constants: int) -> Choice:
    """lanes: f32 elements of a vector; constants: bytes of all constants of the module."""
    if shape.channels < MIN_CHANNELS or shape.columns < max(lanes, MIN_CHANNELS):
        return Choice(None)
    bandwidth = NEAR if constants <= CACHED else FAR
    direct = _direct(shape, lanes, bandwidth)
    costs = {t: _tiled(shape, t, lanes, bandwidth) for t in product(TILES, repeat=len(shape.extents))}
    tile = min(costs, key=lambda t: costs[t])
    what = f"{'x'.join(map(str, tile))} outputs at a time by minimal filtering"
    share = f"{costs[tile] / direct:.2f} of the cycles by estimate"
    if costs[tile] > GAIN * direct:
        return Choice(None, note=f"computed directly: {what} would take {share}")
    return Choice(tile, _rows(shape, tile), f"{what}: {share}")


def _direct(shape: Shape, lanes: int, bandwidth: float) -> float:
    taps = prod(3 for _ in shape.extents)
    weights = 4.0 * taps * shape.channels * shape.columns
    points = shape.repeats * prod(shape.extents)
    products = points * shape.channels * shape.columns * taps
    return products / (lanes * PORTS * SHARE * _filled(shape.extents[-1])) + weights / bandwidth


def _tiled(shape: Shape, tile: tuple[int, ...], lanes: int, bandwidth: float) -> float:
    n = prod(m + 2 for m in tile)
    tiles = shape.repeats * prod(shape.counts(tile))
    weights = 4.0 * n * shape.channels * shape.columns
    share = SHARE * _filled(tiles) * shape.channels / (shape.channels + 16)
    products = n * tiles * shape.channels * shape.columns / (lanes * PORTS * share)
    moved = n * tiles * (shape.channels + shape.columns) / lanes * TRANSFORM
    return products + moved + weights / bandwidth + START


def _filled(rows: int) -> float:
    """Share of the rate with so many rows side by side."""
    return rows / (rows + 2)


def _rows(shape: Shape, tile: tuple[int, ...]) -> int:
    """Rows of tiles in a strip: one that stays near, unless reading the weights again costs more."""
    n = prod(m + 2 for m in tile)
    first, *others = shape.counts(tile)
    row = 4 * n * shape.repeats * prod(others) * (shape.channels + shape.columns)
    weights = 4 * n * shape.channels * shape.columns
    strips = -(-first // max(1, STRIP // row))
    if strips == 1 or (strips - 1) * weights >= first * row:
        return first
    return -(-first // strips)
