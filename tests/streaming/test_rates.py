"""Several time inputs: their rates follow from where they meet."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from onnx import TensorProto, helper

import headrace as hr
from headrace.errors import NotStreamable
from headrace.frontends.onnx import load
from headrace.streaming.rewrite import stream
from tests.streaming import onestream
from tests.streaming.networks import build, conv, up
from tests.streaming.onestream import offline

check = partial(onestream.check, chunks=(None, 2))
LENGTHS = (1, 2, 3, 5, 8, 13)


def several(make, *names, rank=3):
    """A network over x and more inputs [1, 3, frames]."""
    proto = build(make, rank=rank)
    for name in names:
        proto.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, f"{name}_frames"]))
    return proto


def samples_and_frames(b):
    return conv(b, b.op("Add", conv(b, "x", (3, 3), 6, (1, 1), stride=4), "y"), (3, 2), 3, (1, 1))


def three(b):
    both = b.op("Add", conv(b, "x", (3, 3), 4, (1, 1), stride=2), "y")
    return b.op("Concat", conv(b, both, (3, 3), 3, stride=3), "z", axis=1)


# name → (network, other inputs, rates, options)
NETS = {
    "samples and frames": (samples_and_frames, "y", [4, 1], {}),
    "same rate": (lambda b: b.op("Add", conv(b, "x", (3, 3), 3, (1, 1)), "y"), "y", [1, 1], {}),
    "second is faster": (lambda b: b.op("Add", up(b, "x", (3, 3), 2, 2), "y"), "y", [1, 2], {}),
    "3 to 2": (lambda b: b.op("Add", up(b, conv(b, "x", (3, 3), 3, stride=3), (3, 3), 2, 2), "y"), "y", [3, 2], {}),
    "three": (three, "yz", [6, 3, 1], {}),
    "apart": (lambda b: [conv(b, "x", (3, 3), 3), conv(b, "y", (3, 3), 2, stride=2)], "y", [1, 1], {}),
}


@pytest.mark.parametrize("name", NETS)
def test_rates(name) -> None:
    make, others, rates, options = NETS[name]
    proto = several(make, *others)
    step = check(proto, dict.fromkeys(["x", *others], 2), [max(n, 3) for n in LENGTHS], **options)
    assert [port.rate[0] for port in step.spec.inputs.values()] == rates


def test_multiple_counts_in_frames_of_its_input() -> None:
    def make(b):
        both = b.op("Add", conv(b, "x", (3, 3), 4, stride=4), "y")
        return b.op("Add", both, up(b, conv(b, both, (3, 3), 2, stride=2), (3, 3), 2, 2))

    proto = several(make, "y")
    with pytest.raises(NotStreamable, match="multiple="):
        stream(load(proto), {"x": 2, "y": 2})
    step = check(proto, {"x": 2, "y": 2}, (2, 4, 10), multiple={"x": 8})
    assert step.spec.multiple == 2


def test_the_same_inputs_at_two_rates_are_refused() -> None:
    def make(b):
        return b.op("Add", b.op("Add", "x", "y"), conv(b, "x", (3, 3), 3, stride=3))

    with pytest.raises(NotStreamable, match="different rates") as refused:
        stream(load(several(make, "y")), {"x": 2, "y": 2})
    assert refused.value.node.startswith("add")


def test_a_compiled_stream_takes_each_at_its_rate() -> None:
    proto = several(samples_and_frames, "y")
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((1, 3, n)).astype(np.float32) for n in (36, 9))
    (want,) = offline(proto).run(None, {"x": x, "y": y})
    live = hr.compile(stream(load(proto), {"x": 2, "y": 2})).stream()
    got = [live.push({"x": x[:, :, :10], "y": y[:, :, :4]}), live.push({"x": x[:, :, 10:], "y": y[:, :, 4:]})]
    (name,) = got[0]
    frames = np.concatenate([piece[name] for piece in (*got, live.flush())], 2)
    np.testing.assert_allclose(frames, want, atol=1e-5)
    live.reset()
    live.push({"x": x[:, :, :10], "y": y[:, :, :2]})
    with pytest.raises(ValueError, match="do not end at the same time"):
        live.flush()
