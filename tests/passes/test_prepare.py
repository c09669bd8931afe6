"""The signature of a prepared model, its constants, outputs and metadata."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from headrace.errors import InvalidModel, UnsupportedOperator
from headrace.frontends.onnx import load
from headrace.passes.prepare import prepare
from tests.passes.running import array, check_same, everything, model, node, operators, proto_of, run

F, I64 = np.float32, np.int64
ADD = model([node("Add", ["x", "h"], ["y"])], {"x": (("B", "T"), F), "h": (("B", 1), F)}, {"y": (("B", "T"), F)})


def prepared(proto, **options):
    return prepare(load(proto), native=everything, **options)


WRONG = {
    "missing": ({"shapes": {"x": (2, 3)[:0]}}, "0 dims"),
    "unknown dim": ({}, "'B'.*axis 0 of input 'x'"),
    "second unknown": ({"shapes": {"h": (2, 1)}}, "'T'.*axis 1 of input 'x'"),
    "no such input": ({"shapes": {"z": (1, 2)}}, "'z'.*'x', 'h'"),
    "rank": ({"shapes": {"x": (1, 2, 3)}}, "'x'.*3 dims"),
    "fixed dim": ({"shapes": {"h": (2, 5)}}, "'h'.*dim 1 is 1"),
    "contradiction": ({"shapes": {"x": (2, 3), "h": (4, 1)}}, "'B' is 2 in input 'x' and 4"),
    "negative": ({"shapes": {"x": (2, -3)}}, "-3"),
    "not an integer": ({"shapes": {"x": (2, 1.5)}}, "1.5"),
    "unbounded symbol": ({"shapes": {"x": (2, "N")}}, "'N' has no bound"),
    "unused bound": ({"shapes": {"x": (2, 3)}, "bounds": {"N": 5}}, "'N'"),
    "bound not an identifier": ({"bounds": {"a b": 5}}, "identifier"),
    "bound not positive": ({"bounds": {"B": 0}}, "'B'"),
    "bound not a multiple": ({"bounds": {"B": (10, 4)}}, "multiple of 4"),
    "unknown constant": ({"constants": {"q": 1}}, "'q'"),
    "constant and shape": ({"constants": {"h": [[1]]}, "shapes": {"h": (1, 1)}}, "both|in shapes and in"),
    "constant of wrong shape": ({"constants": {"h": [1.0, 2.0]}}, "'h'"),
    "constant of wrong type": ({"constants": {"h": [["a"]]}}, "'h'.*float32"),
    "kept without a default": ({"keep_inputs": ["q"]}, "'q'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name):
    options, pattern = WRONG[name]
    with pytest.raises(ValueError, match=pattern):
        prepared(ADD, **options)


def test_a_dim_name_is_shared_between_inputs():
    result = check_same(ADD, {"x": array(2, 3), "h": array(2, 1)}, shapes={"x": (2, 3)})
    assert [result.shape(v) for v in result.model.graph.inputs] == [(2, 3), (2, 1)]


def test_symbols_renamed_through_shapes():
    result = prepared(ADD, shapes={"x": (1, "frames")}, bounds={"frames": (100, 4)})
    assert result.symbols == {"frames": (100, 4)}
    assert result.shape(result.model.graph.outputs[0]) == (1, "frames")


def test_integer_constant_must_be_exact():
    proto = model([node("Add", ["n", "n"], ["y"])], {"n": ((), I64)}, {"y": ((), I64)})
    with pytest.raises(ValueError, match=r"16000\.5"):
        prepared(proto, constants={"n": 16000.5})
    assert prepared(proto, constants={"n": 16000.0}).model.graph.outputs[0].name == "y"


def test_constant_gives_the_shape():
    result = check_same(ADD, {"x": array(2, 5)}, constants={"h": [[1], [2]]}, shapes={"x": (2, 5)})
    assert [v.name for v in result.model.graph.inputs] == ["x"]


def test_old_weights_among_the_inputs_are_constants():
    w = array(3)
    proto = model([node("Mul", ["x", "w"], ["y"])], {"x": ((3,), F), "w": ((3,), F)}, {"y": ((3,), F)}, {"w": w})
    loaded = load(proto)
    assert list(loaded.inputs) == ["x"] and list(loaded.defaults) == ["w"]
    result = check_same(proto, {"x": array(3, seed=1)})
    assert [v.name for v in result.model.graph.inputs] == ["x"]
    kept = prepared(proto, keep_inputs=["w"])
    assert [v.name for v in kept.model.graph.inputs] == ["x", "w"]
    np.testing.assert_array_equal(kept.defaults["w"], w)
    (got,) = run(proto_of(kept), {"x": array(3), "w": 2 * w})
    np.testing.assert_array_equal(got, array(3) * 2 * w)


def test_outputs_that_are_inputs_constants_and_duplicates():
    nodes = [node("Identity", ["x"], ["same"]), node("Relu", ["x"], ["a"]), node("Identity", ["a"], ["b"]),
             node("Add", ["k", "k"], ["fixed"])]  # fmt: skip
    shape = ((2,), F)
    outputs = {"same": shape, "a": shape, "b": shape, "fixed": shape, "k": shape}
    proto = model(nodes, {"x": shape}, outputs, {"k": array(2)})
    result = check_same(proto, {"x": array(2, seed=1)})
    assert all(v.producer() is not None for v in result.model.graph.outputs)
    assert sorted(operators(result)) == ["Identity"] * 4 + ["Relu"]


def test_output_that_is_the_input_itself():
    proto = model([node("Relu", ["x"], ["y"])], {"x": ((2,), F)}, {"x": ((2,), F), "y": ((2,), F)})
    check_same(proto, {"x": array(2)})


def test_shared_work_and_dead_code():
    nodes = [
        node("Exp", ["x"], ["a"]),
        node("Exp", ["x"], ["b"]),
        node("Add", ["a", "b"], ["y"]),
        node("Neg", ["x"], ["unused"]),
        node("RandomNormalLike", ["x"], ["r1"]),
        node("RandomNormalLike", ["x"], ["r2"]),
        node("Sub", ["r1", "r2"], ["z"]),
    ]
    proto = model(nodes, {"x": ((3,), F)}, {"y": ((3,), F), "z": ((3,), F)}, {"never": array(5)})
    result = prepared(proto)
    assert sorted(operators(result)) == ["Add", "Exp", "RandomNormalLike", "RandomNormalLike", "Sub"]
    assert not result.model.graph.initializers


def test_constants_are_folded_but_not_blown_up():
    nodes = [
        node("Mul", ["k", "k"], ["k2"]),
        node("Expand", ["k2", "big"], ["wide"]),
        node("Add", ["x", "wide"], ["y"]),
        node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        node("MatMul", ["y", "wt"], ["z"]),
    ]
    constants = {"k": np.array([3], F), "big": np.array([512, 512]), "w": array(512, 512)}
    proto = model(nodes, {"x": ((512, 512), F)}, {"z": ((512, 512), F)}, constants)
    result = check_same(proto, {"x": array(512, 512)}, rtol=1e-3, atol=1e-3)
    assert operators(result) == ["Expand", "Add", "MatMul"]
    weight = result.model.graph[2].inputs[1]
    np.testing.assert_array_equal(result.constant(weight), constants["w"].T)
    assert result.constant(result.model.graph.inputs[0]) is None and result.dtype(weight) == "float32"


def test_kept_operators_are_not_folded():
    nodes = [node("DequantizeLinear", ["q", "s"], ["w"]), node("Mul", ["x", "w"], ["y"])]
    constants = {"q": np.array([1, -2, 3], np.int8), "s": np.array(0.5, F)}
    proto = model(nodes, {"x": ((3,), F)}, {"y": ((3,), F)}, constants)
    assert operators(check_same(proto, {"x": array(3)})) == ["Mul"]
    kept = check_same(proto, {"x": array(3)}, keep=["DequantizeLinear"])
    assert operators(kept) == ["DequantizeLinear", "Mul"]


SAME = {
    "cast": [node("Cast", ["x"], ["y"], to=1)],
    "reshape": [node("Reshape", ["x", "s"], ["y"])],
    "transpose": [node("Transpose", ["x"], ["y"], perm=[0, 1])],
    "slice": [node("Slice", ["x", "zeros", "s"], ["y"])],
    "pad": [node("Pad", ["x", "none"], ["y"])],
    "tile": [node("Tile", ["x", "ones"], ["y"])],
    "expand": [node("Expand", ["x", "ones"], ["y"])],
    "concat": [node("Concat", ["x"], ["y"], axis=0)],
    "dropout": [node("Dropout", ["x"], ["y"])],
}


@pytest.mark.parametrize("name", SAME)
def test_nodes_that_change_nothing(name):
    constants = {
        "s": np.array([2, 3]),
        "zeros": np.array([0, 0]),
        "ones": np.array([1, 1]),
        "none": np.zeros(4, I64),
    }
    proto = model([node("Relu", ["x0"], ["x"]), *SAME[name]], {"x0": ((2, 3), F)}, {"y": ((2, 3), F)}, constants)
    assert operators(check_same(proto, {"x0": array(2, 3)})) == ["Relu"]


def test_reversal_is_not_taken_for_identity():
    constants = {"a": np.array([-1]), "b": np.array([-9]), "c": np.array([1]), "d": np.array([-1])}
    proto = model([node("Slice", ["x", "a", "b", "c", "d"], ["y"])], {"x": ((2, 3), F)}, {"y": ((2, 3), F)}, constants)
    assert operators(check_same(proto, {"x": array(2, 3)})) == ["Slice"]


def test_metadata_and_names(tmp_path):
    proto = model([node("Relu", ["x"], ["evil\"; abort(); //"]), node("Neg", ["evil\"; abort(); //"], ["y"])],
                  {"x": (("T",), F)}, {"y": (("T",), F)}, opset=12)  # fmt: skip
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    result = prepare(load(path), bounds={"T": 9}, native=everything)
    meta = result.model.metadata_props
    assert meta["headrace.source"] == str(path) and len(meta["headrace.sha256"]) == 64
    assert json.loads(meta["headrace.decisions"]) == result.decisions
    assert "opset 12 → 26" in result.decisions
    assert result.model.graph[0].outputs[0].name == 'evil"; abort(); //'


def test_preparing_twice_changes_nothing():
    proto = model([node("Softmax", ["x"], ["y"], axis=1)], {"x": ((2, 3, 4), F)}, {"y": ((2, 3, 4), F)}, opset=11)
    first = prepared(proto)
    second = prepare(load(first.model), native=everything)
    assert operators(first) == operators(second)
    assert not any("→" in text for text in second.decisions)
    again = prepared(proto)
    assert ir.to_proto(first.model).SerializeToString(deterministic=True) == ir.to_proto(again.model).SerializeToString(
        deterministic=True
    )


def test_absurd_extents_that_only_show_later():
    nodes = [node("Expand", ["x", "s"], ["y"])]
    proto = model(nodes, {"x": ((1,), F)}, {"y": (("n", "m"), F)}, {"s": np.array([2**30, 2**30])})
    with pytest.raises(InvalidModel, match="elements"):
        prepared(proto)


def test_rank_that_depends_on_values():
    proto = model(
        [node("Reshape", ["x", "s"], ["y"], name="r")],
        {"x": ((4,), F), "s": (("n",), I64)},
        {"y": ((2, 2), F)},
    )
    with pytest.raises(UnsupportedOperator, match=r"'r'.*rank"):
        prepared(proto, bounds={"n": 3})
    check_same(proto, {"x": array(4)}, constants={"s": [2, 2]})


def test_inconsistent_shapes():
    proto = model([node("MatMul", ["x", "x"], ["y"], name="mm")], {"x": ((2, 3), F)}, {"y": ((2, 3), F)})
    with pytest.raises(InvalidModel, match="'mm'"):
        prepared(proto)


def test_large_weights_are_not_copied_around():
    weight = np.zeros((2500, 10000), F)
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": (("T", 2500), F)}, {"y": (("T", 10000), F)}, {"w": weight})
    tracemalloc.start()
    try:
        result = prepared(proto, bounds={"T": 4})
        assert tracemalloc.get_traced_memory()[1] < 2.5 * weight.nbytes
    finally:
        tracemalloc.stop()
    assert operators(result) == ["MatMul"]
