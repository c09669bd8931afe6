"""A model of one node, run by the interpreter of lowered programs and by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from headrace.frontends.onnx import load
from headrace.ops.lowering import lower
from headrace.ops.registry import native
from headrace.passes.prepare import prepare
from headrace.program import interp
from headrace.program.ir import Module
from headrace.program.verify import verify

Array = np.ndarray[Any, Any]
Arrays = Sequence["Array | None"]
SEVEN_BITS = (
    -64,
    64,
)  # signed weights for which onnxruntime is exact: without VNNI it adds products in pairs of 16 bits
OPSET = 22  # the newest that every tested operator has a kernel for in onnxruntime


def node_model(
    op: str,
    inputs: Arrays,
    outputs: Sequence[int],
    constants: Sequence[int] = (),
    opset: int = OPSET,
    **attrs: Any,
) -> onnx.ModelProto:
    """op(x0, x1, …) → (y0, …); inputs None are left out, those in `constants` are initializers.

    outputs: element types (TensorProto) of the outputs; 0 leaves one out.
    """
    names = ["" if a is None else f"x{i}" for i, a in enumerate(inputs)]
    outs = [f"y{i}" if t else "" for i, t in enumerate(outputs)]
    given = [(i, a) for i, a in enumerate(inputs) if a is not None]
    graph = helper.make_graph(
        [helper.make_node(op, names, outs, name="node", **attrs)],
        "g",
        [_info(f"x{i}", a) for i, a in given if i not in constants],
        [helper.make_tensor_value_info(n, t, None) for n, t in zip(outs, outputs, strict=True) if n],
        [numpy_helper.from_array(a, f"x{i}") for i, a in given if i in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for value in model.graph.output:
        if not value.type.tensor_type.HasField("shape"):  # inference gives up: the rank of the first input
            for d in range(given[0][1].ndim):
                value.type.tensor_type.shape.dim.add().dim_param = f"{value.name}_{d}"
    return model


def _info(name: str, a: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)


def lowered(model: onnx.ModelProto, **options: Any) -> Module:
    """The verified program of a model."""
    module = lower(prepare(load(model), native=native, **options))
    verify(module)
    return module


def feeds_of(inputs: Arrays, constants: Sequence[int]) -> dict[str, Array]:
    return {f"x{i}": a for i, a in enumerate(inputs) if a is not None and i not in constants}


def run_here(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """All outputs, by the interpreter."""
    results = interp.run(lowered(model), feeds)
    return [results[o.name] for o in model.graph.output]


def run_there(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """All outputs, by onnxruntime without optimisation."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def check(
    op: str,
    inputs: Arrays,
    outputs: Sequence[int] = (TensorProto.FLOAT,),
    constants: Sequence[int] = (),
    rtol: float = 1e-4,
    atol: float = 1e-5,
    opset: int = OPSET,
    **attrs: Any,
) -> None:
    """Both runs give the same dtypes, shapes and values."""
    model = node_model(op, inputs, outputs, constants, opset, **attrs)
    feeds = feeds_of(inputs, constants)
    for here, there in zip(run_here(model, feeds), run_there(model, feeds), strict=True):
        same(here, there, rtol, atol)


def same(here: Array, there: Array, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """Equal dtype and shape; integers equal, floats close."""
    assert here.dtype == there.dtype and here.shape == there.shape
    if here.dtype.kind in "iub":
        np.testing.assert_array_equal(here, there)
    else:
        np.testing.assert_allclose(here, there, rtol=rtol, atol=atol)
