"""What cannot stream exactly is refused: the node, the reason, a way out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from headrace.errors import NotStreamable
from headrace.frontends.onnx import load
from headrace.streaming.rewrite import stream
from zoo.build import Builder


def model(nodes, constants=None, dims=(1, 3, "T"), outputs=(("y", None),)) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(dims))],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs],
        tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made)


def node(op, inputs, **attributes):
    return helper.make_node(op, inputs, ["y"], name=f"the_{op}", **attributes)


def weights(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


I64 = np.int64
CASES = {
    "softmax over time": (node("Softmax", ["x"], axis=2), {}, "over all of time"),
    "mean over time": (node("ReduceMean", ["x", "a"]), {"a": np.array([2], I64)}, "over all of time"),
    "sum over everything": (node("ReduceSum", ["x"], keepdims=0), {}, "over all of time"),
    "best frame": (node("ArgMax", ["x"], axis=2), {}, "over all of time"),
    "layer norm over time": (
        node("LayerNormalization", ["x", "s"], axis=1), {"s": np.ones(1, np.float32)}, "over all of time"),
    "instance norm": (
        node("InstanceNormalization", ["x", "s", "s"]), {"s": np.ones(3, np.float32)}, "over all of time"),
    "global pool": (node("GlobalAveragePool", ["x"]), {}, "over all of time"),
    "reversed": (
        node("Slice", ["x", "b", "e", "a", "s"]),
        {"b": np.array([-1], I64), "e": np.array([-(2**62)], I64), "a": np.array([2], I64), "s": np.array([-1], I64)},
        "backwards"),
    "last frames": (
        node("Slice", ["x", "b", "e", "a"]),
        {"b": np.array([-4], I64), "e": np.array([2**62], I64), "a": np.array([2], I64)}, "before the end"),
    "first frames": (
        node("Slice", ["x", "b", "e", "a"]),
        {"b": np.array([0], I64), "e": np.array([4], I64), "a": np.array([2], I64)}, "not a fixed number per frame"),
    "wrap padding": (
        node("Pad", ["x", "p"], mode="wrap"), {"p": np.array([0, 0, 1, 0, 0, 1], I64)}, "wraps the end"),
    "twice in a row": (node("Concat", ["x", "x"], axis=2), {}, "after another"),
    "sum from the end": (node("CumSum", ["x", "a"], reverse=1), {"a": np.array(2, I64)}, "from the end"),
    "picked frames": (node("Gather", ["x", "i"], axis=2), {"i": np.array([0, 1], I64)}, "single frames"),
    "sum of squares": (node("Einsum", ["x", "x"], equation="bct,bct->bc"), {}, "sums over all frames"),
    "sorted": (node("TopK", ["x", "k"], axis=2), {"k": np.array([1], I64)}, "over all of time"),
    "same padding with a stride": (
        node("Conv", ["x", "w"], auto_pad="SAME_UPPER", strides=[2]), {"w": weights(2, 3, 3)}, "SAME padding"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused_with_the_node_and_the_reason(case) -> None:
    one, constants, reason = CASES[case]
    if one.op_type == "TopK":
        one.output.append("indices")
    rank = {"sum over everything": [], "sum of squares": [None] * 2}.get(case, [None] * 3)
    with pytest.raises(NotStreamable) as refused:
        stream(load(model([one], constants, outputs=(("y", rank),))), {"x": 2})
    assert refused.value.node == one.name
    assert reason in refused.value.reason
    assert refused.value.hint


def recurrent(kind, direction):
    gates, runs = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 2 if direction == "bidirectional" else 1
    return model(
        [helper.make_node("Transpose", ["x"], ["t"], perm=[2, 0, 1]),
         node(kind, ["t", "w", "r"], hidden_size=2, direction=direction)],
        {"w": weights(runs, gates * 2, 3), "r": weights(runs, gates * 2, 2)}, outputs=(("y", [None] * 4),),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["bidirectional", "reverse"])
def test_tract_accepts_backward_recurrences_and_is_wrong(kind, direction) -> None:
    with pytest.raises(NotStreamable, match="last frame"):
        stream(load(recurrent(kind, direction)), {"x": 2})


def test_tract_accepts_full_self_attention_and_is_wrong() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["t", "x"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "t"], ["y"], name="the_end"),
    ]
    with pytest.raises(NotStreamable) as refused:
        stream(load(model(nodes, outputs=(("y", [None] * 3),))), {"x": 2})
    assert refused.value.node == "the_end" and "no mask hides" in refused.value.reason


def test_lengths_that_agree_sometimes_name_the_multiple() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], strides=[2]),
        helper.make_node("ConvTranspose", ["a", "u"], ["b"], strides=[2]),
        node("Add", ["x", "b"]),
    ]
    proto = model(nodes, {"w": weights(3, 3, 2), "u": weights(3, 3, 2)}, outputs=(("y", [None] * 3),))
    with pytest.raises(NotStreamable, match=r"multiple=\{…: 2\}"):
        stream(load(proto), {"x": 2})
    assert stream(load(proto), {"x": 2}, multiple={"x": 2}).chunk == 2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"axes": {}}, "axes is empty"),
        ({"axes": {"z": 1}}, "no input"),
        ({"axes": {"x": 5}}, "no axis 5"),
        ({"axes": {"x": 2}, "multiple": {"y": 2}}, "no time input"),
        ({"axes": {"x": 2}, "multiple": {"x": 0}}, "positive"),
        ({"axes": {"x": 2}, "chunk": 3}, "multiple of 2"),
        ({"axes": {"x": 2}, "max_past": 0}, "at least 1"),
    ],
)
def test_wrong_arguments(options, text) -> None:
    proto = model([node("Conv", ["x", "w"], strides=[2])], {"w": weights(2, 3, 3)})
    with pytest.raises(ValueError, match=text):
        stream(load(proto), **options)


def test_a_forgotten_time_axis() -> None:
    """Two inputs of one length: the message gives the axes to write."""
    b = Builder(np.random.default_rng(0))
    b.nodes.append(helper.make_node("Add", ["x", "z"], ["y"]))
    model = b.model("two", {"x": (1, 3, "T"), "z": (1, "T")}, {"y": (1, 3, "T")})
    with pytest.raises(ValueError, match=r"'z' is as long as time input 'x'.*axes=\{'x': 2, 'z': 1\}"):
        stream(load(model), {"x": 2})


def test_a_refusal_of_the_whole_model_names_no_node() -> None:
    error = NotStreamable("", "it is odd.", "make it even")
    assert str(error) == "the model cannot stream: it is odd; make it even"
