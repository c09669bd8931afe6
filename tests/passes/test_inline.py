"""Functions of the model and ONNX function bodies."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import AttributeProto, helper

from headrace.errors import InvalidModel, UnsupportedOperator
from headrace.frontends.onnx import load
from headrace.passes.prepare import prepare
from tests.passes.running import array, check_same, everything, graph, model, node, operators

F = np.float32
X = array(2, 3, 4)
MINE = helper.make_opsetid("my", 1)


def function(name, nodes, inputs=("a",), outputs=("b",), attributes=(), defaults=(), opset=17):
    imports = [helper.make_opsetid("", opset), MINE]
    return helper.make_function("my", name, inputs, outputs, nodes, imports, attributes, attribute_protos=defaults)


def reference(op, inputs, outputs, **references):
    result = node(op, inputs, outputs)
    for name, (source, kind) in references.items():
        result.attribute.append(AttributeProto(name=name, ref_attr_name=source, type=kind))
    return result


LEAK = function(
    "Leak",
    [reference("LeakyRelu", ["a"], ["b"], alpha=("slope", AttributeProto.FLOAT))],
    attributes=(),
    defaults=[helper.make_attribute("slope", 0.25)],
)
TWICE = function("Twice", [node("Leak", ["a"], ["m"], domain="my", slope=0.5), node("Leak", ["m"], ["b"], domain="my")])


def test_nested_functions_with_attributes():
    nodes = [node("Twice", ["x"], ["m"], domain="my"), node("Twice", ["m"], ["y"], domain="my")]
    proto = model(nodes, {"x": (X.shape, F)}, {"y": (X.shape, F)}, functions=[LEAK, TWICE], opsets=[MINE], opset=17)
    prepared = check_same(proto, {"x": X})
    alphas = [n.attributes["alpha"].as_float() for n in prepared.model.graph]
    assert alphas == [0.5, 0.25, 0.5, 0.25]
    assert not prepared.model.functions and "my" not in prepared.model.opset_imports


def test_function_of_an_older_operator_set():
    old = function("Old", [node("Split", ["a"], ["b", "c"], axis=1)], outputs=("b", "c"), opset=13)
    proto = model(
        [node("Old", ["x"], ["y", "z"], domain="my")],
        {"x": ((2, 4), F)},
        {"y": ((2, 2), F), "z": ((2, 2), F)},
        functions=[old],
        opsets=[MINE],
        opset=17,
    )
    prepared = check_same(proto, {"x": array(2, 4)})
    assert prepared.model.graph[0].attributes["num_outputs"].as_int() == 2


def test_function_with_a_branch_and_an_absent_input():
    then = graph([node("Neg", ["a"], ["t"])], {}, {"t": (X.shape, F)})
    other = graph([node("Abs", ["a"], ["e"])], {}, {"e": (X.shape, F)})
    body = [
        node("If", ["c"], ["b"], then_branch=then, else_branch=other),
        node("Clip", ["b", "", "hi"], ["d"]),
    ]
    chooser = function("Choose", body, inputs=("a", "c", "hi"), outputs=("d",))
    for extra in ([], ["limit"]):
        proto = model(
            [node("Choose", ["x", "flag", *extra], ["y"], domain="my")],
            {"x": (X.shape, F), "flag": ((), np.bool_)},
            {"y": (X.shape, F)},
            {"limit": np.array(0.3, F)} if extra else {},
            functions=[chooser],
            opsets=[MINE],
            opset=17,
        )
        for flag in (True, False):
            check_same(proto, {"x": X, "flag": np.array(flag)})
            prepared = check_same(proto, {"x": X}, constants={"flag": flag})
            assert "If" not in operators(prepared)


def test_function_that_calls_itself():
    endless = function("Endless", [node("Endless", ["a"], ["b"], domain="my")])
    proto = model(
        [node("Endless", ["x"], ["y"], domain="my")], {"x": (X.shape, F)}, {"y": (X.shape, F)},
        functions=[endless], opsets=[MINE], opset=17,
    )  # fmt: skip
    with pytest.raises(InvalidModel, match=r"calls itself|recursive"):
        prepare(load(proto), native=everything)


def test_functions_that_explode():
    chain = [function("F0", [node("Relu", ["a"], ["b"])])]
    for depth in range(1, 30):
        inner = [
            node(f"F{depth - 1}", ["a"], ["m"], domain="my"),
            node(f"F{depth - 1}", ["m"], ["b"], domain="my"),
        ]
        chain.append(function(f"F{depth}", inner))
    proto = model(
        [node("F29", ["x"], ["y"], domain="my")], {"x": (X.shape, F)}, {"y": (X.shape, F)},
        functions=chain, opsets=[MINE], opset=17,
    )  # fmt: skip
    with pytest.raises(InvalidModel, match="nodes when its functions are expanded"):
        prepare(load(proto), native=everything)


BODIES = {
    "Gelu": (node("Gelu", ["x"], ["y"], approximate="tanh"), 26),
    "Softplus": (node("Softplus", ["x"], ["y"]), 26),
    "HardSwish": (node("HardSwish", ["x"], ["y"]), 26),
    "LayerNormalization": (node("LayerNormalization", ["x", "s"], ["y"], axis=-1), 17),
    "Celu": (node("Celu", ["x"], ["y"], alpha=0.7), 12),
    "ReduceLogSumExp": (node("ReduceLogSumExp", ["x"], ["y"], axes=[1]), 13),
    "Elu": (node("Elu", ["x"], ["y"]), 9),
    "Clip": (node("Clip", ["x"], ["y"], min=-0.1, max=0.2), 9),
    "LogSoftmax": (node("LogSoftmax", ["x"], ["y"], axis=1), 11),
    "MeanVarianceNormalization": (node("MeanVarianceNormalization", ["x"], ["y"], axes=[0, 2]), 13),
    "Swish": (node("Swish", ["x"], ["y"], alpha=1.5), 26),
}


@pytest.mark.parametrize("op", BODIES)
def test_expansion_through_the_function_body(op):
    item, opset = BODIES[op]
    shape = (2, 1, 4) if op == "ReduceLogSumExp" else X.shape
    constants = {"s": array(4, seed=3)} if "s" in item.input else {}
    proto = model([item], {"x": (X.shape, F)}, {"y": (shape, F)}, constants, opset=opset)
    expected = None
    if op == "Swish":
        expected = [X / (1 + np.exp(-1.5 * X))]
    prepared = check_same(proto, {"x": X}, expected, rtol=1e-4, native=lambda d, name, v: name != op)
    assert op not in operators(prepared)
    assert any(op in text for text in prepared.decisions)


def test_no_body():
    proto = model(
        [node("Einsum", ["x"], ["y"], equation="abc->cab", name="e")],
        {"x": (X.shape, F)},
        {"y": ((4, 2, 3), F)},
    )
    with pytest.raises(UnsupportedOperator, match=r"Einsum.*'e'.*normalise"):
        prepare(load(proto), native=lambda domain, op, version: op != "Einsum")


def test_native_is_asked_with_the_version_of_the_operator():
    asked = []
    proto = model([node("Relu", ["x"], ["y"])], {"x": (X.shape, F)}, {"y": (X.shape, F)}, opset=9)
    prepare(load(proto), native=lambda *key: asked.append(key) or True)
    assert set(asked) >= {("", "Relu", 14)}
