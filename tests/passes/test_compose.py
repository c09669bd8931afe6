"""Linear operators with nothing between them: one instead of two, where that is less work."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.frontends.onnx import load
from headrace.graph.macs import macs
from headrace.measure.double import open_double
from headrace.passes.prepare import prepare
from tests.passes.running import array, check_same, everything, graph, model, node, operators, proto_of, run

F = np.float32


def conv(x, y, weights, bias=None, **attributes):
    return node("Conv", [x, weights, *([bias] if bias else [])], [y], **attributes)


def chain(first, second, size, dtype=F, **shapes):
    """x → Conv → Conv → y; first, second: (weights, bias or None, attributes)."""
    constants, nodes = {}, []
    for name, at, to, (weights, bias, attributes) in (("a", "x", "m", first), ("b", "m", "y", second)):
        constants[f"{name}w"] = weights.astype(dtype)
        if bias is not None:
            constants[f"{name}b"] = bias.astype(dtype)
        nodes.append(conv(at, to, f"{name}w", f"{name}b" if bias is not None else None, **attributes))
    channels = first[0].shape[1] * first[2].get("group", 1)
    rank = first[0].ndim - 2
    outs = (1, second[0].shape[0], *[None] * rank)
    return model(nodes, {"x": (size or (1, channels, 9, 8)[: rank + 2], dtype)}, {"y": (outs, dtype)}, constants)


@st.composite
def chains(draw):
    """Two convolutions of rank 1 or 2 whose product is often, not always, less work."""
    rank = draw(st.sampled_from((1, 2)))
    groups = draw(st.sampled_from((1, 2, 3)))
    within = draw(st.sampled_from((1, 2)))
    middle = groups * draw(st.sampled_from((1, 2, 6)))
    seconds = draw(st.sampled_from([g for g in (1, 2, 3) if middle % g == 0]))
    outputs = seconds * draw(st.sampled_from((1, 2)))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    found = []
    for rows, columns, group, bias in (
        (middle, within, groups, draw(st.booleans())),
        (outputs, middle // seconds, seconds, draw(st.booleans())),
    ):
        kernel = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
        attributes = {
            "group": group,
            "strides": draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank)),
            "dilations": draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank)),
        }
        if draw(st.booleans()):
            attributes["pads"] = draw(st.lists(st.integers(0, 3), min_size=2 * rank, max_size=2 * rank))
        elif draw(st.booleans()):
            attributes["auto_pad"] = draw(st.sampled_from(("SAME_UPPER", "SAME_LOWER", "VALID")))
            attributes["dilations"] = [1] * rank  # onnxruntime has no more with SAME
        weights = rng.standard_normal((rows, columns, *kernel))
        found.append((weights, rng.standard_normal(rows) if bias else None, attributes))
    extents = draw(st.lists(st.integers(13, 16), min_size=rank, max_size=rank))
    return found[0], found[1], (2, groups * within, *extents)


@settings(max_examples=120, deadline=None)
@given(chains())
def test_chains_of_convolutions(case):
    """Equal to onnxruntime on the original, composed or not."""
    first, second, size = case
    proto = chain(first, second, size)
    prepared = check_same(proto, {"x": array(*size)}, rtol=1e-4, atol=2e-5)
    assert operators(prepared) in (["Conv"], ["Conv", "Conv"], ["Slice", "Conv"], ["Slice", "Conv", "Conv"])


def test_the_product_of_weights_is_rounded_once():
    """No farther from the float64 result than the two convolutions in float32."""
    first = (array(64, 1, 3, 3), None, {"group": 2, "pads": [1, 1, 1, 1]})
    second = (array(64, 64, 1, 1, seed=1), array(64, seed=2), {})
    proto, x = chain(first, second, (1, 2, 12, 20)), array(1, 2, 12, 20, seed=3)
    exact = open_double(proto)({"x": x})["y"]
    prepared = prepare(load(proto), native=everything)
    assert operators(prepared) == ["Conv"]
    (got,), (two,) = run(proto_of(prepared), {"x": x}), run(proto, {"x": x})
    assert np.abs(got - exact).max() <= 1.2 * np.abs(two - exact).max()


FIRST = (array(12, 2, 3), array(12, seed=1), {})
PLAIN = (array(12, 2, 3), None, {})
LAST = (array(2, 12, 3, seed=2), array(2, seed=3), {})
COMPOSED = {
    "bias of the first": (FIRST, LAST),
    "strides": ((*FIRST[:2], {"strides": [2]}), (*LAST[:2], {"strides": [2]})),
    "the first pads": ((*FIRST[:2], {"pads": [2, 1]}), LAST),
    "both pad in front, causally": ((*PLAIN[:2], {"pads": [2, 0]}), (*LAST[:2], {"pads": [2, 0]})),
    "both pad fully": ((*PLAIN[:2], {"pads": [2, 2]}), (*LAST[:2], {"pads": [1, 2]})),
    "1x1 before padding": ((array(12, 2, 1), None, {}), (*LAST[:2], {"pads": [1, 1]})),
    "1x1 of zero bias": ((array(12, 2, 1), np.zeros(12), {}), (*LAST[:2], {"pads": [1, 1]})),
    "dilations": ((*FIRST[:2], {"dilations": [2]}), (*LAST[:2], {"dilations": [4]})),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_composed(name):
    prepared = check_same(chain(*COMPOSED[name], (1, 2, 21)), {"x": array(1, 2, 21)}, atol=1e-4)
    assert operators(prepared) == ["Conv"]
    assert any("are one Conv" in text and "MAC" in text for text in prepared.decisions)


KEPT = {
    "bias at the border": ((array(12, 2, 1), FIRST[1], {}), (*LAST[:2], {"pads": [1, 1]})),
    "input beyond the border": ((*PLAIN[:2], {"pads": [1, 1]}), (*LAST[:2], {"pads": [1, 1]})),
    "input beyond the end": ((*PLAIN[:2], {"pads": [2, 0]}), (*LAST[:2], {"pads": [0, 1]})),
    "more work": ((array(16, 1, 3), None, {"group": 16}), (array(16, 16, 1), None, {})),
    "a narrow middle": ((array(2, 16, 1), None, {}), (array(16, 2, 1), None, {})),
    "infinite weights": ((np.full((12, 2, 3), np.inf), None, {}), LAST),
    "out of range": ((array(12, 2, 3) * 1e30, None, {}), (LAST[0] * 1e30, None, {})),
    "below the range": ((array(12, 2, 3) * 1e-30, None, {}), (LAST[0] * 1e-30, None, {})),
}


@pytest.mark.parametrize("name", KEPT)
def test_not_composed(name):
    first, second = KEPT[name]
    size = (1, first[0].shape[1] * first[2].get("group", 1), 21)
    prepared = check_same(chain(first, second, size), {"x": array(*size)}, atol=1e-4)
    assert operators(prepared) == ["Conv", "Conv"]
    assert not any("are one" in text for text in prepared.decisions)


def test_a_value_that_is_read_twice_or_returned_stays():
    weights = {"aw": array(12, 2, 3), "bw": array(2, 12, 3)}
    two = [conv("x", "m", "aw"), conv("m", "y", "bw")]
    shape = {"x": ((1, 2, 9), F)}
    returned = model(two, shape, {"m": ((1, 12, 7), F), "y": ((1, 2, 5), F)}, weights)
    assert operators(check_same(returned, {"x": array(1, 2, 9)})) == ["Conv", "Conv"]
    twice = model([*two, node("Abs", ["m"], ["z"])], shape, {"z": ((1, 12, 7), F), "y": ((1, 2, 5), F)}, weights)
    assert operators(check_same(twice, {"x": array(1, 2, 9)})) == ["Conv", "Conv", "Abs"]


def test_a_value_that_a_branch_reads_stays():
    then = graph([node("Abs", ["m"], ["t"])], {}, {"t": ((1, 12, 7), F)})
    other = graph([node("Neg", ["m"], ["e"])], {}, {"e": ((1, 12, 7), F)})
    nodes = [
        conv("x", "m", "aw"),
        node("If", ["c"], ["z"], then_branch=then, else_branch=other),
        conv("m", "y", "bw"),
    ]
    proto = model(
        nodes, {"x": ((1, 2, 9), F), "c": ((), np.bool_)}, {"y": ((1, 2, 5), F), "z": ((1, 12, 7), F)},
        {"aw": array(12, 2, 3), "bw": array(2, 12, 3)},
    )  # fmt: skip
    assert operators(check_same(proto, {"x": array(1, 2, 9), "c": np.array(True)})).count("Conv") == 2


def test_inside_a_branch():
    weights = {"aw": array(12, 2, 3), "bw": array(2, 12, 3)}
    then = graph([conv("x", "m", "aw"), conv("m", "t", "bw")], {}, {"t": ((1, 2, 5), F)}, weights)
    other = graph([node("Slice", ["x", "i0", "i5", "i2"], ["e"])], {}, {"e": ((1, 2, 5), F)},
                  {"i0": np.array([0]), "i5": np.array([5]), "i2": np.array([2])})  # fmt: skip
    proto = model(
        [node("If", ["c"], ["y"], then_branch=then, else_branch=other)],
        {"x": ((1, 2, 9), F), "c": ((), np.bool_)}, {"y": ((1, 2, 5), F)},
    )  # fmt: skip
    prepared = check_same(proto, {"x": array(1, 2, 9), "c": np.array(True)}, atol=1e-5)
    (branch,) = prepared.model.graph
    assert [n.op_type for n in branch.attributes["then_branch"].as_graph()] == ["Conv"]


def test_large_weights_with_other_readers_stay():
    weights = {"aw": array(160, 4, 27), "bw": array(4, 160, 1)}
    nodes = [conv("x", "m", "aw"), conv("m", "y", "bw"), conv("v", "z", "aw")]
    ports = {"x": ((1, 4, 30), F), "v": ((1, 4, 29), F)}
    proto = model(nodes, ports, {"y": ((1, 4, 4), F), "z": ((1, 160, 3), F)}, weights)
    kept = check_same(proto, {"x": array(1, 4, 30), "v": array(1, 4, 29)}, atol=1e-4)
    assert operators(kept).count("Conv") == 3
    alone = model(nodes[:2], {"x": ports["x"]}, {"y": ((1, 4, 4), F)}, weights)
    assert operators(check_same(alone, {"x": array(1, 4, 30)}, atol=1e-4)) == ["Conv"]


def test_open_extents():
    """Less work at every length, and the same formula for the extent of the result."""
    proto = chain((*FIRST[:2], {"strides": [2]}), (*LAST[:2], {"strides": [3]}), (1, 2, "T"))
    prepared = prepare(load(proto), bounds={"T": (600, 1, 11)}, native=everything)
    plain = prepare(load(proto), bounds={"T": (600, 1, 11)}, native=everything, algebra=False)
    assert operators(prepared) == ["Conv"]
    assert prepared.shape(prepared.model.graph.outputs[0]) == plain.shape(plain.model.graph.outputs[0])
    for length in (11, 12, 30, 31):
        x = array(1, 2, length)
        np.testing.assert_allclose(run(proto_of(prepared), {"x": x})[0], run(proto, {"x": x})[0], atol=1e-4)


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4)])
@pytest.mark.parametrize("biases", [(), ("a",), ("b",), ("a", "b")])
def test_products_with_matrices(shape, biases):
    constants = {"aw": array(4, 32), "bw": array(32, 6, seed=1), "a": array(32, seed=2), "b": array(6, seed=3)}
    nodes, at = [], "x"
    for name in ("a", "b"):
        nodes.append(node("MatMul", [at, f"{name}w"], [f"{name}m"]))
        at = f"{name}m"
        if name in biases:
            nodes.append(node("Add", [name, at] if name == "a" else [at, name], [f"{name}y"]))
            at = f"{name}y"
    proto = model(nodes, {"x": (shape, F)}, {at: ((*shape[:-1], 6), F)}, constants)
    prepared = check_same(proto, {"x": array(*shape)}, atol=1e-4)
    assert operators(prepared) == (["MatMul", "Add"] if biases else ["MatMul"])


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("biased", [False, True])
def test_gemms(transposed, biased):
    a, b = array(4, 32), array(32, 6, seed=1)
    constants = {"aw": a.T if transposed else a, "bw": b, "ab": array(32, seed=2), "bb": array(1, 6, seed=3)}
    nodes = [
        node("Gemm", ["x", "aw", *(["ab"] if biased else [])], ["m"], transB=transposed, alpha=0.5, beta=2.0),
        node("Gemm", ["m", "bw", "bb"], ["y"], beta=0.25),
    ]
    prepared = check_same(
        model(nodes, {"x": ((5, 4), F)}, {"y": ((5, 6), F)}, constants), {"x": array(5, 4)}, atol=1e-4
    )
    assert operators(prepared) == ["Gemm"]


def test_a_low_rank_product_stays():
    constants = {"aw": array(32, 4), "bw": array(4, 32, seed=1)}
    nodes = [node("MatMul", ["x", "aw"], ["m"]), node("MatMul", ["m", "bw"], ["y"])]
    proto = model(nodes, {"x": ((5, 32), F)}, {"y": ((5, 32), F)}, constants)
    assert operators(check_same(proto, {"x": array(5, 32)}, atol=1e-5)) == ["MatMul", "MatMul"]


def test_float16_and_bfloat16():
    for dtype in (np.float16, ml_dtypes.bfloat16):
        prepared = prepare(load(chain(FIRST, LAST, (1, 2, 9), dtype)), native=everything)
        assert operators(prepared) == ["Conv"]
        proto_of(prepared)
        got = prepared.constant(prepared.model.graph[0].inputs[1])
        wide = prepare(load(chain(FIRST, LAST, (1, 2, 9), np.float64)), native=everything)
        exact = wide.constant(wide.model.graph[0].inputs[1])
        assert got.dtype == dtype
        assert np.abs(got.astype(float) - exact).max() <= 4 * float(ml_dtypes.finfo(dtype).eps) * np.abs(exact).max()


def test_work_of_the_result_is_less():
    """Whatever was composed has fewer multiply-adds than before, counted by the table of inspect."""
    for first, second in COMPOSED.values():
        proto = chain(first, second, (1, 2, 21))
        total = [
            sum(macs(n, p.facts.dims.get) for n in p.model.graph)
            for p in (prepare(load(proto), native=everything, algebra=on) for on in (True, False))
        ]
        assert total[0] < total[1]
