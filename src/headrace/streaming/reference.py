"""Drive a step model chunk by chunk in onnxruntime: the oracle for compiled streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.errors import StreamFull
from headrace.streaming.model import Passing, StepModel, TimeOutput

Arrays = dict[str, npt.NDArray[Any]]


class ReferenceStream:
    """push, flush and reset as in docs/design/streaming.md; plain and slow.

    filler: what fills the rest of the last chunk; NaN (the default) shows when it leaks.
    """

    def __init__(self, step: StepModel, filler: float = np.nan) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        self.step, self.spec, self.filler = step, step.spec, filler
        self.session = ort.InferenceSession(step.proto.SerializeToString(), options)
        self.names = [v.name for v in self.session.get_outputs()]
        self.reset()

    def reset(self, **given: Any) -> None:
        """Back to before the first frame; given: initial states and side inputs."""
        initial = {k: v for k, v in given.items() if k in self.spec.initial}
        self.side = {k: np.asarray(v) for k, v in given.items() if k not in initial}
        self.state = self.step.initial_state(initial)
        self.steps = 0
        self.pushed = 0
        self.queue: Arrays = {k: np.zeros(self._shape(k, 0), self.step.inputs[k].dtype) for k in self.spec.inputs}
        self.finals: Arrays = {}

    def _shape(self, name: str, frames: int) -> tuple[int, ...]:
        shape = [int(d) for d in self.step.inputs[name].shape]
        shape[self.spec.inputs[name].axis] = frames
        return tuple(shape)

    def push(self, pieces: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """The frames that became ready. StreamFull beyond the model's `max_past`."""
        for name, port in self.spec.inputs.items():
            self.queue[name] = np.concatenate([self.queue[name], pieces[name]], port.axis)
        first = next(iter(self.spec.inputs))
        port = self.spec.inputs[first]
        got: list[Arrays] = []
        while all(self.queue[k].shape[p.axis] >= p.frames for k, p in self.spec.inputs.items()):
            block = {}
            for name, p in self.spec.inputs.items():
                block[name], self.queue[name] = np.split(self.queue[name], [p.frames], p.axis)
            self.pushed += self.spec.chunk
            self._check_room(self.pushed)
            got.append(self._step(block, self.spec.chunk, None))
        del port
        return self._join(got)

    def _check_room(self, frames: int) -> None:
        if self.spec.max_past is not None and frames > self.spec.max_past:
            raise StreamFull(f"the stream has reached its maximum of {self.spec.max_past} frames; reset it")

    def flush(self) -> Arrays:
        """The rest, and the final outputs. ValueError when the signal was too short for the model."""
        name, port = next(iter(self.spec.inputs.items()))
        rest = self.queue[name].shape[port.axis] * port.rate[1] // port.rate[0]
        total = self.pushed + rest
        if total < self.spec.min_length:
            raise ValueError(f"{total} frames are too few: the model needs {self.spec.min_length}")
        if total % self.spec.multiple:
            raise ValueError(f"{total} frames: the length must be a multiple of {self.spec.multiple}")
        self._check_room(total)
        got = []
        while rest > 0 or not self._done(total):
            block = {}
            for key, p in self.spec.inputs.items():
                have = self.queue[key]
                shape = self._shape(key, p.frames - have.shape[p.axis])
                fill = np.full(shape, self.filler if have.dtype.kind == "f" else 0, have.dtype)
                block[key] = np.concatenate([have, fill], p.axis)
                self.queue[key] = have[:0] if p.axis == 0 else np.split(have, [0], p.axis)[0]
            got.append(self._step(block, total - self.steps * self.spec.chunk, total))
            rest = 0
        return {**self._join(got), **self.finals}

    def _done(self, total: int) -> bool:
        spec = self.spec
        ends: list[TimeOutput | Passing] = [*spec.outputs.values()]
        ends += [p for group in spec.finals.values() for p in group]
        return all(self.steps * p.frames - p.delay >= spec.length(p, total) for p in ends) and (
            not spec.finals or self.steps > 0
        )

    def _step(self, block: Arrays, valid: int, total: int | None) -> Arrays:
        spec = self.spec
        feeds: Arrays = {**block, **self.state, **self.side}
        if spec.position:
            feeds[spec.position] = np.array([self.steps * spec.chunk], np.int64)
        if spec.valid:
            feeds[spec.valid] = np.array([valid], np.int64)
        out = dict(zip(self.names, self.session.run(None, feeds), strict=True))
        self.state = {a: out[b] for a, b in spec.state}
        self.finals = {k: out[k] for k in spec.finals}
        ready = {}
        for name, p in spec.outputs.items():
            base = self.steps * p.frames - p.delay
            end = p.frames if total is None else spec.length(p, total) - base
            first, end = max(0, -base), max(0, min(p.frames, end))
            ready[name] = np.take(out[name], range(first, max(first, end)), p.axis)
        self.steps += 1
        return ready

    def _join(self, got: list[Arrays]) -> Arrays:
        outputs = self.step.outputs
        joined = {}
        for name, p in self.spec.outputs.items():
            shape = [int(d) for d in outputs[name].shape]
            shape[p.axis] = 0
            empty = np.zeros(shape, outputs[name].dtype)
            joined[name] = np.concatenate([empty, *(g[name] for g in got)], p.axis)
        return joined
