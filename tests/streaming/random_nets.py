"""Random 1-D networks with skips, drawn by hypothesis; each is an ONNX model over x [1, C, T]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

LAYERS = (
    "conv", "conv", "conv", "down", "up", "max", "average", "act", "norm", "gru", "lstm", "cumsum", "pad",
    "cut", "skip", "skip", "linear", "conv2d", "resize", "lp",
    "prefix", "repeat", "split", "table", "attend", "scan",
)  # fmt: skip


@dataclass
class Net:
    """Grows layer by layer. Values are [1, channels, time]; strides: what T must divide by for skips."""

    draw: object
    rng: np.random.Generator
    nodes: list
    weights: list
    values: list  # (name, channels, history of length-changing layers)

    def op(self, kind, *inputs, outputs=1, **attributes):
        names = [f"v{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=f"{kind}{len(self.nodes)}", **attributes))
        return names[0]

    def const(self, array, dtype=np.float32):
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def normal(self, *shape):
        return self.const(self.rng.standard_normal(shape) / np.sqrt(max(1, int(np.prod(shape[1:])))))

    def pick(self, low, high):
        return self.draw(st.integers(low, high))


def _conv(net, x, channels):
    kernel, dilation = net.pick(1, 5), net.pick(1, 3)
    reach = (kernel - 1) * dilation
    kind = net.draw(st.sampled_from(["same", "causal", "valid", "ahead", "any"]))
    left, right = {
        "same": (reach // 2, reach - reach // 2), "causal": (reach, 0), "valid": (0, 0), "ahead": (0, reach),
        "any": (net.pick(0, reach + 1), net.pick(0, reach + 1)),
    }[kind]  # fmt: skip
    group = net.draw(st.sampled_from([1, channels]))
    weight = net.normal(channels, channels // group, kernel)
    return net.op(
        "Conv", x, weight, net.normal(channels), pads=[left, right], dilations=[dilation], group=group
    ), left + right - reach


def _down(net, x, channels):
    stride, kernel = net.pick(2, 3), net.pick(1, 5)
    pads = [net.pick(0, kernel), net.pick(0, kernel)]
    return net.op("Conv", x, net.normal(channels, channels, kernel), net.normal(channels), pads=pads, strides=[stride])


def _up(net, x, channels):
    stride, kernel, dilation = net.pick(1, 3), net.pick(1, 5), net.pick(1, 2)
    reach = (kernel - 1) * dilation
    pads = [net.pick(0, reach), net.pick(0, reach)]
    extra = net.pick(0, stride - 1)
    return net.op(
        "ConvTranspose",
        x,
        net.normal(channels, channels, kernel),
        net.normal(channels),
        pads=pads,
        strides=[stride],
        dilations=[dilation],
        output_padding=[extra],
    )


def _pool(net, x, kind):
    kernel, stride = net.pick(1, 4), net.pick(1, 3)
    pads = [net.pick(0, kernel - 1), net.pick(0, kernel - 1)]
    extra = {"ceil_mode": net.pick(0, 1)}
    if kind == "AveragePool":
        extra["count_include_pad"] = net.pick(0, 1)
    return net.op(kind, x, kernel_shape=[kernel], strides=[stride], pads=pads, **extra)


def _resize(net, x):
    """Up by a whole factor, or down by two."""
    where = net.draw(st.sampled_from(["asymmetric", "half_pixel", "pytorch_half_pixel"]))
    mode = net.draw(st.sampled_from(["nearest", "linear"]))
    factor = net.draw(st.sampled_from([2.0, 3.0, 0.5]))
    extra = {"nearest_mode": net.draw(st.sampled_from(["floor", "ceil"]))} if mode == "nearest" else {}
    scales = net.const([1.0, 1.0, factor])
    return net.op("Resize", x, "", scales, mode=mode, coordinate_transformation_mode=where, **extra)


def _prefix(net, x, channels):
    """Given frames before and after."""
    left, right = net.pick(0, 3), net.pick(0, 2)
    parts = [net.normal(1, channels, left), x, net.normal(1, channels, right)]
    return net.op("Concat", *(p for p, n in zip(parts, (left, 1, right), strict=True) if n), axis=2)


def _repeat(net, x, channels):
    """Every frame several times."""
    times = net.pick(2, 3)
    apart = net.op("Unsqueeze", x, net.const([3], np.int64))
    y = net.op("Tile", apart, net.const([1, 1, 1, times], np.int64))
    return net.op("Reshape", y, net.const([1, channels, -1], np.int64))


def _frames(net, x):
    return net.op("Slice", net.op("Shape", x), *(net.const([v], np.int64) for v in (2, 3, 0)))


def _split(net, x):
    """The frames after the first few, or before the last few."""
    count, end = net.const([net.pick(1, 3)], np.int64), net.pick(0, 1)
    rest = net.op("Sub", _frames(net, x), count)
    sizes = net.op("Concat", *((count, rest) if end else (rest, count)), axis=0)
    net.op("Split", x, sizes, axis=2, outputs=2)
    return f"v{len(net.nodes) - 1}_{end}"


def _table(net, x, channels):
    """Learned positions, cut to the length."""
    rows = net.op(
        "Slice", net.normal(1, channels, 4096), net.const([0], np.int64), _frames(net, x), net.const([2], np.int64)
    )
    return net.op("Add", x, rows)


def _attend(net, x, channels):
    """Attention within a window of frames, or of blocks of frames."""
    rows = net.op("Transpose", x, perm=[0, 2, 1])
    q, k, v = (net.op("MatMul", rows, net.normal(channels, channels)) for _ in range(3))
    total = net.op("Squeeze", _frames(net, x), net.const([0], np.int64))
    frames = net.op("Range", net.const(0, np.int64), total, net.const(1, np.int64))
    block, past, ahead = net.pick(1, 3), net.pick(0, 4), net.pick(0, 2)
    place = net.op("Div", frames, net.const(block, np.int64))
    back = net.op("Sub", *(net.op("Unsqueeze", place, net.const([a], np.int64)) for a in (1, 0)))
    above = net.op("GreaterOrEqual", back, net.const(-ahead, np.int64))
    seen = net.op("And", above, net.op("LessOrEqual", back, net.const(past, np.int64)))
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1]))
    weights = net.op("Softmax", net.op("Where", seen, scores, net.const(-np.inf)), axis=-1)
    return net.op("Transpose", net.op("MatMul", weights, v), perm=[0, 2, 1])


def _scan(net, x, channels):
    """h = x + h/2 by Scan."""

    def value(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels])

    half = net.const(0.5)
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["h", half], ["kept"]),
            helper.make_node("Add", ["kept", "row"], ["next"]),
            helper.make_node("Tanh", ["next"], ["shown"]),
        ],
        "body",
        [value("h"), value("row")],
        [value("next"), value("shown")],
    )
    axes = {"num_scan_inputs": 1, "scan_input_axes": [2], "scan_output_axes": [2]}
    net.op("Scan", net.normal(1, channels), x, body=body, outputs=2, **axes)
    return f"v{len(net.nodes) - 1}_1"


def _recurrent(net, x, channels, kind):
    gates = {"GRU": 3, "LSTM": 4}[kind]
    x = net.op("Transpose", x, perm=[2, 0, 1])
    inputs = [
        x,
        net.normal(1, gates * channels, channels),
        net.normal(1, gates * channels, channels),
        net.normal(1, 2 * gates * channels),
    ]
    if net.pick(0, 1):
        inputs += ["", net.const(net.rng.standard_normal((1, 1, channels)))]
    y = net.op(
        kind, *inputs, hidden_size=channels, **({"linear_before_reset": net.pick(0, 1)} if kind == "GRU" else {})
    )
    y = net.op("Squeeze", y, net.const([1], np.int64))
    return net.op("Transpose", y, perm=[1, 2, 0])


def _conv2d(net, x, channels):
    """[1, C, T] as an image [1, 1, T, C], padded as a causal or centred 2-D convolution."""
    y = net.op("Unsqueeze", net.op("Transpose", x, perm=[0, 2, 1]), net.const([1], np.int64))
    ahead = net.pick(0, 2)
    y = net.op("Conv", y, net.normal(2, 1, 3, 3), net.normal(2), pads=[2 - ahead, 1, ahead, 1])
    y = net.op("Transpose", y, perm=[0, 2, 1, 3])
    y = net.op("Reshape", y, net.const([0, 0, 2 * channels], np.int64))
    y = net.op("MatMul", y, net.normal(2 * channels, channels))
    return net.op("Transpose", y, perm=[0, 2, 1])


def _layer(net, kind, x, channels):
    if kind == "conv":
        return _conv(net, x, channels)[0]
    if kind == "down":
        return _down(net, x, channels)
    if kind == "up":
        return _up(net, x, channels)
    if kind in ("max", "average", "lp"):
        return _pool(net, x, {"max": "MaxPool", "average": "AveragePool", "lp": "LpPool"}[kind])
    if kind == "resize":
        return _resize(net, x)
    if kind in ("prefix", "repeat", "table"):
        return {"prefix": _prefix, "repeat": _repeat, "table": _table}[kind](net, x, channels)
    if kind in ("attend", "scan"):
        return {"attend": _attend, "scan": _scan}[kind](net, x, channels)
    if kind == "split":
        return _split(net, x)
    if kind == "act":
        return net.op(net.draw(st.sampled_from(["Sigmoid", "Tanh", "Relu", "Cos"])), x)
    if kind == "norm":
        y = net.op("Transpose", x, perm=[0, 2, 1])
        y = net.op("LayerNormalization", y, net.normal(channels), net.normal(channels), axis=-1)
        return net.op("Transpose", y, perm=[0, 2, 1])
    if kind in ("gru", "lstm"):
        return _recurrent(net, x, channels, kind.upper())
    if kind == "cumsum":
        y = net.op("CumSum", x, net.const(2, np.int64), exclusive=net.pick(0, 1))
        return net.op("Tanh", net.op("Mul", y, net.const(0.1)))
    if kind == "pad":
        mode = net.draw(st.sampled_from(["constant", "edge", "reflect"]))
        pads = [0, 0, net.pick(0, 3), 0, 0, net.pick(0, 3)]
        value = [net.const(0.5)] if mode == "constant" else []
        return net.op("Pad", x, net.const(pads, np.int64), *value, mode=mode)
    if kind == "cut":
        first, last, step = net.pick(0, 3), net.pick(0, 3), net.pick(1, 2)
        end = -last if last else 2**62
        return net.op("Slice", x, *(net.const([v], np.int64) for v in (first, end, 2, step)))
    if kind == "linear":
        y = net.op("MatMul", net.op("Transpose", x, perm=[0, 2, 1]), net.normal(channels, channels))
        return net.op("Transpose", y, perm=[0, 2, 1])
    return _conv2d(net, x, channels)


def _skip(net, x, channels):
    """x + branch(x), the branch a stack of convolutions that keeps the length."""
    y = x
    for _ in range(net.pick(1, 2)):
        kernel, dilation = net.pick(1, 4), net.pick(1, 2)
        reach = (kernel - 1) * dilation
        left = net.pick(0, reach)
        y = net.op(
            "Conv",
            y,
            net.normal(channels, channels, kernel),
            net.normal(channels),
            pads=[left, reach - left],
            dilations=[dilation],
        )
        y = net.op("Sigmoid", y)
    if net.pick(0, 2) == 0:
        kernel = net.pick(2, 4)
        y = net.op(
            "Conv",
            y,
            net.normal(channels, channels, kernel),
            net.normal(channels),
            strides=[2],
            pads=[(kernel - 1) // 2, kernel // 2 - (kernel % 2 == 0)],
        )
        y = net.op(
            "ConvTranspose",
            net.op("Tanh", y),
            net.normal(channels, channels, 4),
            net.normal(channels),
            strides=[2],
            pads=[1, 1],
        )
    return net.op("Add", x, y) if net.pick(0, 1) else net.op("Add", net.op("Sigmoid", y), x)


@st.composite
def nets(draw, most=6):
    """(model, needs): a checked model."""
    channels = draw(st.integers(1, 3))
    net = Net(draw, np.random.default_rng(draw(st.integers(0, 2**20))), [], [], [])
    x = "x"
    for kind in draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=most)):
        x = _skip(net, x, channels) if kind == "skip" else _layer(net, kind, x, channels)
    return finish(net, x, channels)


def finish(net, x, channels) -> onnx.ModelProto:
    """The model that ends with value x."""
    graph = helper.make_graph(
        net.nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, "T"])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, None, None])],
        net.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def text(model: onnx.ModelProto) -> str:
    return "\n".join(
        f"{n.op_type} {list(n.input)} {[(a.name, helper.get_attribute_value(a)) for a in n.attribute]}"
        for n in model.graph.node
    )
