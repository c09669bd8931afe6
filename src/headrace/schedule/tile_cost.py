"""Cycles of sums of products in tile registers.

Intel 64 and IA-32 Architectures Optimization Reference Manual, chapter on AMX: a product of tiles every 16 cycles, a
tile loaded every 8, one stored every 16. Shapes are taken as full: fewer rows are no faster here. Not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.schedule.turns import Nest, Turn
from headrace.targets.tile import ROWS

PRODUCT, LOAD, STORE = 16.0, 8.0, 16.0  # cycles of one
CONFIGURE = 30.0  # of one LDTILECFG


@dataclass(frozen=True)
class TileCycles:
    """ideal: full tiles, and nothing but products; empty: what tiles that are not full add; moving: what loading
    and storing tiles adds. steps: products of words that are in it, without the vectors' part."""

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
        passes = around * s.around
        chunks = sum(n for _, n, _ in s.phases)
        words = passes * s.along.bound * rows.extent * columns.extent
        products = PRODUCT * passes * chunks * _tiles(rows) * _tiles(columns)
        loads = LOAD * passes * chunks * (_tiles(rows) * columns.turns + _tiles(columns) * rows.turns)
        phases = len(s.phases)
        stores = STORE * around * (2 * phases - 1) * _tiles(rows) * _tiles(columns)
        shapes = CONFIGURE * around * rows.turns * columns.turns * phases if phases > 1 else CONFIGURE * columns.turns
        best = words * PRODUCT / ROWS**3
        ideal, empty = ideal + best, empty + products - best
        moving += max(0.0, loads - products) + stores + shapes
        steps += words
    return TileCycles(ideal, empty, moving, steps)


def _tiles(t: Turn) -> float:
    """Tiles of 16 points along an axis; ragged ones count as whole."""
    return float(-(-t.extent // ROWS))
