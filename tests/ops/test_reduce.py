"""Reductions, ArgMax and ArgMin."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from headrace.errors import UnsupportedOperator
from tests.ops.one_node import check, lowered, node_model, run_here

KINDS = ["Sum", "Mean", "Prod", "Max", "Min", "L1", "L2", "SumSquare", "LogSum", "LogSumExp"]
FLOAT = [TensorProto.FLOAT]


def numbers(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).uniform(0.5, 2, size=shape).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_reduce(kind: str, data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True))
    signed = [a - len(shape) if data.draw(st.booleans()) else a for a in axes]
    check(
        f"Reduce{kind}",
        [numbers(*shape), np.array(signed, np.int64) if data.draw(st.booleans()) else None],
        constants=[1],
        keepdims=int(data.draw(st.booleans())),
        noop_with_empty_axes=0,
    )


@pytest.mark.parametrize("kind", ["Sum", "Max", "Min", "Prod", "SumSquare", "Mean", "L1"])
def test_reduce_integers(kind: str) -> None:
    x = np.array([[-7, 2, 5], [1, -1, 3]], np.int32)
    check(f"Reduce{kind}", [x, np.array([1], np.int64)], [TensorProto.INT32], constants=[1])


@pytest.mark.parametrize("kind", ["L2", "LogSumExp"])
def test_integer_roots_and_logarithms_are_cut(kind: str) -> None:
    x = np.array([[3, 4], [1, 2]], np.int32)
    model = node_model(f"Reduce{kind}", [x, np.array([1], np.int64)], [TensorProto.INT32], constants=[1])
    whole = np.sqrt((x.astype(float) ** 2).sum(1)) if kind == "L2" else np.log(np.exp(x.astype(float)).sum(1))
    np.testing.assert_array_equal(run_here(model, {"x0": x})[0][:, 0], np.trunc(whole))


def test_nothing_reduced_still_applies_the_rest() -> None:
    """noop_with_empty_axes: ReduceSumSquare squares, ReduceL2 takes the absolute value."""
    x = np.array([-2, 3], np.float32)
    for op, expected in [("ReduceSumSquare", x * x), ("ReduceL2", abs(x)), ("ReduceSum", x)]:
        model = node_model(op, [x], FLOAT, noop_with_empty_axes=1)
        np.testing.assert_array_equal(run_here(model, {"x0": x})[0], expected)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("Sum", 0.0),
        ("Prod", 1.0),
        ("Max", -np.inf),
        ("Min", np.inf),
        ("Mean", np.nan),
        ("LogSumExp", -np.inf),
    ],
)
def test_empty_axes(kind: str, expected: float) -> None:
    x = numbers(2, 0)
    model = node_model(f"Reduce{kind}", [x, np.array([1], np.int64)], FLOAT, constants=[1], keepdims=0)
    np.testing.assert_array_equal(run_here(model, {"x0": x})[0], np.full(2, expected, np.float32))


def test_log_sum_exp_of_extremes() -> None:
    rows = [[1000, 1000], [-1000, -1001], [np.inf, 0], [-np.inf, -np.inf], [-np.inf, 3], [np.nan, 1]]
    x = np.array(rows, np.float32)
    model = node_model("ReduceLogSumExp", [x, np.array([1], np.int64)], FLOAT, constants=[1], keepdims=0)
    expected = np.logaddexp(x[:, 0].astype(float), x[:, 1].astype(float))
    np.testing.assert_allclose(run_here(model, {"x0": x})[0], expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_summed_in_single(dtype: Any) -> None:
    """4096 ones: a float16 accumulator stops at 2048, a bfloat16 one at 256."""
    x = np.ones((4096,), dtype)
    kind = TensorProto.FLOAT16 if dtype is np.float16 else TensorProto.BFLOAT16
    model = node_model("ReduceSum", [x], [kind], keepdims=0)
    assert run_here(model, {"x0": x})[0] == 4096


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
def test_booleans(op: str) -> None:
    x = np.array([[True, False], [False, False], [True, True]])
    model = node_model(op, [x, np.array([1], np.int64)], [TensorProto.BOOL], constants=[1], keepdims=0)
    expected = x.any(1) if op == "ReduceMax" else x.all(1)
    np.testing.assert_array_equal(run_here(model, {"x0": x})[0], expected)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axis", [0, -1])
def test_arg_extreme_with_ties(op: str, last: int, keep: int, axis: int) -> None:
    x = np.random.default_rng(1).integers(0, 3, size=(5, 6)).astype(np.float32)
    check(op, [x], [TensorProto.INT64], axis=axis, keepdims=keep, select_last_index=last)


def test_arg_max_of_nothing_is_refused() -> None:
    with pytest.raises(UnsupportedOperator, match="empty axis"):
        lowered(node_model("ArgMax", [numbers(2, 0)], [TensorProto.INT64], axis=1))
