"""Layers and networks by name: streamed in random pieces, equal to the offline model in onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.errors import NotStreamable, StreamFull
from headrace.frontends.onnx import load
from headrace.streaming.reference import ReferenceStream
from headrace.streaming.rewrite import stream
from tests.streaming.networks import (
    END,
    I64,
    attention,
    build,
    centred_stft,
    conformer,
    conv,
    cut,
    enhancer,
    mobile,
    pad,
    recurrent,
    same_stack,
    unet,
    up,
)
from tests.streaming.onestream import check

LENGTHS = (1, 2, 3, 5, 8, 13, 21, 30, 31)

# name → (network, latency of its output, look-ahead in input frames)
NETS = {
    "valid": (lambda b: conv(b, "x", (3, 4), 3), 2, 2),
    "same": (lambda b: conv(b, "x", (3, 4), 3, (1, 1)), 1, 1),
    "causal": (lambda b: conv(b, "x", (3, 4), 3, (2, 0)), 0, 0),
    "look-ahead": (lambda b: conv(b, "x", (3, 4), 3, (0, 2)), 2, 2),
    "tract drops the end of stacked same convolutions": (same_stack, 4, 4),
    "mobile": (mobile, 15, 15),
    "stride": (lambda b: conv(b, "x", (3, 4), 3, (1, 1), stride=2), 0, 0),
    "transposed": (lambda b: up(b, "x", (3, 4), 4, 2, (1, 1)), 1, 1),
    "transposed, cut at the end": (lambda b: up(b, "x", (3, 4), 4, 2, (0, 2)), 0, 0),
    "transposed, with gaps": (lambda b: up(b, "x", (3, 4), 2, 3, extra=1), 0, 0),
    "causal max pool": (lambda b: b.op("MaxPool", "x", kernel_shape=[3], pads=[2, 0]), 0, 0),
    "mean that counts real frames only": (
        lambda b: b.op("AveragePool", conv(b, "x", (3, 3), 3, (1, 1)), kernel_shape=[3], pads=[1, 1]), 2, 2),
    "shift to the left": (lambda b: pad(b, cut(b, "x", 2, END), 0, 2), 2, 2),
    "shift to the right": (lambda b: pad(b, cut(b, "x", 0, -2), 2, 0), 0, 0),
    "shortened": (lambda b: cut(b, "x", 1, -3), 4, 1),
    "every third": (lambda b: cut(b, "x", 1, END, 3), 0, 0),
    "padding with ones, then a convolution with padding": (
        lambda b: conv(b, b.op("Exp", pad(b, "x", 2, 2)), (3, 4), 5, (1, 1)), 1, 1),
    "padding before layers that it cannot pass": (
        lambda b: b.op("CumSum", up(b, pad(b, "x", 2, 1), (3, 1), 1, 1), b.constant(2, I64)), 0, 0),
    "edge": (lambda b: conv(b, pad(b, conv(b, "x", (3, 3), 3, (1, 1)), 3, 3, "edge"), (3, 4), 7), 4, 4),
    "reflect": (lambda b: conv(b, pad(b, "x", 3, 3, "reflect"), (3, 4), 7), 3, 3),
    "running sum behind a delay": (
        lambda b: b.op("CumSum", conv(b, "x", (3, 3), 5, (2, 2)), b.constant(2, I64), exclusive=1), 1, 1),
    "running sum of the frames before": (lambda b: b.op("CumSum", "x", b.constant(2, I64), exclusive=1), 0, 0),
    "zeros before and after": (
        lambda b: b.op("Concat", b.constant(np.zeros((1, 3, 2))), "x", b.constant(np.zeros((1, 3, 1))), axis=2), 0, 0),
    "trailing zero taps": (
        lambda b: b.op("Conv", "x", b.constant(np.pad(np.ones((2, 3, 2)), ((0, 0), (0, 0), (0, 3)))), pads=[1, 3]),
        0, 0),
    "windowed attention": (lambda b: attention(b, "window"), 0, 0),
    "attention with look-ahead": (lambda b: attention(b, "look-ahead"), 2, 2),
    "conformer": (conformer, 6, 6),
    "enhancer": (enhancer, 15, 15),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_network(name) -> None:
    make, latency, lookahead = NETS[name]
    step = check(build(make), {"x": 2}, LENGTHS, tol=1e-4)
    assert list(step.latency.values()) == [latency]
    assert list(step.lookahead.values()) == [lookahead]


def test_tract_loses_the_skips_of_a_unet() -> None:
    """Delay through a transposed convolution counts in its own, faster frames."""
    step = check(build(unet), {"x": 2}, (4, 8, 12, 20, 40), multiple={"x": 4})
    assert list(step.latency.values()) == [11]
    with pytest.raises(ValueError, match="multiple of 4"):
        live = ReferenceStream(step)
        live.push({"x": np.zeros((1, 3, 6), np.float32)})
        live.flush()


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "RNN"])
@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("final", [False, True])
def test_recurrence(kind, delayed, final) -> None:
    make = recurrent(kind, delayed, final)
    proto = build(make)
    step = check(proto, {"x": 2}, LENGTHS)
    assert len(step.spec.finals) == (0 if not final else 2 if kind == "LSTM" else 1)


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "RNN"])
@pytest.mark.parametrize("delayed", [False, True])
def test_a_recurrence_of_a_large_step_is_one_node(kind, delayed) -> None:
    """Also where the last states are outputs: the node itself stops at the end of the signal."""
    step = stream(load(build(recurrent(kind, delayed, True))), {"x": 2}, chunk=16)
    nodes = [n for n in step.ir.graph if n.op_type == kind]
    assert len(nodes) == (2 if delayed else 1)  # the first frame of a block may lie before the signal


@pytest.mark.parametrize("mask", ["range_less_where", "trilu", "alibi"])
@pytest.mark.parametrize("rotary", [False, True])
def test_causal_attention_remembers_a_stated_maximum(mask, rotary) -> None:
    """tract fails on causal masks built from Range and Where."""
    proto = build(lambda b: attention(b, mask, rotary=rotary))
    with pytest.raises(NotStreamable, match="max_past"):
        stream(load(proto), {"x": 2})
    step = check(proto, {"x": 2}, (1, 7, 31, 36), max_past=36)
    assert list(step.receptive_field.values()) == [None]
    live = ReferenceStream(step)
    live.push({"x": np.zeros((1, 3, 36), np.float32)})
    with pytest.raises(StreamFull):
        live.push({"x": np.zeros((1, 3, 1), np.float32)})


def test_centred_stft() -> None:
    step = check(build(centred_stft, rank=4), {"x": 2}, (9, 12, 20, 33, 64))
    assert step.chunk == 4


def test_a_causal_model_has_no_masks() -> None:
    def causal(b):
        x = conv(b, "x", (3, 4), 3, (2, 0))
        x = conv(b, b.op("Relu", x), (4, 4), 5, (8, 0), dilation=2)
        return b.op("Add", x, conv(b, x, (4, 4), 1))

    step = check(build(causal), {"x": 2}, LENGTHS)
    assert step.spec.position is None and step.spec.valid is None
    assert not {"Where", "Less", "And"} & {n.op_type for n in step.ir.graph}
    assert len(step.spec.state) == 2
