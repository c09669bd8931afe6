"""Conversions and tensors made from shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from headrace.errors import UnsupportedOperator
from tests.ops.one_node import check, lowered, node_model, run_here

NUMERIC = [np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64,
           np.uint8, np.uint16, np.uint32, np.uint64, np.bool_]  # fmt: skip


def tensor_type(dtype: Any) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


@pytest.mark.parametrize("source", NUMERIC)
@pytest.mark.parametrize("target", NUMERIC)
def test_cast_between_all_types(source: Any, target: Any) -> None:
    x = np.array([0, 1, 2, 100], np.int64).astype(source)
    if np.dtype(source).kind in "if" and np.dtype(target).kind in "ifb":
        x = np.concatenate([x, -x, x / 8 if np.dtype(source).kind == "f" else x]).astype(source)
    check("Cast", [x], [tensor_type(target)], rtol=0, atol=0, to=tensor_type(target))


@pytest.mark.parametrize("target", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_floats_outside_the_range_saturate(target: Any) -> None:
    x = np.array([1e30, -1e30, np.inf, -np.inf, np.nan], np.float32)
    (got,) = run_here(node_model("Cast", [x], [tensor_type(target)], to=tensor_type(target)), {"x0": x})
    info = np.iinfo(target)
    assert got.tolist() == [info.max, info.min, info.max, info.min, 0]


def test_integers_wrap_into_narrower_types() -> None:
    x = np.array([300, -1, 2**31 + 5, -129], np.int64)
    for target in (np.int8, np.uint8, np.int16, np.int32):
        check("Cast", [x], [tensor_type(target)], to=tensor_type(target))


def test_bits_of_integers_are_kept() -> None:
    x = np.array([-1, 5, -(2**31)], np.int32)
    model = node_model("BitCast", [x], [TensorProto.UINT32], opset=26, to=TensorProto.UINT32)
    (got,) = run_here(model, {"x0": x})
    np.testing.assert_array_equal(got, x.view(np.uint32))


def test_bits_of_floats_are_refused() -> None:
    x = np.ones(2, np.float32)
    with pytest.raises(UnsupportedOperator, match="BitCast"):
        lowered(node_model("BitCast", [x], [TensorProto.INT32], opset=26, to=TensorProto.INT32))


@pytest.mark.parametrize("k", [0, 1, -2, 7])
def test_eye_like(k: int) -> None:
    check("EyeLike", [np.zeros((3, 5), np.float32)], k=k)
    check("EyeLike", [np.zeros((4, 2), np.int64)], [TensorProto.FLOAT], k=k, dtype=TensorProto.FLOAT)


@pytest.mark.parametrize(("start", "end"), [(None, None), (1, None), (None, -1), (-2, 3), (2, 1), (-9, 9)])
def test_shape(start: int | None, end: int | None) -> None:
    attrs = {k: v for k, v in (("start", start), ("end", end)) if v is not None}
    check("Shape", [np.zeros((2, 3, 4), np.float32)], [TensorProto.INT64], **attrs)
    check("Size", [np.zeros((2, 3, 4), np.float32)], [TensorProto.INT64])


def test_constant_of_shape() -> None:
    value = helper.make_tensor("v", TensorProto.INT8, [1], [-3])
    check("ConstantOfShape", [np.array([2, 3], np.int64)], [TensorProto.INT8], constants=[0], value=value)
