"""Which tiles a correlation is computed in, by a count of cycles."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod


@dataclass(frozen=True)
class Shape:
    """A correlation with three taps on each axis: repeats (batch and the like), extents of the axes with taps,
    channels summed over, columns."""

    repeats: int
    extents: tuple[int, ...]
    channels: int
    columns: int


@dataclass(frozen=True)
class Choice:
    """The outputs of a tile along each axis, or None; the note says why, "" where nothing was weighed."""

    tile: tuple[int, ...] | None
    rows: int = 1 << 30
    note: str = ""


FORCE = None


def chosen(shape: Shape, lanes: int, constants: int) -> Choice:
    if shape.channels < 32 or shape.columns < 32 or len(shape.extents) != 2:
        return Choice(None)
    return Choice(FORCE[:2], FORCE[2] if len(FORCE) > 2 else 1<<30, "forced") if FORCE else Choice(None)
