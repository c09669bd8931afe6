"""A step model driven by hand, step by step, in any runtime: what a live stream must agree with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from headrace.artifact.lanes import position_key
from headrace.artifact.ports import Array
from headrace.codegen.stream_plan import Lane, StreamFacts
from headrace.measure.reference import Run

Arrays = dict[str, Array]


@dataclass
class Hand:
    """A signal on its way through `run`, which takes all inputs of the step model and gives all its outputs.

    pairs: state input -> state output. filler: what stands in frames beyond the end, for floats.
    state: all that `Stream.state()` has, under the same names.
    """

    facts: StreamFacts
    run: Run
    pairs: Mapping[str, str]
    state: Arrays
    filler: float = 0.0
    finals: Arrays = field(default_factory=dict)

    @property
    def position(self) -> int:
        return int(self.state[position_key(self.facts)][0])

    def push(self, pieces: Mapping[str, Array]) -> list[Arrays]:
        """All whole steps; the frames of each."""
        for lane in self.facts.inputs:
            self.state[lane.name] = np.concatenate([self.state[lane.name], pieces[lane.name]], lane.axis)
        got = []
        while all(self.state[o.name].shape[o.axis] >= o.frames for o in self.facts.inputs):
            got.append(self._step(self.facts.chunk, None))
        return got

    def flush(self) -> list[Arrays]:
        """The steps until nothing is missing; the frames of each."""
        facts, first = self.facts, self.facts.inputs[0]
        at = self.position
        rest = self.state[first.name].shape[first.axis] * first.rate[1] // first.rate[0]
        got, total = [], at + rest
        lanes = [*facts.outputs, *(lane for group in facts.finals.values() for lane in group)]
        ends = {lane: facts.total(lane, at, rest) for lane in lanes}
        while any(begin(lane, self.position) < end for lane, end in ends.items()) or (
            facts.finals and self.position == 0
        ):
            got.append(self._step(total - self.position, ends))
        return got

    def _step(self, valid: int, ends: Mapping[Lane, int] | None) -> Arrays:
        facts, feeds = self.facts, {}
        for lane in facts.inputs:
            block, self.state[lane.name] = np.split(self.state[lane.name], [lane.frames], lane.axis)
            feeds[lane.name] = _filled(block, lane, self.filler)
        at = self.position
        own = {facts.position: at, facts.valid: valid}
        feeds.update({name: np.array([value], np.int64) for name, value in own.items() if name})
        feeds.update({name: self.state[name] for name in (*facts.states, *facts.side) if name in self.state})
        out = self.run(feeds)
        self.state.update({a: out[b] for a, b in self.pairs.items() if b in out})
        self.finals = {name: out[name] for name in facts.finals}
        self.state[position_key(facts)] = np.array([at + facts.chunk], np.int64)
        given = {}
        for lane in facts.outputs:
            start = begin(lane, at)
            stop = lane.frames if ends is None else min(lane.frames, ends[lane] - start)
            given[lane.name] = np.take(out[lane.name], range(max(0, -start), max(0, -start, stop)), lane.axis)
        return given


def begin(lane: Lane, position: int) -> int:
    """The first frame in the block of the step at `position`."""
    return position * lane.rate[0] // lane.rate[1] - lane.delay


def _filled(block: Array, lane: Lane, filler: float) -> Array:
    shape = list(block.shape)
    shape[lane.axis] = lane.frames - block.shape[lane.axis]
    fill = filler if block.dtype.kind == "f" else 0
    return np.ascontiguousarray(np.concatenate([block, np.full(shape, fill, block.dtype)], lane.axis))
