"""Trained models, prepared and run beside the original in onnxruntime."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from headrace.frontends.onnx import load
from headrace.passes.prepare import prepare
from tests.passes.running import everything, proto_of
from zoo import catalog

pytestmark = pytest.mark.models

CASES = [(name, variant) for name in catalog.ONNX_NAMES for variant in catalog.model(name).variants]


def exactly(proto, feeds):
    """onnxruntime without its own rewrites, which round quantised models differently."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options).run(None, feeds)


@pytest.mark.parametrize("algebra", [False, True])
@pytest.mark.parametrize(("name", "variant"), CASES)
def test_prepared_model_is_the_model(name, variant, algebra):
    """To the last bits without algebra on constants; with it, other sums are rounded."""
    model = load(catalog.path(name))
    entry = catalog.model(name).variant(variant)
    prepared = prepare(model, shapes=entry.shapes, constants=entry.constants, native=everything, algebra=algebra)
    feeds = catalog.feeds(name, 0, variant)
    fixed = {k: np.asarray(v, model.inputs[k].dtype) for k, v in entry.constants.items()}
    want, got = exactly(model.proto, {**feeds, **fixed}), exactly(proto_of(prepared), feeds)
    share = 2e-5 if algebra else 2e-6
    for left, right in zip(want, got, strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=share * float(np.abs(left).max()))
    operators = {node.op_type for node in prepared.model.graph}
    assert not operators & {"If", "Shape", "Size", "ConstantOfShape", "Range", "Identity", "Constant"}
    assert all(isinstance(d, int) for n in prepared.model.graph for v in n.outputs for d in prepared.shape(v))


@pytest.mark.parametrize("name", ["nsnet2", "dfn3-enc", "dfn3-erb", "dfn3-df", "silero-seq"])
def test_one_preparation_for_all_lengths(name):
    model = load(catalog.path(name))
    names = {d for spec in model.inputs.values() for d in spec.shape if isinstance(d, str)}
    prepared = prepare(model, bounds=dict.fromkeys(names, 64), native=everything)
    assert set(prepared.symbols) == names
    assert {n for n, s in prepared.facts.symbols.items() if s.bound is None} == set()
    proto = proto_of(prepared)
    rng = np.random.default_rng(1)
    for length in (1, 6, 33):
        feeds = {
            key: rng.standard_normal([length if isinstance(d, str) else d for d in spec.shape], np.float32)
            for key, spec in model.inputs.items()
        }
        for left, right in zip(exactly(model.proto, feeds), exactly(proto, feeds), strict=True):
            np.testing.assert_allclose(left, right, rtol=0, atol=1e-5 * max(1.0, float(np.abs(left).max())))
