from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from headrace.frontends.onnx import load
from headrace.measure.inspect import inspect
from zoo import catalog, mlperf_tiny, nets


@pytest.mark.parametrize(
    ("build", "million"),
    [
        (lambda: mlperf_tiny.build("ds-cnn"), 2.7),
        (lambda: mlperf_tiny.build("resnet8"), 12.5),
        (lambda: mlperf_tiny.build("mobilenet-v1-025"), 7.5),
        (lambda: nets.build("transformer-16"), 171),
    ],
)
def test_work_is_the_published_one(build: Callable[[], Any], million: float) -> None:
    found = inspect(load(build()))
    assert isinstance(found.macs, int) and found.macs / 1e6 == pytest.approx(million, rel=0.02)
    assert found.macs_complete and found.unknown == {}


def test_open_dims_give_formulas(make: Callable[..., Any]) -> None:
    model = make(
        [("MatMul", ["x", "w"], ["a"], {}), ("Relu", ["a"], ["y"], {})],
        {"x": ("float32", ("N", "T", 8))},
        {"y": ("float32", ("N", "T", 16))},
        {"w": np.zeros((8, 16), np.float32)},
    )
    found = inspect(model)
    assert str(found.macs) == "128*N*T"
    assert found.unknown == {"N": ("x",), "T": ("x",)}
    assert found.nodes[0].outputs == {"a": "float32 [N, T, 16]"}
    assert found.parameters == 128 and found.parameter_bytes == 512
    assert "128*N*T MAC" in found.table() and "--shape" in found.table()
    assert json.loads(found.to_json())["macs"] == "128*N*T"
    assert str(inspect(model, {"x": (2, "T", 8)}).macs) == "256*T"
    assert inspect(model, {"x": (2, 3, 8)}).macs == 768


@pytest.mark.parametrize(
    ("op", "x", "weights", "attributes", "rank", "expected"),
    [
        ("Conv", (1, 4, 9), [(6, 2, 3)], {"group": 2}, 3, 6 * 7 * 2 * 3),
        ("ConvTranspose", (1, 4, 5), [(4, 3, 2)], {"strides": [2]}, 3, 5 * 4 * 3 * 2),
        ("Gemm", (5, 2), [(7, 5)], {"transA": 1, "transB": 1}, 2, 2 * 7 * 5),
        ("Einsum", (1, 4, 2, 3), [(2, 3, 5)], {"equation": "btgi,gih->btgh"}, 4, 4 * 2 * 3 * 5),
        ("LSTM", (5, 2, 4), [(1, 12, 4), (1, 12, 3)], {"hidden_size": 3}, 4, 5 * 2 * 12 * (4 + 3)),
        ("GRU", (5, 2, 4), [(2, 9, 4), (2, 9, 3)], {"hidden_size": 3, "direction": "bidirectional"}, 4, 1260),
        ("Add", (4,), [(4,)], {}, 1, 0),
    ],
)  # fmt: skip
def test_work_of_one_operator(
    make: Callable[..., Any],
    op: str,
    x: tuple[int, ...],
    weights: list[tuple[int, ...]],
    attributes: dict[str, Any],
    rank: int,
    expected: int,
) -> None:
    names = [f"w{i}" for i in range(len(weights))]
    model = make(
        [(op, ["x", *names], ["y"], attributes)],
        {"x": ("float32", x)},
        {"y": ("float32", tuple(f"d{i}" for i in range(rank)))},
        {name: np.zeros(shape, np.float32) for name, shape in zip(names, weights, strict=True)},
    )
    assert inspect(model).macs == expected


def test_attention_counts_both_products() -> None:
    import onnx
    from onnx import TensorProto, helper

    def port(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    node = helper.make_node("Attention", ["q", "k", "v"], ["y"])
    ports = [port("q", (1, 2, 5, 8)), port("k", (1, 2, 7, 8)), port("v", (1, 2, 7, 4))]
    graph = helper.make_graph([node], "g", ports, [port("y", (1, 2, 5, 4))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    assert inspect(load(model)).macs == 2 * 5 * 7 * 8 + 2 * 5 * 7 * 4


def test_wrong_arguments(perceptron: Any) -> None:
    with pytest.raises(ValueError, match="no input"):
        inspect(perceptron, {"nothing": (1,)})
    with pytest.raises(ValueError, match="axes"):
        inspect(perceptron, axes={"nothing": 0})
    with pytest.raises(ValueError, match="time axis"):
        inspect(perceptron, window=4)


def test_time(perceptron: Any) -> None:
    found = inspect(perceptron, axes={"x": 0})
    assert found.time is not None and found.time.blocked is None and found.time.chunk == 1
    assert found.to_dict()["time"]["layers"][0]["time"] == ("[axis 0, delay 0, rate 1]",)
    assert "chunk of 1 frames" in found.table()


@pytest.mark.models
@pytest.mark.parametrize("name", catalog.ONNX_NAMES)
def test_trained_models(name: str) -> None:
    options = catalog.model(name).variant()
    model = load(catalog.path(name))
    fixed = inspect(model, options.shapes, constants=options.constants)
    assert isinstance(fixed.macs, int) and fixed.macs > 10_000 and fixed.macs_complete
    assert fixed.unknown == {} and fixed.parameters > 500
    assert inspect(model).table()


@pytest.mark.models
def test_control_flow_that_stays_is_shown_as_it_is() -> None:
    found = inspect(load(catalog.path("silero-op15")))
    assert found.operators["If"] > 1
    assert any("constants may help" in note for note in found.notes)
    assert any("counted once" in note for note in found.notes)
