"""align=True: every output is as late as the slowest; concatenated, all is as before."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

import headrace as hr
from headrace.measure.contract_report import ContractReport
from tests.streaming.networks import I64, build, conv, cut
from tests.streaming.onestream import check
from zoo.build import Builder


def early_and_late(b: Builder) -> list[str]:
    """A causal output, one that looks ahead, one at half the rate, one that follows from no input alone."""
    causal = b.op("Tanh", conv(b, "x", (3, 4), 3, (2, 0)))
    ahead = b.op("Sigmoid", conv(b, causal, (4, 4), 5, (0, 4)))
    half = conv(b, causal, (4, 2), 4, (1, 1), stride=2)
    return [causal, b.op("Relu", ahead), half]


def test_all_as_late_as_the_slowest() -> None:
    plain = hr.stream(build(early_and_late, 3), {"x": 2})
    step = hr.stream(build(early_and_late, 3), {"x": 2}, align=True)
    assert list(plain.latency.values()) == [0, 4, 1]
    assert list(step.latency.values()) == [4, 4, 2]
    assert step.lookahead == plain.lookahead and step.receptive_field == plain.receptive_field
    assert step.spec.align and not plain.spec.align
    check(build(early_and_late, 3), {"x": 2}, (1, 2, 3, 5, 8, 30), align=True)


def test_through_the_whole_chain(tmp_path) -> None:
    import onnx

    onnx.save(build(early_and_late, 3), tmp_path / "m.onnx")
    hr.compile(hr.stream(tmp_path / "m.onnx", {"x": 2}, align=True), out=tmp_path / "p")
    report = hr.verify(hr.open(tmp_path / "p"), cuttings=2)
    assert isinstance(report, ContractReport) and report.ok, report.table()
    stream = hr.open(tmp_path / "p").stream()
    counts = [{n: a.shape[2] for n, a in stream.push({"x": np.zeros((1, 3, 2), np.float32)}).items()} for _ in "abcd"]
    assert [list(c.values()) for c in counts] == [[0, 0, 0], [0, 0, 0], [2, 2, 1], [2, 2, 1]]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    looks=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from([1, 2, 3])), min_size=2, max_size=4),
    frames=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    seed=st.integers(0, 999),
)
def test_random_outputs(looks, frames, seed) -> None:
    """Convolutions of any padding and stride side by side, some behind another layer."""

    def make(b: Builder) -> list[str]:
        first, found = b.op("Sigmoid", conv(b, "x", (3, 3), 3, (1, 1))), []
        for k, (left, right, stride) in enumerate(looks):
            source = first if k % 2 else "x"
            found.append(conv(b, source, (3, 2), left + right + 1, (left, right), stride=stride))
        return found

    net = build(make, len(looks))
    step = check(net, {"x": 2}, frames, seed, chunks=(None, 2), align=True)
    plain = hr.stream(net, {"x": 2})
    slowest = max(o.delay * o.rate[1] / o.rate[0] for o in plain.spec.outputs.values())
    for name, out in step.spec.outputs.items():
        assert out.delay >= plain.spec.outputs[name].delay
        assert out.delay == max(plain.spec.outputs[name].delay, math.ceil(slowest * out.rate[0] / out.rate[1]))


def test_positions_are_aligned_too() -> None:
    """An output that is a function of the frame's number waits like the others."""

    def make(b: Builder) -> list[str]:
        count = b.op("Squeeze", b.op("Shape", "x", start=2, end=3), b.constant([0], I64))
        place = b.op("Cast", b.op("Range", b.constant(0, I64), count, b.constant(1, I64)), to=TensorProto.FLOAT)
        rows = b.op("Unsqueeze", place, b.constant([0, 1], I64))
        return [b.op("Sin", rows), cut(b, conv(b, "x", (3, 2), 4), 0, 2**62)]

    step = check(build(make, 2), {"x": 2}, (4, 5, 17), align=True)
    assert set(step.latency.values()) == {3}


def test_one_output_is_as_before() -> None:
    net = build(lambda b: conv(b, "x", (3, 2), 5, (2, 2)))
    step, plain = (hr.stream(net, {"x": 2}, align=flag) for flag in (True, False))
    assert step.spec.outputs == plain.spec.outputs
    assert [n.op_type for n in step.ir.graph] == [n.op_type for n in plain.ir.graph]
