"""QuantizeLinear and DequantizeLinear, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from headrace.errors import UnsupportedOperator
from tests.ops.one_node import check, feeds_of, lowered, node_model, run_here

TYPES = {
    np.uint8: TensorProto.UINT8,
    np.int8: TensorProto.INT8,
    np.uint16: TensorProto.UINT16,
    np.int16: TensorProto.INT16,
}
Array = np.ndarray[Any, Any]


def against_the_reference(model: onnx.ModelProto, feeds: dict[str, Array]) -> None:
    (got,), (wanted,) = run_here(model, feeds), ReferenceEvaluator(model).run(None, feeds)
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)


def halves() -> Array:
    """Ties of rounding, both signs, and values far outside every range."""
    return np.concatenate([np.arange(-300, 300) * 0.25, [1e9, -1e9, np.inf, -np.inf]]).astype(np.float32)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("fixed", [False, True])
def test_quantize_rounds_half_to_even_and_saturates(dtype: Any, fixed: bool) -> None:
    zero = np.array(3, dtype)
    scale = np.array(0.5, np.float32)
    check("QuantizeLinear", [halves(), scale, zero], [TYPES[dtype]], [1, 2] if fixed else [])


def test_quantize_without_a_zero_point_gives_unsigned_bytes() -> None:
    check("QuantizeLinear", [halves(), np.array(0.25, np.float32)], [TensorProto.UINT8])


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("dtype", TYPES)
def test_one_scale_for_each_index_of_an_axis(axis: int, dtype: Any) -> None:
    r = np.random.default_rng(0)
    x = (r.standard_normal((3, 4, 5)) * 60).astype(np.float32)
    n = x.shape[axis]
    scale = r.uniform(0.1, 2, n).astype(np.float32)
    zero = r.integers(0, 9, n).astype(dtype)
    check("QuantizeLinear", [x, scale, zero], [TYPES[dtype]], axis=axis)
    q = r.integers(0, 100, x.shape).astype(dtype)
    check("DequantizeLinear", [q, scale, zero], rtol=0, atol=0, axis=axis)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("block", [2, 3, 4])
def test_one_scale_for_each_block(axis: int, block: int) -> None:
    r = np.random.default_rng(0)
    shape = [6, 8]
    blocks = list(shape)
    blocks[axis] = -(-shape[axis] // block)
    if shape[axis] % block:
        shape[axis] = blocks[axis] * block
    scale = r.uniform(0.1, 2, blocks).astype(np.float32)
    zero = r.integers(-5, 5, blocks).astype(np.int8)
    x = (r.standard_normal(shape) * 60).astype(np.float32)
    attrs = {"axis": axis, "block_size": block}
    inputs = [x, scale, zero]
    against_the_reference(node_model("QuantizeLinear", inputs, [TensorProto.INT8], **attrs), feeds_of(inputs, ()))
    q = r.integers(-128, 127, shape).astype(np.int8)
    check("DequantizeLinear", [q, scale, zero], rtol=0, atol=0, **attrs)


def test_dequantize_of_accumulators() -> None:
    x = np.array([2**31 - 1, -(2**31), 12345, 0], np.int32)
    check("DequantizeLinear", [x, np.array(0.01, np.float32)], rtol=1e-7, atol=0)


def test_the_difference_to_the_zero_point_does_not_wrap() -> None:
    x, zero = np.array([-128, 127], np.int8), np.array(127, np.int8)
    check("DequantizeLinear", [x, np.array(1, np.float32), zero], rtol=0, atol=0)


@pytest.mark.parametrize("precision", [0, TensorProto.FLOAT])
def test_half_precision_scales(precision: int) -> None:
    x = (np.arange(-40, 40) * 0.37).astype(np.float16)
    inputs = [x, np.array(0.3, np.float16), np.array(1, np.int8)]
    attrs = {"precision": precision} if precision else {}
    model = node_model("QuantizeLinear", inputs, [TensorProto.INT8], opset=23, **attrs)
    against_the_reference(model, feeds_of(inputs, ()))
    q = np.arange(-128, 127).astype(np.int8)
    inputs = [q, np.array(0.3, np.float16), np.array(1, np.int8)]
    against_the_reference(node_model("DequantizeLinear", inputs, [TensorProto.FLOAT16]), feeds_of(inputs, ()))


def test_scales_that_fit_no_axis_are_refused() -> None:
    x, scale = np.zeros((2, 3), np.float32), np.ones(4, np.float32)
    with pytest.raises(UnsupportedOperator, match="4 values for 3"):
        lowered(node_model("QuantizeLinear", [x, scale], [TensorProto.UINT8], axis=1))
