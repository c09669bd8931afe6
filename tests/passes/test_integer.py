"""Products of dequantised bytes as products of integers."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

import headrace as hr
from headrace.frontends.onnx import load
from headrace.measure.double import open_double
from headrace.passes.prepare import prepare
from tests.passes.running import everything, model, node, operators, proto_of

F = np.float32
INNER, COLUMNS = 160, 112  # enough weights for the rule


def quantised(rows=2, kind="Gemm", x="int8", w="int8", zero=0, weight_zero=0, per_column=True, turned=True,
              biased=True, inner=INNER, columns=COLUMNS, seed=0, again=True, **attributes):  # fmt: skip
    """x: [rows, inner] → quantised → product with bytes (→ quantised again) → y: [rows, columns]."""
    rng = np.random.default_rng(seed)
    info = np.iinfo(w)
    count = columns if per_column else 1
    shape = (columns, inner) if turned else (inner, columns)
    scale = (rng.uniform(0.5, 1.5, count) * 0.02).astype(F)
    constants = {
        "s": np.array(0.031, F), "z": np.array(zero, x), "q": rng.integers(info.min, info.max + 1, shape).astype(w),
        "t": scale if per_column else scale[0], "n": np.full(count, weight_zero, w) if per_column
        else np.array(weight_zero, w), "o": np.array(0.11, F), "p": np.array(3, np.int8),
        "b": rng.standard_normal(columns).astype(F),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["xq"]), node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        node("DequantizeLinear", ["q", "t", "n"], ["w"], axis=0 if turned else 1),
    ]  # fmt: skip
    bias = ["b"] if biased and kind == "Gemm" else []
    attributes = {**({"transB": int(turned)} if kind == "Gemm" else {}), **attributes}
    nodes.append(node(kind, ["xd", "w", *bias], ["g" if again else "y"], **attributes))
    if again:
        nodes += [node("QuantizeLinear", ["g", "o", "p"], ["gq"]), node("DequantizeLinear", ["gq", "o", "p"], ["y"])]
    used = {name for n in nodes for name in n.input}
    return model(
        nodes, {"x": ((rows, inner), F)}, {"y": ((rows, columns), F)}, {k: v for k, v in constants.items() if k in used}
    )


def given_x(rows=2, inner=INNER, seed=1):
    return np.random.default_rng(seed).standard_normal((rows, inner)).astype(F)


def run(proto, x):
    """In onnxruntime as the model says: its own fusions let sums of two products of bytes saturate on x86."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return ort.InferenceSession(proto.SerializeToString(), options).run(None, x)


def check_same(proto, x, rtol=1e-4, atol=2e-4):
    """The prepared model, in onnxruntime and by the reference evaluator, which adds up integers exactly."""
    prepared = prepare(load(proto), native=everything)
    made, (want,) = proto_of(prepared), run(proto, x)
    for (got,) in (ReferenceEvaluator(made).run(None, x), run(made, x)):
        np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)
        assert got.dtype == want.dtype and got.shape == want.shape
    return prepared


def test_what_comes_out():
    prepared = check_same(quantised(again=False), {"x": given_x()}, rtol=1e-4, atol=1e-4)
    assert operators(prepared) == ["QuantizeLinear", "MatMulInteger", "Cast", "Mul", "Add"]
    assert any("product of integers" in text for text in prepared.decisions)


KINDS = {
    "MatMul": {"kind": "MatMul", "turned": False},
    "one scale": {"per_column": False},
    "u8": {"x": "uint8", "zero": 131},
    "u8, u8": {"x": "uint8", "w": "uint8", "zero": 7, "weight_zero": 128},
    "zero points": {"zero": -5, "weight_zero": 3},
    "no bias": {"biased": False},
}


