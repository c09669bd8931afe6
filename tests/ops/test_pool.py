"""Pools on random shapes and attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import TensorProto

from headrace.errors import UnsupportedOperator
from headrace.program import interp
from tests.ops.one_node import check, lowered, node_model, run_here

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


@st.composite
def pools(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """An input and attributes of a pool in which every window meets the signal."""
    rank = draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 4)) for _ in range(rank)]
    strides = [draw(st.integers(1, 3)) for _ in range(rank)]
    dilations = [draw(st.integers(1, 2)) for _ in range(rank)]
    attrs: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "dilations": dilations}
    mode = draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if mode == "NOTSET":
        attrs["pads"] = [draw(st.integers(0, (k - 1) // 2)) for k in kernel * 2]
        attrs["ceil_mode"] = draw(st.integers(0, 1))
    else:
        attrs["auto_pad"] = mode
        if mode.startswith("SAME"):
            attrs["dilations"], reach = [1] * rank, kernel
            attrs["strides"] = [min(s, k) for s, k in zip(strides, kernel, strict=True)]
    spatial = [r + draw(st.integers(0, 5)) for r in reach]
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 3)), *spatial)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return rng.normal(size=shape).astype(np.float32), attrs


@given(pools())
def test_max_pool(case: Any) -> None:
    x, attrs = case
    check("MaxPool", [x], **attrs)


@given(pools(), st.integers(0, 1))
def test_max_pool_indices(case: Any, columns: int) -> None:
    x, attrs = case
    check("MaxPool", [x], [FLOAT, INT64], storage_order=columns, **attrs)


def test_max_pool_indices_never_point_into_padding() -> None:
    x = np.full((1, 1, 4), -np.inf, np.float32)
    model = node_model("MaxPool", [x], [FLOAT, INT64], kernel_shape=[3], pads=[1, 1])
    y, places = run_here(model, {"x0": x})
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(places, [[[0, 0, 1, 2]]])


@given(pools())
def test_max_pool_of_integers(case: Any) -> None:
    x, attrs = case
    check("MaxPool", [(x * 40).astype(np.int8)], [TensorProto.INT8], **attrs)


@given(pools(), st.integers(0, 1))
def test_average_pool(case: Any, padded: int) -> None:
    x, attrs = case
    assume(not (attrs.get("ceil_mode") and padded and any(d > 1 for d in attrs["dilations"])))
    check("AveragePool", [x], count_include_pad=padded, **attrs)


@given(pools(), st.integers(1, 3))
def test_lp_pool(case: Any, p: int) -> None:
    x, attrs = case
    check("LpPool", [x], p=p, **attrs)


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_global(rng: np.random.Generator, op: str, rank: int) -> None:
    check(op, [rng.normal(size=(2, 3, 4, 5, 6)[: rank + 2]).astype(np.float32)], opset=21)


def test_average_of_halves_is_summed_in_single_precision() -> None:
    x = np.full((1, 1, 64, 64), 30.0, np.float16)  # the sum exceeds the largest half
    (y,) = run_here(node_model("GlobalAveragePool", [x], [TensorProto.FLOAT16]), {"x0": x})
    assert y.dtype == np.float16
    assert y.item() == 30.0


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 0, 0, 1]])
def test_max_unpool(rng: np.random.Generator, pads: list[int]) -> None:
    x = rng.normal(size=(2, 2, 3, 3)).astype(np.float32)
    height, width = 6 - pads[0] - pads[2], 6 - pads[1] - pads[3]
    places = np.array([rng.choice(height * width, 9, replace=False) for _ in range(4)])
    places += np.arange(4)[:, None] * height * width
    check("MaxUnpool", [x, places.reshape(x.shape)], kernel_shape=[2, 2], strides=[2, 2], pads=pads)


def test_max_unpool_into_a_larger_shape() -> None:
    x = np.array([[[[5.0, 6.0], [7.0, 8.0]]]], np.float32)
    places = np.array([[[[5, 7], [13, 15]]]])
    wanted = np.array([1, 1, 5, 5])
    model = node_model("MaxUnpool", [x, places, wanted], [FLOAT], constants=(2,), kernel_shape=[2, 2], strides=[2, 2])
    (y,) = run_here(model, {"x0": x, "x1": places})
    expected = np.zeros((1, 1, 5, 5), np.float32)
    expected[0, 0, 1, 1], expected[0, 0, 1, 3], expected[0, 0, 3, 1], expected[0, 0, 3, 3] = 5, 6, 7, 8
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_same_padding_below_zero_is_refused(op: str) -> None:
    x = np.zeros((1, 1, 6), np.float32)
    model = node_model(op, [x], [FLOAT], kernel_shape=[1], strides=[3], auto_pad="SAME_UPPER")
    with pytest.raises(UnsupportedOperator, match="narrower than its stride"):
        lowered(model)


def test_length_at_run_time() -> None:
    """Counting taps needs no fixed length."""
    x = np.arange(14, dtype=np.float32).reshape(1, 2, 7)
    attrs: dict[str, Any] = {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}
    model = node_model("AveragePool", [x], [FLOAT], **attrs)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[2].dim_param = "T" if value.name == "x0" else "U"
    module = lowered(model, shapes={"x0": (1, 2, "T")}, bounds={"T": 9})
    (fixed,) = run_here(node_model("AveragePool", [x], [FLOAT], **attrs), {"x0": x})
    np.testing.assert_array_equal(interp.run(module, {"x0": x})["y0"], fixed)


def test_same_padding_of_an_unknown_length_is_refused() -> None:
    x = np.zeros((1, 2, 8), np.float32)
    model = node_model("MaxPool", [x], [FLOAT], kernel_shape=[3], strides=[2], auto_pad="SAME_UPPER")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[2].dim_param = "T" if value.name == "x0" else "U"
    with pytest.raises(UnsupportedOperator, match="multiple of 2"):
        lowered(model, shapes={"x0": (1, 2, "T")}, bounds={"T": 9})
    lowered(model, shapes={"x0": (1, 2, "T")}, bounds={"T": (10, 2)})
