"""Functions of two frame numbers, such as masks: evaluated for signals of fixed length, with what they leave open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from headrace.errors import NotStreamable
from headrace.graph.symbolic import SymDim
from headrace.ops.timed import TIME, has_time
from headrace.streaming.evaluate import CannotEvaluate, evaluate, frames_for, numbers_of

if TYPE_CHECKING:
    from headrace.streaming.analyse import Analysis

Array = np.ndarray[Any, Any]
SAMPLE = (192, 512)
LONGEST_BLOCK = 64
FARTHEST = 4096  # larger numbers in a mask stand for "without end"; a rule that changes there is not seen
Refuse = Callable[..., NotStreamable]


@dataclass(frozen=True)
class Pattern:
    """Which frames each frame sees. phases: (frames back, None for all; frames ahead) of frames 0, 1, … of a block."""

    phases: tuple[tuple[int | None, int], ...]

    @property
    def unlimited(self) -> bool:
        return any(past is None for past, _ in self.phases)


@dataclass
class Grids:
    """Values over the rows and columns of one product of frames with frames.

    scores: the products; length: how many rows there are, a formula in T; refuse: makes the refusal that names
    the node.
    """

    analysis: Analysis
    scores: frozenset[ir.Node]
    length: SymDim
    refuse: Refuse
    known: dict[tuple[ir.Value, int, int], Array] = field(default_factory=dict)
    numbers: dict[ir.Value, int] = field(default_factory=dict)

    def sizes(self) -> tuple[int, int]:
        """Two numbers of rows at which patterns are compared; no more than the model's tables allow.

        The larger one is well beyond every number that the masks seen so far compare frames with.
        """
        limit, wanted = self.analysis.limit, max(SAMPLE[1], 2 * max(self.numbers.values(), default=0) + 2)
        most = wanted if limit is None else self.length.evaluate({TIME: limit})
        if most >= wanted:
            return SAMPLE[0], wanted
        if most < 4:
            raise self.refuse("attention has a mask of fewer than 4 frames", "export it with a longer mask")
        return most // 2, most

    def largest(self, size: int) -> int:
        """At most that many rows, as the model's tables allow."""
        limit = self.analysis.limit
        return size if limit is None else min(size, self.length.evaluate({TIME: limit}))

    def evaluate(self, value: ir.Value, size: int, draw: int = 0) -> Array:
        """A value for a signal with `size` rows. draw: 0 takes every product of frames as 0, others as noise."""
        key = (value, size, draw)
        if value not in self.numbers:
            self.numbers[value] = self._number(value)
        if key not in self.known:
            try:
                self.known[key] = evaluate(value, self._frames(size), self.analysis, self.scores, draw)
            except CannotEvaluate as error:
                raise self.refuse(
                    f"the mask of attention cannot be evaluated: {error}",
                    "make it of constants, or fix its inputs with constants=",
                ) from error
        return self.known[key]

    def _number(self, value: ir.Value) -> int:
        """The largest constant that a frame's number may meet on the way to a value."""
        return max((n for n in numbers_of(value, self.analysis, self.scores) if n <= FARTHEST), default=0)

    def _settled(self, look: Callable[[], Any]) -> Any:
        """What `look` finds once it has shown all numbers that the sizes depend on."""
        while True:
            sizes = self.sizes()
            found = look()
            if self.sizes() == sizes:
                return found

    def _frames(self, size: int) -> int:
        """T for which there are that many rows."""
        frames = frames_for(self.length, size, self.analysis.multiple)
        if frames is None:
            raise self.refuse("attention runs at a rate at which masks cannot be checked", "attend at the input's rate")
        return frames

    def pattern(self, seen: Callable[[int], Array], period: int) -> Pattern:
        """What `seen(size)`, bool [rows, columns], leaves open, the same in every block of frames."""
        small, large = self._settled(lambda: [seen(size) for size in self.sizes()])
        if not large.any(axis=1).all():
            raise self.refuse("attention has frames whose mask hides everything", "let every frame see itself")
        self._check(_repeats(large, period, True, True))
        phases: list[tuple[int | None, int]] = []
        for phase in range(period):
            (p1, f1), (p2, f2) = (_span(grid, phase, period) for grid in (small, large))
            if f1 != f2:
                raise self.refuse("attention reaches to the end of the signal: no mask hides the frames to come")
            phases.append((p1 if p1 == p2 else None, f1))
        return Pattern(tuple(phases))

    def period(self, values: Sequence[ir.Value]) -> int:
        """Frames in a block, where values depend on the distance and the place within a block only."""
        grids = self._settled(lambda: [(self.evaluate(v, self.sizes()[1]), self._places(v)) for v in values])
        most = min(LONGEST_BLOCK, self.sizes()[1] // 3)
        for period in range(1, most + 1):
            if all(_repeats(grid, period, *places) for grid, places in grids):
                return period
        raise self.refuse(
            "attention has a mask that depends on the frame's own number, not on the distance",
            f"use the same window for every frame, or blocks of at most {most} frames",
        )

    def _places(self, value: ir.Value) -> tuple[bool, bool]:
        """Whether a value depends on the row, on the column; refused where time lies on other axes."""
        dims = self.analysis.prepared.facts.dims[value]
        places, last = [i for i, d in enumerate(dims) if has_time(d)], len(dims) - 1
        if places == [last - 1] and dims[last] == 1:
            return True, False
        if places in ([last], [last - 1, last]):
            return len(places) == 2, True
        raise self.refuse("attention has a mask with other axes than frames by frames", "mask frames by frames")

    def part(self, value: ir.Value, rows: Array, columns: Array, period: int) -> Array:
        """The value at these frame numbers, which count from the start of a block."""
        far = int(max(abs(columns[-1] - rows[0]), abs(columns[0] - rows[-1]))) + 2 * period + 2
        size = self.largest(max(self.sizes()[1], far))
        grid = self.evaluate(value, size)
        by_row, by_column = self._places(value)
        self._check(_repeats(grid, period, by_row, by_column))
        if not by_row:
            return np.asarray(grid[..., columns % period])
        if not by_column:
            return np.asarray(grid[..., rows % period, :])
        distance = columns[None, :] - rows[:, None]
        first = (rows % period)[:, None]
        later = first + (size - 1 - first) // period * period
        row = np.where(distance > 0, first, later)
        part: Array = grid[..., row, np.clip(row + distance, 0, size - 1)]
        return part

    def _check(self, same: bool) -> None:
        if not same:
            raise self.refuse(
                "attention has a mask that depends on the frame's own number, not on the distance",
                "use the same window for every frame",
            )


def _repeats(grid: Array, period: int, by_row: bool, by_column: bool) -> bool:
    """Whether values are the same one period later."""
    later, earlier = slice(period, None), slice(None, -period)
    if by_row and by_column:
        return np.array_equal(grid[..., later, later], grid[..., earlier, earlier], equal_nan=True)
    place = (slice(None),) if by_row else ()
    return np.array_equal(grid[(..., later, *place)], grid[(..., earlier, *place)], equal_nan=True)


def _span(grid: Array, phase: int, period: int) -> tuple[int, int]:
    """Most frames back, and ahead or (negative) behind, that the frames of one phase see.

    The end of the signal cuts what frames before it see, so those ahead are counted over all.
    """
    row, column = np.nonzero(grid[phase::period])
    row = row * period + phase
    return int((row - column).max()), int((column - row).max())
