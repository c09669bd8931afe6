"""The networks with seeded weights run in onnxruntime, depend on their input, and have the published size."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import onnx
import pytest

from zoo import build, light, mlperf_tiny, nets
from zoo.reference import onnxruntime_outputs, session

BIG = ("light-alexnet", "light-vgg19", "light-zfnet512", "light-resnet50", "transformer-512")
SOURCES = {name: module for module in (mlperf_tiny, nets, light) for name in module.NAMES}
CASES = [pytest.param(name, marks=pytest.mark.slow if name in BIG else ()) for name in SOURCES]


def multiplications(model: onnx.ModelProto) -> int:
    """Multiply-accumulates of the Conv, Gemm and MatMul nodes, from inferred shapes."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    shape = {t.name: list(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        shape[value.name] = [d.dim_value for d in value.type.tensor_type.shape.dim]
    total = 0
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            total += int(np.prod(shape[node.output[0]]) * np.prod(shape[node.input[1]][1:]))
        elif node.op_type == "MatMul":
            total += int(np.prod(shape[node.output[0]]) * shape[node.input[0]][-1])
    return total


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_finite_and_depend_on_the_input(name: str) -> None:
    model = SOURCES[name].build(name)
    run = session(model)
    first, second = (run.run(None, build.feeds(model, seed)) for seed in (0, 1))
    for a, b in zip(first, second, strict=True):
        assert np.isfinite(a).all()
        assert a.std() > 0
        assert np.abs(a - b).max() > 1e-3 * np.abs(a).max()


@pytest.mark.parametrize(
    ("name", "million"),
    [
        ("ds-cnn", 2.7),
        ("resnet8", 12.5),
        ("mobilenet-v1-025", 7.5),
        ("auto-encoder", 0.26),
        ("mobilenet-v2", 301),
        ("transformer-16", 171),
        ("transformer-128", 1434),
        ("gemm-960x1024x1024", 1007),
    ],
)
def test_work_is_the_published_one(name: str, million: float) -> None:
    assert multiplications(SOURCES[name].build(name)) / 1e6 == pytest.approx(million, rel=0.02)


@pytest.mark.parametrize("name", ["ds-cnn", "causal-c16-l4-k3", "light-shufflenet"])
def test_the_seed_decides_the_weights(name: str) -> None:
    same, again, other = (SOURCES[name].build(name, seed).SerializeToString(deterministic=True) for seed in (3, 3, 4))
    assert same == again
    assert same != other


@pytest.mark.parametrize("name", ["light-squeezenet", "light-densenet121", "light-inception-v1"])
def test_light_models_keep_none_of_the_constant_weights(name: str) -> None:
    model = light.build(name)
    assert not any(node.op_type in ("ConstantOfShape", "Softmax") for node in model.graph.node)
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        assert value.dtype == np.int64 or value.size == 1 or value.std() > 0, tensor.name


@pytest.mark.parametrize("size", ["c16-l4-k3", "c64-l6-k9"])
def test_causal_network_and_its_step_form_agree(size: str) -> None:
    whole, step = nets.build(f"causal-{size}"), nets.build(f"causal-step-{size}")
    x = build.feeds(whole)["x"]
    (expected,) = onnxruntime_outputs(whole, {"x": x}).values()
    run = session(step)
    state = {k: np.zeros_like(v) for k, v in build.feeds(step).items() if k != "x"}
    for t in range(x.shape[2]):
        output, *following = run.run(None, {"x": x[:, :, t : t + 1], **state})
        state = dict(zip(state, following, strict=True))
        np.testing.assert_allclose(output[:, :, 0], expected[:, :, t], rtol=0, atol=1e-5 * np.abs(expected).max())


def test_pads_are_those_of_tensorflow() -> None:
    assert build.same_pads((96, 96), (3, 3), 2) == [0, 0, 1, 1]
    assert build.same_pads((49, 10), (10, 4), 2) == [4, 1, 5, 1]
    assert build.same_pads((32, 32), (1, 1), 2) == [0, 0, 0, 0]


@pytest.mark.parametrize("module", [light, mlperf_tiny, nets])
def test_unknown_names_list_the_known_ones(module: ModuleType) -> None:
    with pytest.raises(ValueError, match=module.NAMES[0]):
        module.build("nothing")
