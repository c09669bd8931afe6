"""Scan over frames, the recurrences of opset 27, and last states alone."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import headrace as hr
from headrace.errors import NotStreamable
from headrace.frontends.onnx import load
from headrace.streaming.reference import ReferenceStream
from headrace.streaming.rewrite import stream
from tests.streaming import onestream
from tests.streaming.networks import I64, build, conv
from tests.streaming.onestream import close, cuts, drive, offline

check = partial(onestream.check, chunks=(None, 2))
LENGTHS = (1, 2, 3, 5, 8, 13, 21)
FLOAT = TensorProto.FLOAT


def value(name, *dims):
    return helper.make_tensor_value_info(name, FLOAT, dims)


def leaky(outside=""):
    """h = 0.5·h + x·w, y = h + x: a body with one carried value."""
    nodes = [
        helper.make_node("Mul", ["h", "half"], ["kept"]),
        helper.make_node("Mul", ["row", outside or "half"], ["part"]),
        helper.make_node("Add", ["kept", "part"], ["next"]),
        helper.make_node("Add", ["next", "row"], ["shown"]),
    ]
    half = onnx.numpy_helper.from_array(np.array(0.5, np.float32), "half")
    return helper.make_graph(
        nodes, "body", [value("h", 1, 3), value("row", 1, 3)], [value("next", 1, 3), value("shown", 1, 3)], [half]
    )


def scanned(b, x="x", outside="", initial="", **attributes):
    start = initial or b.constant(np.ones((1, 3)))
    attributes = {"num_scan_inputs": 1, "scan_input_axes": [2], "scan_output_axes": [2], **attributes}
    b.nodes.append(helper.make_node("Scan", [start, x], ["last", "all"], "scan", body=leaky(outside), **attributes))
    return ["all", "last"]


def behind(b):
    return conv(b, "x", (3, 3), 3, (1, 1))


NETS = {
    "plain": lambda b: scanned(b)[:1],
    "with its last value": scanned,
    "behind a delay": lambda b: scanned(b, behind(b))[:1],
    "behind a delay, with its last value": lambda b: scanned(b, behind(b)),
    "with a weight from outside": lambda b: scanned(b, behind(b), b.constant(np.full((1, 3), 0.25))),
}


def last_has_no_time(proto):
    """The last value is [1, 3]."""
    for out in proto.graph.output:
        if out.name == "last":
            del out.type.tensor_type.shape.dim[2:]
    return proto


@pytest.mark.parametrize("name", NETS)
def test_scan(name) -> None:
    step = check(last_has_no_time(build(NETS[name])), {"x": 2}, LENGTHS)
    assert list(step.receptive_field.values()) == [None]


def test_the_offline_model_stays_as_it_is() -> None:
    proto = build(NETS["plain"])
    before = proto.SerializeToString()
    stream(load(proto), {"x": 2})
    assert proto.SerializeToString() == before


def test_scan_from_inputs() -> None:
    """The initial value becomes a state of the stream; a side input is read by the body."""
    proto = last_has_no_time(build(lambda b: scanned(b, "x", "side", "start")))
    proto.graph.input.extend([value("side", 1, 3), value("start", 1, 3)])
    rng = np.random.default_rng(5)
    side = {name: rng.standard_normal((1, 3)).astype(np.float32) for name in ("side", "start")}
    step = check(proto, {"x": 2}, LENGTHS, side=side)
    assert step.spec.initial == ("start",) and step.spec.side == ("side",)


def test_compiled_scan() -> None:
    proto = build(NETS["behind a delay"])
    x = np.random.default_rng(0).standard_normal((1, 3, 11)).astype(np.float32)
    (want,) = offline(proto).run(None, {"x": x})
    live = hr.compile(stream(load(proto), {"x": 2})).stream()
    got = [live.push({"x": x[:, :, :4]}), live.push({"x": x[:, :, 4:]}), live.flush()]
    np.testing.assert_allclose(np.concatenate([piece["all"] for piece in got], 2), want, atol=1e-5)


@pytest.mark.parametrize(
    "make,reason",
    [
        (lambda b: scanned(b, scan_input_directions=[1])[:1], "from the end"),
        (lambda b: scanned(b, b.op("Transpose", "x", perm=[2, 1, 0]))[:1], "another axis than time"),
        (lambda b: scanned(b, outside=b.op("Reshape", behind(b), b.constant([1, -1], I64)))[:1], "inner graphs"),
    ],
)
def test_refused(make, reason) -> None:
    with pytest.raises(NotStreamable, match=reason) as refused:
        stream(load(build(make)), {"x": 2})
    assert refused.value.node and refused.value.hint


def linear_attention(rule):
    """The LinearAttention operator of opset 27."""

    def make(b):
        rows = b.op("Transpose", "x", perm=[0, 2, 1])
        given = [b.op("MatMul", rows, b.normal((3, 8), 3)) for _ in range(3)]
        decay = b.op("Neg", b.op("Softplus", b.op("MatMul", rows, b.normal((3, 2), 3)))) if "gated" in rule else ""
        rate = b.op("Sigmoid", b.op("MatMul", rows, b.normal((3, 2), 3))) if "delta" in rule else ""
        given += ["", decay, rate]
        outputs = ["y", "state"]
        b.nodes.append(
            helper.make_node("LinearAttention", given, outputs, q_num_heads=2, kv_num_heads=2, update_rule=rule)
        )
        return "y"

    return make


def causal_conv(b):
    given = ["x", b.normal((3, 1, 4), 4), b.normal((3,), 1)]
    b.nodes.append(helper.make_node("CausalConvWithState", given, ["y", "state"], activation="silu"))
    return "y"


NEWEST = {**{rule: linear_attention(rule) for rule in ("linear", "gated", "delta", "gated_delta")}, "conv": causal_conv}


@pytest.mark.parametrize("name", NEWEST)
def test_recurrences_of_opset_27(name) -> None:
    """onnxruntime does not run them; the reference implementation of ONNX does."""
    proto = build(NEWEST[name])
    proto.opset_import[0].version, proto.ir_version = 27, 13
    step, rng = stream(load(proto), {"x": 2}), np.random.default_rng(3)
    assert list(step.latency.values()) == [0] and step.spec.max_past is None
    for total in (1, 6, 17):
        x = rng.standard_normal((1, 3, total)).astype(np.float32)
        want = np.asarray(ReferenceEvaluator(proto).run(None, {"x": x})[0])
        got = drive(ReferenceStream(step), step, {"x": x}, {"x": 2}, cuts(total, rng))
        close(want, got["y"], name, 1e-4)


@pytest.mark.parametrize("kind,gates", [("GRU", 3), ("LSTM", 4), ("RNN", 1)])
def test_only_the_last_state(kind, gates) -> None:
    def make(b):
        rows = b.op("Transpose", behind(b), perm=[2, 0, 1])
        given = [rows, b.normal((1, 4 * gates, 3), 3), b.normal((1, 4 * gates, 4), 4)]
        b.nodes.append(helper.make_node(kind, given, ["", "h"], hidden_size=4))
        return b.op("Mul", "h", b.constant(2.0))

    step = check(build(make), {"x": 2}, LENGTHS)
    assert not step.spec.outputs and len(step.spec.finals) == 1
