"""Random classifiers over a window x [1, 3, n], drawn by hypothesis: convolutions, pools, a head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.streaming.networks import I64, conv, cut
from zoo.build import Builder

CHANNELS = 4
BODY = (
    "valid", "valid", "same", "down", "max", "average", "act", "norm", "skip", "slice", "rows",
    "place", "softmax", "cumsum", "both ways", "up",
)  # fmt: skip
HEADS = ("mean", "global", "dense", "last", "frames", "two")


@dataclass(frozen=True)
class Classifier:
    """proto: the model for windows of `frames` frames; text: its layers."""

    proto: onnx.ModelProto
    frames: int
    text: str


@st.composite
def classifiers(draw: Any) -> Classifier:
    """A model in which every layer has something left to work on."""
    frames = draw(st.integers(6, 24))
    b = Builder(np.random.default_rng(draw(st.integers(0, 999))))
    x, left = conv(b, "x", (3, CHANNELS), 1), frames
    kinds = draw(st.lists(st.sampled_from(BODY), max_size=5))
    for kind in kinds:
        x, left = _layer(draw, b, kind, x, left)
    head = draw(st.sampled_from(HEADS))
    outputs = _head(b, head, x, left)
    time = frames if draw(st.booleans()) else "T"
    graph = helper.make_graph(
        b.nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, time])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * rank) for n, rank in outputs],
        b.weights,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return Classifier(proto, frames, f"{frames} frames: {kinds}, {head}")


def _layer(draw: Any, b: Builder, kind: str, x: str, left: int) -> tuple[str, int]:
    """One layer after x, which has `left` frames; (result, its frames)."""
    both = (CHANNELS, CHANNELS)
    kernel, dilation = draw(st.integers(1, min(3, left))), 1
    if kind == "valid":
        dilation = draw(st.integers(1, 2)) if (kernel - 1) * 2 < left else 1
        return conv(b, x, both, kernel, dilation=dilation), left - (kernel - 1) * dilation
    if kind == "same":
        return conv(b, x, both, 3, (1, 1)), left
    if kind == "down" and left > kernel:
        return conv(b, x, both, kernel, stride=2), (left - kernel) // 2 + 1
    if kind == "max" and left > kernel:
        return b.op("MaxPool", x, kernel_shape=[kernel], strides=[2]), (left - kernel) // 2 + 1
    if kind == "average":
        return b.op("AveragePool", x, kernel_shape=[3], pads=[1, 1]), left
    if kind == "norm":
        names = [b.constant(0.5 + b.rng.random(CHANNELS)) for _ in range(4)]
        return b.op("BatchNormalization", x, *names), left
    if kind == "skip" and left > 2:
        return b.op("Add", conv(b, x, both, 3), cut(b, x, 1, left - 1)), left - 2
    if kind == "slice" and left > 2:
        return cut(b, x, 1, 2**62), left - 1
    if kind == "rows":
        rows = b.op("Reshape", b.op("Transpose", x, perm=[0, 2, 1]), b.constant([-1, CHANNELS], I64))
        rows = b.op("MatMul", rows, b.normal((CHANNELS, CHANNELS), CHANNELS))
        back = b.op("Reshape", rows, b.constant([1, -1, CHANNELS], I64))
        return b.op("Transpose", back, perm=[0, 2, 1]), left
    if kind == "place":
        return b.op("Add", x, b.constant(b.rng.standard_normal((1, 1, left)))), left
    if kind == "softmax":
        return b.op("Softmax", x, axis=2), left
    if kind == "cumsum":
        return b.op("CumSum", x, b.constant(2, I64)), left
    if kind == "both ways":
        return _both_ways(b, x), left
    if kind == "up":
        weight = b.normal((CHANNELS, CHANNELS, 2), 2 * CHANNELS)
        return b.op("ConvTranspose", x, weight, strides=[2]), 2 * left
    return b.op("Tanh", x), left


def _both_ways(b: Builder, x: str) -> str:
    """A bidirectional GRU over time."""
    hidden = CHANNELS // 2
    weights = [b.normal((2, 3 * hidden, size), size) for size in (CHANNELS, hidden)]
    y = b.op("GRU", b.op("Transpose", x, perm=[2, 0, 1]), *weights, hidden_size=hidden, direction="bidirectional")
    flat = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.constant([0, 0, -1], I64))
    return b.op("Transpose", flat, perm=[1, 2, 0])


def _head(b: Builder, kind: str, x: str, left: int) -> list[tuple[str, int]]:
    """(name, rank) of the outputs."""
    if kind == "frames":
        return [(b.op("Sigmoid", x), 3)]
    if kind == "last":
        return [(b.op("Gather", x, b.constant(-1, I64), axis=2), 2)]
    if kind == "dense":
        flat = b.op("Flatten", x, axis=1)
        return [(b.op("Gemm", flat, b.normal((left * CHANNELS, 2), left * CHANNELS), b.constant([0.1, 0.2])), 2)]
    if kind == "global":
        mean = b.op("Squeeze", b.op("GlobalAveragePool", x), b.constant([2], I64))
    else:
        mean = b.op("ReduceMean", x, b.constant([2], I64), keepdims=0)
    y = b.op("Softmax", b.op("MatMul", mean, b.normal((CHANNELS, 3), CHANNELS)), axis=1)
    return [(y, 2), (x, 3)] if kind == "two" else [(y, 2)]
