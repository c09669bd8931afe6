"""Compiled streams of random networks and of trained models, against the offline model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import headrace as hr
from headrace.measure.contract_report import ContractReport
from tests.artifact.stepmodels import cut, cuts
from tests.streaming.networks import attention, build, recurrent, unet
from tests.streaming.onestream import close, offline
from tests.streaming.random_nets import nets, text
from tests.streaming.test_layers import NETS
from tests.streaming.test_models import AXES
from zoo import catalog


def step_of(net: onnx.ModelProto, factor: int) -> hr.StepModel | None:
    """The step model; None where the network does not stream."""
    for multiple in (None, {"x": 12}):
        try:
            step = hr.stream(net, {"x": 2}, multiple=multiple)
        except hr.NotStreamable:
            continue
        return step if factor == 1 else hr.stream(net, {"x": 2}, multiple=multiple, chunk=step.chunk * factor)
    return None


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(net=nets(), seed=st.integers(0, 2**20), factor=st.sampled_from([1, 2, 3]))
def test_random_network(net: Any, seed: int, factor: int) -> None:
    note(text(net))
    step, rng, session = step_of(net, factor), np.random.default_rng(seed), offline(net)
    if step is None:
        return
    stream, (out,) = hr.compile(step).stream(), step.spec.outputs
    axis, unit = step.spec.outputs[out].axis, step.spec.multiple
    least = -(-step.spec.min_length // unit)
    for total in {unit * int(least + extra) for extra in (0, 1, *rng.integers(0, 60 // unit + 2, 3))}:
        x = rng.standard_normal((1, int(step.inputs["x"].shape[1]), total)).astype(np.float32)
        (want,) = session.run(None, {"x": x})
        pieces = cut({"x": x}, {"x": 2}, cuts(total, rng))
        got = [stream.push(piece)[out] for piece in pieces] + [stream.flush()[out]]
        close(want, np.concatenate(got, axis), f"T={total}", 1e-4)
        stream.reset()


NAMED: dict[str, Any] = {
    **{name: (make, {}) for name, (make, _, _) in NETS.items()},
    "unet": (unet, {"multiple": {"x": 4}}),
    "lstm with last states": (recurrent("LSTM", True, True), {}),
    "rotary attention": (lambda b: attention(b, "trilu", rotary=True), {"max_past": 36}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_contract_of_a_network(name: str) -> None:
    make, options = NAMED[name]
    net = build(make)
    report = hr.verify(hr.stream(net, {"x": 2}, **options), model=net, cuttings=2)
    assert isinstance(report, ContractReport) and report.ok, report.table()
    assert all("refuses these inputs" in note for note in report.notes)  # of the float64 evaluation


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.parametrize("name", AXES)
def test_contract_of_a_trained_model(name: str) -> None:
    path = catalog.path(name)
    report = hr.verify(hr.stream(path, AXES[name]), model=path, cuttings=2)
    assert isinstance(report, ContractReport) and report.ok, report.table()


@pytest.mark.models
def test_nsnet2_over_ten_seconds() -> None:
    path = catalog.path("nsnet2")
    x = np.random.default_rng(0).standard_normal((1, 500, 161)).astype(np.float32)
    (want,) = offline(onnx.load(path)).run(None, {"input": x})
    stream = hr.compile(hr.stream(path, {"input": 1})).stream()
    got = [stream.push(piece)["output"] for piece in cut({"input": x}, {"input": 1}, [1] * 500)]
    close(want, np.concatenate([*got, stream.flush()["output"]], 1), "nsnet2", 2e-6)
