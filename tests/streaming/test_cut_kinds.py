"""Frames cut, joined, repeated, framed and looked up along time."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from onnx import TensorProto, helper

from headrace.errors import NotStreamable
from headrace.frontends.onnx import load
from headrace.streaming.rewrite import stream
from tests.streaming import onestream
from tests.streaming.networks import END, I64, build, conv, cut, length, pad

check = partial(onestream.check, chunks=(None, 2))
LENGTHS = (1, 2, 3, 8, 13, 21)
LONG = (16, 17, 20, 33, 50, 64)


def ints(b, *values):
    return b.constant(list(values), I64)


def behind(b):
    return conv(b, "x", (3, 3), 3, (1, 1))


def frames(b, x):
    return b.op("Unsqueeze", length(b, x, 2), ints(b, 0))


def joined(left, right, delayed=False):
    """Learned frames before and after."""

    def make(b):
        x = behind(b) if delayed else "x"
        parts = [b.normal((1, 3, left), 3), x, b.normal((1, 3, right), 3)]
        return b.op("Concat", *(p for p, n in zip(parts, (left, 1, right), strict=True) if n), axis=2)

    return make


def split(first, fixed, delayed=True):
    """Part 0 or 1 of a signal of which one part has a fixed size."""

    def make(b):
        x = behind(b) if delayed else "x"
        rest = b.op("Sub", frames(b, x), ints(b, fixed))
        sizes = b.op("Concat", *((rest, ints(b, fixed)) if first else (ints(b, fixed), rest)), axis=0)
        b.nodes.append(helper.make_node("Split", [x, sizes], ["one", "two"], axis=2))
        return "one" if first else "two"

    return make


def repeated(how):
    def make(b):
        y = b.op("Unsqueeze", behind(b), ints(b, 3))
        y = {
            "Expand": lambda: b.op("Expand", y, ints(b, 1, 1, 1, 3)),
            "Tile": lambda: b.op("Tile", y, ints(b, 1, 1, 1, 3)),
            "Concat": lambda: b.op("Concat", y, y, y, axis=3),
        }[how]()
        return b.op("Reshape", y, ints(b, 1, 3, -1))

    return make


def stacked(b):
    """Each frame with the two before it."""
    y = pad(b, "x", 2, 0)
    return b.op("Concat", cut(b, y, 0, -2), cut(b, y, 1, -1), cut(b, y, 2, END), axis=1)


def to_image(b, channels):
    return b.op("Unsqueeze", conv(b, "x", (3, channels), 3, (1, 1)), ints(b, 2))


NETS = {
    "learned frames before": (joined(2, 0), 0, {}),
    "learned frames after": (joined(0, 3), 0, {}),
    "learned frames before and after a delay": (joined(2, 3, True), 0, {}),
    "more look-ahead than frames before": (lambda b: joined(1, 2)(b) and conv(b, "concat_0", (3, 2), 7, (0, 0)), 5, {}),
    "all but the first": (split(False, 2), 3, {}),
    "all but the last": (split(True, 2, False), 2, {}),
    "repeated by Expand": (repeated("Expand"), 3, {}),
    "repeated by Tile": (repeated("Tile"), 3, {}),
    "repeated by Concat": (repeated("Concat"), 3, {}),
    "frames stacked": (stacked, 0, {}),
    "differences": (lambda b: b.op("Sub", cut(b, "x", 1, END), cut(b, "x", 0, -1)), 1, {}),
    "moved ahead by a Pad, then padded": (lambda b: conv(b, pad(b, "x", -2, 2), (3, 2), 3, (1, 1)), 3, {}),
    "moved back by a Pad, then padded": (lambda b: conv(b, pad(b, "x", 2, -2), (3, 2), 3, (2, 2)), 0, {}),
    "even beside odd": (
        lambda b: b.op("Concat", cut(b, "x", 0, END, 2), cut(b, "x", 1, END, 2), axis=1), 0, {"multiple": {"x": 2}}),
    "channels to frames": (lambda b: b.op("DepthToSpace", to_image(b, 12), blocksize=2), 2, {"rank": 4}),
    "frames to channels": (
        lambda b: b.op("SpaceToDepth", b.op("Concat", to_image(b, 4), to_image(b, 4), axis=2), blocksize=2), 1,
        {"rank": 4, "multiple": {"x": 2}}),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_network(name) -> None:
    make, latency, options = NETS[name]
    options = dict(options)
    unit = next(iter(options.get("multiple", {"x": 1}).values()))
    proto = build(make, rank=options.pop("rank", 3))
    step = check(proto, {"x": 2}, [unit * n for n in LENGTHS], **options)
    assert list(step.latency.values()) == [latency]


def test_frames_before_a_causal_model_cost_no_mask() -> None:
    step = check(build(lambda b: conv(b, joined(2, 0)(b), (3, 4), 3)), {"x": 2}, LENGTHS)
    assert step.spec.position is None and step.spec.valid is None


def with_side(make, *dims):
    proto = build(make)
    proto.graph.input.append(helper.make_tensor_value_info("side", TensorProto.FLOAT, dims))
    return proto, {"side": np.random.default_rng(2).standard_normal(dims).astype(np.float32)}


@pytest.mark.parametrize("delayed", [False, True])
def test_frames_that_are_an_input(delayed) -> None:
    def make(b):
        return conv(b, b.op("Concat", "side", behind(b) if delayed else "x", axis=2), (3, 4), 3, (1, 1))

    proto, side = with_side(make, 1, 3, 2)
    check(proto, {"x": 2}, LENGTHS, side=side)


@pytest.mark.parametrize("how", ["Expand", "Tile"])
def test_speaker_for_every_frame(how) -> None:
    def make(b):
        count = b.op("Shape", "x") if how == "Expand" else b.op("Concat", ints(b, 1, 1), frames(b, "x"), axis=0)
        return b.op("Concat", behind(b), b.op(how, "side", count), axis=1)

    proto, side = with_side(make, 1, 3, 1)
    check(proto, {"x": 2}, LENGTHS, side=side)


def framed(b):
    """Frames of 16 samples, 4 apart, picked by their numbers."""
    x = b.op("Squeeze", b.op("Slice", "x", *(ints(b, v) for v in (0, 1, 1))), ints(b, 1))
    count = b.op("Div", b.op("Sub", length(b, x, 1), b.constant(12, I64)), b.constant(4, I64))
    starts = b.op("Mul", b.op("Range", b.constant(0, I64), count, b.constant(1, I64)), b.constant(4, I64))
    places = b.op("Add", b.op("Unsqueeze", starts, ints(b, 1)), b.constant(np.arange(16)[None], I64))
    return b.op("Gather", x, places, axis=1)


def test_framing_by_numbers() -> None:
    step = check(build(framed), {"x": 2}, LONG)
    assert step.chunk == 4 and list(step.receptive_field.values()) == [16]


def test_spectrum_of_frames() -> None:
    def make(b):
        return b.op("DFT", b.op("Unsqueeze", framed(b), ints(b, 3)), "", b.constant(2, I64), onesided=1)

    check(build(make, rank=4), {"x": 2}, LONG)


def looked_up(size, scale=1):
    def make(b):
        numbers = b.op("Range", b.constant(0, I64), length(b, "x", 2), b.constant(1, I64))
        numbers = b.op("Div", numbers, b.constant(scale, I64))
        rows = b.op("Transpose", b.op("Gather", b.normal((size, 3), 1), numbers, axis=0), perm=[1, 0])
        return b.op("Add", behind(b), b.op("Unsqueeze", rows, ints(b, 0)))

    return make


@pytest.mark.parametrize("size,scale,most", [(2, 10000, 20000), (100, 100000, 1 << 22)])
def test_a_table_that_lasts_long_is_not_without_end(size, scale, most) -> None:
    assert stream(load(build(looked_up(size, scale))), {"x": 2}).spec.max_past == most


@pytest.mark.parametrize("size,scale", [(30, 1), (10, 3)])
def test_a_table_looked_up_by_number_states_the_maximum(size, scale) -> None:
    assert check(build(looked_up(size, scale)), {"x": 2}, LENGTHS).spec.max_past == 30


def test_einsum_with_an_ellipsis() -> None:
    def make(b):
        rows = b.op("Reshape", b.op("Transpose", "x", perm=[0, 2, 1]), ints(b, 1, -1, 1, 3))
        return b.op("Einsum", rows, b.normal((3, 5), 3), equation="...d,de->...e")

    check(build(make, rank=4), {"x": 2}, LENGTHS)


def irregular(b):
    places = b.op("Range", b.constant(0, I64), length(b, "x", 2), b.constant(1, I64))
    return b.op("Gather", "x", b.op("Mod", places, b.constant(3, I64)), axis=2)


def held_later(b):
    """Frames one after another at first, later the same again and again."""
    places = b.op("Range", b.constant(0, I64), length(b, "x", 2), b.constant(1, I64))
    places = b.op("Unsqueeze", b.op("Min", places, b.constant(9000, I64)), ints(b, 1))
    return b.op("Gather", "x", places, axis=2)


def from_the_end(b):
    places = b.op("Sub", b.op("Range", b.constant(0, I64), length(b, "x", 2), b.constant(1, I64)), b.constant(9, I64))
    rows = b.op("Gather", b.normal((50, 3), 1), places, axis=0)
    return b.op("Add", "x", b.op("Unsqueeze", b.op("Transpose", rows, perm=[1, 0]), ints(b, 0)))


def both_halves(b):
    b.nodes.append(helper.make_node("Split", ["x"], ["one", "two"], axis=2, num_outputs=2))
    return "one"


REFUSED = {
    "halves": (both_halves, "not a fixed number"),
    "picked again": (irregular, "irregular places"),
    "picked again, but only later": (held_later, "irregular places"),
    "numbers below 0": (from_the_end, "cannot be told beforehand"),
    "the signal twice": (lambda b: b.op("Tile", "x", ints(b, 1, 1, 2)), "repeats the signal along time"),
    "one after another": (lambda b: b.op("Concat", "x", behind(b), axis=2), "after another"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name) -> None:
    make, reason = REFUSED[name]
    rank = 4 if make is held_later else 3
    with pytest.raises(NotStreamable, match=reason) as refused:
        stream(load(build(make, rank=rank)), {"x": 2})
    assert refused.value.node and refused.value.hint


def numbers(b, x="x"):
    return b.op("Range", b.constant(0, I64), length(b, x, 2), b.constant(1, I64))


def real_frames(b):
    """A mask of the frames before the length, as it is made for batches."""
    x = behind(b)
    seen = b.op("Less", b.op("Unsqueeze", numbers(b), ints(b, 0)), b.op("Unsqueeze", length(b, "x", 2), ints(b, 0)))
    return b.op("Where", b.op("Unsqueeze", seen, ints(b, 1)), x, b.constant(0.0))


def test_a_mask_of_real_frames_is_true_for_all() -> None:
    step = check(build(real_frames), {"x": 2}, LENGTHS)
    assert not step.spec.absolute


def test_the_length_itself_is_refused() -> None:
    def make(b):
        return b.op("Div", "x", b.op("Cast", length(b, "x", 2), to=TensorProto.FLOAT))

    with pytest.raises(NotStreamable, match="length of the signal"):
        stream(load(build(make)), {"x": 2})


def cropped_and_padded(b):
    """Frequencies cut, frames padded, by one Pad that the reference evaluator of ONNX cannot run."""
    y = b.op("Unsqueeze", b.op("Transpose", "x", perm=[0, 2, 1]), ints(b, 1))
    return b.op("Sigmoid", b.op("Pad", y, ints(b, 0, 0, 2, -1, 0, 0, 1, 0), b.constant(0.5)))


def test_crop_and_pad() -> None:
    check(build(cropped_and_padded, rank=4), {"x": 2}, LENGTHS)


def test_frames_before_the_start_that_depend_on_an_input() -> None:
    """Padding times a side input is not known before the stream starts."""

    def make(b):
        return conv(b, b.op("Mul", b.op("Add", pad(b, "x", 3, 1), b.constant(1.0)), "side"), (3, 4), 3)

    proto, side = with_side(make, 1, 3, 1)
    check(proto, {"x": 2}, LENGTHS, side=side)
