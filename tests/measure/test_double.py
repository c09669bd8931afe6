"""The float64 evaluation of a model is one: float64 throughout, and as near to float32 as rounding allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks.subjects import subjects
from headrace.measure.compare import compare
from headrace.measure.double import open_double
from headrace.measure.reference import open_reference
from headrace.passes.prepare import prepare

SUBJECTS = subjects()
NAMES = ("silero-step", "nsnet2[T=1]", "dtln-2", "dfn3-enc[S=1]", "dfn3-erb[S=1]", "pulsevad-int8")


@pytest.mark.models
@pytest.mark.parametrize("name", NAMES)
def test_trained_models(name: str) -> None:
    subject = SUBJECTS[name]
    options = {key: subject.options.get(key, {}) for key in ("shapes", "constants")}
    proto = ir.to_proto(prepare(subject.load(), native=lambda *op: True, **options).model)
    feeds = subject.random(0)
    exact = open_double(proto)(feeds)
    for output, value in open_reference("onnxruntime", proto)(feeds).items():
        assert exact[output].dtype == np.float64
        assert 0 < compare(value.astype(np.float64), exact[output], 1e-5).relative < 1e-5


def test_casts_and_constants_are_widened(make: Callable[..., Any]) -> None:
    model = make(
        [
            ("Constant", [], ["third"], {"value_float": 1 / 3}),
            ("Cast", ["x"], ["narrow"], {"to": 10}),
            ("Cast", ["narrow"], ["wide"], {"to": 1}),
            ("Mul", ["wide", "third"], ["a"], {}),
            ("LayerNormalization", ["a", "scale"], ["y"], {"stash_type": 1}),
        ],
        {"x": ("float32", (1, 3))},
        {"y": ("float32", (1, 3))},
        {"scale": np.ones(3, np.float32)},
    )
    x = np.array([[1.0, 2.0, 4.0001]], np.float32)
    y = open_double(model.proto)({"x": x})["y"]
    a = x.astype(np.float64) * np.float64(np.float32(1 / 3))
    expected = (a - a.mean()) / np.sqrt(a.var() + np.float64(np.float32(1e-5)))
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    assert y.dtype == np.float64
