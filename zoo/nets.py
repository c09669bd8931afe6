"""Networks for measurements, with seeded weights: a MobileNetV2, a Transformer encoder, a matrix product,
and stacks of dilated causal convolutions in offline and in step form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import onnx

from zoo.build import Builder, same_pads

Net = Callable[[Builder], onnx.ModelProto]


def build(name: str, seed: int = 0) -> onnx.ModelProto:
    """The model called `name`; the same seed gives the same bytes."""
    if name not in _BUILDERS:
        raise ValueError(f"no net {name!r}; there are {', '.join(NAMES)}")
    return _BUILDERS[name](Builder(np.random.default_rng(seed)))


def mobilenet_v2(b: Builder) -> onnx.ModelProto:
    """MobileNetV2 at width 1 on 224x224 images (arXiv 1801.04381), batch norms folded; 301 M MAC."""

    def unit(x: str, shape: tuple[int, ...], size: int, stride: int = 1, groups: int = 1) -> str:
        pads = same_pads((size, size), shape[2:], stride)
        x = b.conv(x, shape, stride, pads, groups, bias=True)
        return b.op("Clip", x, b.constant(0.0), b.constant(6.0))

    def block(x: str, channels: int, expand: int, out: int, size: int, stride: int) -> str:
        inner, y = channels * expand, x
        if expand > 1:
            y = unit(y, (inner, channels, 1, 1), size)
        y = unit(y, (inner, 1, 3, 3), size, stride, groups=inner)
        y = b.conv(y, (out, inner, 1, 1), bias=True, gain=1.0)
        return b.op("Add", x, y) if stride == 1 and channels == out else y

    plan = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    x, channels, size = unit("image", (32, 3, 3, 3), 224, stride=2), 32, 112
    for expand, out, repeats, first in plan:
        for stride in (first, *[1] * (repeats - 1)):
            x = block(x, channels, expand, out, size, stride)
            channels, size = out, size // stride
    x = b.op("Flatten", b.op("GlobalAveragePool", unit(x, (1280, channels, 1, 1), size)))
    logits = b.dense(x, 1280, 1000, gain=1.0)
    return b.model("mobilenet_v2", {"image": (1, 3, 224, 224)}, {logits: (1, 1000)})


def transformer(b: Builder, length: int, layers: int = 6, width: int = 384) -> onnx.ModelProto:
    """Transformer encoder: six heads, normalised after each sum, feed-forward of four widths, erf GELU.

    In and out [1, length, width]; 171 M MAC at length 16, 1434 M at 128. Written in the small operators that
    exporters produce: MatMul, Reshape, Transpose, Softmax, LayerNormalization, Erf.
    """
    heads = 6
    depth = width // heads

    def linear(x: str, inputs: int, outputs: int, gain: float = 1.0) -> str:
        bias = b.constant(0.1 * b.rng.standard_normal(outputs))
        return b.op("Add", b.op("MatMul", x, b.normal((inputs, outputs), inputs, gain)), bias)

    def split(x: str, order: tuple[int, ...]) -> str:
        shape = b.constant((1, length, heads, depth), np.int64)
        return b.op("Transpose", b.op("Reshape", x, shape), perm=order)

    def attention(x: str) -> str:
        query, key, value = (linear(x, width, width) for _ in range(3))
        scores = b.op("MatMul", split(query, (0, 2, 1, 3)), split(key, (0, 2, 3, 1)))
        weights = b.op("Softmax", b.op("Mul", scores, b.constant(depth**-0.5)), axis=-1)
        mixed = b.op("Transpose", b.op("MatMul", weights, split(value, (0, 2, 1, 3))), perm=(0, 2, 1, 3))
        return linear(b.op("Reshape", mixed, b.constant((1, length, width), np.int64)), width, width)

    def feed_forward(x: str) -> str:
        y = linear(x, width, 4 * width)
        erf = b.op("Erf", b.op("Mul", y, b.constant(0.5**0.5)))
        y = b.op("Mul", b.op("Mul", y, b.constant(0.5)), b.op("Add", erf, b.constant(1.0)))
        return linear(y, 4 * width, width, gain=2.0)

    def normalised_sum(x: str, y: str) -> str:
        scale = b.constant(b.rng.uniform(0.5, 1.5, width))
        shift = b.constant(0.1 * b.rng.standard_normal(width))
        return b.op("LayerNormalization", b.op("Add", x, y), scale, shift, axis=-1, epsilon=1e-5)

    x = "tokens"
    for _ in range(layers):
        x = normalised_sum(x, attention(x))
        x = normalised_sum(x, feed_forward(x))
    shape = (1, length, width)
    return b.model(f"transformer_{length}", {"tokens": shape}, {x: shape})


def gemm(b: Builder, m: int = 960, k: int = 1024, n: int = 1024) -> onnx.ModelProto:
    """x [m, k] times a constant [k, n]."""
    return b.model("gemm", {"x": (m, k)}, {b.op("MatMul", "x", b.normal((k, n), k, 1.0)): (m, n)})


def causal(b: Builder, channels: int, layers: int, kernel: int, frames: int | str = 100) -> onnx.ModelProto:
    """Dilated causal convolutions (dilation 2**layer) with bias and ReLU, [1, channels, frames]."""
    x = "x"
    for layer in range(layers):
        pads = ((kernel - 1) * 2**layer, 0)
        x = b.conv(x, (channels, channels, kernel), 1, pads, dilation=2**layer, bias=True)
        x = b.op("Relu", x)
    shape = (1, channels, frames)
    return b.model("causal", {"x": shape}, {x: shape})


def causal_step(b: Builder, channels: int, layers: int, kernel: int) -> onnx.ModelProto:
    """The same network one frame at a time: x [1, channels, 1]; input `past_i` is output `next_i` of the run
    before, the last (kernel - 1) * 2**i frames that went into layer i, zeros at first."""
    x = "x"
    inputs: dict[str, Sequence[int]] = {"x": (1, channels, 1)}
    outputs: dict[str, Sequence[int]] = {}
    for layer in range(layers):
        reach = (kernel - 1) * 2**layer
        seen = b.op("Concat", f"past_{layer}", x, axis=2)
        bounds = (b.constant([v], np.int64) for v in (1, reach + 1, 2))
        b.nodes.append(onnx.helper.make_node("Slice", [seen, *bounds], [f"next_{layer}"], f"next_{layer}"))
        inputs[f"past_{layer}"] = outputs[f"next_{layer}"] = (1, channels, reach)
        x = b.op("Relu", b.conv(seen, (channels, channels, kernel), dilation=2**layer, bias=True))
    return b.model("causal_step", inputs, {x: (1, channels, 1), **outputs})


_CAUSAL = {"c16-l4-k3": (16, 4, 3), "c64-l6-k9": (64, 6, 9), "c128-l8-k9": (128, 8, 9)}
_BUILDERS: Mapping[str, Net] = {
    "mobilenet-v2": mobilenet_v2,
    **{f"transformer-{n}": partial(transformer, length=n) for n in (16, 128, 512)},
    "gemm-960x1024x1024": gemm,
    **{
        f"{form}-{size}": partial(maker, channels=c, layers=n, kernel=k)
        for size, (c, n, k) in _CAUSAL.items()
        for form, maker in (("causal", causal), ("causal-step", causal_step))
    },
}
NAMES = tuple(_BUILDERS)
