"""A live stream: a signal goes in piece by piece, frames come out as soon as they are determined."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from headrace.artifact.bridge import BUSY, Call, StreamCall
from headrace.artifact.code import Code, Function
from headrace.artifact.instance import STAGED_BYTES, block_of, struct_of
from headrace.artifact.lanes import TimePort, in_lanes, out_lanes, position_key
from headrace.artifact.manifest import Manifest
from headrace.artifact.ports import Array, address, check_names, check_overlap, conform, conform_in_place, numpy_dtype
from headrace.codegen.generated import Port
from headrace.codegen.stream_plan import ENDED, FULL, counter_names, portable, portable_bytes
from headrace.errors import StreamFull

EMPTY = np.zeros(64, np.uint8)
NOTHING = address(EMPTY)  # of arrays without elements


class Stream:
    """One signal on its way through a program; made by `Program.stream()`.

    Time stays on the axis that it has in the model. One thread at a time may use a stream; a second one
    gets a RuntimeError. Streams of one program are independent of each other, in any number of threads.
    """

    def __init__(self, code: Code, manifest: Manifest, given: Mapping[str, object] | None = None) -> None:
        facts = manifest.stream
        if facts is None:
            raise ValueError(
                f"{manifest.name} is not a step model: compile what hr.stream() returns, "
                "or a program with state= and axes="
            )
        self._code, self._manifest, self._facts = code, manifest, facts
        self._dtypes = {p.name: numpy_dtype(p.dtype) for p in (*manifest.inputs, *manifest.states)}
        self._ins, self._outs = in_lanes(facts, manifest), out_lanes(facts, manifest)
        self._names = {lane.name for lane in self._ins}
        self._room = tuple(lane.room for lane in self._ins)
        self._finals = [p for p in manifest.outputs if p.name in facts.finals]
        self._side_ports = [p for p in manifest.inputs if p.name in facts.side]
        self._warm = max((-(-o.delay * facts.chunk // o.frames) for o in self._outs), default=0)
        self._state, self._scratch = (
            block_of(size, manifest.align) for size in (manifest.state_bytes, manifest.scratch_bytes)
        )
        self._blocks = (address(self._state), address(self._scratch))
        self._busy = ctypes.c_int(0)
        self._using = threading.Lock()
        self._input_struct = struct_of(manifest.inputs, (), code.threads())
        self._output_struct = struct_of(manifest.outputs)
        self._inputs, self._outputs = self._input_struct(), self._output_struct()
        self._counts = (ctypes.c_size_t * len(self._ins))()
        self._n_out = (ctypes.c_size_t * max(1, len(manifest.outputs)))()
        self._call = self._argument(self._inputs, self._outputs, self._counts)
        self._by_reference = ctypes.byref(self._call)
        self._stage()
        self._given: dict[str, Array] = {}
        self._pending: dict[str, Array] = {}  # frames of a restored state that are more than a step
        self._position, self._queued, self._ended = 0, [0] * len(self._ins), False
        self._is_steady = False
        self._seen: list[tuple[int, ...]] = [()] * len(self._ins)
        self._start(given or {})

    def push(self, pieces: Mapping[str, object]) -> dict[str, Array]:
        """Take a piece of every time input, and return the frames of every time output that became ready.

        Pieces may have any number of frames, also none; with several time inputs one may be ahead of
        another, up to a bound. Raises ValueError, which says what is wrong and what was expected,
        or StreamFull; then nothing was taken.
        """
        if not self._using.acquire(False):
            raise RuntimeError("this stream is in use by another thread; give every thread its own")
        try:
            if self._is_steady and self._staged_run is not None:
                results = self._push_staged(pieces)
                if results is not None:
                    return results
            return self._push(pieces)
        finally:
            self._using.release()

    def flush(self) -> dict[str, Array]:
        """End the signal: the frames that were still to come, and the outputs without time.

        The stream must be reset then. Raises ValueError when the signal is shorter than the model needs,
        no multiple of what it demands, or not equally long on every input; it can be pushed on then.
        """
        with self._exclusive():
            before = self._push({n: a[:0] for n, a in self._pending.items()}) if self._pending else {}
            rest = self._flush()
        if not before:
            return rest
        axes = {lane.name: lane.axis for lane in self._outs}
        return {n: np.concatenate([before[n], a], axes[n]) if n in axes else a for n, a in rest.items()}

    def reset(self, given: Mapping[str, object] | None = None) -> None:
        """Back to before the first frame. given: new side inputs and initial states; None keeps the old ones."""
        with self._exclusive():
            self._start(self._given if given is None else given)

    def state(self) -> dict[str, Array]:
        """A copy of everything the stream remembers, by the names of the step model.

        Its states in order, side inputs, the frames that wait under the names of the time inputs, final
        outputs so far, and the frames in all steps so far (int64 [1]) under the name of the position.
        """
        if self._ended:
            raise ValueError("the stream has ended, nothing can follow; reset() it")
        with self._exclusive():
            found = {}
            for kind, name, value in self._read():
                if kind == "side":
                    value = self._given[name]
                elif kind == "queue":
                    value = self._pending.get(name, value)
                found[self._key(kind, name)] = value.copy()
        found[position_key(self._facts)] = np.array([self._position], np.int64)
        return found

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from what `state()` returned: here, in another process, or under another compile of the same step
        model, also with another chunk where the shapes of its states are the same. Raises ValueError."""
        with self._exclusive():
            self._restore(state)

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Callable[[], tuple[int, ...]]:
        """A function that pushes what is in these very arrays, without copies or checks.

        Each input has a whole number of steps, the same for all; each output has room for the frames of
        as many steps. The function returns the number of frames that came out of each output: less than
        there is room for in the first calls of a model with a delay, where they lie dense in the array.
        Raises ValueError or TypeError here, ValueError or StreamFull in a call.
        """
        check_names(inputs, [lane.piece for lane in self._ins], "time input")
        check_names(outputs, [lane.piece for lane in self._outs], "time output")
        given = {o.name: conform_in_place(inputs[o.name], o.piece, o.dtype, "input", False) for o in self._ins}
        steps = {lane.name: given[lane.name].shape[lane.axis] / lane.frames for lane in self._ins}
        count = next(iter(steps.values()))
        if any(s != count or s != int(s) or s < 1 for s in steps.values()):
            wanted = ", ".join(f"{lane.name!r}: {lane.frames}" for lane in self._ins)
            raise ValueError(f"inputs must hold the same number of whole steps; frames per step: {wanted}")
        taken = {}
        for out in self._outs:
            port = replace(out.piece, shape=out.shape(int(count) * out.frames))
            taken[out.name] = conform_in_place(outputs[out.name], port, out.dtype, "output", True)
        check_overlap(given, taken)
        return self._bound(given, taken, int(count))

    @property
    def chunk(self) -> int:
        """Input frames per step."""
        return self._facts.chunk

    @property
    def frames(self) -> int:
        """Frames that every time input has brought since the reset, in frames of the input clock."""
        lane, queued = self._ins[0], self._queued[0]
        if self._pending:
            queued = self._pending[lane.name].shape[lane.axis]
        return self._position + queued * lane.rate[1] // lane.rate[0]

    # inside

    def _exclusive(self) -> _Held:
        if not self._using.acquire(False):
            raise RuntimeError("this stream is in use by another thread; give every thread its own")
        return _Held(self._using)

    def _argument(self, inputs: Any, outputs: Any, counts: Any) -> StreamCall:
        call = StreamCall(
            Call(*self._blocks, self._code.weights, ctypes.addressof(inputs), ctypes.addressof(outputs),
                 ctypes.addressof(self._busy)),
            ctypes.addressof(counts), ctypes.addressof(self._n_out),
        )  # fmt: skip
        call.keep = (inputs, outputs, counts)
        return call

    def _stage(self) -> None:
        """Fixed memory for a push of exactly one step, where arrays are small."""
        ports: list[TimePort] = [*self._ins, *self._outs]
        self._staged_run: Any = None
        if sum(lane.nbytes for lane in ports) > STAGED_BYTES:
            return
        inputs, outputs = self._input_struct(), self._output_struct()
        given = [np.zeros(lane.shape(lane.frames), lane.dtype) for lane in self._ins]
        taken = [np.zeros(lane.shape(lane.frames), lane.dtype) for lane in self._outs]
        for lane, array in zip(ports, (*given, *taken), strict=True):
            setattr(inputs if lane in self._ins else outputs, lane.field, address(array))
        counts = (ctypes.c_size_t * len(self._ins))(*(lane.frames for lane in self._ins))
        self._staged_in = [(lane.name, lane.dtype, a.shape, a) for lane, a in zip(self._ins, given, strict=True)]
        self._staged_out = [(lane.name, a) for lane, a in zip(self._outs, taken, strict=True)]
        self._staged_run = ctypes.byref(self._argument(inputs, outputs, counts))
        self._staged_inputs = inputs

    def _push_staged(self, pieces: Mapping[str, object]) -> dict[str, Array] | None:
        """One whole step of the steady state; None where it is something else."""
        if len(pieces) != len(self._staged_in):
            return None
        for name, dtype, shape, stage in self._staged_in:
            array: Any = pieces.get(name)
            if type(array) is not np.ndarray or array.dtype != dtype or array.shape != shape:
                return None
            stage[...] = array
        code = self._code.push(self._staged_run)
        if code:
            raise self._failure(code)
        self._position += self._facts.chunk
        return {name: stage.copy() for name, stage in self._staged_out}

    def _push(self, pieces: Mapping[str, object]) -> dict[str, Array]:
        if self._ended:
            raise self._failure(ENDED)
        if pieces.keys() != self._names:
            self._check_pieces(pieces)
        arrays = [self._piece(i, pieces[lane.name]) for i, lane in enumerate(self._ins)]
        if self._pending:
            arrays = [
                np.ascontiguousarray(np.concatenate([self._pending[lane.name], array], lane.axis))
                for lane, array in zip(self._ins, arrays, strict=True)
            ]
        have = [q + a.shape[lane.axis] for q, a, lane in zip(self._queued, arrays, self._ins, strict=True)]
        steps = min(h // lane.frames for h, lane in zip(have, self._ins, strict=True))
        left = [h - steps * lane.frames for h, lane in zip(have, self._ins, strict=True)]
        if len(left) > 1:
            self._check_ahead(left)
        results = {}
        for out in self._outs:
            count = out.emitted(self._position, steps)
            results[out.name] = array = np.empty(out.shape(count), out.dtype)
            setattr(self._outputs, out.field, address(array) if array.size else NOTHING)
        for i, (lane, array) in enumerate(zip(self._ins, arrays, strict=True)):
            self._counts[i] = array.shape[lane.axis]
            setattr(self._inputs, lane.field, address(array) if array.size else NOTHING)
        code = self._code.push(self._by_reference)
        if code:
            raise self._failure(code)
        self._pending = {}
        self._position += steps * self._facts.chunk
        self._queued = left
        self._settle()
        return results

    def _piece(self, i: int, value: Any) -> Array:
        """A piece as native code can read it; one like the piece before is not checked again."""
        lane = self._ins[i]
        if type(value) is np.ndarray and value.dtype == lane.dtype and value.shape == self._seen[i]:
            flags = value.flags
            if flags.c_contiguous and flags.aligned:
                return value
        array = conform(value, lane.piece, lane.dtype, "input")
        self._seen[i] = array.shape
        return array

    def _settle(self) -> None:
        """Whether a push of one step gives all frames of one step from now on."""
        waits = bool(self._pending) or any(self._queued)
        self._is_steady = self._position >= self._warm and not waits and not self._ended

    def _check_pieces(self, pieces: Mapping[str, object]) -> None:
        for name in pieces:
            if name in self._facts.side or name in self._facts.initial:
                raise ValueError(
                    f"{name!r} is no time input: it is constant from reset to reset; give it to stream() or reset()"
                )
        check_names(pieces, [lane.piece for lane in self._ins], "time input")

    def _check_ahead(self, left: list[int]) -> None:
        for count, lane in zip(left, self._ins, strict=True):
            if count > lane.room:
                raise ValueError(
                    f"input {lane.name!r} is {count} frames ahead of the others, {lane.room} can wait; "
                    "push frames of the others first"
                )

    def _flush(self) -> dict[str, Array]:
        facts = self._facts
        if self._ended:
            raise self._failure(ENDED)
        rests = {q * lane.rate[1] / lane.rate[0] for q, lane in zip(self._queued, self._ins, strict=True)}
        if len(rests) > 1 or next(iter(rests)) % 1:
            waiting = ", ".join(f"{o.name!r}: {q}" for q, o in zip(self._queued, self._ins, strict=True))
            raise ValueError(f"the inputs do not end at the same time; frames that still wait: {waiting}")
        rest = int(rests.pop())
        total = self._position + rest
        if total < facts.min_length:
            raise ValueError(f"the signal has {total} frames; the model needs at least {facts.min_length}")
        if total % facts.multiple:
            raise ValueError(f"the signal has {total} frames; the model needs a multiple of {facts.multiple}")
        results = {}
        for port in self._manifest.outputs:
            lane = next((lane for lane in self._outs if lane.name == port.name), None)
            shape = tuple(e for e in port.shape if isinstance(e, int))
            if lane is not None:
                count = facts.total(lane.lane, self._position, rest) - facts.emitted(lane.lane, self._position)
                shape = lane.shape(count)
            results[port.name] = array = np.empty(shape, numpy_dtype(port.dtype))
            setattr(self._outputs, port.c_field, address(array) if array.size else NOTHING)
        code = self._code.flush(self._by_reference)
        if code:
            raise self._failure(code)
        self._ended = True
        self._settle()
        return results

    def _start(self, given: Mapping[str, object]) -> None:
        """The initial state, with side inputs and initial states as given."""
        facts, states = self._facts, {p.name: p for p in self._manifest.states}
        sides = {p.name: p for p in self._side_ports}
        wanted = {**sides, **{name: states[name] for name in facts.initial if name in states}}
        for name in given:
            if name not in wanted:
                raise ValueError(
                    f"{name!r} is neither a side input nor an initial state; "
                    f"there are {', '.join(map(repr, wanted)) or 'none'}"
                )
        for name in sides:
            if name not in given:
                raise ValueError(f"missing side input {name!r}: stream({{{name!r}: array}})")
        arrays = {n: np.array(conform(v, wanted[n], self._dtypes[n], "input"), order="C") for n, v in given.items()}
        self._invoke(self._code.init)
        self._position, self._queued, self._ended = 0, [0] * len(self._ins), False
        self._pending = {}
        self._sides(arrays)
        if any(name in states for name in arrays):
            self._write({("state", n): a for n, a in arrays.items() if n in states}, begun=0)
        self._settle()

    def _sides(self, given: dict[str, Array]) -> None:
        self._given = given
        for port in self._side_ports:
            for inputs in (self._inputs, *([self._staged_inputs] if self._staged_run is not None else [])):
                setattr(inputs, port.c_field, address(given[port.name]))

    def _invoke(self, function: Function, inputs_at: int = 0, outputs_at: int = 0) -> None:
        busy = ctypes.addressof(self._busy)
        call = Call(*self._blocks, self._code.weights, inputs_at, outputs_at, busy)
        code = function(ctypes.byref(call))
        if code:
            raise self._failure(code)

    def _block(self) -> tuple[Array, list[tuple[str, str, Array]]]:
        """The portable state now, and its pieces as views: (kind, name, array)."""
        manifest = self._manifest
        pieces = portable(self._facts, manifest.inputs, manifest.outputs, manifest.states)
        block = np.zeros(portable_bytes(pieces), np.uint8)
        self._invoke(self._code.get_state, outputs_at=address(block))
        views = []
        for piece in pieces:
            part = block[piece.offset : piece.offset + piece.nbytes]
            views.append((piece.kind, piece.name, part.view(numpy_dtype(piece.dtype)).reshape(piece.shape)))
        return block, views

    def _read(self) -> list[tuple[str, str, Array]]:
        """States, side inputs, frames that wait, and final outputs."""
        found = []
        for kind, name, value in self._block()[1]:
            if kind == "queue":
                i = next(i for i, lane in enumerate(self._ins) if lane.name == name)
                value = np.take(value, range(self._queued[i]), self._ins[i].axis)
            if kind != "counters":
                found.append((kind, name, value))
        return found

    def _write(self, values: Mapping[tuple[str, str], Array], begun: int = 1) -> None:
        """Replace pieces of the state; frames that wait may be fewer than there is room for."""
        block, views = self._block()
        for kind, name, view in views:
            if kind == "counters":
                counts = dict.fromkeys(counter_names(self._facts), 0)
                counts.update(position=self._position, begun=begun)
                counts.update({f"queued {o.name}": q for o, q in zip(self._ins, self._queued, strict=True)})
                view[...] = list(counts.values())
            elif (kind, name) in values:
                value = values[kind, name]
                view[tuple(slice(0, e) for e in value.shape)] = value
        self._invoke(self._code.set_state, inputs_at=address(block))

    def _key(self, kind: str, name: str) -> str:
        """Under which name `state()` has a piece."""
        taken = kind == "final" and (name in self._names or name in self._dtypes)
        return f"{name}.final" if taken else name

    def _restore(self, state: Mapping[str, object]) -> None:
        facts, values = self._facts, {}
        ports: dict[str, tuple[str, Port]] = {}
        for kind, side in (("state", self._manifest.states), ("side", self._side_ports)):
            ports.update({p.name: (kind, p) for p in side})
        ports.update({lane.name: ("queue", lane.piece) for lane in self._ins})
        ports.update({self._key("final", p.name): ("final", p) for p in self._finals})
        clock = position_key(facts)
        check_names(state, [*(p for _, p in ports.values()), Port(clock, "int64", (1,), "")], "state")
        for key, (kind, port) in ports.items():
            values[kind, port.name] = conform(state[key], port, numpy_dtype(port.dtype), "state")
        (position,) = conform(state[clock], Port(clock, "int64", (1,), ""), np.dtype(np.int64), "state").tolist()
        if position < 0 or position % facts.unit:
            raise ValueError(f"state {clock!r} is {position}; expected 0 or more, a multiple of {facts.unit}")
        queues = {lane.name: values["queue", lane.name] for lane in self._ins}
        queued = [queues[lane.name].shape[lane.axis] for lane in self._ins]
        fits = all(q <= room for q, room in zip(queued, self._room, strict=True))
        self._invoke(self._code.init)
        self._position, self._ended = position, False
        self._queued = queued if fits else [0] * len(queued)
        self._pending = {} if fits else {name: queue.copy() for name, queue in queues.items()}
        self._sides({**self._given, **{p.name: values["side", p.name].copy() for p in self._side_ports}})
        self._write({key: v for key, v in values.items() if fits or key[0] != "queue"})
        self._settle()

    def _bound(self, given: dict[str, Array], taken: dict[str, Array], steps: int) -> Callable[[], tuple[int, ...]]:
        inputs, outputs = self._input_struct(), self._output_struct()
        for port in self._side_ports:
            setattr(inputs, port.c_field, address(self._given[port.name]))
        for lanes, struct, arrays in ((self._ins, inputs, given), (self._outs, outputs, taken)):
            for lane in lanes:
                setattr(struct, lane.field, address(arrays[lane.name]))
        counts = (ctypes.c_size_t * len(self._ins))(*(steps * lane.frames for lane in self._ins))
        argument = ctypes.byref(self._argument(inputs, outputs, counts))
        owners = (self, given, taken)  # referred to by bound(), so they live as long as it does
        push, advance, places = self._code.push, steps * self._facts.chunk, [lane.index for lane in self._outs]

        full = tuple([steps * lane.frames for lane in self._outs])

        def bound() -> tuple[int, ...]:
            stream = owners[0]
            if stream._pending:
                raise ValueError("a restored state has more waiting frames than a step; push() once first")
            code = push(argument)
            if code:
                raise stream._failure(code)
            stream._position += advance
            if stream._is_steady:
                return full
            stream._settle()
            return tuple([stream._n_out[place] for place in places])

        return bound

    def _failure(self, code: int) -> Exception:
        if code == BUSY:
            return RuntimeError("this stream is in use by another thread; give every thread its own")
        if code == ENDED:
            return ValueError("the stream has ended; reset() it before the next push or flush")
        if code == FULL:
            most = self._facts.max_past
            return StreamFull(f"the stream is full after {most} frames; reset() it, or stream with max_past=")
        self._ended, self._is_steady = True, False
        return self._code.failure(code)


class _Held:
    """Gives a lock back at the end of a with block; much cheaper than a generator."""

    __slots__ = ("lock",)

    def __init__(self, lock: threading.Lock) -> None:
        self.lock = lock

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self.lock.release()
