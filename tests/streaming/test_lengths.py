"""lengths={"lens": "x"}: exact where the length is a mask or picks the last frame; refused where it is a number."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import headrace as hr
from headrace.measure.contract_report import HOLDS, ContractReport
from tests.streaming.networks import I64, build, conv
from tests.streaming.onestream import check
from zoo.build import Builder

LENGTHS = {"lens": "x"}


def model(make: Any, outputs: int = 1, rank: int = 3, dtype: int = TensorProto.INT64, dims: Any = ("N",)) -> Any:
    """A network over x [1, 3, T] and its length."""
    proto = build(make, outputs, rank)
    proto.graph.input.append(helper.make_tensor_value_info("lens", dtype, list(dims)))
    return proto


def feeds(frames: int, rng: np.random.Generator, shape: Any = (1,), dtype: Any = np.int64) -> dict[str, np.ndarray]:
    x = rng.standard_normal((1, 3, frames)).astype(np.float32)
    return {"x": x, "lens": np.full(shape, frames, dtype)}


def streamed(proto: Any, frames: tuple[int, ...], shape: Any = (1,), dtype: Any = np.int64, **options: Any) -> Any:
    """Against the offline model in onnxruntime, which is told the length."""
    return check(proto, {"x": 2}, frames, feeds=lambda n, rng: feeds(n, rng, shape, dtype), bound=LENGTHS, **options)


def frames_of(b: Builder, x: str) -> str:
    """The extent of time, as exporters write it."""
    return b.op("Gather", b.op("Shape", x), b.constant(2, I64), axis=0)


def mask(b: Builder, x: str, length: str, dtype: Any = I64) -> str:
    """[N, T]: frame number < length, as made for padded batches."""
    zero, one = b.constant(0, I64), b.constant(1, I64)
    place = b.op("Range", zero, frames_of(b, x), one)
    if dtype != I64:
        place = b.op("Cast", place, to=TensorProto.INT32)
    return b.op("Less", b.op("Unsqueeze", place, zero_axis(b)), b.op("Unsqueeze", length, b.constant([1], I64)))


def zero_axis(b: Builder) -> str:
    return b.constant([0], I64)


def masked_conv(b: Builder, dtype: Any = I64) -> str:
    """Where(mask, x, 0) before a "same" convolution, the mask times its result: what padded training needs."""
    rows = b.op("Unsqueeze", mask(b, "x", "lens", dtype), b.constant([1], I64))
    x = b.op("Where", rows, "x", b.constant(0))
    y = b.op("Sigmoid", conv(b, x, (3, 4), 5, (2, 2)))
    return b.op("Mul", y, b.op("Cast", rows, to=TensorProto.FLOAT))


def strided(b: Builder) -> str:
    """The length after a stride of 2: (lens - 1) // 2 + 1, against the frames that there are."""
    y = b.op("Relu", conv(b, "x", (3, 4), 3, (1, 1), stride=2))
    one = b.constant([1], I64)
    length = b.op("Add", b.op("Div", b.op("Sub", "lens", one), b.constant([2], I64)), one)
    outside = b.op("Not", b.op("Unsqueeze", mask(b, y, length), b.constant([1], I64)))
    return conv(b, b.op("Where", outside, b.constant(-7), y), (4, 2), 3, (2, 0))


def last_frame(b: Builder) -> list[str]:
    """A sequence classifier: dense layer on the frame before the end, behind a layer that looks ahead."""
    y = b.op("Tanh", conv(b, "x", (3, 4), 4, (1, 2)))
    last = b.op("Gather", y, b.op("Sub", "lens", b.constant([1], I64)), axis=2)
    flat = b.op("Reshape", last, b.constant([1, 4], I64))
    return [b.op("Softmax", b.dense(flat, 4, 3), axis=1), y]


@pytest.mark.parametrize("make", [masked_conv, strided])
def test_masks(make: Any) -> None:
    proto = model(make)
    step = streamed(proto, (1, 2, 3, 4, 5, 17, 40))
    assert "lens" not in step.inputs and step.spec.lengths["lens"].input == "x"
    assert hr.stream(proto, {"x": 2}).spec.side == ("lens",)  # for whoever knows the length beforehand


def test_int32_scalars_and_given_shapes() -> None:
    streamed(model(lambda b: masked_conv(b, np.int32), dtype=TensorProto.INT32), (3, 9), dtype=np.int32)
    scalar = model(lambda b: b.op("Gather", conv(b, "x", (3, 4), 3, (1, 1)), minus_one(b), axis=2), dims=(), rank=2)
    assert list(streamed(scalar, (1, 2, 9), shape=()).spec.finals)
    hr.stream(scalar, {"x": 2}, lengths=LENGTHS, shapes={"lens": ()})


def minus_one(b: Builder) -> str:
    return b.op("Sub", "lens", b.constant(1, I64))


def test_the_last_frame_comes_at_the_flush() -> None:
    proto = model(last_frame, 2, 2)
    proto.graph.output[1].type.tensor_type.shape.dim.add()
    step = streamed(proto, (1, 2, 3, 7, 30))
    assert len(step.spec.finals) == len(step.spec.outputs) == 1


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    left=st.integers(0, 4), right=st.integers(0, 4), stride=st.sampled_from([1, 2, 3]), by_slice=st.booleans(),
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=3), alone=st.booleans(),
)  # fmt: skip
def test_last_frames(left: int, right: int, stride: int, by_slice: bool, lengths: Any, alone: bool) -> None:
    """Of any convolution; picked by number, or cut off the end."""

    def make(b: Builder) -> list[str]:
        y = conv(b, "x", (3, 2), left + right + 1, (left, right), stride=stride)
        if by_slice:
            last = b.op("Slice", y, *(b.constant([v], I64) for v in (-1, 2**62, 2)))
        else:
            last = b.op("Gather", y, b.constant([-1], I64), axis=2)
        return [b.op("Sigmoid", last), *([] if alone else [y])]

    check(build(make, 2), {"x": 2}, lengths)


