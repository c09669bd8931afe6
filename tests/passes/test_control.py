"""If, Loop and Scan: folded on constants, kept with prepared graphs otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.errors import InvalidModel
from headrace.frontends.onnx import load
from headrace.passes.prepare import prepare
from tests.passes.running import array, check_same, everything, graph, model, node, operators

F, I64, B = np.float32, np.int64, np.bool_
X = array(3, 4)


def branch(op, name):
    return graph([node(op, ["x"], [f"{name}_a"]), node("Neg", [f"{name}_a"], [f"{name}_b"])],
                 {}, {f"{name}_b": ((3, 4), F)})  # fmt: skip


def choice(condition):
    return node(
        "If",
        [condition],
        ["z"],
        name="choose",
        then_branch=branch("Abs", "p"),
        else_branch=branch("Exp", "q"),
    )


def rate_model():
    nodes = [node("Equal", ["sr", "k"], ["c"]), choice("c"), node("Relu", ["z"], ["y"])]
    return model(nodes, {"x": ((3, 4), F), "sr": ((), I64)}, {"y": ((3, 4), F)}, {"k": np.array(16000)}, opset=16)


@pytest.mark.parametrize(("rate", "ops"), [(16000, ["Abs", "Neg", "Relu"]), (8000, ["Exp", "Neg", "Relu"])])
def test_if_on_a_fixed_input(rate, ops):
    prepared = check_same(rate_model(), {"x": X}, constants={"sr": rate})
    assert operators(prepared) == ops
    assert [v.name for v in prepared.model.graph.inputs] == ["x"]
    assert any("choose" in text for text in prepared.decisions)


@pytest.mark.parametrize("rate", [16000, 8000])
def test_if_at_run_time(rate):
    prepared = check_same(rate_model(), {"x": X, "sr": np.array(rate)})
    assert operators(prepared) == ["Equal", "If", "Relu"]


def test_two_ifs_with_equal_inner_names():
    nodes = [choice("c")]
    second = node("If", ["c"], ["w"], name="again", then_branch=branch("Abs", "p"), else_branch=branch("Exp", "q"))
    nodes += [second, node("Add", ["z", "w"], ["y"])]
    proto = model(nodes, {"x": ((3, 4), F), "c": ((), B)}, {"y": ((3, 4), F)})
    for value in (True, False):
        prepared = check_same(proto, {"x": X}, constants={"c": value})
        assert "If" not in operators(prepared)


def test_branches_that_return_constants_and_outer_values():
    then = graph([node("Constant", [], ["k"], value_floats=[1.0, 2.0])], {}, {"k": ((2,), F)})
    other = graph([node("Identity", ["x"], ["o"])], {}, {"o": ((2,), F)})
    nodes = [node("If", ["c"], ["y"], then_branch=then, else_branch=other)]
    proto = model(nodes, {"x": ((2,), F), "c": ((), B)}, {"y": ((2,), F)})
    for value in (True, False):
        check_same(proto, {"x": array(2)}, constants={"c": value})
        check_same(proto, {"x": array(2), "c": np.array(value)})


def test_branches_of_different_extents():
    then = graph([node("Identity", ["x"], ["t"])], {}, {"t": ((3, 4), F)})
    other = graph([node("Concat", ["x", "x"], ["o"], axis=0)], {}, {"o": ((6, 4), F)})
    nodes = [node("If", ["c"], ["y"], then_branch=then, else_branch=other)]
    proto = model(nodes, {"x": ((3, 4), F), "c": ((), B)}, {"y": (("n", 4), F)})
    for value in (True, False):
        prepared = check_same(proto, {"x": X, "c": np.array(value)})
        assert prepared.shape(prepared.model.graph.outputs[0])[1] == 4


def loop(body_nodes, carried, scans=(), trips="m", condition="", initial=("x",)):
    inputs = {"i": ((), I64), "go": ((), B), **{f"{n}_in": s for n, s in carried.items()}}
    outputs = {"go_out": ((), B), **{f"{n}_out": s for n, s in carried.items()}, **dict(scans)}
    body = graph([node("Identity", ["go"], ["go_out"]), *body_nodes], inputs, outputs)
    return node(
        "Loop",
        [trips, condition, *initial],
        [*carried, *[f"{n}s" for n, _ in scans]],
        name="turns",
        body=body,
    )


def test_loop_with_constant_trip_count():
    nodes = [
        loop(
            [node("Mul", ["v_in", "two"], ["v_out"]), node("Relu", ["v_in"], ["seen"])],
            {"v": ((3, 4), F)},
            [("seen", ((3, 4), F))],
        )
    ]
    proto = model(
        nodes, {"x": ((3, 4), F)}, {"v": ((3, 4), F), "seens": (("t", 3, 4), F)},
        {"m": np.array(5), "two": np.array(2, F)},
    )  # fmt: skip
    prepared = check_same(proto, {"x": X})
    assert prepared.shape(prepared.model.graph.outputs[1]) == (5, 3, 4)


def test_loop_that_grows_a_value():
    nodes = [loop([node("Concat", ["v_in", "x"], ["v_out"], axis=0)], {"v": (("n", 4), F)})]
    proto = model(nodes, {"x": ((3, 4), F), "m": ((), I64)}, {"v": (("n", 4), F)})
    for trips in (0, 1, 3):
        prepared = check_same(proto, {"x": X, "m": np.array(trips)})
        rows, columns = prepared.shape(prepared.model.graph.outputs[0])
        assert columns == 4 and not isinstance(rows, int)


def test_shape_computations_inside_a_loop_are_folded():
    nodes = [
        loop(
            [
                node("Shape", ["v_in"], ["s"]),
                node("ConstantOfShape", ["s"], ["z"]),
                node("Add", ["v_in", "z"], ["v_out"]),
            ],
            {"v": ((3, 4), F)},
        )
    ]
    proto = model(nodes, {"x": ((3, 4), F), "m": ((), I64)}, {"v": ((3, 4), F)})
    prepared = check_same(proto, {"x": X, "m": np.array(2)})
    (turns,) = prepared.model.graph
    assert [n.op_type for n in turns.attributes["body"].as_graph()] == ["Add", "Identity"]


def test_scan():
    body = graph(
        [node("Add", ["h", "e"], ["h2"]), node("Tanh", ["h2"], ["o"])],
        {"h": ((4,), F), "e": ((4,), F)},
        {"h2": ((4,), F), "o": ((4,), F)},
    )
    nodes = [node("Scan", ["h0", "x"], ["last", "ys"], body=body, num_scan_inputs=1, scan_output_axes=[1])]
    proto = model(nodes, {"x": (("T", 4), F), "h0": ((4,), F)}, {"last": ((4,), F), "ys": ((4, "T"), F)})
    feeds = {"x": array(7, 4), "h0": array(4)}
    prepared = check_same(proto, feeds, shapes={"x": (7, 4)})
    assert prepared.shape(prepared.model.graph.outputs[1]) == (4, 7)
    prepared = check_same(proto, feeds, bounds={"T": 9})
    assert prepared.shape(prepared.model.graph.outputs[1]) == (4, "T")


def test_wrong_body():
    body = graph([node("Identity", ["i"], ["o"])], {"i": ((), I64)}, {"o": ((), I64)})
    nodes = [node("Loop", ["m", "", "x"], ["y"], name="broken", body=body)]
    proto = model(nodes, {"x": ((2,), F)}, {"y": ((2,), F)}, {"m": np.array(2)})
    with pytest.raises(InvalidModel, match="broken"):
        prepare(load(proto), native=everything)
