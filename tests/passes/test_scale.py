"""Scales and offsets of channels that become part of weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.frontends.onnx import load
from headrace.measure.double import open_double
from headrace.passes.prepare import prepare
from tests.passes.running import array, check_same, everything, model, node, operators

F = np.float32
NORM = {"s": array(6, seed=5), "t": array(6, seed=6), "u": array(6, seed=7), "v": np.abs(array(6, seed=8)) + 0.1}


def norm(x, y, **attributes):
    return node("BatchNormalization", [x, "s", "t", "u", "v"], [y], **attributes)


def linear(kind, x, y, biased=True):
    """A node from x: [2, 4, 7] (convolutions) or [5, 4] (products) to 6 channels, with its constants."""
    constants = {"b": array(6, seed=2)} if biased else {}
    bias = ["b"] if biased else []
    if kind == "Conv":
        return node("Conv", [x, "w", *bias], [y], group=2, pads=[1, 1]), {"w": array(6, 2, 3, seed=1), **constants}
    if kind == "ConvTranspose":
        weights = {"w": array(4, 3, 3, seed=1), **constants}
        return node("ConvTranspose", [x, "w", *bias], [y], group=2, strides=[2], pads=[1, 0]), weights
    if kind == "Gemm":
        return node("Gemm", [x, "w", *bias], [y], transB=1, alpha=0.5, beta=3.0), {
            "w": array(6, 4, seed=1),
            **constants,
        }
    return node("MatMul", [x, "w"], [y]), {"w": array(4, 6, seed=1)}


def sizes(kind):
    spatial = kind.startswith("Conv")
    return ((2, 4, 7), (2, 6, 7 if kind == "Conv" else 14)) if spatial else ((5, 4), (5, 6))


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "Gemm", "MatMul"])
def test_batch_norm_after(kind, biased):
    first, constants = linear(kind, "x", "m", biased)
    size, out = sizes(kind)
    proto = model([first, norm("m", "y", epsilon=1e-3)], {"x": (size, F)}, {"y": (out, F)}, {**NORM, **constants})
    prepared = check_same(proto, {"x": array(*size)}, rtol=1e-4, atol=1e-5)
    assert operators(prepared) == (["MatMul", "Add"] if kind == "MatMul" else [kind])
    assert any(
        text.startswith(f"BatchNormalization is folded into the weights of {kind}") for text in prepared.decisions
    )


AROUND = {
    "Mul by channels": ("Mul", (6, 1), 0),
    "Mul by channels, constant first": ("Mul", (1, 6, 1), 1),
    "Mul by one number": ("Mul", (), 0),
    "Div": ("Div", (6, 1), 0),
    "Add": ("Add", (6, 1), 1),
    "Sub": ("Sub", (1,), 0),
    "Sub from a constant": ("Sub", (6, 1), 1),
}


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "Gemm"])
@pytest.mark.parametrize("name", AROUND)
def test_arithmetic_after(name, kind):
    op, shape, place = AROUND[name]
    first, constants = linear(kind, "x", "m")
    size, out = sizes(kind)
    if not kind.startswith("Conv"):
        shape = tuple(n for n in shape if n == 6)
    constants["c"] = array(*shape, seed=9) if shape else np.array(0.3, F)
    nodes = [first, node(op, ["c", "m"] if place else ["m", "c"], ["y"])]
    prepared = check_same(model(nodes, {"x": (size, F)}, {"y": (out, F)}, constants), {"x": array(*size)}, atol=1e-4)
    assert operators(prepared) == [kind]


def test_scaled_queries():
    """MatMul, Add, Mul, as before attention: both constants are scaled."""
    constants = {"w": array(4, 6), "b": array(6, seed=1), "c": np.array(0.125, F)}
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Add", ["b", "m"], ["a"]), node("Mul", ["a", "c"], ["y"])]
    proto = model(nodes, {"x": ((2, 3, 4), F)}, {"y": ((2, 3, 6), F)}, constants)
    assert operators(check_same(proto, {"x": array(2, 3, 4)})) == ["MatMul", "Add"]


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "Gemm", "MatMul"])
@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_scale_before(kind, op):
    last, constants = linear(kind, "m", "y")
    size, out = sizes(kind)
    constants["c"] = array(*((4, 1) if kind.startswith("Conv") else (4,)), seed=9)
    proto = model([node(op, ["x", "c"], ["m"]), last], {"x": (size, F)}, {"y": (out, F)}, constants)
    assert operators(check_same(proto, {"x": array(*size)}, atol=1e-4)) == [kind]


def test_an_offset_before_stays():
    """Near 1000 the difference is exact and the offset of the result would not be."""
    constants = {"w": array(6, 4, 1), "c": np.array(1000.0, F)}
    nodes = [node("Sub", ["x", "c"], ["m"]), node("Conv", ["m", "w"], ["y"])]
    proto = model(nodes, {"x": ((1, 4, 7), F)}, {"y": ((1, 6, 7), F)}, constants)
    prepared = check_same(proto, {"x": 1000 + 1e-3 * array(1, 4, 7)}, rtol=1e-5, atol=1e-8)
    assert operators(prepared) == ["Sub", "Conv"]


def kept(nodes, size, out, constants):
    proto = model(nodes, {"x": (size, F)}, {"y": (out, F)}, constants)
    return operators(check_same(proto, {"x": array(*size)}, atol=1e-4))


def test_what_is_no_scale_of_channels_stays():
    first, constants = linear("Conv", "x", "m")
    by_frame = {**constants, "c": array(7, seed=9)}
    assert kept([first, node("Mul", ["m", "c"], ["y"])], (2, 4, 7), (2, 6, 7), by_frame) == ["Conv", "Mul"]
    wider = {**constants, "c": array(3, 1, 6, 1, seed=9)}
    assert kept([first, node("Mul", ["m", "c"], ["y"])], (2, 4, 7), (3, 2, 6, 7), wider) == ["Conv", "Mul"]
    infinite = {**constants, "c": np.array(np.inf, F)}
    assert kept([first, node("Mul", ["m", "c"], ["y"])], (2, 4, 7), (2, 6, 7), infinite) == ["Conv", "Mul"]
    zero = {**constants, "c": np.array(0.0, F)}
    assert kept([first, node("Div", ["m", "c"], ["y"])], (2, 4, 7), (2, 6, 7), zero) == ["Conv", "Div"]
    negative = {**constants, **NORM, "v": -NORM["v"]}
    assert kept([first, norm("m", "y")], (2, 4, 7), (2, 6, 7), negative) == ["Conv", "BatchNormalization"]


def test_a_batch_norm_in_training_stays():
    first, constants = linear("Conv", "x", "m")
    nodes = [first, node("BatchNormalization", ["m", "s", "t", "u", "v"], ["y", "p", "q"], training_mode=1)]
    proto = model(nodes, {"x": ((2, 4, 7), F)}, {"y": ((2, 6, 7), F)}, {**NORM, **constants})
    assert "BatchNormalization" in operators(prepare(load(proto), native=everything))


def test_two_readers_and_outputs_stay():
    first, constants = linear("Conv", "x", "m")
    nodes = [first, node("Mul", ["m", "c"], ["y"]), node("Abs", ["m"], ["z"])]
    constants["c"] = np.array(2.0, F)
    ports = {"y": ((2, 6, 7), F), "z": ((2, 6, 7), F)}
    assert operators(check_same(model(nodes, {"x": ((2, 4, 7), F)}, ports, constants), {"x": array(2, 4, 7)})) == [
        "Conv", "Mul", "Abs",
    ]  # fmt: skip
    returned = model(nodes[:2], {"x": ((2, 4, 7), F)}, {"y": ((2, 6, 7), F), "m": ((2, 6, 7), F)}, constants)
    assert operators(check_same(returned, {"x": array(2, 4, 7)})) == ["Conv", "Mul"]


@st.composite
def stacks(draw):
    """Convolutions, norms, scales, offsets and activations in any order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    channels, nodes, constants, at = 3, [], {}, "x"

    def put(op, inputs, weights, **attributes):
        nonlocal at
        for name, value in weights.items():
            constants[f"{name}{len(nodes)}"] = value.astype(F)
        names = [i if i == at else f"{i}{len(nodes)}" for i in inputs]
        nodes.append(node(op, names, [f"n{len(nodes)}"], **attributes))
        at = f"n{len(nodes) - 1}"

    for kind in draw(st.lists(st.sampled_from(("conv", "norm", "scale", "offset", "relu")), min_size=2, max_size=6)):
        if kind == "conv":
            out = draw(st.sampled_from((2, 4)))
            weights = {"w": rng.standard_normal((out, channels, 3)) / 3, "b": rng.standard_normal(out)}
            put("Conv", [at, "w", "b"], weights, pads=[1, 1])
            channels = out
        elif kind == "norm":
            names = ("s", "t", "u", "v")
            put("BatchNormalization", [at, *names], {n: np.abs(rng.standard_normal(channels)) + 0.1 for n in names})
        elif kind == "scale":
            put("Mul", [at, "c"], {"c": rng.standard_normal((channels, 1))})
        elif kind == "offset":
            put("Add", ["c", at], {"c": rng.standard_normal((1, channels, 1))})
        else:
            put("Relu", [at], {})
    nodes[-1].output[0] = "y"
    return model(nodes, {"x": ((2, 3, 9), F)}, {"y": ((2, channels, 9), F)}, constants)


