"""CumSum, CumProd, TopK, DFT and STFT."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from tests.ops.one_node import check, node_model, run_here

FLOAT = [TensorProto.FLOAT]


def numbers(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("shape", [(4, 5), (1, 1), (3, 0)])
def test_running_sum(exclusive: int, reverse: int, axis: int, shape: tuple[int, int]) -> None:
    inputs = [numbers(*shape), np.array(axis, np.int64)]
    check("CumSum", inputs, constants=[1], exclusive=exclusive, reverse=reverse)
    model = node_model("CumProd", inputs, FLOAT, [1], 26, exclusive=exclusive, reverse=reverse)
    x = inputs[0][:, ::-1] if reverse and axis else inputs[0][::-1] if reverse else inputs[0]
    expected = np.cumprod(x, axis=axis)
    if exclusive:
        first = np.ones_like(np.take(x, [0], axis=axis)) if x.shape[axis] else x
        expected = np.concatenate([first, np.take(expected, range(x.shape[axis] - 1), axis=axis)], axis=axis)
    expected = np.flip(expected, axis=axis) if reverse else expected
    np.testing.assert_allclose(run_here(model, {"x0": inputs[0]})[0], expected, rtol=1e-5)


@given(st.data())
def test_top_k_with_ties(data: st.DataObject) -> None:
    shape = [data.draw(st.integers(1, 6)) for _ in range(2)]
    axis = data.draw(st.integers(-2, 1))
    k = np.array([data.draw(st.integers(0, shape[axis]))], np.int64)
    values = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0, np.inf])
    flat = data.draw(st.lists(values, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    x = np.array(flat, np.float32).reshape(shape)
    outs = [TensorProto.FLOAT, TensorProto.INT64]
    check("TopK", [x, k], outs, constants=[1], axis=axis, largest=int(data.draw(st.booleans())))


def test_top_k_of_integers_at_their_limits() -> None:
    x = np.array([[127, -128, 127, -128, 0]], np.int8)
    model = node_model("TopK", [x, np.array([5])], [TensorProto.INT8, TensorProto.INT64], [1], 24)
    values, places = run_here(model, {"x0": x})
    assert values.tolist() == [[127, 127, 0, -128, -128]] and places.tolist() == [[0, 2, 4, 1, 3]]


@pytest.mark.parametrize("largest", [0, 1])
def test_top_k_puts_nan_first(largest: int) -> None:
    x = np.array([1, np.nan, -np.inf, np.nan, np.inf], np.float32)
    outs = [TensorProto.FLOAT, TensorProto.INT64]
    places = run_here(node_model("TopK", [x, np.array([5])], outs, [1], largest=largest), {"x0": x})[1]
    assert places.tolist() == ([1, 3, 4, 0, 2] if largest else [1, 3, 2, 0, 4])


def spectrum(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.stack([x.real, x.imag], axis=-1).astype(np.float32)


@pytest.mark.parametrize("length", [None, 5, 8, 11])
@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize(
    ("kind", "parts"), [("forward", 1), ("forward", 2), ("inverse", 1), ("inverse", 2), ("half", 1)]
)
def test_dft(length: int | None, axis: int, kind: str, parts: int) -> None:
    x = numbers(2, 8, 6, parts)
    given = [x, None if length is None else np.array(length), np.array(axis)]
    attrs = {"inverse": int(kind == "inverse"), "onesided": int(kind == "half")}
    model = node_model("DFT", given, FLOAT, [1, 2], 20, **attrs)
    values = x[..., 0] + (1j * x[..., 1] if parts == 2 else 0)
    if kind == "half":
        expected = np.fft.rfft(values.real, length, axis)
    else:
        expected = (np.fft.ifft if kind == "inverse" else np.fft.fft)(values, length, axis)
    np.testing.assert_allclose(run_here(model, {"x0": x})[0], spectrum(expected), atol=2e-6 * 8)


@pytest.mark.parametrize("length", [8, 9, 7])
def test_signal_from_half_a_spectrum(length: int) -> None:
    x = numbers(3, length // 2 + 1, 2)
    model = node_model("DFT", [x, np.array(length), np.array(1)], FLOAT, [1, 2], 20, inverse=1, onesided=1)
    expected = np.fft.irfft(x[..., 0] + 1j * x[..., 1], length, 1)[..., None]
    np.testing.assert_allclose(run_here(model, {"x0": x})[0], expected, atol=1e-5)


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("constants", [(1, 2, 3), (1, 3)])
@pytest.mark.parametrize("windowed", [True, False])
def test_stft(onesided: int, constants: tuple[int, ...], windowed: bool) -> None:
    x, window = numbers(2, 40, 1), np.hanning(16).astype(np.float32) if windowed else None
    given = [x, np.array(6), window, np.array(16)]
    model = node_model("STFT", given, FLOAT, constants, 20, onesided=onesided)
    feeds = {"x0": x} | ({"x2": window} if window is not None and 2 not in constants else {})
    frames = np.stack([x[:, t : t + 16, 0] for t in range(0, 40 - 15, 6)], axis=1)
    frames = frames * (1 if window is None else window)
    expected = np.fft.rfft(frames) if onesided else np.fft.fft(frames)
    np.testing.assert_allclose(run_here(model, feeds)[0], spectrum(expected), atol=2e-5)


def test_complex_stft() -> None:
    x = numbers(1, 20, 2)
    model = node_model("STFT", [x, np.array(4), None, np.array(8)], FLOAT, [1, 3], 20, onesided=0)
    expected = ReferenceEvaluator(model).run(None, {"x0": x})[0]
    np.testing.assert_allclose(run_here(model, {"x0": x})[0], expected, atol=1e-5)