def test_sequence_lens_of_a_recurrence() -> None:
    def make(b: Builder) -> list[str]:
        x = b.op("Transpose", "x", perm=[2, 0, 1])
        weights = [b.normal((1, 12, size), size) for size in (3, 4)]
        y = helper.make_node(
            "GRU", [x, *weights, "", b.op("Cast", "lens", to=TensorProto.INT32)], ["y", "h"], hidden_size=4, name="gru"
        )
        b.nodes.append(y)
        return ["y", "h"]

    proto = model(make, 2, 4)
    del proto.graph.output[1].type.tensor_type.shape.dim[3]
    step = streamed(proto, (1, 4, 11))
    assert list(step.spec.finals) == ["h"]


def test_through_the_whole_chain(tmp_path: Any) -> None:
    proto = model(last_frame, 2, 2)
    proto.graph.output[1].type.tensor_type.shape.dim.add()
    onnx.save(proto, tmp_path / "m.onnx")
    hr.compile(hr.stream(tmp_path / "m.onnx", {"x": 2}, lengths=LENGTHS), out=tmp_path / "p")
    report = hr.verify(hr.open(tmp_path / "p"), cuttings=2)
    assert isinstance(report, ContractReport) and report.ok, report.table()
    assert {c.name for c in report.clauses if c.state == HOLDS} >= {"any cutting", "nothing beyond the end"}


def test_in_windows() -> None:
    """Every window is as long as the window."""

    def make(b: Builder) -> str:
        rows = b.op("Cast", b.op("Unsqueeze", mask(b, "x", "lens"), b.constant([1], I64)), to=TensorProto.FLOAT)
        total = b.op("ReduceSum", b.op("Mul", conv(b, "x", (3, 3), 3, (1, 1)), rows), b.constant([2], I64), keepdims=0)
        return b.op("Div", total, b.op("Cast", b.op("Unsqueeze", "lens", b.constant([1], I64)), to=TensorProto.FLOAT))

    proto = model(make, rank=2)
    with pytest.raises(hr.NotStreamable):
        hr.stream(proto, {"x": 2}, lengths=LENGTHS)
    step = hr.stream(proto, {"x": 2}, lengths=LENGTHS, window=6)
    report = hr.verify(step, model=proto, cuttings=1)
    assert isinstance(report, ContractReport) and report.ok, report.table()


def test_the_length_as_a_number_is_refused() -> None:
    def scaled(b: Builder) -> str:
        return b.op("Div", "x", b.op("Cast", "lens", to=TensorProto.FLOAT))

    def middle(b: Builder) -> str:
        return b.op("Gather", "x", b.op("Div", "lens", b.constant([2], I64)), axis=2)

    for make in (scaled, middle):
        with pytest.raises(hr.NotStreamable):
            hr.stream(model(make), {"x": 2}, lengths=LENGTHS)


def encoder(b: Builder) -> list[str]:
    """Frames at half the rate, and how many there are of them: what encoders of speech give."""
    one = b.constant([1], I64)
    y = b.op("Relu", conv(b, "x", (3, 2), 3, (1, 1), stride=2))
    return [y, b.op("Add", b.op("Div", b.op("Sub", "lens", one), b.constant([2], I64)), one)]


def test_a_length_behind_two_strides() -> None:
    """The chunk is that of the length, also where no signal needs it."""

    def make(b: Builder) -> list[str]:
        two, three = (b.constant([n], I64) for n in (2, 3))
        return [b.op("Tanh", "x"), b.op("Div", b.op("Add", b.op("Div", "lens", two), two), three)]

    proto = model(make, 2)
    del proto.graph.output[1].type.tensor_type.shape.dim[1:]
    proto.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    assert streamed(proto, (1, 2, 3, 8, 9, 30)).chunk == 6


def test_lengths_as_outputs_come_at_the_flush() -> None:
    proto = model(encoder, 2)
    del proto.graph.output[1].type.tensor_type.shape.dim[1:]
    proto.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    step = streamed(proto, (1, 2, 3, 8, 9, 30))
    assert list(step.spec.finals) == [proto.graph.output[1].name]
    report = hr.verify(hr.stream(proto, {"x": 2}, lengths=LENGTHS), model=proto, cuttings=1)
    assert isinstance(report, ContractReport) and report.ok, report.table()


def test_a_mask_that_is_true_only_for_short_signals_is_refused() -> None:
    """frame < T - T // 5000: true for every frame of every signal that one would try."""

    def make(b: Builder) -> str:
        count = b.op("Squeeze", frames_of(b, "x"))
        place = b.op("Range", b.constant(0, I64), count, b.constant(1, I64))
        less = b.op("Sub", count, b.op("Div", count, b.constant(5000, I64)))
        return b.op("Where", b.op("Less", place, less), "x", b.constant(0))

    with pytest.raises(hr.NotStreamable, match="length of the signal"):
        hr.stream(build(make), {"x": 2})


def test_wrong_arguments() -> None:
    proto = model(masked_conv)
    for lengths, text in (
        ({"len": "x"}, "no input"),
        ({"lens": "y"}, "no time input"),
        ({"x": "x"}, "time input itself"),
    ):
        with pytest.raises(ValueError, match=text):
            hr.stream(proto, {"x": 2}, lengths=lengths)
    with pytest.raises(ValueError, match="int32 or int64"):
        hr.stream(model(masked_conv, dtype=TensorProto.FLOAT), {"x": 2}, lengths=LENGTHS)
