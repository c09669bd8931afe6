"""Concat, Split, Slice and Pad on random shapes and attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from headrace.errors import UnsupportedOperator
from tests.ops.one_node import check, lowered, node_model, run_here

I64 = np.int64


def numbers(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(-3, 2))
def test_concat(sizes: list[int], axis: int) -> None:
    shape = [2, 3, 2]
    parts = [numbers(*(n if d == axis % 3 else e for d, e in enumerate(shape))) for n in sizes]
    check("Concat", parts, axis=axis)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(-2, 1))
def test_split(sizes: list[int], axis: int) -> None:
    shape = (sum(sizes), 2) if axis % 2 == 0 else (2, sum(sizes))
    check(
        "Split",
        [numbers(*shape), np.array(sizes, I64)],
        [TensorProto.FLOAT] * len(sizes),
        constants=[1],
        axis=axis,
    )


def test_split_into_unequal_parts() -> None:
    check("Split", [numbers(7)], [TensorProto.FLOAT] * 3, num_outputs=3)


def test_a_part_that_nobody_uses_is_not_made() -> None:
    x = numbers(7)
    model = node_model("Split", [x], [TensorProto.FLOAT, 0, TensorProto.FLOAT], num_outputs=3)
    first, last = run_here(model, {"x0": x})
    np.testing.assert_array_equal(first, x[:3])
    np.testing.assert_array_equal(last, x[6:])


@st.composite
def slices(draw: st.DrawFn) -> tuple[tuple[int, ...], list[list[int]]]:
    """A shape; starts, ends, axes, steps."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    far = st.one_of(st.integers(-9, 9), st.sampled_from([2**62, -(2**62)]))
    starts, ends = [draw(far) for _ in axes], [draw(far) for _ in axes]
    steps = [draw(st.sampled_from([1, 1, 2, 3, -1, -2])) for _ in axes]
    signed = [a - len(shape) if draw(st.booleans()) else a for a in axes]
    return shape, [starts, ends, signed, steps]


@given(slices())
def test_slice(case: tuple[tuple[int, ...], list[list[int]]]) -> None:
    shape, arguments = case
    check("Slice", [numbers(*shape), *(np.array(a, I64) for a in arguments)], constants=[1, 2, 3, 4])


@st.composite
def pads(draw: st.DrawFn) -> tuple[tuple[int, ...], list[int], str]:
    shape = tuple(draw(st.lists(st.integers(2, 5), min_size=1, max_size=3)))
    mode = draw(st.sampled_from(["constant", "edge", "reflect", "wrap"]))
    low = -1 if mode in ("constant", "edge") else 0
    most = {"constant": 4, "edge": 4, "reflect": 1, "wrap": 2}[mode]
    return shape, [draw(st.integers(low, most)) for _ in range(2 * len(shape))], mode


@given(pads())
def test_pad(case: tuple[tuple[int, ...], list[int], str]) -> None:
    shape, around, mode = case
    fill = np.array(2.5, np.float32) if mode == "constant" else None
    check("Pad", [numbers(*shape), np.array(around, I64), fill], constants=[1], mode=mode)


@given(st.integers(1, 4), st.integers(0, 9), st.integers(0, 9))
def test_wide_pads_repeat_as_in_numpy(n: int, before: int, after: int) -> None:
    x = numbers(n)
    for mode in ("reflect", "wrap", "edge"):
        model = node_model("Pad", [x, np.array([before, after], I64)], [TensorProto.FLOAT], constants=[1], mode=mode)
        (found,) = run_here(model, {"x0": x})
        np.testing.assert_array_equal(found, np.pad(x, (before, after), mode=mode))  # type: ignore[call-overload]


def test_pad_of_some_axes() -> None:
    check(
        "Pad",
        [numbers(2, 3, 4), np.array([1, 0, 2, -1], I64), np.array(1, np.float32), np.array([-1, 0], I64)],
        constants=[1, 2, 3],
    )


def test_pad_of_an_empty_axis() -> None:
    check("Pad", [numbers(0, 2), np.array([1, 0, 1, 0], I64)], constants=[1])
    model = node_model("Pad", [numbers(0), np.array([1, 1], I64)], [TensorProto.FLOAT], constants=[1], mode="edge")
    with pytest.raises(UnsupportedOperator):
        lowered(model)


def test_pads_known_only_at_run_time_are_refused() -> None:
    with pytest.raises(UnsupportedOperator):
        lowered(node_model("Pad", [numbers(3), np.array([1, 1], I64)], [TensorProto.FLOAT]))
