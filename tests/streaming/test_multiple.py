"""multiple=: models whose padding or length depends on T modulo a stride, refused without it and exact with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import headrace as hr
from headrace.measure.contract_report import ContractReport
from headrace.streaming.reference import ReferenceStream
from tests.streaming.networks import build, conv, unet, up
from tests.streaming.onestream import check
from zoo.build import Builder


def same(auto: str, kernel: int, stride: int) -> Callable[[Builder], str]:
    """A layer that looks ahead, a convolution with SAME padding and a stride, a layer with padding of its own."""

    def make(b: Builder) -> str:
        x = b.op("Sigmoid", conv(b, "x", (3, 4), 3, (1, 1)))
        y = b.op("Conv", x, b.normal((4, 4, kernel), 12), b.constant([0.1, 0.2, 0.3, 0.4]), auto_pad=auto,
                 strides=[stride])  # fmt: skip
        return conv(b, b.op("Relu", y), (4, 2), 3, (1, 1))

    return make


def pool(kind: str) -> Callable[[Builder], str]:
    return lambda b: b.op(kind, "x", kernel_shape=[3], strides=[2], auto_pad="SAME_UPPER")


NETS: dict[str, tuple[Callable[[Builder], str], int]] = {
    "SAME_UPPER": (same("SAME_UPPER", 3, 2), 2),
    "SAME_LOWER": (same("SAME_LOWER", 4, 3), 3),
    "max pool": (pool("MaxPool"), 2),
    "average pool": (pool("AveragePool"), 2),
    "U-Net": (unet, 4),
}


def refusal(net: Any) -> hr.NotStreamable:
    with pytest.raises(hr.NotStreamable) as caught:
        hr.stream(net, {"x": 2})
    return caught.value


@pytest.mark.parametrize("name", NETS)
def test_refused_without_and_exact_with(name: str) -> None:
    make, unit = NETS[name]
    refused = refusal(build(make))
    assert refused.node and "multiple=" in refused.hint
    step = check(build(make), {"x": 2}, [unit * n for n in (1, 2, 3, 5, 9)], multiple={"x": unit})
    assert step.spec.multiple == unit and step.chunk % unit == 0


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    auto=st.sampled_from(["SAME_UPPER", "SAME_LOWER"]), kernel=st.integers(1, 5), stride=st.integers(2, 4),
    times=st.integers(1, 2), counts=st.lists(st.integers(1, 9), min_size=1, max_size=3),
)  # fmt: skip
def test_random_same(auto: str, kernel: int, stride: int, times: int, counts: Any) -> None:
    net, unit = build(same(auto, kernel, stride)), stride * times
    number = re.search(r"multiple=\{…: (\d+)\}", refusal(net).hint)
    assert number is not None and int(number.group(1)) == stride
    check(net, {"x": 2}, [unit * n for n in counts], multiple={"x": unit})


def test_another_multiple_does_not_do() -> None:
    with pytest.raises(hr.NotStreamable, match="SAME padding with stride 2"):
        hr.stream(build(same("SAME_UPPER", 3, 2)), {"x": 2}, multiple={"x": 3})


@pytest.mark.parametrize("name", ["SAME_UPPER", "U-Net"])
def test_compiled_and_verified(name: str) -> None:
    make, unit = NETS[name]
    step = hr.stream(build(make), {"x": 2}, multiple={"x": unit})
    program = hr.compile(step)
    report = hr.verify(program, model=build(make), cuttings=2)
    assert isinstance(report, ContractReport) and report.ok, report.table()
    assert all(n % unit == 0 for n in report.lengths)
    for live in (ReferenceStream(step), program.stream()):
        for frames in range(1, 2 * unit + 1):
            live.reset()
            live.push({"x": np.ones((1, 3, frames), np.float32)})
            if frames % unit == 0:
                assert next(iter(live.flush().values())).shape[2] > 0
                continue
            why = f"multiple of {unit}" if frames > unit else f"needs (at least )?{unit}"
            with pytest.raises(ValueError, match=f"{frames} frames.* {why}"):
                live.flush()


def test_of_an_artifact_and_of_inputs_at_two_rates(tmp_path: Any) -> None:
    """The multiple is in frames of its input, also where the clock ticks slower."""

    def make(b: Builder) -> str:
        both = b.op("Add", conv(b, "x", (3, 3), 2, stride=2), "y")
        return b.op("Add", both, up(b, conv(b, both, (3, 3), 2, stride=2), (3, 3), 2, 2))

    proto = build(make)
    proto.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, "S"]))
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    step = hr.stream(tmp_path / "m.onnx", {"x": 2, "y": 2}, multiple={"x": 4})
    hr.compile(step, out=tmp_path / "p")
    report = hr.verify(hr.open(tmp_path / "p"), cuttings=1)
    assert isinstance(report, ContractReport) and report.ok, report.table()


def test_wrong_arguments() -> None:
    net = build(same("SAME_UPPER", 3, 2))
    for multiple in ({"y": 2}, {"x": 0}, {"x": -2}):
        with pytest.raises(ValueError, match="multiple"):
            hr.stream(net, {"x": 2}, multiple=multiple)
