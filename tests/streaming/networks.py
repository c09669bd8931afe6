"""Small networks over x [1, 3, T], as ONNX, for the streaming tests."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from zoo.build import Builder

I64 = np.int64
END = 2**62


def build(make, outputs=1, rank=3) -> onnx.ModelProto:
    """A model from a function of a Builder that returns the name(s) of its outputs."""
    b = Builder(np.random.default_rng(1))
    names = make(b)
    names = [names] if isinstance(names, str) else list(names)
    graph = helper.make_graph(
        b.nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "T"])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * rank) for n in names],
        b.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model


def conv(b, x, channels, kernel, pads=(0, 0), **options):
    """channels: (in, out)."""
    groups = options.get("groups", 1)
    return b.conv(x, (channels[1], channels[0] // groups, kernel), pads=pads, bias=True, **options)


def up(b, x, channels, kernel, stride, pads=(0, 0), extra=0):
    weight = b.normal((*channels, kernel), kernel * channels[0])
    return b.op(
        "ConvTranspose",
        x,
        weight,
        b.constant(0.1 * b.rng.standard_normal(channels[1])),
        strides=[stride],
        pads=list(pads),
        output_padding=[extra],
    )


def pad(b, x, left, right, mode="constant"):
    return b.op("Pad", x, b.constant([0, 0, left, 0, 0, right], I64), mode=mode)


def cut(b, x, first, end, step=1):
    return b.op("Slice", x, *(b.constant([v], I64) for v in (first, end, 2, step)))


def same_stack(b):
    """Three "same" convolutions with biases and sigmoids: padding behind delayed layers."""
    x = "x"
    for channels, kernel in (((3, 4), 3), ((4, 4), 5), ((4, 2), 3)):
        x = b.op("Sigmoid", conv(b, x, channels, kernel, (kernel // 2, kernel // 2)))
    return x


def mobile(b):
    """MobileNet style: depthwise and pointwise "same" convolutions."""
    x = conv(b, "x", (3, 8), 3, (1, 1))
    for dilation in (1, 2, 4):
        y = b.op("Relu", conv(b, x, (8, 8), 5, (2 * dilation,) * 2, groups=8, dilation=dilation))
        x = b.op("Add", x, conv(b, y, (8, 8), 1))
    return x


def unet(b):
    """Two levels with skips by addition and by concatenation."""
    top = b.op("Relu", conv(b, "x", (3, 4), 3, (1, 1)))
    middle = b.op("Relu", conv(b, top, (4, 6), 4, (1, 1), stride=2))
    low = b.op("Relu", conv(b, middle, (6, 6), 4, (1, 1), stride=2))
    x = b.op("Add", up(b, low, (6, 6), 4, 2, (1, 1)), middle)
    x = b.op("Concat", up(b, x, (6, 4), 4, 2, (1, 1)), top, axis=1)
    return conv(b, x, (8, 2), 3, (1, 1))


def recurrent(kind, delayed, final):
    """make() for a recurrence, behind a delayed layer or not, with its last states as outputs or not."""

    def make(b):
        x = conv(b, "x", (3, 3), 3, (1, 1)) if delayed else "x"
        gates = {"GRU": 3, "LSTM": 4, "RNN": 1}[kind]
        outputs = ["all", "h", "c"][: 3 if kind == "LSTM" else 2]
        inputs = [
            b.op("Transpose", x, perm=[2, 0, 1]),
            b.normal((1, 4 * gates, 3), 3),
            b.normal((1, 4 * gates, 4), 4),
            b.constant(b.rng.standard_normal((1, 8 * gates))),
        ]
        extra = {"linear_before_reset": 1} if kind == "GRU" else {}
        b.nodes.append(helper.make_node(kind, inputs, outputs, hidden_size=4, **extra))
        y = b.op("Squeeze", "all", b.constant([1], I64))
        return [y, *outputs[1:]] if final else [y]

    return make


def length(b, x, axis):
    return b.op("Gather", b.op("Shape", x), b.constant(axis, I64), axis=0)


def rotate(b, x, numbers):
    """Rotary positions on [1, H, T, 4]."""
    angle = b.op("Mul", b.op("Unsqueeze", b.op("Cast", numbers, to=1), b.constant([1], I64)), b.constant([[1.0, 0.1]]))
    angle = b.op("Concat", angle, angle, axis=1)
    first, second = (b.op("Slice", x, *(b.constant([v], I64) for v in (k, k + 2, 3))) for k in (0, 2))
    turned = b.op("Concat", b.op("Neg", second), first, axis=3)
    return b.op("Add", b.op("Mul", x, b.op("Cos", angle)), b.op("Mul", turned, b.op("Sin", angle)))


def attention(b, mask, x="x", rotary=False, heads=2, width=4):
    """Self-attention of [1, 3, T] under a mask by name or as a function of (b, scores, numbers, T)."""
    x = b.op("Transpose", x, perm=[0, 2, 1])
    total = length(b, x, 1)

    def split():
        y = b.op("MatMul", x, b.normal((3, heads * width), 3))
        y = b.op("Reshape", y, b.constant([1, -1, heads, width], I64))
        return b.op("Transpose", y, perm=[0, 2, 1, 3])

    q, k, v = split(), split(), split()
    numbers = b.op("Range", b.constant(0, I64), total, b.constant(1, I64))
    if rotary:
        q, k = rotate(b, q, numbers), rotate(b, k, numbers)
    scores = b.op("Mul", b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2])), b.constant(0.5))
    scores = (MASKS[mask] if isinstance(mask, str) else mask)(b, scores, numbers, total)
    y = b.op("MatMul", b.op("Softmax", scores, axis=-1), v)
    y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.constant([1, -1, heads * width], I64))
    return b.op("Transpose", b.op("MatMul", y, b.normal((heads * width, 3), 8)), perm=[0, 2, 1])


def _distance(b, numbers):
    rows, columns = (b.op("Unsqueeze", numbers, b.constant([k], I64)) for k in (1, 0))
    return b.op("Sub", rows, columns)


def _range_less_where(b, scores, numbers, total):
    return b.op("Where", b.op("GreaterOrEqual", _distance(b, numbers), b.constant(0, I64)), scores, b.constant(-np.inf))


def _trilu(b, scores, numbers, total):
    one = b.op("Unsqueeze", total, b.constant([0], I64))
    fill = numpy_helper.from_array(np.array([-np.inf], np.float32))
    hidden = b.op("ConstantOfShape", b.op("Concat", one, one, axis=0), value=fill)
    return b.op("Add", scores, b.op("Trilu", hidden, b.constant(1, I64), upper=1))


def _window(past, future):
    def mask(b, scores, numbers, total):
        distance = _distance(b, numbers)
        near = b.op(
            "And",
            b.op("LessOrEqual", distance, b.constant(past, I64)),
            b.op("GreaterOrEqual", distance, b.constant(-future, I64)),
        )
        return b.op("Where", near, scores, b.constant(-1e9))

    return mask


def _alibi(b, scores, numbers, total):
    slope = b.constant(np.array([[[0.5]], [[0.25]]]))
    scores = b.op("Sub", scores, b.op("Mul", b.op("Cast", _distance(b, numbers), to=1), slope))
    return _range_less_where(b, scores, numbers, total)


MASKS = {
    "range_less_where": _range_less_where, "trilu": _trilu, "window": _window(3, 0),
    "look-ahead": _window(3, 2), "alibi": _alibi, "none": lambda b, scores, *_: scores,
}  # fmt: skip


def conformer(b):
    """Half a Conformer block: windowed attention, then a depthwise convolution module, with skips."""
    x = conv(b, "x", (3, 3), 3, (1, 1))
    x = b.op("Add", x, attention(b, "look-ahead", x))
    y = conv(b, x, (3, 6), 1)
    gate = b.op("Sigmoid", b.op("Slice", y, *(b.constant([v], I64) for v in (3, 6, 1))))
    y = b.op("Mul", b.op("Slice", y, *(b.constant([v], I64) for v in (0, 3, 1))), gate)
    y = conv(b, y, (3, 3), 7, (3, 3), groups=3)
    y = b.op("Mul", y, b.op("Sigmoid", y))
    return b.op("Add", x, conv(b, y, (3, 3), 1))


def centred_stft(b):
    """[1, frames, 9, 2] of the first channel, reflected at both ends."""
    x = b.op("Slice", "x", *(b.constant([v], I64) for v in (0, 1, 1)))
    x = b.op("Squeeze", x, b.constant([1], I64))
    x = b.op("Pad", x, b.constant([0, 8, 0, 8], I64), mode="reflect")
    x = b.op("Unsqueeze", x, b.constant([2], I64))
    window = b.constant(np.hanning(17)[:16])
    return b.op("STFT", x, b.constant(4, I64), window, b.constant(16, I64))


def enhancer(b):
    """Centred STFT, a mask from a causal convolution, overlap-add back to samples."""
    spectrum = b.op("Transpose", centred_stft(b), perm=[0, 2, 3, 1])
    spectrum = b.op("Reshape", spectrum, b.constant([1, 18, -1], I64))
    spectrum = b.op("Mul", spectrum, b.op("Sigmoid", conv(b, spectrum, (18, 18), 3, (2, 0))))
    y = b.op("ConvTranspose", spectrum, b.normal((18, 1, 16), 18), strides=[4])
    return cut(b, y, 8, -8)
