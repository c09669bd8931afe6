"""Small models for the tests of bad input: built by hand, so that they may be wrong in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dims = Sequence[int | str]
HUGE = 2**40


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Dims],
    outputs: Mapping[str, Dims],
    weights: Mapping[str, object] | Sequence[onnx.TensorProto] = (),
    opset: int = 17,
    dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model that nothing has checked. Weights: arrays by name (Python numbers are int64), or tensors."""
    if isinstance(weights, Mapping):
        weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    sides = [
        [helper.make_tensor_value_info(name, dtype, list(dims)) for name, dims in side.items()]
        for side in (inputs, outputs)
    ]
    graph = helper.make_graph(list(nodes), "g", *sides, list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def relu(dims: Dims = (2, 4), dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """y = max(x, 0)."""
    return model([helper.make_node("Relu", ["x"], ["y"], name="act")], {"x": dims}, {"y": dims}, dtype=dtype)


def one(op: str, dims: Dims, result: Dims, opset: int = 17, **given: object) -> onnx.ModelProto:
    """One operator on x; arrays and numbers in `given` are its further inputs, `a_NAME` its attributes."""
    attributes = {key[2:]: value for key, value in given.items() if key.startswith("a_")}
    weights = {key: value for key, value in given.items() if not key.startswith("a_")}
    node = helper.make_node(op, ["x", *weights], ["y"], name="culprit", **attributes)
    return model([node], {"x": dims}, {"y": result}, weights, opset)


def doubled(weight: onnx.TensorProto) -> onnx.ModelProto:
    """y = x + w, where the tensor w is given as it is."""
    return model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": (2, 3)}, {"y": (2, 3)}, [weight])


def external(location: str) -> onnx.ModelProto:
    """y = x + w with w in another file."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=(2, 3))
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    return doubled(weight)


def save(proto: onnx.ModelProto | bytes, path: Path) -> Path:
    """Write a model as it is, without a check."""
    path.write_bytes(proto if isinstance(proto, bytes) else proto.SerializeToString())
    return path
