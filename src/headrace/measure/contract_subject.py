"""What the streaming contract is tried on, and when an output counts as right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.artifact.ports import Array, numpy_dtype
from headrace.artifact.program import Program
from headrace.codegen.stream_plan import StreamFacts, parse
from headrace.errors import Error, InvalidModel
from headrace.graph.model import Model
from headrace.measure.compare import compare
from headrace.measure.double import open_double
from headrace.measure.reference import Run, open_reference
from headrace.measure.setup import random_array
from headrace.passes.prepare import prepare

Arrays = dict[str, Array]
Again = Callable[[int, Mapping[str, tuple[int | str, ...]]], Program]
Whole = Callable[[Mapping[str, tuple[int, ...]]], Program]
BOUND = 2.0  # times the offline model's own error against float64
SLACK = 1e-6  # of scale


class Untested(Exception):
    """A clause that says nothing about this model, or cannot be tried here."""


class Broken(Exception):
    """A clause does not hold; the message says how."""


@dataclass
class Worst:
    """The largest error so far, as a share of what is allowed."""

    share: float = 0.0
    text: str = "bit for bit"


@dataclass
class Subject:
    """A step program, its step model, and the offline model it must agree with.

    again(chunk, shapes): the same offline model streamed and compiled with another chunk or other extents.
    whole(shapes): the offline model compiled for a whole signal.
    """

    program: Program
    step: Model
    offline: Model
    constants: Mapping[str, Any]
    seed: int
    again: Again | None
    whole: Whole | None
    facts: StreamFacts = field(init=False)
    told: dict[str, Any] = field(init=False)
    notes: list[str] = field(default_factory=list)
    worst: Worst = field(default_factory=Worst)

    def __post_init__(self) -> None:
        data = self.program.info.manifest["facts"].get("stream")
        if data is None:
            raise InvalidModel("not a step program: compile what hr.stream() returns")
        self.facts, self.told = parse(data), data
        self._offline = open_reference("onnxruntime", self.offline.proto)
        rng = np.random.default_rng(self.seed)
        names = [n for n in (*self.facts.side, *self.facts.initial) if n in self.offline.inputs]
        specs = {**self.program.inputs, **self.program.states}
        own = {n: specs[n] for n in names if n in specs}
        self.given = {n: random_array(s.dtype, static_shape(s.shape), rng, 1.0) for n, s in own.items()}
        self._wanted: dict[int, tuple[Arrays, Arrays, Arrays | None]] = {}
        self._compiled: dict[int, Arrays] = {}

    def signal(self, frames: int, seed: int = 0) -> Arrays:
        """Random time inputs of so many input frames."""
        rng = np.random.default_rng((self.seed, frames, seed))
        made = {}
        for lane in self.facts.inputs:
            spec = self.program.inputs[lane.name]
            shape = list(static_shape(spec.shape))
            shape[lane.axis] = frames * lane.rate[0] // lane.rate[1]
            made[lane.name] = random_array(spec.dtype, tuple(shape), rng, 1.0)
        return made

    def offline_run(self, signal: Arrays) -> Arrays:
        """What the offline model makes of a signal in onnxruntime; of each of its windows, for a model of windows."""
        known = {**self.offline.inputs, **self.offline.defaults}
        fixed = {n: np.asarray(v, numpy_dtype(known[n].dtype)) for n, v in self.constants.items() if n in known}
        for name, value in fixed.items():
            if value.ndim == 0 and len(known[name].shape) == 1:
                fixed[name] = value.reshape(1)
        return self._repeated(lambda feeds: self._offline({**feeds, **fixed}), signal)

    def _windows(self, signal: Arrays) -> list[Arrays]:
        """The windows that the step model answers for, or the whole signal."""
        window = self.told.get("window")
        if window is None:
            return [signal]
        axes = {lane.name: lane.axis for lane in self.facts.inputs}
        total = min(signal[name].shape[axis] for name, axis in axes.items())
        starts = range(0, total - window["frames"] + 1, window["hop"])
        return [
            {n: np.take(signal[n], range(k, k + window["frames"]), axis) for n, axis in axes.items()} for k in starts
        ]

    def _repeated(self, run: Run, signal: Arrays) -> Arrays:
        """run on the signal; or on each of its windows, results stacked on a new first axis."""
        results = [run(self._fed(piece)) for piece in self._windows(signal)]
        if self.told.get("window") is None:
            return results[0]
        return {name: np.stack([result[name] for result in results]) for name in results[0]}

    def wanted(self, frames: int) -> tuple[Arrays, Arrays, Arrays | None]:
        """A signal, the offline answer, and the same in float64 where that can be had."""
        if frames not in self._wanted:
            signal = self.signal(frames)
            self._wanted[frames] = (signal, self.offline_run(signal), self._exact(signal))
        return self._wanted[frames]

    def _offline_compiled(self, want: Arrays) -> Arrays:
        """The answer of the offline program compiled here, for the signal whose answer in onnxruntime is `want`."""
        frames = next(n for n, known in self._wanted.items() if known[1] is want)
        if frames not in self._compiled:
            self._compiled[frames] = want
            signal = self._wanted[frames][0]
            if self.whole is not None:
                program = self.whole(self._shapes(signal))
                self._compiled[frames] = self._repeated(
                    lambda feeds: program.run({n: feeds[n] for n in program.inputs}), signal
                )
        return self._compiled[frames]

    def _exact(self, signal: Arrays) -> Arrays | None:
        import onnx_ir as ir

        try:
            prepared = prepare(
                self.offline,
                shapes=self._shapes(signal),
                constants=self.constants,
                native=lambda domain, op, version: True,
                algebra=False,
            )
            return self._repeated(open_double(ir.to_proto(prepared.model)), signal)
        except (Error, ValueError) as error:
            note = f"no float64 evaluation, floats are compared with onnxruntime instead: {error}"
            if note not in self.notes:
                self.notes.append(note)
            return None

    def _shapes(self, signal: Arrays) -> dict[str, tuple[int, ...]]:
        """Extents of the offline model's inputs for one run."""
        return {n: a.shape for n, a in self._fed(self._windows(signal)[0]).items()}

    def _fed(self, signal: Arrays) -> Arrays:
        """A signal, side inputs, initial states, and the inputs that hold its length."""
        axes, lengths = {lane.name: lane.axis for lane in self.facts.inputs}, {}
        for name, bound in self.told.get("lengths", {}).items():
            frames = signal[bound["input"]].shape[axes[bound["input"]]]
            lengths[name] = np.full(bound["shape"], frames, numpy_dtype(self.offline.inputs[name].dtype))
        return {**signal, **self.given, **lengths}

    def pairs(self) -> dict[str, str]:
        return dict(self.told["state"])

    def judge(self, got: Arrays, want: Arrays, exact: Arrays | None, what: str) -> None:
        """Raise Broken unless every output is within the bound."""
        for name, value in got.items():
            near = None if exact is None else exact[name]
            share, text = _judged(value, want[name], near)
            if 1 < share < np.inf and near is not None:
                share, text = min((share, text), _judged(value, self._offline_compiled(want)[name], near))
            if share > 1:
                raise Broken(f"{what}: output {name!r}: {text}")
            if share > self.worst.share:
                self.worst = Worst(share, text)


