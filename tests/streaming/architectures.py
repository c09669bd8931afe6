"""Architectures people train, over x [1, channels, T], as exporters write them; small widths, real structure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper

from zoo.build import Builder

I64 = np.int64
END = 2**62


@dataclass(frozen=True)
class Architecture:
    """make(b) returns the output; options are those of hr.stream.

    longest: frames of the longest test signal; gain: of the positive weights in tests of latency.
    """

    make: Callable[[Builder], str]
    channels: int
    rank: int = 3
    options: dict[str, object] = field(default_factory=dict)
    longest: int = 96
    gain: float = 1.0

    def model(self) -> onnx.ModelProto:
        """The same weights every time."""
        b = Builder(np.random.default_rng(7))
        name = self.make(b)
        graph = helper.make_graph(
            b.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, self.channels, "T"])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * self.rank)],
            b.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model)
        return model


def _slice(b: Builder, x: str, first: int, end: int, axis: int) -> str:
    return b.op("Slice", x, *(b.constant([v], I64) for v in (first, end, axis)))


def _transposed(b: Builder, x: str) -> str:
    return b.op("Transpose", x, perm=[0, 2, 1])


def _linear(b: Builder, x: str, inputs: int, outputs: int) -> str:
    """[1, T, inputs] → [1, T, outputs]."""
    weight = b.normal((inputs, outputs), inputs, 1.0)
    return b.op("Add", b.op("MatMul", x, weight), b.constant(0.1 * b.rng.standard_normal(outputs)))


def _layer_norm(b: Builder, x: str, width: int) -> str:
    scale, shift = b.constant(b.rng.uniform(0.5, 1.5, width)), b.constant(0.1 * b.rng.standard_normal(width))
    return b.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-5)


def _silu(b: Builder, x: str) -> str:
    return b.op("Mul", x, b.op("Sigmoid", x))


def _relu6(b: Builder, x: str) -> str:
    return b.op("Clip", x, b.constant(0.0), b.constant(6.0))


def mobilenet(b: Builder) -> str:
    """MobileNetV2 in one dimension: inverted residuals of "same" convolutions, batch norms, ReLU6."""
    width = 8
    x = _relu6(b, b.batch_norm(b.conv("x", (width, 6, 5), pads=(2, 2), bias=True), width))
    for kernel, dilation in ((3, 1), (5, 1), (3, 2), (4, 1), (7, 1)):
        inner, reach = 3 * width, (kernel - 1) * dilation
        y = _relu6(b, b.batch_norm(b.conv(x, (inner, width, 1)), inner))
        pads = (reach // 2, reach - reach // 2)  # TensorFlow puts the odd one at the end
        y = _relu6(b, b.batch_norm(b.conv(y, (inner, 1, kernel), pads=pads, groups=inner, dilation=dilation), inner))
        x = b.op("Add", x, b.batch_norm(b.conv(y, (width, inner, 1)), width))
    return b.conv(x, (4, width, 1), bias=True)


def unet(b: Builder) -> str:
    """Wave-U-Net style: three levels down by strides, up by transposed convolutions, skips by concatenation."""
    x = b.op("LeakyRelu", b.conv("x", (6, 2, 5), pads=(2, 2), bias=True), alpha=0.1)
    widths: tuple[int, ...] = (6, 8, 10, 12)
    skips: list[tuple[str, int]] = []
    for wide, wider in pairwise(widths):
        skips.append((x, wide))
        x = b.op("LeakyRelu", b.conv(x, (wider, wide, 4), stride=2, pads=(1, 1), bias=True), alpha=0.1)
        x = b.op("Add", x, b.op("Tanh", b.conv(x, (wider, wider, 3), pads=(1, 1), bias=True)))
    for (skip, wide), wider in zip(reversed(skips), reversed(widths), strict=False):
        weight, bias = b.normal((wider, wide, 4), 2 * wider), b.constant(0.1 * b.rng.standard_normal(wide))
        x = b.op("LeakyRelu", b.op("ConvTranspose", x, weight, bias, strides=[2], pads=[1, 1]), alpha=0.1)
        x = b.op("Relu", b.conv(b.op("Concat", x, skip, axis=1), (wide, 2 * wide, 3), pads=(1, 1), bias=True))
    return b.op("Tanh", b.conv(x, (2, 6, 1), bias=True))


def _frame_numbers(b: Builder, x: str) -> str:
    """0 … T - 1 for [1, T, width]."""
    total = b.op("Gather", b.op("Shape", x), b.constant(1, I64), axis=0)
    return b.op("Range", b.constant(0, I64), total, b.constant(1, I64))


def _rotated(b: Builder, x: str, numbers: str, width: int) -> str:
    """Rotary positions on [1, heads, T, width] (RoFormer, arXiv 2104.09864), halves as Llama has them."""
    rates = b.constant(100.0 ** (-np.arange(width // 2) / (width // 2)))
    times = b.op("Unsqueeze", b.op("Cast", numbers, to=TensorProto.FLOAT), b.constant([1], I64))
    angle = b.op("Mul", times, rates)
    angle = b.op("Concat", angle, angle, axis=1)
    first, second = _slice(b, x, 0, width // 2, 3), _slice(b, x, width // 2, width, 3)
    turned = b.op("Concat", b.op("Neg", second), first, axis=3)
    return b.op("Add", b.op("Mul", x, b.op("Cos", angle)), b.op("Mul", turned, b.op("Sin", angle)))


def _attention(b: Builder, x: str, width: int, past: int | None, future: int, rotary: bool, heads: int = 2) -> str:
    """Self-attention of [1, T, width]; frame t sees t - past … t + future."""
    size, numbers = width // heads, _frame_numbers(b, x)

    def split() -> str:
        y = b.op("Reshape", _linear(b, x, width, width), b.constant([1, -1, heads, size], I64))
        return b.op("Transpose", y, perm=[0, 2, 1, 3])

    q, k, v = split(), split(), split()
    if rotary:
        q, k = _rotated(b, q, numbers, size), _rotated(b, k, numbers, size)
    scores = b.op("Mul", b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2])), b.constant(size**-0.5))
    rows, columns = (b.op("Unsqueeze", numbers, b.constant([a], I64)) for a in (1, 0))
    distance = b.op("Sub", rows, columns)
    seen = b.op("GreaterOrEqual", distance, b.constant(-future, I64))
    if past is not None:
        seen = b.op("And", seen, b.op("LessOrEqual", distance, b.constant(past, I64)))
    scores = b.op("Where", seen, scores, b.constant(-np.inf if past is None else -1e9))
    y = b.op("Transpose", b.op("MatMul", b.op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    return _linear(b, b.op("Reshape", y, b.constant([1, -1, width], I64)), width, width)


def conformer(b: Builder) -> str:
    """One Conformer block (arXiv 2005.08100) with attention to 6 frames before and 2 after."""
    width = 8
    x = _linear(b, _transposed(b, "x"), 6, width)
    x = b.op("Add", x, b.op("Mul", _feed_forward(b, x, width), b.constant(0.5)))
    x = b.op("Add", x, _attention(b, _layer_norm(b, x, width), width, 6, 2, rotary=False))
    y = _transposed(b, _layer_norm(b, x, width))
    y = b.conv(y, (2 * width, width, 1), bias=True)
    y = b.op("Mul", _slice(b, y, 0, width, 1), b.op("Sigmoid", _slice(b, y, width, 2 * width, 1)))
    y = _silu(b, b.batch_norm(b.conv(y, (width, 1, 9), pads=(4, 4), groups=width, bias=True), width))
    x = b.op("Add", x, _transposed(b, b.conv(y, (width, width, 1), bias=True)))
    x = b.op("Add", x, b.op("Mul", _feed_forward(b, x, width), b.constant(0.5)))
    return _transposed(b, _layer_norm(b, x, width))


def _feed_forward(b: Builder, x: str, width: int) -> str:
    y = _silu(b, _linear(b, _layer_norm(b, x, width), width, 4 * width))
    return _linear(b, y, 4 * width, width)


def transformer(b: Builder) -> str:
    """Two layers of a causal Transformer with rotary positions, pre-norm, GELU."""
    width = 8
    x = _linear(b, _transposed(b, "x"), 6, width)
    for _ in range(2):
        x = b.op("Add", x, _attention(b, _layer_norm(b, x, width), width, None, 0, rotary=True))
        y = b.op("Gelu", _linear(b, _layer_norm(b, x, width), width, 2 * width))
        x = b.op("Add", x, _linear(b, y, 2 * width, width))
    return _transposed(b, _linear(b, _layer_norm(b, x, width), width, 4))


SIZE, HOP = 16, 8


def enhancer(b: Builder) -> str:
    """Centred STFT of a mono signal, a mask from a causal network, inverse STFT with its window sum."""
    window = np.hanning(SIZE + 1)[:SIZE]
    x = b.op("Squeeze", "x", b.constant([1], I64))
    x = b.op("Pad", x, b.constant([0, SIZE // 2, 0, SIZE // 2], I64), mode="reflect")
    x = b.op("Unsqueeze", x, b.constant([2], I64))
    spectrum = b.op("STFT", x, b.constant(HOP, I64), b.constant(window), b.constant(SIZE, I64))
    bins = SIZE // 2 + 1
    real, imaginary = (b.op("Squeeze", _slice(b, spectrum, k, k + 1, 3), b.constant([3], I64)) for k in (0, 1))
    power = b.op("Add", b.op("Mul", real, real), b.op("Mul", imaginary, imaginary))
    y = _transposed(b, b.op("Log", b.op("Add", power, b.constant(1e-3))))
    y = b.op("Relu", b.conv(y, (12, bins, 3), pads=(2, 0), bias=True))
    mask = b.op("Sigmoid", b.conv(y, (bins, 12, 3), pads=(2, 0), bias=True))
    return _inverse_stft(b, [b.op("Mul", _transposed(b, part), mask) for part in (real, imaginary)], mask, window)


def _inverse_stft(b: Builder, parts: list[str], like: str, window: np.ndarray) -> str:
    """Overlap-add of windowed inverse transforms over the sum of squared windows, without the padding."""
    bins, n, k = SIZE // 2 + 1, np.arange(SIZE), np.arange(SIZE // 2 + 1)
    weight = np.where((k == 0) | (k == SIZE // 2), 1, 2)[:, None] / SIZE
    angle = 2 * np.pi * k[:, None] * n / SIZE
    basis = [weight * np.cos(angle) * window, -weight * np.sin(angle) * window]
    spectrum = b.op("Concat", *parts, axis=1)
    y = b.op("ConvTranspose", spectrum, b.constant(np.concatenate(basis).reshape(2 * bins, 1, SIZE)), strides=[HOP])
    frames = b.op("Gather", b.op("Shape", like), b.constant([2], I64), axis=0)
    ones = b.op("Expand", b.constant(np.ones((1, 1, 1))), b.op("Concat", b.constant([1, 1], I64), frames, axis=0))
    envelope = b.op("ConvTranspose", ones, b.constant((window**2).reshape(1, 1, SIZE)), strides=[HOP])
    return _slice(b, b.op("Div", y, b.op("Max", envelope, b.constant(1e-8))), SIZE // 2, -SIZE // 2, 2)


ARCHITECTURES = {
    "mobilenet": Architecture(mobilenet, 6),
    "unet": Architecture(unet, 2, options={"multiple": {"x": 8}}, longest=128, gain=3.0),
    "conformer": Architecture(conformer, 6),
    "transformer": Architecture(transformer, 6, options={"max_past": 64}, longest=64),
    "enhancer": Architecture(enhancer, 1, longest=160),
}
