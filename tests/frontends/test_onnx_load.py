"""Damaged, inconsistent and hostile models: each is one typed error that names the culprit, quickly."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from headrace.errors import InvalidModel, UnsupportedOperator
from headrace.frontends.onnx import load


def make(nodes, inputs=("x",), outputs=("y",), initializers=(), opset=17, dims=(2, 3), **fields):
    def info(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)

    graph = helper.make_graph(nodes, "g", [info(n) for n in inputs], [info(n) for n in outputs], list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **fields)


RELU = helper.make_node("Relu", ["x"], ["y"], name="act")


def test_sources_agree(tmp_path):
    proto = make([RELU])
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    for source in (path, str(path), path.read_bytes(), proto, ir.from_proto(proto), load(path)):
        model = load(source)
        assert list(model.inputs) == ["x"] and model.inputs["x"].shape == (2, 3)
        assert model.outputs["y"].dtype == "float32"
    assert load(path).source == path and load(path).sha256 == load(path.read_bytes()).sha256


def test_wrong_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx"):
        load(tmp_path / "nowhere.onnx")
    with pytest.raises(ValueError, match="folder"):
        load(tmp_path)
    with pytest.raises(ValueError, match="path"):
        load("a\0b")
    with pytest.raises(TypeError, match="int"):
        load(3)


def test_empty_file(tmp_path):
    (tmp_path / "e.onnx").write_bytes(b"")
    with pytest.raises(InvalidModel, match=r"e\.onnx.*empty"):
        load(tmp_path / "e.onnx")


@pytest.mark.parametrize("garbage", [b"\x00" * 64, b"hello world, not a model" * 9, bytes(range(256))])
def test_not_a_model(garbage):
    with pytest.raises(InvalidModel):
        load(garbage)


def test_every_truncation_is_refused():
    weight = numpy_helper.from_array(np.arange(64, dtype=np.float32).reshape(8, 8), "w")
    data = make([helper.make_node("MatMul", ["x", "w"], ["y"])], initializers=[weight], dims=(8, 8)).SerializeToString()
    for cut in range(len(data)):
        with pytest.raises(InvalidModel):
            load(data[:cut])


def test_flipped_bits_never_crash():
    data = make([RELU, helper.make_node("Add", ["y", "x"], ["z"])], outputs=("z",)).SerializeToString()
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] ^= 1 << rng.integers(0, 8)
        try:
            load(bytes(damaged))
        except (InvalidModel, UnsupportedOperator):
            pass


BROKEN = {
    "cycle": (
        make(
            [
                helper.make_node("Add", ["x", "b"], ["a"], name="first"),
                helper.make_node("Relu", ["a"], ["b"], name="second"),
                helper.make_node("Relu", ["b"], ["y"]),
            ]
        ),
        "cycle.*first",
    ),
    "self cycle": (make([helper.make_node("Add", ["x", "y"], ["y"], name="loop")]), "cycle.*loop"),
    "dangling input": (make([helper.make_node("Add", ["x", "ghost"], ["y"], name="n")]), "'n'.*'ghost'"),
    "dangling output": (make([RELU], outputs=("z",)), "'z'"),
    "two definitions": (make([RELU, helper.make_node("Abs", ["x"], ["y"])]), "'y' is defined twice"),
    "overwrites input": (
        make([helper.make_node("Abs", ["x"], ["x"])], outputs=("x",)),
        "'x' is defined twice",
    ),
    "no such attribute": (make([helper.make_node("Relu", ["x"], ["y"], speed=3)]), "speed"),
    "too many inputs": (make([helper.make_node("Relu", ["x", "x"], ["y"])]), "Relu|inputs"),
    "opset 0": (make([RELU], opset=0), "opset 0"),
    "opset 99": (make([RELU], opset=99), "opset 99"),
    "negative dim": (make([RELU], dims=(2, -3)), "negative"),
    "absurd dim": (make([RELU], dims=(2**20, 2**20)), "elements"),
    "foreign domain not imported": (
        make([helper.make_node("Magic", ["x"], ["y"], name="m", domain="com.example")]),
        "com.example",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_graph(name):
    model, pattern = BROKEN[name]
    with pytest.raises(InvalidModel, match=pattern):
        load(model)


def test_unknown_operator():
    with pytest.raises(UnsupportedOperator, match="Gelu") as caught:
        load(make([helper.make_node("Gelu", ["x"], ["y"], name="g")], opset=17))
    assert caught.value.op == "Gelu" and caught.value.node == "g"


def weighted(tensor):
    return make([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[tensor])


@pytest.mark.parametrize(
    ("dims", "raw", "pattern"),
    [
        ([2, 3], b"\0" * 20, "20 bytes, needs 24"),
        ([2, 3], b"\0" * 28, "28 bytes, needs 24"),
        ([2**30, 2**12], b"", "elements"),
        ([-2, 3], b"\0" * 24, "negative"),
        ([2**62, 2**62], b"", "elements"),
    ],
)
def test_initializer_of_wrong_size(dims, raw, pattern):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=raw)
    with pytest.raises(InvalidModel, match=f"'w'.*{pattern}"):
        load(weighted(tensor))


def test_initializer_of_wrong_count_or_type():
    short = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 3], float_data=[1, 2])
    with pytest.raises(InvalidModel, match="2 entries, needs 6"):
        load(weighted(short))
    with pytest.raises(InvalidModel, match="element type"):
        load(weighted(TensorProto(name="w", data_type=77, dims=[1], raw_data=b"0")))


def test_tensor_in_attribute_is_checked():
    bad = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[4], raw_data=b"\0" * 8)
    with pytest.raises(InvalidModel, match="'c'"):
        load(make([helper.make_node("Constant", [], ["c"], value=bad), RELU]))


def external(location, offset=None, length=None, dims=(2, 3)):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return weighted(tensor)


def save(folder: Path, model) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data(tmp_path):
    values = np.arange(8, dtype=np.float32)
    (tmp_path / "w.bin").write_bytes(values.tobytes())
    os.link(tmp_path / "w.bin", tmp_path / "hard.bin")
    for name in ("w.bin", "hard.bin"):
        model = load(save(tmp_path, external(name, offset=8, length=24)))
        (tensor,) = load(model.proto).ir.graph.initializers.values()
        np.testing.assert_array_equal(tensor.const_value.numpy(), values[2:].reshape(2, 3))
    before = model.sha256
    (tmp_path / "hard.bin").write_bytes((values + 1).tobytes())
    assert load(tmp_path / "m.onnx").sha256 != before


@pytest.mark.parametrize("location", ["../w.bin", "sub/../../w.bin", "/etc/passwd", "link.bin", "", "gone.bin", "."])
def test_external_data_outside(tmp_path, location):
    inner = tmp_path / "model"
    inner.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(24))
    (inner / "link.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(InvalidModel, match="'w'"):
        load(save(inner, external(location)))


def test_external_data_behind_linked_folder(tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "w.bin").write_bytes(bytes(24))
    inner = tmp_path / "model"
    inner.mkdir()
    (inner / "sub").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidModel, match="outside"):
        load(save(inner, external("sub/w.bin")))


def test_external_data_truncated(tmp_path):
    (tmp_path / "w.bin").write_bytes(bytes(20))
    with pytest.raises(InvalidModel, match="ends at byte 20, needs 24"):
        load(save(tmp_path, external("w.bin")))
    with pytest.raises(InvalidModel, match="length 20, needs 24"):
        load(save(tmp_path, external("w.bin", length=20)))
    with pytest.raises(InvalidModel, match="integers"):
        load(save(tmp_path, external("w.bin", offset="many")))
    with pytest.raises(InvalidModel, match="by its path"):
        load(external("w.bin"))


def test_hostile_names_are_kept():
    names = ['x"; system("reboot"); //', "$(rm -rf ~)", "*/ int main() {", "日本語\n", "a/b\\c%s"]
    previous = "x"
    nodes = []
    for name in names:
        nodes.append(helper.make_node("Relu", [previous], [name], name=name))
        previous = name
    model = load(make(nodes, outputs=(previous,)))
    assert [node.name for node in model.ir.graph] == names


def test_unsorted_graph_is_sorted():
    nodes = [helper.make_node("Abs", ["a"], ["y"]), helper.make_node("Relu", ["x"], ["a"])]
    model = load(make(nodes))
    assert [node.op_type for node in model.ir.graph] == ["Relu", "Abs"]
    onnx.checker.check_model(model.proto)


def test_dimension_names():
    proto = make([RELU])
    shape = proto.graph.input[0].type.tensor_type.shape
    shape.dim[0].ClearField("dim_value")
    shape.dim[1].dim_param = "T"
    model = load(proto)
    assert model.inputs["x"].shape == ("x_d0", "T")
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(InvalidModel, match="shape"):
        load(proto)


def test_save_is_whole_or_not_at_all(tmp_path):
    model = load(make([RELU]))
    model.save(tmp_path / "copy.onnx")
    assert load(tmp_path / "copy.onnx").proto == model.proto
    assert [p.name for p in tmp_path.iterdir()] == ["copy.onnx"]
    with pytest.raises(ValueError, match="does not exist"):
        model.save(tmp_path / "no" / "copy.onnx")


def test_invalid_ir_model():
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2]))
    ghost = ir.Value(name="ghost", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2]))
    node = ir.Node("", "Add", [x, ghost], name="n")
    node.outputs[0].name = "y"
    node.outputs[0].type, node.outputs[0].shape = x.type, x.shape
    graph = ir.Graph([x], [node.outputs[0]], nodes=[node], opset_imports={"": 20}, name="g")
    with pytest.raises(InvalidModel, match="ghost"):
        load(ir.Model(graph, ir_version=10))
