"""Arithmetic, comparison and logic beside onnxruntime and NumPy, special values included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from headrace.errors import UnsupportedOperator
from tests.ops.one_node import check, lowered, node_model, run_here

Array = np.ndarray[Any, Any]
SPECIAL = np.array([0.0, -0.0, 1.5, -2.5, 0.5, np.inf, -np.inf, np.nan, 1e-30, -3e30], np.float32)
INTS = np.array([0, 1, -1, 7, -7, 100, -128, 127, 64], np.int8)


def tensor_type(dtype: Any) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def table(x: Array) -> tuple[Array, Array]:
    """Every value against every value, by broadcasting."""
    return x[:, None], x[None, :]


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Min", "Max", "Pow"])
def test_float_arithmetic_on_special_values(op: str) -> None:
    check(op, table(SPECIAL))


@pytest.mark.parametrize("op", ["Less", "LessOrEqual", "Equal", "Greater", "GreaterOrEqual"])
def test_comparisons_on_special_values(op: str) -> None:
    check(op, table(SPECIAL), [TensorProto.BOOL])


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.int8, np.uint8])
def test_integers_wrap(op: str, dtype: Any) -> None:
    info = np.iinfo(dtype)
    x = np.array([info.min, info.max, 0, 1, 2, info.max // 2 + 1], dtype)
    with np.errstate(over="ignore"):
        wanted = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}[op](*table(x))
    model = node_model(op, table(x), [tensor_type(dtype)])
    (got,) = run_here(model, {"x0": table(x)[0], "x1": table(x)[1]})
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32])
def test_integer_division_rounds_toward_zero(dtype: Any) -> None:
    x = np.array([7, -7, 8, 0, 1], np.int64).astype(dtype)
    y = np.array([2, -2, 3, 5], np.int64).astype(dtype)
    check("Div", [x[:, None], y[None]], [tensor_type(dtype)])


@pytest.mark.parametrize("fmod", [0, 1])
@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8, np.uint64])
def test_mod_of_integers(fmod: int, dtype: Any) -> None:
    x, y = np.array([7, 8, 120, 0], dtype), np.array([3, 5, 7], dtype)
    if np.dtype(dtype).kind == "i":
        x, y = np.concatenate([x, -x]), np.concatenate([y, -y])
    check("Mod", [x[:, None], y[None]], [tensor_type(dtype)], fmod=fmod)


def test_mod_of_floats() -> None:
    x, y = table(np.array([5.5, -5.5, 0.0, -0.0, 3.0, np.inf, np.nan, -0.7], np.float32))
    check("Mod", [x, y], fmod=1)
    with np.errstate(invalid="ignore"):
        wanted = np.mod(x, y)
    (got,) = run_here(node_model("Mod", [x, y], [TensorProto.FLOAT], opset=28), {"x0": x, "x1": y})
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.uint64])
@pytest.mark.parametrize("fixed", [False, True])
def test_shifts(direction: str, dtype: Any, fixed: bool) -> None:
    x = np.array([0, 1, 200, 255], dtype)[:, None]
    y = np.arange(8, dtype=dtype)[None]
    check("BitShift", [x, y], [tensor_type(dtype)], [1] if fixed else [], direction=direction)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
def test_shifts_beyond_the_width_leave_the_sign(dtype: Any) -> None:
    bits = np.dtype(dtype).itemsize * 8
    x = np.array([-128, -1, 5, 127], np.int8).astype(dtype)
    y = np.full(4, bits, dtype)
    for direction in ("LEFT", "RIGHT"):
        model = node_model("BitShift", [x, y], [tensor_type(dtype)], opset=28, direction=direction)
        (got,) = run_here(model, {"x0": x, "x1": y})
        signed = direction == "RIGHT" and np.dtype(dtype).kind == "i"
        np.testing.assert_array_equal(got, np.where(x < 0, -1, 0).astype(dtype) if signed else np.zeros_like(x))


@pytest.mark.parametrize("exponent", [2.0, 3.0, 1.0, -1.0, 0.5, 0.0, -2.0, 1.7])
def test_power_with_a_known_exponent(exponent: float) -> None:
    y = np.array(exponent, np.float32)
    (got,) = run_here(node_model("Pow", [SPECIAL, y], [TensorProto.FLOAT], constants=[1]), {"x0": SPECIAL})
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(got, np.power(SPECIAL, y), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_powers_of_integers_are_exact(dtype: Any) -> None:
    x = np.array([-3, -1, 0, 1, 2, 3, 10], dtype)[:, None]
    y = np.array([0, 1, 2, 5, 9], np.int32)[None]
    (got,) = run_here(node_model("Pow", [x, y], [tensor_type(dtype)]), {"x0": x, "x1": y})
    np.testing.assert_array_equal(got, np.power(x, y.astype(dtype)))
    check("Pow", [x, y.astype(np.float32)], [tensor_type(dtype)])
    check("Pow", [x.astype(np.float32), y], [TensorProto.FLOAT])


def test_an_unsigned_64_bit_exponent_of_an_integer_is_refused() -> None:
    x = np.array([2], np.int64)
    with pytest.raises(UnsupportedOperator, match="cast the exponent"):
        lowered(node_model("Pow", [x, x.astype(np.uint64)], [TensorProto.INT64]))


FUNCTIONS = ("Sqrt Exp Log Tanh Sigmoid Erf Floor Ceil Round Abs Neg Reciprocal Sign Softplus Atan Asinh "
             "Relu").split()  # fmt: skip


@pytest.mark.parametrize("op", FUNCTIONS)
def test_functions_on_special_values(op: str) -> None:
    check(op, [SPECIAL])


@pytest.mark.parametrize("op", ["Sign", "Abs", "Neg"])
@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64])
def test_signs_of_integers(op: str, dtype: Any) -> None:
    check(op, [INTS.astype(dtype)], [tensor_type(dtype)])


def test_sign_of_unsigned() -> None:
    check("Sign", [np.array([0, 1, 200], np.uint8)], [TensorProto.UINT8])


@pytest.mark.parametrize(("positive", "negative"), [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_isinf(positive: int, negative: int) -> None:
    check("IsInf", [SPECIAL], [TensorProto.BOOL], detect_positive=positive, detect_negative=negative)
    check("IsNaN", [SPECIAL], [TensorProto.BOOL])


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (2.0, -2.0), (None, 1.0), (0.0, None), (None, None)])
def test_clip(bounds: tuple[float | None, float | None]) -> None:
    low, high = (None if v is None else np.array(v, np.float32) for v in bounds)
    x = SPECIAL if low is not None and high is not None else SPECIAL[~np.isinf(SPECIAL)]
    check("Clip", [x, low, high])
    check("Clip", [x, low, high], constants=[1, 2])


@pytest.mark.parametrize("op", ["Min", "Max", "Sum", "Mean"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_inputs(op: str, count: int) -> None:
    r = np.random.default_rng(count)
    shapes = [(3, 1), (4,), (1, 1), (2, 1, 4)]
    check(op, [r.standard_normal(s).astype(np.float32) for s in shapes[:count]])


def test_where_broadcasts_three_ways() -> None:
    cond = np.array([[True], [False], [True]])
    check("Where", [cond, SPECIAL, np.zeros((1, 1), np.float32)])
    check("Where", [cond, np.array(3, np.int64), np.arange(4)], [TensorProto.INT64])


@pytest.mark.parametrize("op", ["And", "Or", "Xor", "Equal"])
def test_logic(op: str) -> None:
    check(op, table(np.array([True, False])), [TensorProto.BOOL])


def test_empty_tensors() -> None:
    check("Add", [np.zeros((0, 3), np.float32), np.ones(3, np.float32)])
