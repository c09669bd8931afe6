"""The same model in float64, to tell rounding from mistakes: who is nearer to the exact answer?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from headrace.artifact.ports import Array
from headrace.measure.reference import Run, open_reference

NARROW = frozenset((TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16))
ELEMENT_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "stash_type", "precision", "softmax_precision")
IGNORED = frozenset([("LayerNormalization", "stash_type")])  # onnx.reference knows one value and never casts


def open_double(model: onnx.ModelProto) -> Run:
    """The model computed in float64 by onnx.reference. Floats are widened on the way in.

    model: a prepared one, in which every constant is an initializer. Values that the model rounds on
    purpose (QuantizeLinear, casts to integers) are rounded as well, casts to narrower floats are not.
    Raises ReferenceFailed where onnx.reference cannot run it.
    """
    run = open_reference("onnx", widened(model))

    def run_double(feeds: Mapping[str, Array]) -> dict[str, Array]:
        return run({name: _wide(value) for name, value in feeds.items()})

    return run_double


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every narrower float is a float64."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for graph in _graphs(copy.graph):
        del graph.value_info[:]
        for tensor in graph.initializer:
            _widen_tensor(tensor)
        for port in (*graph.input, *graph.output):
            if port.type.tensor_type.elem_type in NARROW:
                port.type.tensor_type.elem_type = TensorProto.DOUBLE
        for node in graph.node:
            _widen_attributes(node)
    return copy


def _widen_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if (node.op_type, attribute.name) in IGNORED:
            continue
        if attribute.name in ELEMENT_TYPE_ATTRIBUTES and attribute.i in NARROW:
            attribute.i = TensorProto.DOUBLE
        elif attribute.type == onnx.AttributeProto.TENSOR:
            _widen_tensor(attribute.t)
    if node.op_type == "Constant":
        for attribute in node.attribute:
            if attribute.name in ("value_float", "value_floats"):
                values = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                tensor = numpy_helper.from_array(np.asarray(values, np.float64))
                attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type in NARROW:
        array = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _wide(value: Array) -> Array:
    narrow = value.dtype.kind == "f" or value.dtype.name == "bfloat16"
    return value.astype(np.float64) if narrow else value


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner)
