"""Time inputs and outputs of a program, as a live stream needs them in Python."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headrace.artifact.manifest import Manifest
from headrace.artifact.ports import Shape, numpy_dtype
from headrace.codegen.generated import Port
from headrace.codegen.stream_plan import Lane, StreamFacts, queue_frames


@dataclass(frozen=True)
class TimePort:
    """A time input or output.

    field: its member of the C struct; piece: its port with an open time axis; nbytes: of one step; room:
    frames of an input that can wait in the state; index: place among all inputs or outputs of the program.
    """

    lane: Lane
    name: str
    axis: int
    frames: int
    rate: tuple[int, int]
    delay: int
    room: int
    index: int
    field: str
    dtype: np.dtype[Any]
    piece: Port
    nbytes: int
    before: Shape
    after: Shape

    def shape(self, frames: int) -> Shape:
        """The shape of a piece."""
        return (*self.before, frames, *self.after)

    def emitted(self, position: int, steps: int) -> int:
        """Frames of an output that `steps` steps from `position` on give."""
        p, q = self.rate
        begin = position * p // q - self.delay
        return max(0, begin + steps * self.frames) - max(0, begin)


def in_lanes(facts: StreamFacts, manifest: Manifest) -> list[TimePort]:
    """The time inputs in the order of the facts, which is the order of C."""
    return list(_ports(facts, facts.inputs, manifest.inputs))


def out_lanes(facts: StreamFacts, manifest: Manifest) -> list[TimePort]:
    """The time outputs in the order of the program's outputs."""
    return sorted(_ports(facts, facts.outputs, manifest.outputs), key=lambda out: out.index)


def _ports(facts: StreamFacts, lanes: Iterable[Lane], ports: tuple[Port, ...]) -> Iterable[TimePort]:
    names = [p.name for p in ports]
    for lane in lanes:
        index = names.index(lane.name)
        port = ports[index]
        shape = tuple(e for e in port.shape if isinstance(e, int))
        before, after = shape[: lane.axis], shape[lane.axis + 1 :]
        piece = replace(port, shape=(*before, "frames", *after))
        room = queue_frames(facts, lane) if lane in facts.inputs else 0
        dtype = numpy_dtype(port.dtype)
        yield TimePort(
            lane, lane.name, lane.axis, lane.frames, lane.rate, lane.delay, room, index,
            port.c_field, dtype, piece, port.nbytes, before, after,
        )  # fmt: skip


def position_key(facts: StreamFacts) -> str:
    """Under which name a state has the number of frames in all steps so far."""
    taken = {*facts.states, *facts.side, *facts.finals, *(lane.name for lane in facts.inputs)}
    name = facts.position or "position"
    return name if name not in taken else f"headrace.{name}"
