"""Cycles of sums of products in tile registers.

Intel 64 and IA-32 Architectures Optimization Reference Manual, chapter on AMX: a product of tiles every 16 cycles,
which is there after 52; a tile loaded every 8, one stored every 16. Tiles count as full: fewer rows are no faster
here. Not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.schedule.turns import Nest, Turn
from headrace.targets.tile import ROWS

PRODUCT, LOAD, STORE = 16.0, 8.0, 16.0  # cycles of one
LATENCY = 52.0  # from one product into a tile of C to the next
CONFIGURE = 30.0  # of one LDTILECFG


@dataclass(frozen=True)
class TileCycles:
    """ideal: full tiles, and nothing but products; empty: what tiles that are not full add; moving: what waiting for
    products, loading and storing tiles adds. steps: products of words in all, which vectors need not form."""

    ideal: float = 0.0
    empty: float = 0.0
    moving: float = 0.0
    steps: float = 0.0

    @property
    def total(self) -> float:
        return self.ideal + self.empty + self.moving


def tile_cycles(nest: Nest) -> TileCycles:
    """Of a whole Define; nothing without a Tensorize step."""
    if not nest.tiled:
        return TileCycles()
    rows = next(t for t in nest.outer if t.var is nest.tensor)
    columns = next(t for t in nest.outer if t.var is nest.vector)
    around = 1.0
    for t in nest.outer:
        around *= t.turns if t is not rows and t is not columns else 1.0
    ideal = empty = moving = steps = 0.0
    for s in nest.tiled:
        passes = around * s.around * sum(n for _, n, _ in s.phases)
        words = around * s.around * s.along.bound * rows.extent * columns.extent
        best, phases = words * PRODUCT / ROWS**3, len(s.phases)
        for lines, high in _blocks(rows, ROWS * nest.tile_rows):
            for blocks, wide in _blocks(columns, ROWS * nest.registers):
                times, products = lines * blocks, PRODUCT * high * wide
                step = max(products, LOAD * (high + wide), LATENCY)
                empty += times * passes * products
                moving += times * passes * (step - products) + times * around * (2 * phases - 1) * STORE * high * wide
        empty -= best
        ideal += best
        moving += CONFIGURE * around * columns.turns * (rows.turns * phases if phases > 1 else 1)
        steps += words
    return TileCycles(ideal, empty, moving, steps)


def _blocks(t: Turn, size: int) -> list[tuple[int, int]]:
    """(how many, tiles in one) of the blocks of `size` points along an axis and of what is left at its end."""
    rest = -(-(t.extent % size) // ROWS)
    return [(n, tiles) for n, tiles in ((t.extent // size, size // ROWS), (1, rest)) if n and tiles]
