"""Activation functions beside onnxruntime, and beside float64 in half precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from headrace.errors import UnsupportedOperator
from tests.ops.one_node import check, lowered, node_model, run_here

X = np.concatenate([np.linspace(-12, 12, 97), [0.0, -0.0, 1e-6, -1e-6, 88.0, -90.0, np.nan]]).astype(np.float32)
number = st.floats(0.0625, 3, width=32)


@pytest.mark.parametrize("op", ["LeakyRelu", "Elu", "Celu", "ThresholdedRelu"])
@given(alpha=number)
def test_one_parameter(op: str, alpha: float) -> None:
    x = X[~np.isnan(X)] if op == "ThresholdedRelu" else X
    check(op, [x], alpha=alpha, atol=1e-6)


@given(alpha=number, gamma=number)
def test_selu(alpha: float, gamma: float) -> None:
    check("Selu", [X], alpha=alpha, gamma=gamma, atol=1e-6)


@given(alpha=number, beta=number)
def test_hard_sigmoid(alpha: float, beta: float) -> None:
    check("HardSigmoid", [X], alpha=alpha, beta=beta, atol=1e-6)


@pytest.mark.parametrize("op", ["HardSwish", "Softsign", "Mish", "Relu"])
def test_no_parameter(op: str) -> None:
    check(op, [X], atol=1e-6)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate: str) -> None:
    check("Gelu", [X], approximate=approximate, atol=1e-6)


def test_an_unknown_gelu_is_refused() -> None:
    with pytest.raises(UnsupportedOperator, match="use none or tanh"):
        lowered(node_model("Gelu", [X], [TensorProto.FLOAT], approximate="fast"))


def test_swish() -> None:
    x = X[np.isfinite(X)]
    (got,) = run_here(node_model("Swish", [x], [TensorProto.FLOAT], opset=24, alpha=0.7), {"x0": x})
    wanted = x.astype(np.float64) / (1 + np.exp(-0.7 * x.astype(np.float64)))
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("shape", [(1,), (4,), (3, 1), (1, 1, 1), (2, 3, 4)])
def test_prelu_broadcasts_its_slope(shape: tuple[int, ...]) -> None:
    r = np.random.default_rng(1)
    x, slope = r.standard_normal((2, 3, 4)).astype(np.float32), r.standard_normal(shape).astype(np.float32)
    check("PRelu", [x, slope])


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8, np.int8])
def test_shrink(dtype: Any) -> None:
    x = np.arange(-5, 6).astype(dtype)
    onnx_type = {"f": TensorProto.FLOAT, "i": TensorProto.INT32, "u": TensorProto.UINT8}[np.dtype(dtype).kind]
    onnx_type = TensorProto.INT8 if dtype == np.int8 else onnx_type
    check("Shrink", [x], [onnx_type], bias=1.0, lambd=2.0)


@pytest.mark.parametrize("op", ["Gelu", "Elu", "Mish", "HardSwish"])
def test_half_precision_is_rounded_once(op: str) -> None:
    x = np.linspace(-4, 4, 101).astype(np.float16)
    (got,) = run_here(node_model(op, [x], [TensorProto.FLOAT16]), {"x0": x})
    w = x.astype(np.float64)
    wanted = {
        "Gelu": lambda: w * 0.5 * (1 + np.array([math.erf(v / math.sqrt(2)) for v in w])),
        "Elu": lambda: np.where(w < 0, np.expm1(w), w),
        "Mish": lambda: w * np.tanh(np.log1p(np.exp(w))),
        "HardSwish": lambda: w * np.clip(w / 6 + 0.5, 0, 1),
    }[op]()
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, wanted, rtol=2**-11, atol=1e-6)
