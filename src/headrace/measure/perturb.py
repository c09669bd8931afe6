"""Which output frames change with one input frame: the receptive field as it is, beside what is stated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.artifact.ports import Array
from headrace.codegen.stream_plan import Lane, StreamFacts

PLACES = 8
CHANGED = 1e-6  # of the largest element


def perturbed(
    facts: StreamFacts,
    told: Mapping[str, Any],
    signal: Mapping[str, Array],
    run: Callable[[dict[str, Array]], dict[str, Array]],
    seed: int,
) -> tuple[str, str]:
    """Change one frame at a time of the offline model's input; (what is wrong or "", what was seen)."""
    rng, base = np.random.default_rng(seed), run(dict(signal))
    reaches = {out.name: Reach(out, facts.chunk) for out in facts.outputs}
    for lane in facts.inputs:
        count = signal[lane.name].shape[lane.axis]
        for t in rng.integers(count // 4, max(count // 4 + 1, 3 * count // 4), PLACES).tolist():
            other = run({**signal, lane.name: _changed(signal[lane.name], lane.axis, t, rng)})
            first, last = t * lane.rate[1] // lane.rate[0], ((t + 1) * lane.rate[1] - 1) // lane.rate[0]
            for out in facts.outputs:
                for frame in _differing(base[out.name], other[out.name], out.axis):
                    reaches[out.name].add(frame, first, last)
                fault = reaches[out.name].fault(told[out.name])
                if fault:
                    return f"changing frame {t} of {lane.name!r}: {fault}", ""
    seen: dict[str, list[str]] = {}
    for name, reach in reaches.items():
        seen.setdefault(reach.seen(told[name]), []).append(name)
    return "", "; ".join(f"{', '.join(names)}: {text}" for text, names in seen.items())


@dataclass
class Reach:
    """Which input frames one output has been seen to depend on.

    Output frame o + frames depends on input frame t + chunk as o does on t. So t·frames − o·chunk stands for
    all such pairs, and its extremes, for each place in a step, say how far apart the input frames of one
    output frame lie, though only one input frame is changed at a time.
    """

    out: Lane
    chunk: int
    ahead: int | None = None  # input frames beyond the output frame's own time
    newest: dict[int, int] = field(default_factory=dict)
    oldest: dict[int, int] = field(default_factory=dict)

    def add(self, frame: int, first: int, last: int) -> None:
        """Output frame `frame` depends on an input frame that stands for input frames first to last."""
        place, m = frame % self.out.frames, self.out.frames
        newest, oldest = first * m - frame * self.chunk, last * m - frame * self.chunk
        self.newest[place] = max(self.newest.get(place, newest), newest)
        self.oldest[place] = min(self.oldest.get(place, oldest), oldest)
        ahead = first - own(self.out, frame)
        self.ahead = ahead if self.ahead is None else max(self.ahead, ahead)

    @property
    def field(self) -> int:
        """Input frames from the oldest to the newest that one output frame depends on; 0 where nothing was seen."""
        spans = [(self.newest[place] - self.oldest[place]) // self.out.frames + 1 for place in self.newest]
        return max([0, *spans])

    def fault(self, told: Mapping[str, Any]) -> str:
        """What contradicts the stated look-ahead or receptive field."""
        lookahead, stated = told["lookahead"], told["receptive_field"]
        if self.ahead is not None and self.ahead > lookahead:
            return f"a frame of {self.out.name!r} changes {self.ahead} input frames before, {lookahead} are stated"
        if stated is not None and self.field > stated:
            return f"frames of {self.out.name!r} depend on {self.field} input frames, the receptive field is {stated}"
        return ""

    def seen(self, told: Mapping[str, Any]) -> str:
        if self.ahead is None:
            return "no frame changed anything"
        stated = "unbounded" if told["receptive_field"] is None else told["receptive_field"]
        look = f"look-ahead {max(0, self.ahead)} seen, {told['lookahead']} stated"
        return f"{look}, field {self.field} seen, {stated} stated"


def own(out: Lane, frame: int) -> int:
    """The input frame at the end of an output frame's own time."""
    p, q = out.rate
    return -(-(frame + 1) * q // p) - 1


def _changed(array: Array, axis: int, frame: int, rng: np.random.Generator) -> Array:
    """The array with one frame replaced."""
    copy = array.copy()
    place = (slice(None),) * axis + (frame,)
    old = copy[place]
    if array.dtype.kind == "f":
        copy[place] = (old + 1 + rng.random(old.shape)).astype(array.dtype)
    elif array.dtype.kind == "b":
        copy[place] = ~old
    else:
        copy[place] = np.where(old == old.max(initial=0), old.min(initial=0), old.max(initial=0))
    return copy


def _differing(a: Array, b: Array, axis: int) -> list[int]:
    """Frames in which two outputs differ."""
    if a.dtype.kind in "biu":
        unlike = a != b
    else:
        limit = CHANGED * float(np.abs(a[np.isfinite(a)]).max(initial=0))
        unlike = ~((np.abs(a - b) <= limit) | (a == b) | (np.isnan(a) & np.isnan(b)))
    other = tuple(i for i in range(a.ndim) if i != axis)
    return np.flatnonzero(unlike.any(axis=other)).tolist()
