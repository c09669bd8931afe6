"""Whole architectures as compiled streams: any cutting, the error bound, the least latency there is.

Cutting decides only when a step runs, never what it computes. So every cutting must give the bits of the
first one, and the first one must be within the contract's bound of the float64 reference.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import headrace as hr
from headrace.measure.double import open_double
from headrace.passes.prepare import prepare
from tests.streaming.architectures import ARCHITECTURES, Architecture
from tests.streaming.impulse import check_times, measure, positive
from tests.streaming.onestream import cuts, offline

BOUND, SLACK = 2.0, 1e-6  # times the offline program's own error; of scale


@functools.cache
def step_of(name: str, factor: int = 1) -> hr.StepModel:
    net = ARCHITECTURES[name]
    step = hr.stream(net.model(), {"x": 2}, **net.options)
    return step if factor == 1 else hr.stream(net.model(), {"x": 2}, chunk=factor * step.chunk, **net.options)


def exact(proto: onnx.ModelProto, x: Any) -> Any:
    """The model in float64, by onnx.reference."""
    prepared = prepare(hr.load(proto), shapes={"x": x.shape}, native=lambda domain, op, version: True)
    (value,) = open_double(ir.to_proto(prepared.model))({"x": x}).values()
    return value


def signals(net: Architecture, step: hr.StepModel, count: int, rng: np.random.Generator) -> list[Any]:
    """Signals of every kind of length: the shortest, one step and a bit, the longest, any between."""
    unit = step.spec.multiple
    least = -(-step.spec.min_length // unit) * unit
    lengths = [least, net.longest, min(net.longest, least + step.chunk + unit)]
    lengths += list(rng.integers(least, net.longest + 1, max(0, count - 3)) // unit * unit)
    return [rng.standard_normal((1, net.channels, max(int(n), least))).astype(np.float32) for n in lengths[:count]]


def streamed(stream: hr.Stream, x: Any, sizes: list[int], axis: int) -> Any:
    got, start = [], 0
    for size in sizes:
        got += stream.push({"x": x[:, :, start : start + size]}).values()
        start += size
    got += stream.flush().values()
    stream.reset()
    return np.concatenate(got, axis)


def check(name: str, count: int, cuttings: int, factor: int = 1) -> None:
    """So many signals, each in so many random cuttings."""
    net, step, rng = ARCHITECTURES[name], step_of(name, factor), np.random.default_rng(factor)
    proto, (port,) = net.model(), step.spec.outputs.values()
    stream, session = hr.compile(step).stream(), offline(proto)
    for x in signals(net, step, count, rng):
        total = x.shape[2]
        (theirs,), near = session.run(None, {"x": x}), exact(proto, x)
        got = streamed(stream, x, [total], port.axis)
        assert got.shape == theirs.shape == near.shape
        error, allowed = np.abs(got - near).max(), BOUND * np.abs(theirs - near).max() + SLACK * np.abs(near).max()
        assert error <= allowed, (name, total, error, allowed)
        for sizes in ([1] * total, *(cuts(total, rng) for _ in range(cuttings - 1))):
            other = streamed(stream, x, sizes, port.axis)
            assert other.tobytes() == got.tobytes(), (name, total, sizes)


@pytest.mark.parametrize("name", ["enhancer", "transformer"])
def test_any_cutting(name: str) -> None:
    check(name, 5, 40)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_ten_thousand_cuttings(name: str, factor: int) -> None:
    """Of each architecture, half of them with larger steps."""
    check(name, 25, 200, factor)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_times_are_the_least_that_the_network_allows(name: str) -> None:
    net, step = ARCHITECTURES[name], step_of(name)
    (port,) = step.spec.outputs.items()
    found = measure(positive(net.model(), net.gain), net.channels, port[1].axis, net.longest, step.spec.multiple)
    check_times(step, found, port[0])


def test_a_transformer_is_full_after_its_stated_maximum() -> None:
    stream = hr.compile(step_of("transformer")).stream()
    most = 64
    stream.push({"x": np.ones((1, 6, most), np.float32)})
    with pytest.raises(hr.StreamFull, match="full after 64 frames"):
        stream.push({"x": np.ones((1, 6, 1), np.float32)})
    assert stream.flush().popitem()[1].shape == (1, 4, 0)
    stream.reset()
    with pytest.raises(hr.StreamFull):
        stream.push({"x": np.ones((1, 6, most + 1), np.float32)})
