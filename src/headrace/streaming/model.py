"""A step model: ONNX with explicit state, and what its metadata says about time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from headrace.errors import InvalidModel
from headrace.graph.model import Model

STREAM = "headrace.stream"
VERSION = 1


@dataclass(frozen=True)
class Port:
    """A time input or output: axis, rate = (p, q) frames per input frame, frames per step."""

    axis: int
    rate: tuple[int, int]
    frames: int


@dataclass(frozen=True)
class TimeOutput(Port):
    """delay, length and ready as in docs/design/streaming.md; the others as users see them."""

    delay: int
    length: tuple[int, ...]
    ready: tuple[int, ...]
    latency: int
    lookahead: int
    receptive_field: int | None


@dataclass(frozen=True)
class Passing:
    """Frames that must have passed before a final output is right."""

    frames: int
    delay: int
    length: tuple[int, ...]


@dataclass(frozen=True)
class LayerWork:
    """One layer with products. alone: MAC of one window by itself; shared: MAC per window in the stream.

    why: what keeps windows from sharing it; empty where they do.
    """

    name: str
    op: str
    alone: int
    shared: int
    why: str


@dataclass(frozen=True)
class WindowSpec:
    """The step model gives what the offline model gives on windows of `frames` frames, `hop` frames apart."""

    frames: int
    hop: int
    work: tuple[LayerWork, ...]

    @property
    def alone(self) -> int:
        """MAC per window, one window after the other."""
        return sum(layer.alone for layer in self.work)

    @property
    def shared(self) -> int:
        """MAC per window as a stream."""
        return sum(layer.shared for layer in self.work)

    def __str__(self) -> str:
        """For people, without the layers."""
        saved = 100 * (1 - self.shared / self.alone) if self.alone else 0
        return (
            f"windows of {self.frames} frames, every {self.hop}: {self.shared:,} MAC per window, "
            f"{self.alone:,} window by window ({saved:.0f} % saved)"
        )


@dataclass(frozen=True)
class BoundLength:
    """An input of the offline model that holds the length of a time input; the step model has no such input."""

    input: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class StreamSpec:
    """The JSON object under `headrace.stream`."""

    chunk: int
    min_length: int
    multiple: int
    position: str | None
    valid: str | None
    steady: int
    absolute: bool
    max_past: int | None
    state: tuple[tuple[str, str], ...]
    initial: tuple[str, ...]
    side: tuple[str, ...]
    inputs: dict[str, Port]
    outputs: dict[str, TimeOutput]
    finals: dict[str, tuple[Passing, ...]]
    window: WindowSpec | None = None
    align: bool = False
    lengths: dict[str, BoundLength] = field(default_factory=dict)

    def dump(self) -> str:
        """As JSON."""
        return json.dumps({"version": VERSION, **_plain(self)})

    def length(self, port: TimeOutput | Passing, frames: int) -> int:
        """L(T) of an output."""
        steps, rest = divmod(frames, self.chunk)
        return steps * port.frames + port.length[rest]


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {k: _plain(getattr(value, k)) for k in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value


def read_spec(model: Model) -> StreamSpec:
    """The spec in a model's metadata. InvalidModel when there is none, or one of a newer kind."""
    text = model.metadata.get(STREAM)
    if text is None:
        raise InvalidModel("not a step model: it has no headrace.stream metadata; make one with hr.stream()")
    try:
        data = json.loads(text)
        version = data.pop("version")
        if version != VERSION:
            raise InvalidModel(f"a step model of version {version}; this is for version {VERSION}")
        return _parse(data)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidModel(f"damaged headrace.stream metadata: {error!r}") from error


def _parse(data: dict[str, Any]) -> StreamSpec:
    def port(item: dict[str, Any]) -> dict[str, Any]:
        return {k: tuple(v) if isinstance(v, list) else v for k, v in item.items()}

    return StreamSpec(
        **{
            **data,
            "state": tuple((a, b) for a, b in data["state"]),
            "initial": tuple(data["initial"]),
            "side": tuple(data["side"]),
            "inputs": {k: Port(**port(v)) for k, v in data["inputs"].items()},
            "outputs": {k: TimeOutput(**port(v)) for k, v in data["outputs"].items()},
            "finals": {k: tuple(Passing(**port(p)) for p in v) for k, v in data["finals"].items()},
            "window": _window(data.get("window")),
            "lengths": {k: BoundLength(**port(v)) for k, v in data.get("lengths", {}).items()},
        }
    )


def _window(data: dict[str, Any] | None) -> WindowSpec | None:
    if data is None:
        return None
    return WindowSpec(data["frames"], data["hop"], tuple(LayerWork(**layer) for layer in data["work"]))


@dataclass(frozen=True)
class StepModel(Model):
    """A model for one chunk of a signal. By output name: ratio, latency, lookahead, receptive_field.

    latency is in frames of the output, lookahead and receptive_field in input frames.
    """

    @cached_property
    def spec(self) -> StreamSpec:
        """All metadata about time."""
        return read_spec(self)

    @property
    def chunk(self) -> int:
        """Input frames per step."""
        return self.spec.chunk

    @property
    def window(self) -> WindowSpec | None:
        """Of a step model made with window=: its windows and the work that they share; else None."""
        return self.spec.window

    @property
    def ratio(self) -> dict[str, float]:
        """Output frames per input frame."""
        return {k: v.rate[0] / v.rate[1] for k, v in self.spec.outputs.items()}

    @property
    def latency(self) -> dict[str, int]:
        """Largest shortfall floor(n·ratio) - ready(n), in output frames."""
        return {k: v.latency for k, v in self.spec.outputs.items()}

    @property
    def lookahead(self) -> dict[str, int]:
        """Input frames that an output reaches beyond its own time."""
        return {k: v.lookahead for k, v in self.spec.outputs.items()}

    @property
    def receptive_field(self) -> dict[str, int | None]:
        """Input frames that one output frame depends on; None where the past is unbounded."""
        return {k: v.receptive_field for k, v in self.spec.outputs.items()}

    def ready(self, output: str, frames: int) -> int:
        """Frames of an output that the first `frames` input frames determine."""
        if output not in self.spec.outputs:
            raise ValueError(f"no time output {output!r}; there are {', '.join(self.spec.outputs)}")
        port = self.spec.outputs[output]
        steps, rest = divmod(frames, self.chunk)
        return max(0, steps * port.frames + port.ready[rest])

    def length(self, output: str, frames: int) -> int:
        """Frames of an output for a whole signal of `frames` input frames."""
        return self.spec.length(self.spec.outputs[output], frames)

    def initial_state(self, given: Mapping[str, Any] | None = None) -> dict[str, np.ndarray[Any, Any]]:
        """State before the first frame, by input name; `given` replaces those in `spec.initial`."""
        values = self.ir.graph.initializers
        state = {}
        for name, _ in self.spec.state:
            tensor = values[name].const_value
            assert tensor is not None
            state[name] = np.array(tensor.numpy())
        for name, array in (given or {}).items():
            if name not in self.spec.initial:
                raise ValueError(f"{name!r} is no initial state; there are {', '.join(self.spec.initial) or 'none'}")
            want = state[name]
            if np.shape(array) != want.shape:
                raise ValueError(f"initial state {name!r} has shape {np.shape(array)}, expected {want.shape}")
            state[name] = np.asarray(array, want.dtype)
        return state


def step_model(model: Model) -> StepModel:
    """A loaded model as the step model that its metadata says it is."""
    step = StepModel(model.ir, model.source, model.digest, model.external)
    _ = step.spec
    return step
