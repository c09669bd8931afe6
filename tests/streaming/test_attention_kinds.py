"""Attention under every kind of mask that proves to be causal, banded or block-wise, and linear attention."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from headrace.errors import NotStreamable, StreamFull
from headrace.frontends.onnx import load
from headrace.streaming.reference import ReferenceStream
from headrace.streaming.rewrite import stream
from tests.streaming import onestream
from tests.streaming.networks import END, I64, MASKS, attention, build, conv, length

check = partial(onestream.check, chunks=(None, 2))
LENGTHS = (1, 3, 8, 13, 36)
INF = -np.inf


def ints(b, *values):
    return b.constant(list(values), I64)


def rows_and_columns(b, numbers):
    return [b.op("Unsqueeze", numbers, ints(b, k)) for k in (1, 0)]


def distance(b, numbers):
    return b.op("Sub", *rows_and_columns(b, numbers))


def alone_from(b, numbers, first):
    """Three frames, but from frame `first` on each frame for itself."""
    row, _ = rows_and_columns(b, numbers)
    early = b.op("And", b.op("Less", row, b.constant(first, I64)), between(b, distance(b, numbers), 0, 2))
    return b.op("Or", early, between(b, distance(b, numbers), 0, 0))


def blocks_before(b, numbers, size):
    """How many blocks the column lies before the row."""
    return distance(b, b.op("Div", numbers, b.constant(size, I64)))


def between(b, value, low, high):
    """low <= value <= high."""
    above = b.op("GreaterOrEqual", value, b.constant(low, I64))
    return b.op("And", above, b.op("LessOrEqual", value, b.constant(high, I64)))


def hide(b, scores, seen):
    return b.op("Where", seen, scores, b.constant(INF))


def square(b, total):
    total = b.op("Unsqueeze", total, ints(b, 0))
    return b.op("Concat", total, total, axis=0)


def cut_square(b, table, total, axes=(0, 1)):
    """The first T rows and columns of a constant mask."""
    return b.op("Slice", table, ints(b, 0, 0), square(b, total), ints(b, *axes))


def blocks(size, left):
    """Blocks of frames that see their own and `left` blocks before it."""
    return lambda b, s, n, t: hide(b, s, between(b, blocks_before(b, n, size), 0, left))


def own_block_causal(b, s, n, t):
    seen = b.op("And", between(b, blocks_before(b, n, 4), 0, 0), between(b, distance(b, n), 0, 99999))
    return hide(b, s, seen)


def table(array, axes=(0, 1), kind=np.float32):
    """A constant mask, added, or chosen by."""

    def mask(b, s, n, t):
        part = cut_square(b, b.constant(array, kind), t, axes)
        return b.op("Add", s, part) if kind is np.float32 else b.op("Where", part, s, b.constant(-1e30))

    return mask


def trilu_band(b, s, n, t):
    one = b.op("Expand", b.constant([[1.0]]), square(b, t))
    seen = b.op("Trilu", b.op("Trilu", one, b.constant(1, I64), upper=0), b.constant(-3, I64), upper=1)
    return b.op("Where", b.op("Equal", seen, b.constant(0.0)), b.constant(INF), s)


def relative(inner):
    """A learned number for each clipped distance and head, as in T5."""

    def mask(b, s, n, t):
        place = b.op("Add", b.op("Clip", distance(b, n), b.constant(-3, I64), b.constant(3, I64)), b.constant(3, I64))
        bias = b.op("Transpose", b.op("Gather", b.normal((7, 2), 1), place, axis=0), perm=[2, 0, 1])
        return MASKS[inner](b, b.op("Add", s, b.op("Unsqueeze", bias, ints(b, 0))), n, t)

    return mask


CAUSAL = np.tril(np.ones((40, 40)))
BAND = CAUSAL - np.tril(np.ones((40, 40)), -3)
ADDED = np.where(CAUSAL > 0, 0, INF)

# name → (mask, chunk, latency, frames that are remembered: all where None, options)
MASKED = {
    "own block": (blocks(4, 0), 4, 3, 4, {}),
    "own block and one before": (blocks(4, 1), 4, 3, 8, {}),
    "own block and two before, odd": (blocks(5, 2), 5, 4, 15, {}),
    "own block and all before": (blocks(4, 9999), 4, 3, None, {"max_past": 36}),
    "causal within its block": (own_block_causal, 4, 0, 4, {}),
    "constant, added": (table(ADDED), 1, 0, None, {}),
    "constant, chosen by": (table(CAUSAL, kind=bool), 1, 0, None, {}),
    "constant with heads": (table(CAUSAL[None, None], (2, 3), bool), 1, 0, None, {}),
    "constant band": (table(np.where(BAND > 0, 0, INF)), 1, 0, 3, {}),
    "band of two Trilu": (trilu_band, 1, 1, 5, {}),
    "relative positions in a window": (relative("look-ahead"), 1, 2, 6, {}),
    "relative positions, causal": (relative("range_less_where"), 1, 0, None, {"max_past": 36}),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("delayed", [False, True])
def test_mask(name, delayed) -> None:
    mask, chunk, latency, field, options = MASKED[name]

    def make(b):
        return attention(b, mask, conv(b, "x", (3, 3), 3, (1, 1)) if delayed else "x", rotary=delayed)

    step = check(build(make), {"x": 2}, LENGTHS, tol=1e-4, **options)
    assert step.chunk == chunk
    assert list(step.receptive_field.values()) == [field and field + 2 * delayed]
    if not delayed:
        assert list(step.latency.values()) == [latency]


def test_constant_mask_states_the_maximum() -> None:
    model = load(build(lambda b: attention(b, table(ADDED))))
    for past, most in ((None, 40), (70, 40), (12, 12)):
        step = stream(model, {"x": 2}, max_past=past)
        assert step.spec.max_past == most
        live = ReferenceStream(step)
        live.push({"x": np.zeros((1, 3, most), np.float32)})
        with pytest.raises(StreamFull):
            live.push({"x": np.zeros((1, 3, 1), np.float32)})


def first_frames_always(b, s, n, t):
    seen = b.op("Or", between(b, distance(b, n), 0, 3), b.op("Less", n, b.constant(2, I64)))
    return hide(b, s, seen)


def nothing_for_some(b, s, n, t):
    return hide(b, s, between(b, distance(b, n), 2, 5))


@pytest.mark.parametrize(
    "mask,reason",
    [
        (first_frames_always, "depends on the frame's own number"),
        (nothing_for_some, "hides everything"),
        (lambda b, s, n, t: hide(b, s, between(b, distance(b, n), -9999, 3)), "to the end of the signal"),
        (blocks(100, 0), "depends on the frame's own number"),
        (lambda b, s, n, t: hide(b, s, alone_from(b, n, 1000)), "depends on the frame's own number"),
    ],
)
def test_refused_masks(mask, reason) -> None:
    with pytest.raises(NotStreamable, match=reason) as refused:
        stream(load(build(lambda b: attention(b, mask))), {"x": 2}, max_past=20)
    assert refused.value.node and refused.value.hint


def heads(b, x="x", width=8):
    """Queries, keys and values [1, T, width]."""
    x = b.op("Transpose", x, perm=[0, 2, 1])
    return [b.op("MatMul", x, b.normal((3, width), 3)) for _ in range(3)]


def numbers(b):
    return b.op("Range", b.constant(0, I64), length(b, "x", 2), b.constant(1, I64))


def operator(four=False, rotary=False, softcap=0.0, window=False, shared=False):
    """The Attention operator (opset 23), in its 3-D and 4-D forms."""

    def make(b):
        q, k, v = heads(b)
        extra = {"softcap": softcap} if softcap else {}
        if shared:
            k, v = (b.op("MatMul", b.op("Transpose", "x", perm=[0, 2, 1]), b.normal((3, 4), 3)) for _ in range(2))
        mask = [between(b, distance(b, numbers(b)), 0, 3)] if window else []
        causal = {"is_causal": int(not window)}
        if not four:
            return b.op("Attention", q, k, v, *mask, q_num_heads=2, kv_num_heads=1 if shared else 2, **causal, **extra)
        q, k, v = (b.op("Transpose", b.op("Reshape", y, ints(b, 1, -1, 2, 4)), perm=[0, 2, 1, 3]) for y in (q, k, v))
        if rotary:
            angle = np.outer(np.arange(64), [1, 0.1])
            waves = [b.constant(np.cos(angle)), b.constant(np.sin(angle)), b.op("Unsqueeze", numbers(b), ints(b, 0))]
            q, k = (b.op("RotaryEmbedding", y, *waves) for y in (q, k))
        y = b.op("Attention", q, k, v, *mask, **causal, **extra)
        return b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), ints(b, 1, -1, 8))

    return make


def with_opset(proto: onnx.ModelProto, version: int) -> onnx.ModelProto:
    proto.opset_import[0].version = version
    return proto


OPERATORS = {
    "3-D": {}, "4-D": {"four": True}, "rotary": {"four": True, "rotary": True}, "softcap": {"softcap": 2.0},
    "shared keys": {"shared": True}, "window": {"window": True}, "window, 4-D": {"window": True, "four": True},
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name) -> None:
    proto = with_opset(build(operator(**OPERATORS[name])), 23)
    past = {} if OPERATORS[name].get("window") else {"max_past": 36}
    step = check(proto, {"x": 2}, LENGTHS, tol=1e-4, **past)
    assert list(step.latency.values()) == [0]


def test_operator_without_a_mask_is_refused() -> None:
    def make(b):
        return b.op("Attention", *heads(b), q_num_heads=2, kv_num_heads=2)

    with pytest.raises(NotStreamable, match="no mask hides the frames to come"):
        stream(load(with_opset(build(make), 23)), {"x": 2}, max_past=9)


def by_einsum(b):
    q, k, v = (b.op("Reshape", y, ints(b, 1, -1, 2, 4)) for y in heads(b))
    scores = MASKS["look-ahead"](b, b.op("Einsum", q, k, equation="bihd,bjhd->bhij"), numbers(b), None)
    weights = b.op("Softmax", scores, axis=-1)
    return b.op("Reshape", b.op("Einsum", weights, v, equation="bhij,bjhd->bihd"), ints(b, 1, -1, 8))


def rows_of_heads(b):
    """[batch · heads, T, width]."""
    split = [b.op("Reshape", y, ints(b, 1, -1, 2, 4)) for y in heads(b)]
    q, k, v = (b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), ints(b, 2, -1, 4)) for y in split)
    scores = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 2, 1]))
    return b.op("MatMul", b.op("Softmax", MASKS["look-ahead"](b, scores, numbers(b), None), axis=-1), v)


def masked_twice(b):
    """Hidden weights are set to 0 after the softmax, too, as against NaN."""
    q, k, v = heads(b)
    seen = between(b, distance(b, numbers(b)), -2, 3)
    scores = hide(b, b.op("MatMul", q, b.op("Transpose", k, perm=[0, 2, 1])), seen)
    return b.op("MatMul", b.op("Where", seen, b.op("Softmax", scores, axis=-1), b.constant(0.0)), v)


@pytest.mark.parametrize("make", [by_einsum, rows_of_heads, masked_twice])
def test_layouts(make) -> None:
    step = check(build(make), {"x": 2}, LENGTHS, tol=1e-4)
    assert list(step.receptive_field.values()) == [6] and list(step.latency.values()) == [2]


def outer_products(b):
    """Running sums of k ⊗ v."""
    q, k, v = heads(b, width=4)
    both = b.op("Mul", b.op("Unsqueeze", k, ints(b, 3)), b.op("Unsqueeze", v, ints(b, 2)))
    sums = b.op("CumSum", both, b.constant(1, I64))
    return b.op("Squeeze", b.op("MatMul", b.op("Unsqueeze", q, ints(b, 2)), sums), ints(b, 2))


def normalised(b):
    q, k, v = heads(b, width=4)
    q, k = (b.op("Add", b.op("Elu", y), b.constant(1.0)) for y in (q, k))
    sums = b.op("CumSum", b.op("Einsum", k, v, equation="btd,bte->btde"), b.constant(1, I64))
    keys = b.op("CumSum", k, b.constant(1, I64))
    y = b.op("Einsum", q, sums, equation="btd,btde->bte")
    return b.op("Div", y, b.op("Unsqueeze", b.op("Einsum", q, keys, equation="btd,btd->bt"), ints(b, 2)))


@pytest.mark.parametrize("make", [outer_products, normalised])
def test_linear_attention_by_running_sums(make) -> None:
    step = check(build(make), {"x": 2}, LENGTHS, tol=1e-4)
    assert list(step.latency.values()) == [0] and step.spec.max_past is None


def lower_triangle(b, scores):
    return b.op("Trilu", scores, upper=0)


def masked(b, scores):
    return b.op("Mul", scores, b.op("Cast", between(b, distance(b, numbers(b)), 0, 99999), to=TensorProto.FLOAT))


def decaying(b, scores):
    d = distance(b, numbers(b))
    decay = b.op("Pow", b.constant(0.9), b.op("Cast", d, to=TensorProto.FLOAT))
    return b.op("Mul", scores, b.op("Where", between(b, d, 0, 99999), decay, b.constant(0.0)))


@pytest.mark.parametrize("weigh", [lower_triangle, masked, decaying])
@pytest.mark.parametrize("delayed", [False, True])
def test_linear_attention_by_products(weigh, delayed) -> None:
    def make(b):
        q, k, v = heads(b, conv(b, "x", (3, 3), 3, (1, 1)) if delayed else "x", 4)
        return b.op("MatMul", weigh(b, b.op("MatMul", q, b.op("Transpose", k, perm=[0, 2, 1]))), v)

    check(build(make), {"x": 2}, LENGTHS, tol=1e-4, max_past=36)


def test_linear_attention_over_all_of_time_is_refused() -> None:
    def make(b):
        q, k, v = heads(b, width=4)
        return b.op("MatMul", q, b.op("MatMul", b.op("Transpose", k, perm=[0, 2, 1]), v))

    with pytest.raises(NotStreamable, match="sums over all frames"):
        stream(load(build(make)), {"x": 2}, max_past=36)


def sliced_table(b, x, size=36):
    end = b.op("Unsqueeze", length(b, x, 2), ints(b, 0))
    return b.op("Slice", b.normal((1, 3, size), 1), ints(b, 0), end, ints(b, 2))


def test_positional_table() -> None:
    """Exact up to the size of the table, then the stream is full."""
    for delayed in (False, True):

        def make(b, delayed=delayed):
            x = conv(b, "x", (3, 3), 3, (1, 1)) if delayed else "x"
            return conv(b, b.op("Add", x, sliced_table(b, x)), (3, 4), 5, (2, 2))

        step = check(build(make), {"x": 2}, LENGTHS)
        assert step.spec.max_past == 36
        live = ReferenceStream(step)
        live.push({"x": np.zeros((1, 3, 36), np.float32)})
        with pytest.raises(StreamFull):
            live.push({"x": np.zeros((1, 3, 1), np.float32)})


def test_positional_table_as_an_input() -> None:
    def make(b):
        end = b.op("Unsqueeze", length(b, "x", 2), ints(b, 0))
        return b.op("Add", "x", b.op("Slice", "table", ints(b, 1), b.op("Add", end, ints(b, 1)), ints(b, 2)))

    proto = build(make)
    proto.graph.input.append(helper.make_tensor_value_info("table", TensorProto.FLOAT, [1, 3, 40]))
    rows = np.random.default_rng(4).standard_normal((1, 3, 40)).astype(np.float32)
    assert check(proto, {"x": 2}, LENGTHS, side={"table": rows}).spec.max_past == 39


def test_mask_of_real_frames_and_a_causal_one() -> None:
    def mask(b, s, n, t):
        return MASKS["range_less_where"](b, hide(b, s, b.op("Less", n, t)), n, t)

    check(build(lambda b: attention(b, mask)), {"x": 2}, LENGTHS, tol=1e-4, max_past=36)


def shifted(b, products, total, count):
    """[1, count, T, 2T - 1] to [1, count, T, T]: padded, reshaped and cut."""
    one, two = total, b.op("Mul", total, ints(b, 2))
    rows = b.op("Pad", products, ints(b, 0, 0, 0, 1, 0, 0, 0, 0))
    rows = b.op("Reshape", rows, b.op("Concat", ints(b, 1, count), two, one, axis=0))
    rows = b.op("Slice", rows, ints(b, 1), ints(b, END), ints(b, 2))
    rows = b.op("Reshape", rows, b.op("Concat", ints(b, 1, count), one, b.op("Sub", two, ints(b, 1)), axis=0))
    return b.op("Slice", rows, ints(b, 0), one, ints(b, 3))


def transformer_xl(mask, learned=False, delayed=False, absolute=False):
    """Attention with a row of positions for every distance: sines, or a table cut around its middle."""

    def make(b):
        x = conv(b, "x", (3, 3), 3, (1, 1)) if delayed else "x"
        count = length(b, x, 2)
        total = b.op("Unsqueeze", count, ints(b, 0))

        def split(rows, perm):
            return b.op("Transpose", b.op("Reshape", rows, ints(b, 1, -1, 2, 4)), perm=perm)

        q, k, v = (split(rows, [0, 2, 1, 3]) for rows in heads(b, x))
        if learned:
            first, end = b.op("Sub", ints(b, 40), total), b.op("Add", ints(b, 39), total)
            rows = b.op("Slice", b.normal((79, 6), 1), first, end, ints(b, 0))
        else:
            first = count if absolute else b.op("Sub", b.constant(1, I64), count)
            three = b.op("Mul", count, b.constant(3, I64))
            end = b.op("Sub", three, b.constant(1, I64)) if absolute else count
            far = b.op("Cast", b.op("Range", first, end, b.constant(1, I64)), to=TensorProto.FLOAT)
            rows = b.op(
                "Sin", b.op("Mul", b.op("Unsqueeze", far, ints(b, 1)), b.constant([[1, 0.5, 0.2, 0.1, 0.05, 2]]))
            )
        rows = split(b.op("MatMul", rows, b.normal((6, 8), 6)), [0, 2, 3, 1])
        far = shifted(b, b.op("MatMul", b.op("Add", q, b.normal((1, 2, 1, 4), 1)), rows), total, 2)
        near = b.op("MatMul", b.op("Add", q, b.normal((1, 2, 1, 4), 1)), b.op("Transpose", k, perm=[0, 1, 3, 2]))
        numbers = b.op("Range", b.constant(0, I64), count, b.constant(1, I64))
        scores = MASKS[mask](b, b.op("Mul", b.op("Add", near, far), b.constant(0.5)), numbers, count)
        y = b.op("MatMul", b.op("Softmax", scores, axis=-1), v)
        return b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), ints(b, 1, -1, 8))

    return make


@pytest.mark.parametrize("mask", ["look-ahead", "trilu"])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("delayed", [False, True])
def test_shifted_products_with_relative_positions(mask, learned, delayed) -> None:
    past = {"max_past": 36} if mask == "trilu" and not learned else {}
    step = check(build(transformer_xl(mask, learned, delayed)), {"x": 2}, LENGTHS, tol=1e-4, **past)
    assert step.spec.max_past == (40 if learned else 36 if past else None)
    assert not step.spec.absolute


def test_shifted_products_that_depend_on_the_length_are_refused() -> None:
    """The same distance has another row in a longer signal."""
    with pytest.raises(NotStreamable, match="not the same for every length"):
        stream(load(build(transformer_xl("look-ahead", absolute=True))), {"x": 2})
