"""Batch, instance, layer, group, RMS, local response, mean-variance and Lp normalisation."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from headrace.errors import UnsupportedOperator
from tests.ops.one_node import check, lowered, node_model, run_here, same

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (2, 3, 4, 5), (1, 3, 2, 2, 2)])
@pytest.mark.parametrize("constants", [(), (1, 2, 3, 4)])
def test_batch(rng: np.random.Generator, shape: tuple[int, ...], constants: tuple[int, ...]) -> None:
    parameters = [normal(rng, 3), normal(rng, 3), normal(rng, 3), rng.uniform(0.1, 2, 3).astype(np.float32)]
    check("BatchNormalization", [normal(rng, *shape), *parameters], constants=constants, epsilon=1e-3)


def test_batch_with_a_mean_far_from_zero(rng: np.random.Generator) -> None:
    """The folded form x·a + b loses no more than the rounding of x itself."""
    x = normal(rng, 1, 2, 50) + 1000
    parameters = [np.ones(2), np.zeros(2), np.full(2, 1000.0), np.ones(2)]
    inputs = [x, *(p.astype(np.float32) for p in parameters)]
    model = node_model("BatchNormalization", inputs, [FLOAT], constants=(1, 2, 3, 4))
    (y,) = run_here(model, {"x0": x})
    exact = (x.astype(np.float64) - 1000) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(y, exact, atol=2 * np.spacing(np.float32(1000)))


def test_batch_in_training_form_is_refused(rng: np.random.Generator) -> None:
    inputs = [normal(rng, 2, 3, 4), *(np.ones(3, np.float32) for _ in range(4))]
    with pytest.raises(UnsupportedOperator, match="training"):
        lowered(node_model("BatchNormalization", inputs, [FLOAT, FLOAT, FLOAT], training_mode=1))


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 4, 5), (1, 3, 2, 3, 4)])
def test_instance(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    check("InstanceNormalization", [normal(rng, *shape) * 3 + 2, normal(rng, 3), normal(rng, 3)], epsilon=1e-3)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_group(rng: np.random.Generator, groups: int) -> None:
    inputs = [normal(rng, 2, 6, 3, 4) * 2 + 1, normal(rng, 6), normal(rng, 6)]
    check("GroupNormalization", inputs, num_groups=groups, epsilon=1e-4)


@pytest.mark.parametrize("axis", [-1, 1, 0, -2])
@pytest.mark.parametrize("bias", [True, False])
def test_layer(rng: np.random.Generator, axis: int, bias: bool) -> None:
    shape = (2, 3, 4)
    inputs = [
        normal(rng, *shape) * 2 + 5,
        normal(rng, *shape[axis:]),
        normal(rng, *shape[axis:]) if bias else None,
    ]
    check("LayerNormalization", inputs, axis=axis, epsilon=1e-4)


def test_layer_with_statistics(rng: np.random.Generator) -> None:
    inputs = [normal(rng, 2, 3, 4), normal(rng, 3, 4), None]
    model = node_model("LayerNormalization", inputs, [FLOAT, FLOAT, FLOAT], axis=1)
    feeds = {"x0": inputs[0], "x1": inputs[1]}
    for here, there in zip(run_here(model, feeds), ReferenceEvaluator(model).run(None, feeds), strict=True):
        same(here, there)


def test_layer_of_halves_has_statistics_in_single_precision(rng: np.random.Generator) -> None:
    x = (rng.normal(size=(2, 300)) * 300).astype(np.float16)
    scale = np.ones(300, np.float16)
    model = node_model("LayerNormalization", [x, scale], [HALF, FLOAT, FLOAT])
    y, mean, inverse = run_here(model, {"x0": x, "x1": scale})
    wide = x.astype(np.float64)
    assert (y.dtype, mean.dtype, inverse.dtype) == (np.float16, np.float32, np.float32)
    np.testing.assert_allclose(mean[:, 0], wide.mean(1), rtol=1e-5)
    np.testing.assert_allclose(inverse[:, 0], 1 / wide.std(1), rtol=1e-5)
    np.testing.assert_allclose(y, (wide - wide.mean(1)[:, None]) / wide.std(1)[:, None], rtol=1e-3)


@pytest.mark.parametrize("axis", [-1, 1])
def test_rms(rng: np.random.Generator, axis: int) -> None:
    inputs = [normal(rng, 2, 3, 4) * 3, normal(rng, *(2, 3, 4)[axis:])]
    model = node_model("RMSNormalization", inputs, [FLOAT], opset=23, axis=axis, epsilon=1e-3)
    feeds = {"x0": inputs[0], "x1": inputs[1]}
    (there,) = ReferenceEvaluator(model).run(None, feeds)
    same(run_here(model, feeds)[0], there)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_local_response(rng: np.random.Generator, size: int) -> None:
    check("LRN", [normal(rng, 2, 6, 3, 4)], size=size, alpha=0.2, beta=0.6, bias=1.5)


@pytest.mark.parametrize("axes", [None, [1], [0, 2, 3], [-1]])
def test_mean_variance(rng: np.random.Generator, axes: list[int] | None) -> None:
    x = normal(rng, 2, 3, 4, 5) * 3 + 1
    model = node_model("MeanVarianceNormalization", [x], [FLOAT], **({} if axes is None else {"axes": axes}))
    along = tuple(axes or (0, 2, 3))
    exact = (x - x.mean(along, keepdims=True)) / (x.std(along, keepdims=True) + 1e-9)
    same(run_here(model, {"x0": x})[0], exact)


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("p", [1, 2])
def test_lp(rng: np.random.Generator, axis: int, p: int) -> None:
    x = normal(rng, 2, 3, 4)
    x[0] = 0
    norm = np.linalg.norm(x, p, axis=axis, keepdims=True)
    model = node_model("LpNormalization", [x], [FLOAT], axis=axis, p=p)
    same(
        run_here(model, {"x0": x})[0],
        np.where(norm == 0, 0, x / np.where(norm == 0, 1, norm)).astype(np.float32),
    )
