"""The step model: its metadata, its state, saved and loaded again; latency against impulse responses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import headrace as hr
from headrace.errors import InvalidModel, NotStreamable
from headrace.frontends.onnx import load
from headrace.streaming.model import read_spec, step_model
from headrace.streaming.reference import ReferenceStream
from headrace.streaming.rewrite import stream
from tests.streaming import random_nets
from tests.streaming.impulse import check_times, measure
from tests.streaming.networks import build, conv, recurrent, same_stack


def test_saved_and_loaded(tmp_path) -> None:
    step = hr.stream(build(same_stack), axes={"x": 2})
    step.save(tmp_path / "step.onnx")
    again = step_model(hr.load(tmp_path / "step.onnx"))
    assert again.spec == step.spec
    x = np.random.default_rng(0).standard_normal((1, 3, 20)).astype(np.float32)
    got = []
    for model in (step, again):
        live = ReferenceStream(model)
        got.append([live.push({"x": x}), live.flush()])
    np.testing.assert_equal(got[0], got[1])


def test_names_and_defaults() -> None:
    step = stream(load(build(recurrent("GRU", True, True))), {"x": 2})
    assert list(step.inputs) == ["x", "position", "valid"]
    assert [a for a, _ in step.spec.state] == list(step.defaults) == list(step.initial_state())
    assert all(b in step.outputs for _, b in step.spec.state)


def test_an_ordinary_model_is_no_step_model() -> None:
    with pytest.raises(InvalidModel, match="step model"):
        read_spec(load(build(same_stack)))


def test_damaged_metadata() -> None:
    step = stream(load(build(same_stack)), {"x": 2})
    proto = step.proto
    for item in proto.metadata_props:
        if item.key == "headrace.stream":
            item.value = item.value.replace('"chunk"', '"lump"')
    with pytest.raises(InvalidModel, match="damaged"):
        step_model(load(proto))


def test_too_short_a_signal() -> None:
    step = stream(load(build(lambda b: conv(b, "x", (3, 4), 5))), {"x": 2})
    live = ReferenceStream(step)
    live.push({"x": np.zeros((1, 3, 4), np.float32)})
    with pytest.raises(ValueError, match="needs 5"):
        live.flush()


def test_initial_states_are_the_callers(tmp_path) -> None:
    step = stream(load(build(recurrent("GRU", False, True))), {"x": 2})
    with pytest.raises(ValueError, match="no initial state"):
        step.initial_state({"h0": np.zeros(3)})


LINEAR = ("conv", "conv", "down", "up", "average", "cut", "skip", "linear")


@st.composite
def linear_nets(draw):
    """Networks of linear layers with positive weights, so that every dependency shows."""
    net = random_nets.Net(draw, np.random.default_rng(draw(st.integers(0, 999))), [], [], [])
    x = "x"
    for kind in draw(st.lists(st.sampled_from(LINEAR), min_size=1, max_size=4)):
        x = random_nets._skip(net, x, 1) if kind == "skip" else random_nets._layer(net, kind, x, 1)
    model = random_nets.finish(net, x, 1)
    for weight in model.graph.initializer:
        array = numpy_helper.to_array(weight)
        if array.dtype == np.float32:
            weight.CopyFrom(numpy_helper.from_array(np.abs(array) + np.float32(0.1), weight.name))
    for node in model.graph.node:
        if node.op_type in ("Sigmoid", "Tanh"):
            node.op_type = "Identity"
    return model


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(net=linear_nets())
def test_latency_is_that_of_the_impulse_response(net) -> None:
    try:
        step = stream(load(net), {"x": 2})
    except NotStreamable:
        return
    (name,) = step.spec.outputs
    total = step.chunk * max(1, 96 // step.chunk) + step.spec.min_length
    check_times(step, measure(net, 1, 2, total), name)
