"""Constants are folded to what onnxruntime computes, not to what NumPy would."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.frontends.onnx import load
from headrace.passes.prepare import prepare
from tests.passes.running import check_same, everything, model, node, operators

F, I64, I32 = np.float32, np.int64, np.int32
A = np.array([-7, 7, -7, 7, 0, -8], I64)
B = np.array([2, 2, -2, -2, 3, 3], I64)
X = np.array([-1.5, -0.5, 0.5, 1.5, 2.5, 300.7], F)

CASES = {
    "integer division truncates": (node("Div", ["a", "b"], ["k"]), I64),
    "integer division of int32": (node("Div", ["c", "d"], ["k"]), I32),
    "modulo takes the sign of the divisor": (node("Mod", ["a", "b"], ["k"]), I64),
    "fmod takes the sign of the dividend": (node("Mod", ["a", "b"], ["k"], fmod=1), I64),
    "round to even": (node("Round", ["x"], ["k"]), F),
    "float to integer truncates": (node("Cast", ["x"], ["k"], to=7), I64),
    "integer power": (node("Pow", ["a", "b2"], ["k"]), I64),
    "arg max takes the first": (node("ArgMax", ["a"], ["k"], axis=0), I64),
    "arg max takes the last": (node("ArgMax", ["a"], ["k"], axis=0, select_last_index=1), I64),
    "cumulative sum backwards": (node("CumSum", ["x", "zero"], ["k"], reverse=1, exclusive=1), F),
    "gather from the end": (node("Gather", ["a", "back"], ["k"]), I64),
    "scatter add": (node("ScatterElements", ["a", "zeros", "ones"], ["k"], reduction="add"), I64),
    "one hot of negative": (node("OneHot", ["back", "six", "offon"], ["k"]), F),
    "not a number": (node("Max", ["nan", "x"], ["k"]), F),
    "quantize": (node("QuantizeLinear", ["x", "half", "zp"], ["k"]), np.uint8),
    "dequantize": (node("DequantizeLinear", ["q", "half", "zp"], ["k"]), F),
    "leaky": (node("LeakyRelu", ["x"], ["k"], alpha=0.3), F),
    "erf": (node("Erf", ["x"], ["k"]), F),
    "sum of squares": (node("ReduceSumSquare", ["x"], ["k"]), F),
    "layer norm": (node("LayerNormalization", ["x", "x"], ["k"]), F),
    "einsum": (node("Einsum", ["x", "x"], ["k"], equation="i,j->ij"), F),
    "trilu": (node("Trilu", ["square"], ["k"], upper=0), F),
    "resize": (node("Resize", ["image", "", "double"], ["k"], mode="linear"), F),
    "convolution": (node("Conv", ["image", "kernel"], ["k"], pads=[1, 1, 1, 1]), F),
    "gemm": (node("Gemm", ["square", "square"], ["k"], transB=1, alpha=0.5), F),
}
CONSTANTS = {
    "a": A, "b": B, "c": A.astype(I32), "d": B.astype(I32), "x": X, "b2": np.full(6, 2, I64),
    "zero": np.array(0, I64), "back": np.array([-1, 1, -3], I64), "zeros": np.zeros(3, I64),
    "ones": np.array([1, 2, 3], I64), "six": np.array(6, I64), "offon": np.array([0, 1], F),
    "nan": np.array([np.nan] * 6, F), "half": np.array(0.5, F), "zp": np.array(3, np.uint8),
    "q": np.array([0, 3, 255], np.uint8), "square": np.arange(9, dtype=F).reshape(3, 3),
    "image": np.arange(16, dtype=F).reshape(1, 1, 4, 4), "double": np.array([1, 1, 2, 2], F),
    "kernel": np.arange(9, dtype=F).reshape(1, 1, 3, 3),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_folded_like_onnxruntime(name):
    item, dtype = CASES[name]
    used = {key: CONSTANTS[key] for key in item.input if key}
    rank = {"einsum": 2, "trilu": 2, "gemm": 2, "one hot of negative": 2, "resize": 4, "convolution": 4}.get(name, 1)
    proto = model([item], {}, {"k": (tuple(f"d{i}" for i in range(rank)), dtype)}, used)
    prepared = check_same(proto, {})
    assert operators(prepared) == ["Identity"]
    assert prepared.constant(prepared.model.graph[0].inputs[0]) is not None


def test_control_flow_and_chance_are_not_folded():
    nodes = [node("RandomNormal", [], ["y"], shape=[3]), node("Bernoulli", ["p"], ["z"])]
    proto = model(nodes, {}, {"y": ((3,), F), "z": ((2,), F)}, {"p": np.array([0.5, 0.5], F)})
    assert operators(prepare(load(proto), native=everything)) == ["RandomNormal", "Bernoulli"]
