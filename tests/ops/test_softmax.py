"""Softmax, LogSoftmax, Hardmax."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from headrace.program import interp
from tests.ops.one_node import check, lowered, node_model, run_here

OPS = ["Softmax", "LogSoftmax", "Hardmax"]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("axis", [None, 0, 1, 2, -2])
@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 1, 1), (2, 5, 1)])
def test_axis(rng: np.random.Generator, op: str, axis: int | None, shape: tuple[int, ...]) -> None:
    x = (rng.normal(size=shape) * 5).astype(np.float32)
    check(op, [x], **({} if axis is None else {"axis": axis}))


@pytest.mark.parametrize("op", OPS)
def test_large_values_and_ties(op: str) -> None:
    x = np.array([[1e4, 1e4, -1e4], [-3e38, -3e38, -3e38], [3e38, 0, 1]], np.float32)
    check(op, [x])


@pytest.mark.parametrize("op", OPS)
def test_infinities(op: str) -> None:
    x = np.array([[0, -np.inf, 1], [-np.inf, -np.inf, 0]], np.float32)
    check(op, [x])


@pytest.mark.parametrize("op", OPS)
def test_empty(op: str) -> None:
    x = np.zeros((0, 3), np.float32)
    (y,) = run_here(node_model(op, [x], [TensorProto.FLOAT]), {"x0": x})
    assert y.shape == (0, 3)


def test_log_softmax_is_stable() -> None:
    x = np.array([[0, 100, 200]], np.float32)
    (y,) = run_here(node_model("LogSoftmax", [x], [TensorProto.FLOAT]), {"x0": x})
    np.testing.assert_array_equal(y, [[-200, -100, 0]])


@pytest.mark.parametrize("op", OPS)
def test_run_time_extent(rng: np.random.Generator, op: str) -> None:
    x = rng.normal(size=(2, 5)).astype(np.float32)
    model = node_model(op, [x], [TensorProto.FLOAT])
    (fixed,) = run_here(model, {"x0": x})
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[1].dim_param = "T"
    module = lowered(model, shapes={"x0": (2, "T")}, bounds={"T": 8})
    np.testing.assert_array_equal(interp.run(module, {"x0": x})["y0"], fixed)