def _judged(got: Array, want: Array, exact: Array | None) -> tuple[float, str]:
    """The error as a share of what is allowed, and in words. Above 1: wrong."""
    if got.dtype.kind not in "fV" or exact is None:
        difference = compare(got, want)
        if difference.tolerance == 0:
            return (0.0 if difference.ok else np.inf), difference.describe()
        share = np.inf if difference.fault else difference.relative / difference.tolerance
        return share, difference.describe()
    if got.shape != want.shape:
        return np.inf, f"shape {list(got.shape)}, expected {list(want.shape)}"
    if not got.size:
        return 0.0, "bit for bit"
    wide, near = got.astype(np.float64), np.asarray(exact, np.float64)
    if not np.array_equal(np.isfinite(wide), np.isfinite(want)):
        return np.inf, "it is not finite where the offline model is"
    finite = np.isfinite(wide)
    mine, theirs = (np.abs(np.where(finite, a - near, 0.0)).max() for a in (wide, want.astype(np.float64)))
    scale = np.abs(np.where(finite, near, 0.0)).max()
    allowed = BOUND * theirs + SLACK * scale
    share = 0.0 if mine == 0 else np.inf if allowed == 0 else mine / allowed
    return float(share), f"error {mine:.1e} against float64, {theirs:.1e} offline, {allowed:.1e} allowed"


def static_shape(shape: tuple[int | str, ...]) -> tuple[int, ...]:
    return tuple(d for d in shape if isinstance(d, int))
