"""Prepare a hand-made model and run it beside the original."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from headrace.frontends.onnx import load
from headrace.graph.prepare import Prepared
from headrace.passes.prepare import prepare

OPTIONS = ort.SessionOptions()
OPTIONS.log_severity_level = 4
OPTIONS.intra_op_num_threads = 1


def everything(domain: str, op_type: str, version: int) -> bool:
    """A compiler that knows every operator."""
    return True


def info(name, shape, dtype=np.float32):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, inputs, outputs, constants=None, opset=26, functions=(), opsets=(), ir_version=8):
    """inputs, outputs: name → (shape, dtype); constants: name → array."""
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [info(n, *s) for n, s in inputs.items()],
        [info(n, *s) for n, s in outputs.items()],
        tensors,
    )
    imports = [helper.make_opsetid("", opset), *opsets]
    return helper.make_model(
        graph,
        opset_imports=imports,
        functions=list(functions),
        ir_version=max(ir_version, helper.find_min_ir_version_for(imports, ignore_unknown=True)),
    )


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, **attributes)


def graph(nodes, inputs, outputs, constants=None):
    """A subgraph; inputs and outputs: name → (shape, dtype)."""
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()]
    return helper.make_graph(
        nodes,
        "inner",
        [info(n, *s) for n, s in inputs.items()],
        [info(n, *s) for n, s in outputs.items()],
        tensors,
    )


def run(proto: onnx.ModelProto, feeds):
    return ort.InferenceSession(proto.SerializeToString(), OPTIONS).run(None, feeds)


def proto_of(prepared: Prepared) -> onnx.ModelProto:
    """The prepared model, checked: valid, every tensor typed, shapes as promised."""
    result = ir.to_proto(prepared.model)
    onnx.checker.check_model(result, full_check=True)
    for item in prepared.model.graph:
        for value in item.outputs:
            if value.name and isinstance(value.type, ir.TensorType):
                assert prepared.dtype(value) != "unknown"
                assert len(prepared.shape(value)) == len(value.shape)
    return result


def check_same(proto: onnx.ModelProto, feeds, expected=None, rtol=1e-5, atol=1e-6, **options) -> Prepared:
    """Prepare, and compare with the original in onnxruntime, or with `expected`."""
    options.setdefault("native", everything)
    prepared = prepare(load(proto), **options)
    constants = {
        name: np.asarray(value, dtype=load(proto).inputs[name].dtype)
        for name, value in options.get("constants", {}).items()
    }
    want = run(proto, {**feeds, **constants}) if expected is None else expected
    got = run(proto_of(prepared), feeds)
    assert [v.name for v in prepared.model.graph.outputs] == [v.name for v in proto.graph.output]
    for left, right, value in zip(want, got, prepared.model.graph.outputs, strict=True):
        np.testing.assert_allclose(left, right, rtol=rtol, atol=atol)
        assert left.dtype == right.dtype and left.shape == right.shape
        for dim, size in zip(prepared.shape(value), right.shape, strict=True):
            assert not isinstance(dim, int) or dim == size
    return prepared


def operators(prepared: Prepared) -> list[str]:
    return [item.op_type for item in prepared.model.graph]


def array(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


FLOAT = TensorProto.FLOAT
