"""Gather, GatherElements, GatherND, OneHot, and their writing counterparts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from headrace.errors import UnsupportedOperator
from headrace.program.expr import walk
from headrace.program.interp import Fault
from headrace.program.ir import Define, expressions
from tests.ops.one_node import check, lowered, node_model, run_here

FLOAT = [TensorProto.FLOAT]
constant_or_not = pytest.mark.parametrize("constants", [(), (1,)], ids=["run-time", "constant"])


def numbers(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def indices(low: int, high: int, shape: tuple[int, ...], dtype: Any = np.int64) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(low, high, size=shape).astype(dtype)


@constant_or_not
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (0,)])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_gather(constants: tuple[int, ...], axis: int, shape: tuple[int, ...], dtype: Any) -> None:
    check("Gather", [numbers(4, 4, 4), indices(-4, 4, shape, dtype)], constants=constants, axis=axis)


def test_constant_indices_are_not_checked_at_run_time() -> None:
    x, at = numbers(4, 2), np.array([-1, 2], np.int64)
    for constants, expected in [((1,), False), ((), True)]:
        module = lowered(node_model("Gather", [x, at], FLOAT, constants=constants))
        ops = {e.op for s in module.body if isinstance(s, Define) for root in expressions(s) for e in walk(root)}
        assert ("check" in ops) == expected


@pytest.mark.parametrize("wrong", [4, -5])
def test_an_index_outside_is_an_error(wrong: int) -> None:
    x, at = numbers(4, 2), np.array([0, wrong], np.int64)
    with pytest.raises(UnsupportedOperator, match="outside the axis"):
        lowered(node_model("Gather", [x, at], FLOAT, constants=[1]))
    with pytest.raises(Fault):
        run_here(node_model("Gather", [x, at], FLOAT), {"x0": x, "x1": at})


@constant_or_not
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_elements(constants: tuple[int, ...], axis: int) -> None:
    check("GatherElements", [numbers(3, 3, 3), indices(-3, 3, (2, 3, 2))], constants=constants, axis=axis)


@constant_or_not
@pytest.mark.parametrize(
    ("batch", "shape"), [(0, (2,)), (0, (3, 1)), (0, (2, 2, 3)), (1, (2, 2)), (1, (2, 1)), (2, (2, 2, 4, 1))]
)
def test_gather_nd(constants: tuple[int, ...], batch: int, shape: tuple[int, ...]) -> None:
    check("GatherND", [numbers(2, 2, 2), indices(-2, 2, shape)], constants=constants, batch_dims=batch)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float32])
def test_one_hot(axis: int, dtype: Any) -> None:
    at = np.array([[0, -1, 9], [4, -6, 2]], dtype)
    depth, values = np.array(5, np.int64), np.array([-1, 3], np.float32)
    model = node_model("OneHot", [at, depth, values], FLOAT, constants=[1], axis=axis)
    feeds = {"x0": at, "x2": values}
    np.testing.assert_array_equal(run_here(model, feeds)[0], ReferenceEvaluator(model).run(None, feeds)[0])


@constant_or_not
@pytest.mark.parametrize("reduction", ["none", "add", "mul", "min", "max"])
@pytest.mark.parametrize("axis", [0, -1])
def test_scatter_elements(constants: tuple[int, ...], reduction: str, axis: int) -> None:
    at = np.array([[0, 2, -1], [2, 0, 0]], np.int64)
    inputs = [numbers(3, 3), at, numbers(2, 3, seed=2)]
    check("ScatterElements", inputs, constants=constants, axis=axis, reduction=reduction)


@given(st.integers(1, 3), st.sampled_from(["none", "add", "mul", "min", "max"]), st.booleans())
def test_scatter_nd(depth: int, reduction: str, constant: bool) -> None:
    at = indices(-2, 2, (3, depth))
    updates = numbers(3, *(2,) * (3 - depth), seed=2)
    check("ScatterND", [numbers(2, 2, 2), at, updates], constants=[1] if constant else [], reduction=reduction)


@pytest.mark.parametrize("mode", ["linear", "circular"])
@pytest.mark.parametrize("given_start", [False, True])
def test_tensor_scatter(mode: str, given_start: bool) -> None:
    past, update = numbers(2, 3, 5, 2), numbers(2, 3, 2, 2, seed=3)
    start = np.array([3, 1] if mode == "linear" else [4, 12], np.int64) if given_start else None
    model = node_model("TensorScatter", [past, update, start], FLOAT, opset=24, mode=mode)
    feeds = {"x0": past, "x1": update} | ({"x2": start} if start is not None else {})
    np.testing.assert_array_equal(run_here(model, feeds)[0], ReferenceEvaluator(model).run(None, feeds)[0])


def test_tensor_scatter_past_the_end_is_an_error() -> None:
    feeds = {"x0": numbers(1, 4, 2), "x1": numbers(1, 2, 2), "x2": np.array([3], np.int64)}
    with pytest.raises(Fault):
        run_here(node_model("TensorScatter", list(feeds.values()), FLOAT, opset=24), feeds)