@settings(max_examples=60, deadline=None)
@given(stacks())
def test_random_stacks(proto):
    """Equal to onnxruntime, and the exact result is as near as float32 weights allow."""
    x = {"x": array(2, 3, 9, seed=11)}
    prepared = check_same(proto, x, rtol=1e-3, atol=1e-3)
    (exact,) = open_double(proto)(x).values()
    (near,) = open_double(ir_proto(prepared))(x).values()
    assert np.abs(near - exact).max() <= 2e-5 * max(1.0, np.abs(exact).max())
    names = [(n.inputs[0].producer(), n) for n in prepared.model.graph if n.op_type in ("BatchNormalization", "Mul")]
    assert all(before is None or before.op_type != "Conv" for before, _ in names)


def ir_proto(prepared):
    import onnx_ir as ir

    return ir.to_proto(prepared.model)


def test_a_chain_is_rounded_once():
    """BatchNormalization, Mul and Add after a convolution, as Caffe writes them."""
    first, constants = linear("Conv", "x", "m")
    constants |= {**NORM, "c": array(6, 1, seed=9), "d": array(6, 1, seed=10)}
    nodes = [first, norm("m", "n"), node("Mul", ["n", "c"], ["o"]), node("Add", ["o", "d"], ["y"])]
    prepared = check_same(
        model(nodes, {"x": ((2, 4, 7), F)}, {"y": ((2, 6, 7), F)}, constants), {"x": array(2, 4, 7)}, atol=1e-4
    )
    assert operators(prepared) == ["Conv"]
    wide = {k: v.astype(np.float64) for k, v in constants.items()}
    scale = wide["c"][:, 0] * wide["s"] / np.sqrt(wide["v"] + 1e-5)
    exact = wide["w"] * scale[:, None, None]
    got = prepared.constant(prepared.model.graph[0].inputs[1])
    assert (np.abs(got - exact) <= 0.51 * np.finfo(F).eps * np.abs(exact)).all()