@pytest.mark.parametrize("name", KINDS)
def test_variants(name):
    """Within rounding of the float products in onnxruntime, and nearer to the exact sum than those."""
    proto, x = quantised(**KINDS[name], again=False), {"x": given_x()}
    prepared = check_same(proto, x, rtol=1e-4, atol=2e-4)
    assert "MatMulInteger" in operators(prepared)
    exact = open_double(proto)(x)["y"]
    ours, theirs = hr.compile(proto).run(x)["y"], run(proto, x)[0]
    assert np.abs(ours - exact).max() <= np.abs(theirs - exact).max() + 1e-6 * np.abs(exact).max()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 5), st.integers(100, 200), st.integers(164, 180), st.integers(0, 99), st.sampled_from(list(KINDS))
)
def test_random_sizes(rows, inner, columns, seed, name):
    proto = quantised(rows, **KINDS[name], inner=inner, columns=columns, seed=seed, again=False)
    prepared = check_same(proto, {"x": given_x(rows, inner, seed)}, rtol=1e-4, atol=5e-4)
    assert "MatMulInteger" in operators(prepared)


@pytest.mark.parametrize("name", KINDS)
def test_quantised_again_it_differs_by_one_step_at_a_tie(name):
    """Against onnxruntime without its own fusions: never more than one step, and that rarely."""
    proto = quantised(**KINDS[name])
    program = hr.compile(proto)
    steps = []
    for seed in range(40):
        x = {"x": given_x(seed=seed)}
        steps.append(np.rint((program.run(x)["y"] - run(proto, x)[0]) / F(0.11)))
    found = np.abs(np.stack(steps))
    assert found.max() <= 1 and (found != 0).mean() < 1e-3


STAYS = {
    "few weights": {"inner": 64, "columns": 16},
    "scaled": {"alpha": 0.5},
    "scales along the sum": {"per_column": True, "turned": True, "kind": "Gemm", "axis_is_inner": True},
}


@pytest.mark.parametrize("name", STAYS)
def test_what_stays_a_product_of_floats(name):
    options = dict(STAYS[name])
    if options.pop("axis_is_inner", False):
        proto = quantised(**options, again=False, inner=INNER, columns=INNER)
        next(n for n in proto.graph.node if n.output[0] == "w").attribute[0].i = 1
        x = {"x": given_x()}
    else:
        proto = quantised(**options, again=False)
        x = {"x": given_x(inner=options.get("inner", INNER))}
    assert "MatMulInteger" not in operators(check_same(proto, x, rtol=1e-4, atol=1e-4))


def test_rows_that_are_known_at_run_time():
    proto = quantised(again=False)
    for port in (proto.graph.input[0], proto.graph.output[0]):
        port.type.tensor_type.shape.dim[0].dim_param = "rows"
    program = hr.compile(proto, shapes={"x": ("rows", INNER)}, bounds={"rows": 9})
    for rows in (1, 4, 9):
        x = {"x": given_x(rows)}
        np.testing.assert_allclose(program.run(x)["y"], run(proto, x)[0], rtol=1e-4, atol=2e-4)


def test_a_stream_gives_the_bits_of_the_whole():
    """Steps of one frame and all frames at once: the sums are exact, so that nothing depends on their order."""
    proto = quantised(rows=7, kind="MatMul", turned=False)
    for port in (proto.graph.input[0], proto.graph.output[0]):
        port.type.tensor_type.shape.dim[0].dim_param = "time"
    x = given_x(7)
    step = hr.compile(hr.stream(proto, axes={"x": 0}))
    stream = step.stream()
    got = np.concatenate([stream.push({"x": frame[None]})["y"] for frame in x])
    whole = hr.compile(proto, shapes={"x": (7, INNER)}).run({"x": x})["y"]
    assert got.tobytes() == whole.tobytes()


def test_floats_that_are_not_quantised_stay():
    proto = quantised(again=False)
    del proto.graph.node[:2]
    proto.graph.node[1].input[0] = "x"
    prepared = prepare(load(proto), native=everything)
    assert operators(prepared) == ["Gemm"]
