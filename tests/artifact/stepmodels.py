"""Small models over time, and what they compute offline."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import headrace as hr

Arrays = dict[str, Any]
F = TensorProto.FLOAT


@dataclass(frozen=True)
class Offline:
    """A model over a whole signal, and the time axis of each of its time inputs and outputs."""

    proto: onnx.ModelProto
    axes: dict[str, int]
    out_axes: dict[str, int]
    options: Arrays = field(default_factory=dict)
    given: Arrays = field(default_factory=dict)

    def step(self, chunk: int | None = None) -> hr.StepModel:
        return hr.stream(self.proto, self.axes, chunk=chunk, **self.options)

    def signal(self, frames: int, seed: int = 0) -> Arrays:
        rng, model = np.random.default_rng(seed), hr.load(self.proto)
        shapes = {}
        for name, axis in self.axes.items():
            dims = [d if isinstance(d, int) else 1 for d in model.inputs[name].shape]
            shapes[name] = (*dims[:axis], frames, *dims[axis + 1 :])
        return {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()}

    def run(self, signal: Arrays) -> Arrays:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        session = ort.InferenceSession(self.proto.SerializeToString(), options)
        names = [v.name for v in session.get_outputs()]
        return dict(zip(names, session.run(None, {**signal, **self.given}), strict=True))


def model_of(nodes: list[Any], inputs: Arrays, outputs: list[str], weights: Arrays | None = None) -> onnx.ModelProto:
    """A checked model. inputs: name -> shape."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(k, F, s) for k, s in inputs.items()],
        [helper.make_tensor_value_info(k, F, None) for k in outputs],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    made = onnx.shape_inference.infer_shapes(made)
    onnx.checker.check_model(made)
    return made


def weights(seed: int = 1, **shapes: tuple[int, ...]) -> Arrays:
    rng = np.random.default_rng(seed)
    return {k: (0.4 * rng.standard_normal(s)).astype(np.float32) for k, s in shapes.items()}


def causal() -> Offline:
    """One causal convolution, time last: no masks, no delay."""
    conv = helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[2, 0])
    return Offline(model_of([conv], {"x": [1, 2, "T"]}, ["y"], weights(w=(3, 2, 3), b=(3,))), {"x": 2}, {"y": 2})


def same() -> Offline:
    """Two convolutions with padding at both ends: position and valid, a delay of 3."""
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], pads=[2, 2]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "v", "c"], ["y"], pads=[1, 1]),
    ]
    made = weights(w=(4, 2, 5), b=(4,), v=(3, 4, 3), c=(3,))
    return Offline(model_of(nodes, {"x": [1, 2, "T"]}, ["y"], made), {"x": 2}, {"y": 2})


def strided() -> Offline:
    """Stride 2 and a second output at the input's rate."""
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1], strides=[2]),
        helper.make_node("Tanh", ["x"], ["z"]),
    ]
    made = weights(w=(3, 2, 3), b=(3,))
    return Offline(model_of(nodes, {"x": [1, 2, "T"]}, ["y", "z"], made), {"x": 2}, {"y": 2, "z": 2})


def recurrent() -> Offline:
    """A GRU with time outermost, its initial state an input, its last state an output."""
    nodes = [
        helper.make_node("GRU", ["x", "w", "r", "b", "", "h0"], ["ys", "hn"], hidden_size=3),
        helper.make_node("Squeeze", ["ys", "axis"], ["y"]),
    ]
    made = weights(w=(1, 9, 2), r=(1, 9, 3), b=(1, 18)) | {"axis": np.array([1], np.int64)}
    given = {"h0": np.random.default_rng(5).standard_normal((1, 1, 3)).astype(np.float32)}
    proto = model_of(nodes, {"x": ["T", 1, 2], "h0": [1, 1, 3]}, ["y", "hn"], made)
    return Offline(proto, {"x": 0}, {"y": 0}, given=given)


def side() -> Offline:
    """A side input that scales the signal, beside a convolution that looks one frame ahead."""
    nodes = [
        helper.make_node("Mul", ["x", "gain"], ["s"]),
        helper.make_node("Conv", ["s", "w"], ["y"], pads=[1, 1]),
    ]
    made = model_of(nodes, {"x": [1, 2, "T"], "gain": [1, 2, 1]}, ["y"], weights(w=(2, 2, 3)))
    return Offline(made, {"x": 2}, {"y": 2}, given={"gain": np.array([[[0.5], [2.0]]], np.float32)})


def decay() -> Offline:
    """y[t] = tanh(y[t-1] / 2 + x[t]) fades into denormals after the signal."""
    rnn = helper.make_node("RNN", ["x", "w", "r"], ["ys"], hidden_size=1)
    made = {"w": np.ones((1, 1, 1), np.float32), "r": np.full((1, 1, 1), 0.5, np.float32)}
    return Offline(model_of([rnn], {"x": ["T", 1, 1]}, ["ys"], made), {"x": 0}, {"ys": 0})


ALL = {f.__name__: f for f in (causal, same, strided, recurrent, side)}


def two_rates(max_past: int | None = None) -> onnx.ModelProto:
    """A step model made by hand: y = x + z, where z has one frame for two of x; `total` sums x over time."""
    nodes = [
        helper.make_node("Add", ["x", "z"], ["y"]),
        helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=1),
        helper.make_node("Add", ["past", "sum"], ["next"]),
        helper.make_node("Identity", ["next"], ["total"]),
    ]
    proto = model_of(
        nodes,
        {"x": [1, 2, 3], "z": [1, 1, 3], "past": [1, 1, 3]},
        ["y", "total", "next"],
        {"axis": np.array([1], np.int64), "past": np.zeros((1, 1, 3), np.float32)},
    )
    about = {
        "version": 1, "chunk": 2, "min_length": 4, "multiple": 2,
        "position": None, "valid": None, "steady": 0, "absolute": False, "max_past": max_past,
        "state": [["past", "next"]], "initial": [], "side": [],
        "inputs": {"x": {"axis": 1, "rate": [1, 1], "frames": 2}, "z": {"axis": 1, "rate": [1, 2], "frames": 1}},
        "outputs": {"y": {"axis": 1, "rate": [1, 1], "frames": 2, "delay": 0, "length": [0, 0], "ready": [0, 0],
                          "latency": 0, "lookahead": 0, "receptive_field": 1}},
        "finals": {"total": [{"frames": 2, "delay": 0, "length": [0, 0]}]},
    }  # fmt: skip
    proto.metadata_props.add(key="headrace.stream", value=json.dumps(about))
    return proto


def cuts(frames: int, rng: np.random.Generator) -> list[int]:
    """Sizes of pieces, some empty, that add up to `frames`."""
    sizes: list[int] = []
    while sum(sizes) < frames:
        size = int(rng.integers(0, 1 + int(rng.choice([1, 2, 5, 17]))))
        sizes.append(min(size, frames - sum(sizes)))
    return sizes


def cut(signal: Arrays, axes: dict[str, int], sizes: list[int]) -> list[Arrays]:
    """The pieces of a signal."""
    edges = np.cumsum([0, *sizes])
    return [{k: np.take(v, range(a, b), axes[k]) for k, v in signal.items()} for a, b in itertools.pairwise(edges)]


def close(got: Any, want: Any, tolerance: float = 1e-5) -> None:
    """Same dtype, shape and values within rounding."""
    assert got.dtype == want.dtype and got.shape == want.shape, (got.shape, want.shape)
    np.testing.assert_allclose(got, want, atol=tolerance * max(1.0, float(np.abs(want).max(initial=0))), rtol=0)
