"""What a driver of streams must know: the facts of a step model about time, and where a stream keeps what.

The facts are the `headrace.stream` metadata of a step model (docs/design/streaming.md, section 3). State
of a stream: the state of the program, then side inputs, queued frames, final outputs and counters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.codegen.generated import Port

VERSION = 1
AHEAD = 4  # chunks by which one time input may be ahead of another

# Error codes of push, flush and set_state; 1 and 2 are those of run.
TOO_SHORT, NO_MULTIPLE, ENDED, AHEAD_ERROR, FULL, UNLIKE, NOT_BEGUN, BAD_STATE = range(3, 11)


@dataclass(frozen=True)
class Lane:
    """A value with time: `frames` per step, which is rate = (p, q) frames per input frame times the chunk.

    Outputs only: delay in frames; length[r] = L(s·chunk + r) - s·frames. A final output has a lane for
    everything that must have passed before it is right; its axis is -1.
    """

    name: str
    axis: int
    rate: tuple[int, int]
    frames: int
    delay: int = 0
    length: tuple[int, ...] = ()


@dataclass(frozen=True)
class StreamFacts:
    """The metadata as a driver reads it. position, valid: names of these inputs, "" where there is none."""

    chunk: int
    min_length: int
    multiple: int
    position: str
    valid: str
    steady: int
    absolute: bool
    max_past: int | None
    states: tuple[str, ...]
    initial: tuple[str, ...]
    side: tuple[str, ...]
    inputs: tuple[Lane, ...]
    outputs: tuple[Lane, ...]
    finals: dict[str, tuple[Lane, ...]]

    @property
    def last_position(self) -> int:
        """From here on the value of `position` makes no difference; a multiple of the chunk."""
        return -(-self.steady // self.chunk) * self.chunk

    @property
    def steady_inputs(self) -> dict[str, list[int]]:
        """What position and valid may be taken for in steps far from both ends; empty where that says nothing."""
        values = {self.position: [self.last_position], self.valid: [self.chunk]}
        return {} if self.absolute else {name: value for name, value in values.items() if name}

    @property
    def unit(self) -> int:
        """Every position is a multiple of this many input frames, whatever the chunk."""
        lanes = (*self.inputs, *self.outputs, *(p for group in self.finals.values() for p in group))
        return math.lcm(1, *(lane.rate[1] for lane in lanes))

    @property
    def flush_steps(self) -> int:
        """The most steps that a flush can take."""
        lanes = (*self.outputs, *(p for group in self.finals.values() for p in group))
        longest = [-(-(max(lane.length) + lane.delay) // lane.frames) for lane in lanes]
        return max([1 if self.finals else 0, *longest])

    def emitted(self, lane: Lane, position: int) -> int:
        """Frames of an output that came out of the steps before `position`."""
        return max(0, position * lane.rate[0] // lane.rate[1] - lane.delay)

    def total(self, lane: Lane, position: int, rest: int) -> int:
        """L(position + rest), for 0 <= rest < chunk."""
        return max(0, position * lane.rate[0] // lane.rate[1] + lane.length[rest])


def parse(data: Mapping[str, Any]) -> StreamFacts:
    """The facts in a JSON object of `headrace.stream`. ValueError where it is none, or of another version."""
    if data.get("version") != VERSION:
        raise ValueError(f"headrace.stream has version {data.get('version')!r}; this is for version {VERSION}")
    try:
        chunk = int(data["chunk"])
        finals = {
            name: tuple(_lane(name, {"axis": -1, "rate": _rate(item, chunk), **item}) for item in group)
            for name, group in data["finals"].items()
        }
        return StreamFacts(
            chunk=chunk,
            min_length=int(data["min_length"]),
            multiple=int(data["multiple"]),
            position=data["position"] or "",
            valid=data["valid"] or "",
            steady=int(data["steady"]),
            absolute=bool(data["absolute"]),
            max_past=data.get("max_past"),
            states=tuple(a for a, _ in data["state"]),
            initial=tuple(data["initial"]),
            side=tuple(data["side"]),
            inputs=tuple(_lane(name, item) for name, item in data["inputs"].items()),
            outputs=tuple(_lane(name, item) for name, item in data["outputs"].items()),
            finals=finals,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"damaged headrace.stream metadata: {error!r}") from error


def _rate(item: Mapping[str, Any], chunk: int) -> list[int]:
    common = math.gcd(int(item["frames"]), chunk)
    return [int(item["frames"]) // common, chunk // common]


def _lane(name: str, item: Mapping[str, Any]) -> Lane:
    p, q = item["rate"]
    return Lane(name, item["axis"], (p, q), item["frames"], item.get("delay", 0), tuple(item.get("length", ())))


@dataclass(frozen=True)
class Piece:
    """Bytes of the portable state. kind: "state", "side", "queue", "final" or "counters".

    A queue is dense with room for shape[axis] frames, of which the counters say how many are there.
    """

    kind: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def queue_frames(facts: StreamFacts, lane: Lane) -> int:
    """Frames of a time input that can wait: all of a chunk but one, and what it may be ahead of the others."""
    return lane.frames - 1 + (AHEAD * lane.frames if len(facts.inputs) > 1 else 0)


def counter_names(facts: StreamFacts) -> tuple[str, ...]:
    """The int64 counters, in order."""
    return ("position", "ended", "begun", *(f"queued {lane.name}" for lane in facts.inputs))


def portable(
    facts: StreamFacts, inputs: Sequence[Port], outputs: Sequence[Port], states: Sequence[Port]
) -> tuple[Piece, ...]:
    """The portable state of a stream, piece after piece."""
    pieces = [Piece("state", p.name, p.dtype, _static(p), p.offset, p.nbytes) for p in states]
    end = max((p.offset + p.nbytes for p in states), default=0)

    def add(kind: str, name: str, dtype: str, shape: tuple[int, ...], nbytes: int) -> None:
        nonlocal end
        pieces.append(Piece(kind, name, dtype, shape, end, nbytes))
        end += nbytes

    ins, outs = {p.name: p for p in inputs}, {p.name: p for p in outputs}
    for name in facts.side:
        if name in ins:
            add("side", name, ins[name].dtype, _static(ins[name]), ins[name].nbytes)
    for lane in facts.inputs:
        port, room = ins[lane.name], queue_frames(facts, lane)
        shape = tuple(room if axis == lane.axis else e for axis, e in enumerate(_static(port)))
        add("queue", lane.name, port.dtype, shape, port.nbytes // lane.frames * room)
    for name in facts.finals:
        add("final", name, outs[name].dtype, _static(outs[name]), outs[name].nbytes)
    count = len(counter_names(facts))
    add("counters", "", "int64", (count,), 8 * count)
    return tuple(pieces)


def portable_bytes(pieces: Sequence[Piece]) -> int:
    return max(p.offset + p.nbytes for p in pieces)


def _static(port: Port) -> tuple[int, ...]:
    return tuple(e for e in port.shape if isinstance(e, int))
