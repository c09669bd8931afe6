"""Sliding windows: a step model that gives what the offline model gives on every window."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import headrace as hr
from headrace.measure.contract_report import ContractReport
from headrace.streaming.model import step_model
from headrace.streaming.reference import ReferenceStream
from tests.streaming.classifiers import Classifier, classifiers
from tests.streaming.networks import I64, build, conv, cut
from tests.streaming.onestream import close, cuts, offline
from zoo import catalog
from zoo.build import Builder


def window_by_window(proto: onnx.ModelProto, x: np.ndarray, frames: int, hop: int) -> dict[str, np.ndarray]:
    """The offline model in onnxruntime on each window, results stacked."""
    session = offline(proto)
    names = [v.name for v in session.get_outputs()]
    runs = [session.run(None, {"x": x[:, :, k : k + frames]}) for k in range(0, x.shape[2] - frames + 1, hop)]
    return {name: np.stack([run[i] for run in runs]) for i, name in enumerate(names)}


def stream_of(live: Any, x: np.ndarray, sizes: list[int]) -> dict[str, np.ndarray]:
    """All that a live stream gives for a signal in pieces."""
    got, start = [], 0
    for size in sizes:
        got.append(live.push({"x": np.ascontiguousarray(x[:, :, start : start + size])}))
        start += size
    got.append(live.flush())
    return {name: np.concatenate([g[name] for g in got]) for name in got[0]}


def classifier(b: Builder) -> str:
    """Valid convolutions, a padded one, a mean: like most keyword spotters."""
    x = b.op("Relu", conv(b, "x", (3, 4), 3))
    x = b.op("Relu", conv(b, x, (4, 4), 5, (2, 2)))
    return b.op("Softmax", b.op("ReduceMean", x, b.constant([2], I64), keepdims=0), axis=1)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    net=classifiers(), hop=st.integers(1, 9), factor=st.sampled_from([1, 1, 2, 3]), extra=st.integers(0, 30),
    seed=st.integers(0, 2**20),
)  # fmt: skip
def test_random_classifier(net: Classifier, hop: int, factor: int, extra: int, seed: int) -> None:
    note(net.text)
    step = hr.stream(net.proto, {"x": 2}, window=net.frames, hop=hop)
    if factor > 1:
        step = hr.stream(net.proto, {"x": 2}, window=net.frames, hop=hop, chunk=step.chunk * factor)
    onnx.checker.check_model(step.proto)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 3, net.frames + extra)).astype(np.float32)
    want = window_by_window(net.proto, x, net.frames, hop)
    got = stream_of(ReferenceStream(step), x, cuts(x.shape[2], rng))
    assert set(got) == set(want)
    for name in want:
        close(want[name], got[name], f"{net.text}, hop {hop}: {name}", 1e-4)
        assert step.lookahead[name] <= max(0, net.frames - hop)
        assert (step.receptive_field[name] or 0) <= net.frames


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(net=classifiers(), hop=st.integers(1, 9), factor=st.sampled_from([1, 3]), seed=st.integers(0, 2**20))
def test_random_classifier_compiled(net: Classifier, hop: int, factor: int, seed: int) -> None:
    note(net.text)
    step = hr.stream(net.proto, {"x": 2}, window=net.frames, hop=hop)
    step = hr.stream(net.proto, {"x": 2}, window=net.frames, hop=hop, chunk=step.chunk * factor)
    program, rng = hr.compile(step), np.random.default_rng(seed)
    x = rng.standard_normal((1, 3, net.frames + 20)).astype(np.float32)
    want = window_by_window(net.proto, x, net.frames, hop)
    got = stream_of(program.stream(), x, cuts(x.shape[2], rng))
    for name in want:
        close(want[name], got[name], f"{net.text}, hop {hop}: {name}", 1e-4)


def test_shared_layers_and_those_of_every_window() -> None:
    step = hr.stream(build(classifier, rank=2), {"x": 2}, window=12)
    assert step.window is not None and (step.window.frames, step.window.hop) == (12, 1)
    first, second = step.window.work
    assert (first.alone, first.shared, first.why) == (10 * 4 * 3 * 3, 4 * 3 * 3, "")
    assert second.alone == second.shared == 10 * 4 * 4 * 5 and "pads" in second.why
    assert f"{first.shared + second.shared:,} MAC per window" in str(step.window)
    assert hr.compile(step).info.macs == step.window.shared
    assert step.chunk == 1 and set(step.latency.values()) == {11}


def test_layers_are_recomputed_where_sharing_saves_nothing() -> None:
    for hop, shares in ((1, True), (9, True), (10, False), (12, False), (20, False)):
        step = hr.stream(build(classifier, rank=2), {"x": 2}, window=12, hop=hop)
        assert step.window is not None
        assert (step.window.shared < step.window.alone) == shares, hop
        assert step.window.shared <= step.window.alone


def test_strides_need_a_hop_on_their_grid() -> None:
    def net(b: Builder) -> str:
        return b.op("ReduceMean", conv(b, "x", (3, 4), 3, stride=2), b.constant([2], I64), keepdims=0)

    shared = [hr.stream(build(net, rank=2), {"x": 2}, window=15, hop=hop).window for hop in (1, 2, 3, 4)]
    assert [w is not None and w.shared < w.alone for w in shared] == [False, True, False, True]
    assert "not on one grid" in shared[0].work[0].why  # type: ignore[union-attr]


def test_shorter_than_a_window() -> None:
    """No frames come, and the flush says why."""
    step = hr.stream(build(classifier, rank=2), {"x": 2}, window=12)
    (name,) = step.spec.outputs
    assert step.spec.min_length == 12 and [step.ready(name, n) for n in (0, 11, 12, 13)] == [0, 0, 1, 2]
    for live in (ReferenceStream(step), hr.compile(step).stream()):
        assert live.push({"x": np.zeros((1, 3, 11), np.float32)})[name].shape == (0, 1, 4)
        with pytest.raises(ValueError, match="12"):
            live.flush()


def test_verified_saved_and_opened_again(tmp_path: Any) -> None:
    onnx.save(build(classifier, rank=2), tmp_path / "m.onnx")
    step = hr.stream(tmp_path / "m.onnx", {"x": 2}, window={"x": 12}, hop=4)
    step.save(tmp_path / "step.onnx")
    assert step_model(hr.load(tmp_path / "step.onnx")).window == step.window
    hr.compile(step, out=tmp_path / "p")
    report = hr.verify(hr.open(tmp_path / "p"), cuttings=2)
    assert isinstance(report, ContractReport) and report.ok, report.table()
    assert "every window of 12 frames, 4 apart" in report.table()


def test_the_contract_finds_a_wrong_window() -> None:
    """The step model of another hop is not what the metadata says."""
    net = build(classifier, rank=2)
    step = hr.stream(net, {"x": 2}, window=12).proto
    (entry,) = [p for p in step.metadata_props if p.key == "headrace.stream"]
    entry.value = entry.value.replace('"window": {"frames": 12', '"window": {"frames": 11')
    report = hr.verify(step, model=net, cuttings=1)
    assert isinstance(report, ContractReport) and not report.ok


def test_side_inputs_and_several_signals() -> None:
    def make(b: Builder) -> str:
        x = b.op("Add", conv(b, "x", (3, 3), 3), cut(b, "z", 1, 7))
        mean = b.op("ReduceMean", conv(b, x, (3, 3), 3, (1, 1)), b.constant([2], I64), keepdims=0)
        return b.op("Mul", mean, "gain")

    proto = build(make, rank=2)
    proto.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3, 8]))
    proto.graph.input.append(helper.make_tensor_value_info("gain", TensorProto.FLOAT, [1, 3]))
    step = hr.stream(proto, {"x": 2, "z": 2}, window=8, chunk=3)
    assert step.spec.side == ("gain",)
    report = hr.verify(step, model=proto, cuttings=1)
    assert isinstance(report, ContractReport) and report.ok, report.table()


def test_what_does_not_fit() -> None:
    net = build(classifier, rank=2)
    for options, text in (
        ({"hop": 2}, "window="),
        ({"window": 12, "hop": 0}, "hop"),
        ({"window": 0}, "positive"),
        ({"window": {"y": 3}}, "time input"),
        ({"window": 12, "multiple": {"x": 2}}, "multiple"),
        ({"window": 12, "max_past": 20}, "max_past"),
        ({"window": 12, "hop": 4, "chunk": 6}, "chunk"),
    ):
        with pytest.raises(ValueError, match=text):
            hr.stream(net, {"x": 2}, **options)  # type: ignore[arg-type]
    fixed = build(classifier, rank=2)
    fixed.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 12
    assert hr.stream(fixed, {"x": 2}, window=12).spec.min_length == 12
    with pytest.raises(ValueError, match="takes 12 frames"):
        hr.stream(fixed, {"x": 2}, window=13)
    with pytest.raises(hr.NotStreamable, match="window="):
        hr.stream(fixed, {"x": 2})


def extent(b: Builder, x: str, axis: int) -> str:
    return b.op("Gather", b.op("Shape", x), b.constant([axis], I64), axis=0)


def heads(b: Builder) -> str:
    """Unmasked attention; the reshape to heads is computed from extents."""
    y = b.op("Transpose", b.op("Relu", conv(b, "x", (3, 4), 3)), perm=[0, 2, 1])
    y = b.op("Reshape", y, b.op("Concat", extent(b, "x", 0), extent(b, y, 1), b.constant([2, 2], I64), axis=0))
    y = b.op("Transpose", y, perm=[0, 2, 1, 3])
    weights = b.op("Softmax", b.op("MatMul", y, b.op("Transpose", y, perm=[0, 1, 3, 2])), axis=-1)
    return b.op("ReduceMean", b.op("MatMul", weights, y), b.constant([2], I64), keepdims=0)


def positions(b: Builder) -> str:
    """Each frame adds the row of a table for its place in the window; the table is longer than the window."""
    y = b.op("Transpose", conv(b, "x", (3, 4), 3, stride=2), perm=[0, 2, 1])
    table = b.constant(b.rng.standard_normal((1, 50, 4)))
    rows = b.op("Slice", table, b.constant([0], I64), extent(b, y, 1), b.constant([1], I64))
    return b.op("ReduceMax", b.op("Add", y, rows), b.constant([1], I64), keepdims=0)


def causal(b: Builder) -> str:
    """A mask made of ranges: in a window the past begins with the window."""
    y = b.op("Transpose", conv(b, "x", (3, 4), 2), perm=[0, 2, 1])
    place = b.op("Range", b.constant(0, I64), b.op("Squeeze", extent(b, y, 1)), b.constant(1, I64))
    column, row = (b.op("Unsqueeze", place, b.constant([axis], I64)) for axis in (0, 1))
    scores = b.op("MatMul", y, b.op("Transpose", y, perm=[0, 2, 1]))
    scores = b.op("Where", b.op("LessOrEqual", column, row), scores, b.constant(-1e9))
    y = b.op("MatMul", b.op("Softmax", scores, axis=-1), y)
    return b.op("ReduceMean", b.op("MatMul", y, b.normal((4, 4), 4)), b.constant([1], I64), keepdims=0)


def divided(b: Builder) -> str:
    """A sum divided by the number of frames, behind a layer that doubles the rate."""
    y = b.op("Resize", "x", "", b.constant([1, 1, 2]), mode="nearest", coordinate_transformation_mode="asymmetric",
             nearest_mode="floor")  # fmt: skip
    y = conv(b, y, (3, 4), 3)
    total = b.op("ReduceSum", y, b.constant([2], I64), keepdims=0)
    return b.op("Div", total, b.op("Cast", extent(b, y, 2), to=TensorProto.FLOAT))


@pytest.mark.parametrize("make", [heads, positions, causal, divided])
def test_what_depends_on_the_window(make: Any) -> None:
    net, rng = build(make, rank=3 if make is heads else 2), np.random.default_rng(3)
    for frames, hop in ((9, 1), (14, 2), (14, 3)):
        chunk = hr.stream(net, {"x": 2}, window=frames, hop=hop).chunk
        x = rng.standard_normal((1, 3, 40)).astype(np.float32)
        want = window_by_window(net, x, frames, hop)
        for factor in (1, 2):
            step = hr.stream(net, {"x": 2}, window=frames, hop=hop, chunk=factor * chunk)
            got = stream_of(ReferenceStream(step), x, cuts(40, rng))
            for name in want:
                close(want[name], got[name], f"windows of {frames}, hop {hop}, {factor} a step")


def test_inner_graphs_are_refused() -> None:
    def branch(name: str, value: float) -> onnx.GraphProto:
        constant = helper.make_node("Constant", [], [name], value_float=value)
        return helper.make_graph([constant], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [])])

    def make(b: Builder) -> str:
        total = b.op("ReduceSum", "x", keepdims=0)
        loud = b.op("Greater", total, b.constant(0))
        return b.op("If", loud, then_branch=branch("a", 1.0), else_branch=branch("b", 2.0))

    with pytest.raises(hr.NotStreamable, match="inner graphs"):
        hr.stream(build(make, rank=0), {"x": 2}, window=4)


SLOW = pytest.mark.slow


@pytest.mark.models
@pytest.mark.parametrize(
    ("name", "hop"),
    [
        ("pulsevad", 1),
        *(pytest.param(n, h, marks=SLOW) for n in ("pulsevad-int8", "pulsevad-teacher") for h in (1, 10)),
    ],
)
def test_pulsevad(name: str, hop: int) -> None:
    """Its adapter (a convolution over one frame) is shared; the rest pads the window. int8: bit for bit."""
    path, x = catalog.path(name), np.random.default_rng(hop).standard_normal((1, 64, 60)).astype(np.float32)
    with pytest.raises(hr.NotStreamable, match="over all of time"):
        hr.stream(path, {"log_mel": 2})
    step = hr.stream(path, {"log_mel": 2}, window=21, hop=hop)
    program, one = hr.compile(step), hr.compile(path, shapes={"log_mel": (1, 64, 21)})
    assert step.window is not None and program.info.macs <= step.window.shared < step.window.alone
    assert program.info.macs < one.info.macs <= step.window.alone
    live = program.stream()
    got = [live.push({"log_mel": np.ascontiguousarray(part)}) for part in np.split(x, [1, 30, 59], 2)]
    logits = np.concatenate([g["logits"] for g in (*got, live.flush())])
    for k, value in enumerate(logits):
        window = np.ascontiguousarray(x[:, :, k * hop : k * hop + 21])
        close(one.run({"log_mel": window})["logits"], value, f"window {k}", 0 if "int8" in name else 2e-6)
    assert len(logits) == (60 - 21) // hop + 1
    assert step.latency == {"logits": -(-21 // hop) - 1} and step.lookahead == {"logits": 21 - hop}


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.parametrize("name", ["pulsevad", "pulsevad-int8", "pulsevad-teacher"])
def test_contract_of_pulsevad(name: str) -> None:
    report = hr.verify(hr.stream(catalog.path(name), {"log_mel": 2}, window=21), model=catalog.path(name), cuttings=2)
    assert isinstance(report, ContractReport) and report.ok, report.table()
