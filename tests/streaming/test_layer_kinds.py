"""Kinds of layers one by one: streamed in random pieces, equal to the offline model in onnxruntime."""

from __future__ import annotations

from functools import partial

import pytest

from headrace.errors import NotStreamable
from headrace.frontends.onnx import load
from headrace.streaming.rewrite import stream
from tests.streaming import onestream
from tests.streaming.networks import I64, build, conv, pad

check = partial(onestream.check, chunks=(None, 2))
LENGTHS = (1, 2, 3, 8, 13, 21)


def ints(b, *values):
    return b.constant(list(values), I64)


def resize(b, x, factor, mode="linear", where="half_pixel", nearest="round_prefer_floor", rank=3):
    extra = {"nearest_mode": nearest} if mode == "nearest" else {}
    scales = b.constant([1.0] * (rank - 1) + [float(factor)])
    return b.op("Resize", x, "", scales, mode=mode, coordinate_transformation_mode=where, **extra)


def behind(b):
    """A layer with look-ahead, so that what follows is delayed and meets frames outside the signal."""
    return conv(b, "x", (3, 3), 3, (1, 1))


@pytest.mark.parametrize("where", ["asymmetric", "half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"])
@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("delayed", [False, True])
def test_linear_resize(where, factor, delayed) -> None:
    proto = build(lambda b: resize(b, behind(b) if delayed else "x", factor, where=where))
    step = check(proto, {"x": 2}, LENGTHS)
    assert list(step.ratio.values()) == [factor]
    assert list(step.lookahead.values()) == [1 + delayed]


@pytest.mark.parametrize("nearest", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("where", ["asymmetric", "half_pixel"])
@pytest.mark.parametrize("factor", [2, 3])
def test_nearest_resize(nearest, where, factor) -> None:
    check(build(lambda b: resize(b, "x", factor, "nearest", where, nearest)), {"x": 2}, LENGTHS)
    check(build(lambda b: resize(b, behind(b), factor, "nearest", where, nearest)), {"x": 2}, LENGTHS)


def sizes(b, x, up, down=1, rank=3, mode="linear"):
    """Resize to sizes computed from the shape."""
    ones = [1] * (rank - 1)
    target = b.op("Div", b.op("Mul", b.op("Shape", x), ints(b, *ones, up)), ints(b, *ones, down))
    return b.op("Resize", x, "", "", target, mode=mode)


def image(b, x):
    return b.op("Unsqueeze", x, ints(b, 0))


RESIZED = {
    "cubic": (lambda b: resize(b, image(b, behind(b)), 2, "cubic", rank=4), {"rank": 4}),
    "by sizes": (lambda b: sizes(b, "x", 2), {}),
    "frequency only": (lambda b: b.op("Resize", image(b, "x"), "", b.constant([1.0, 1, 2, 1])), {"rank": 4}),
    "both axes": (lambda b: b.op("Resize", image(b, behind(b)), "", b.constant([1.0, 1, 2, 2])), {"rank": 4}),
    "named axes": (lambda b: b.op("Resize", "x", "", b.constant([2.0]), axes=[2], mode="linear"), {}),
    "between paddings": (lambda b: conv(b, resize(b, pad(b, "x", 2, 1), 2), (3, 4), 5, (2, 2)), {}),
    "twice": (lambda b: resize(b, resize(b, "x", 2), 3, where="asymmetric"), {}),
    "half the frames": (lambda b: resize(b, "x", 0.5, "nearest", "asymmetric", "floor"), {}),
    "means of pairs": (lambda b: resize(b, behind(b), 0.5), {}),
    "quarter": (lambda b: resize(b, "x", 0.25, where="pytorch_half_pixel"), {}),
    "third by sizes": (lambda b: sizes(b, "x", 1, 3), {"multiple": {"x": 3}}),
}


@pytest.mark.parametrize("name", RESIZED)
def test_resize(name) -> None:
    make, options = RESIZED[name]
    options = dict(options)
    unit = next(iter(options.get("multiple", {"x": 1}).values()))
    check(build(make, rank=options.pop("rank", 3)), {"x": 2}, [unit * n for n in LENGTHS], **options)


def test_unet_with_linear_resize() -> None:
    def make(b):
        top = b.op("Relu", conv(b, "x", (3, 4), 3, (1, 1)))
        low = b.op("Relu", conv(b, top, (4, 4), 4, (1, 1), stride=2))
        return b.op("Add", conv(b, resize(b, low, 2), (4, 4), 3, (1, 1)), top)

    check(build(make), {"x": 2}, (2, 4, 8, 20, 30), multiple={"x": 2})


REFUSED = {
    "align_corners": (lambda b: resize(b, "x", 2, where="align_corners"), "align_corners"),
    "not whole": (lambda b: resize(b, "x", 1.5), "not by a whole factor"),
    "every third by rounding": (
        lambda b: resize(b, "x", 1 / 3, "nearest", "asymmetric", "floor"), "not by a whole factor"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name) -> None:
    make, reason = REFUSED[name]
    with pytest.raises(NotStreamable, match=reason) as refused:
        stream(load(build(make)), {"x": 2})
    assert refused.value.node and refused.value.hint


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "AveragePool with its padding", "LpPool"])
@pytest.mark.parametrize("kernel,stride,pads", [(3, 2, (0, 0)), (3, 2, (1, 1)), (2, 3, (0, 0)), (4, 3, (2, 1))])
@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("delayed", [False, True])
def test_pool_with_a_stride(op, kernel, stride, pads, ceil, delayed) -> None:
    def make(b):
        x = behind(b) if delayed else "x"
        counted = {"count_include_pad": 1} if "padding" in op else {}
        return b.op(
            op.split()[0], x, kernel_shape=[kernel], strides=[stride], pads=list(pads), ceil_mode=ceil, **counted
        )

    proto = build(make)
    proto.opset_import[0].version = 22
    check(proto, {"x": 2}, LENGTHS)


@pytest.mark.parametrize("strides,pads", [([2, 1], [1, 1, 1, 1]), ([1, 2], [1, 0, 1, 1])])
def test_mean_over_time_and_frequency_counts_real_frames_only(strides, pads) -> None:
    def make(b):
        return b.op("AveragePool", image(b, behind(b)), kernel_shape=[3, 3], strides=strides, pads=pads)

    check(build(make, rank=4), {"x": 2}, LENGTHS)


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("kernel,stride", [(4, 2), (3, 2), (5, 3)])
def test_transposed_convolution_that_multiplies_the_length(auto, kernel, stride) -> None:
    def make(b):
        return b.op("ConvTranspose", behind(b), b.normal((3, 2, kernel), 9), strides=[stride], auto_pad=auto)

    step = check(build(make), {"x": 2}, LENGTHS)
    assert list(step.ratio.values()) == [stride]
