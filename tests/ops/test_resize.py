"""Resize against onnxruntime and, where that departs from the standard, onnx.reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from headrace.errors import UnsupportedOperator
from headrace.ops.registry import Node
from headrace.ops.resize import resize
from headrace.program import interp
from headrace.program.build import Builder
from headrace.program.expr import walk
from headrace.program.ir import Define, Module, expressions
from tests.ops.one_node import lowered, node_model, run_here, run_there

FLOAT = [TensorProto.FLOAT]


def numbers(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def model_of(
    x: np.ndarray[Any, Any], scales: list[float] | None = None, sizes: list[int] | None = None, **attrs: Any
) -> onnx.ModelProto:
    factors = None if scales is None else np.array(scales, np.float32)
    target = None if sizes is None else np.array(sizes, np.int64)
    return node_model("Resize", [x, None, factors, target], FLOAT, constants=[2, 3], opset=19, **attrs)


def close(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    return a.shape == b.shape and np.allclose(a, b, atol=1e-4)


@settings(max_examples=150)
@given(st.data())
def test_resize(data: st.DataObject) -> None:
    """Sizes and scales from 0.5 to 4; nearest only with scales whose quotients are exact in float32."""
    draw = data.draw
    mode = draw(st.sampled_from(["nearest", "linear", "cubic"]))
    extents = [draw(st.integers(2, 6)) for _ in range(2)]
    x = numbers(1, 2, *extents)
    attrs: dict[str, Any] = {
        "mode": mode,
        "coordinate_transformation_mode": draw(
            st.sampled_from(["half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric"])
        ),
        "nearest_mode": draw(st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])),
    }
    if mode != "nearest":
        attrs["antialias"] = int(draw(st.booleans()))
    if mode == "cubic":
        attrs["exclude_outside"] = int(draw(st.booleans()))
        attrs["cubic_coeff_a"] = draw(st.sampled_from([-0.75, -0.5]))
    if draw(st.booleans()) and mode != "nearest":
        model = model_of(x, sizes=[1, 2, *(draw(st.integers(1, 9)) for _ in extents)], **attrs)
    else:
        factors = [0.5, 2, 4] if mode == "nearest" else [0.5, 0.6, 1.5, 2, 3]
        model = model_of(x, scales=[1, 1, *(draw(st.sampled_from(factors)) for _ in extents)], **attrs)
    (here,) = run_here(model, {"x0": x})
    (there,) = run_there(model, {"x0": x})
    if not close(here, there):  # onnxruntime rounds the width from which it takes the corners
        assert attrs["coordinate_transformation_mode"] == "align_corners"
        assert close(here, ReferenceEvaluator(model).run(None, {"x0": x})[0])


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_one_output_element_of_pytorch_half_pixel(mode: str) -> None:
    x = numbers(1, 1, 5, 4)
    attrs = {"mode": mode, "coordinate_transformation_mode": "pytorch_half_pixel"}
    model = model_of(x, sizes=[1, 1, 1, 2], **attrs)
    assert close(run_here(model, {"x0": x})[0], run_there(model, {"x0": x})[0])


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_crop_and_resize(mode: str) -> None:
    x, sizes = numbers(1, 1, 5, 4), np.array([1, 1, 3, 6], np.int64)
    roi = np.array([0, 0, 0.2, -0.25, 1, 1, 0.7, 1.2], np.float32)
    model = node_model(
        "Resize", [x, roi, None, sizes], FLOAT, constants=[1, 3], opset=19, mode=mode,
        coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=9.0,
    )  # fmt: skip
    (here,) = run_here(model, {"x0": x})
    assert close(here, run_there(model, {"x0": x})[0]) and (here == 9).any()


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_aspect_ratio(policy: str, mode: str) -> None:
    x = numbers(1, 1, 4, 6)
    model = model_of(x, sizes=[7, 8], axes=[2, 3], keep_aspect_ratio_policy=policy, mode=mode)
    expected = ReferenceEvaluator(model).run(None, {"x0": x})[0]
    assert close(run_here(model, {"x0": x})[0], expected)


def constants_read(module: Module) -> set[str]:
    return {
        e.arg.name
        for s in module.body
        if isinstance(s, Define)
        for root in expressions(s)
        for e in walk(root)
        if e.op == "load" and e.arg.space == "const"
    }


def test_whole_factors_need_no_table() -> None:
    x = numbers(1, 1, 3, 4)
    assert not constants_read(lowered(model_of(x, scales=[1, 1, 2, 3])))
    assert constants_read(lowered(model_of(x, sizes=[1, 1, 3, 7])))


def test_symbolic_extent() -> None:
    """A nearest Resize by a whole factor works at any length."""
    b = Builder()
    t = b.symbol("t", 50)
    x, scales = b.input("x", "f32", (1, 2, t)), b.constant(np.array([1, 1, 3], np.float32))
    node = Node("Resize", "r", "", 19, (x, None, scales), {}, ((1, 2, t * 3),), ("f32",))
    b.output("y", resize(b, node))
    value = numbers(1, 2, 5)
    np.testing.assert_array_equal(interp.run(b.module(), {"x": value})["y"], value.repeat(3, axis=2))


def test_integers_are_not_interpolated() -> None:
    x = np.zeros((1, 1, 2, 2), np.uint8)
    model = node_model(
        "Resize", [x, None, np.array([1, 1, 2, 2], np.float32)], [TensorProto.UINT8], [2], 19, mode="linear"
    )
    with pytest.raises(UnsupportedOperator, match="convert them to float"):
        lowered(model)
