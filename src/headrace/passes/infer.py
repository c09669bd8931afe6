"""Types and shapes of a node's outputs: ONNX's own inference per node, symbolic extents on top."""

from __future__ import annotations

import re

import onnx
import onnx_ir as ir

from headrace.errors import InvalidModel, UnsupportedOperator
from headrace.graph import schemas
from headrace.graph.facts import Facts, dims_text, label
from headrace.graph.rewrite import BASE_OPSET, Walk
from headrace.graph.symbolic import Dim
from headrace.passes.infer_symbolic import OVERRIDES, symbolic_dims

DATA_LIMIT = 4096
_REFUSALS = (onnx.shape_inference.InferenceError, onnx.checker.ValidationError)

PartialDims = tuple["Dim | None", ...]


def infer(node: ir.Node, walk: Walk) -> None:
    """Set dtype and extents of the node's outputs.

    An extent that depends on run-time values gets a fresh symbol without a bound. Raises
    InvalidModel where the operator's rules are broken, UnsupportedOperator for an unknown rank.
    """
    facts = walk.facts
    results = _onnx_inference(node, walk)
    own = symbolic_dims(node, facts)
    for index, value in enumerate(node.outputs):
        proto = results.get(f"o{index}")
        if proto is None and own is not None and index == 0:
            proto = _type_of(node.inputs[0])  # an operator without inference in ONNX
        if proto is None:
            continue
        kind = ir.serde.deserialize_type_proto_for_type(proto)
        if kind is not None:
            value.type = kind
        if not isinstance(value.type, ir.TensorType):
            value.shape = None
            continue
        dims = _read_dims(proto, facts)
        if own is not None and index < len(own):
            replaces = node.op_type in OVERRIDES and own[index] is not None
            dims = own[index] if replaces else _merge(node, value, dims, own[index])
        if dims is None:
            if value.name or value.uses():
                raise UnsupportedOperator(
                    node.op_type,
                    label(node),
                    "normalise",
                    "the rank of its output depends on run-time values",
                )
            continue
        facts.set_dims(value, tuple(facts.fresh(value, axis) if dim is None else dim for axis, dim in enumerate(dims)))


def _type_of(value: ir.Value | None) -> onnx.TypeProto | None:
    return None if value is None or value.type is None else ir.serde.serialize_type(value.type)


def _onnx_inference(node: ir.Node, walk: Walk) -> dict[str, onnx.TypeProto]:
    facts = walk.facts
    version = walk.version(node)
    schema = schemas.get(node.op_type, version, node.domain)
    proto = node_proto(node)
    types, data = {}, {}
    for index, value in enumerate(node.inputs):
        if value is None:
            continue
        kind = type_proto(value, facts)
        tensor = value.const_value
        scalar = node.op_type == "Range" and facts.dims.get(value) == (1,)  # exporters write [1] for a scalar
        if scalar:
            del kind.tensor_type.shape.dim[:]
        types[f"i{index}"] = kind.SerializeToString()
        small = tensor is not None and not value.is_graph_input() and tensor.size <= DATA_LIMIT
        if small and value.dtype in (
            ir.DataType.INT64,
            ir.DataType.INT32,
            ir.DataType.FLOAT,
            ir.DataType.BOOL,
        ):
            array = tensor.numpy()  # type: ignore[union-attr]
            data[f"i{index}"] = ir.to_proto(ir.Tensor(array.reshape(()) if scalar else array)).SerializeToString()
    imports = {node.domain: version, "": version if node.domain == "" else BASE_OPSET}
    _check_attributes(node, facts)
    try:
        raw = schema._infer_node_outputs(proto.SerializeToString(), types, data, {}, imports, onnx.IR_VERSION)
    except (*_REFUSALS, RuntimeError, ValueError) as error:
        raise InvalidModel(f"node {label(node)!r} ({node.op_type}): {_refusal(error, node)}") from None
    return {name: onnx.TypeProto.FromString(text) for name, text in raw.items()}


def _check_attributes(node: ir.Node, facts: Facts) -> None:
    """What ONNX's own inference takes on trust: as many outputs as num_outputs says, blocks that divide."""
    if node.op_type == "Split" and "num_outputs" in node.attributes:
        wanted, there = node.attributes["num_outputs"].as_int(), len(node.outputs)
        if wanted != there:
            raise InvalidModel(f"node {label(node)!r} (Split): num_outputs is {wanted}, but it has {there}")
    if node.op_type in ("DepthToSpace", "SpaceToDepth") and node.inputs[0] is not None:
        dims, block = facts.dims.get(node.inputs[0], ()), node.attributes["blocksize"].as_int()
        parts = [(d, block**2) for d in dims[1:2]]
        if node.op_type == "SpaceToDepth":
            parts = [(d, block) for d in dims[2:]]
        if block < 1 or any(isinstance(d, int) and d % size for d, size in parts):
            shown = dims_text(dims)
            raise InvalidModel(f"node {label(node)!r} ({node.op_type}): blocksize {block} does not fit {shown}")


def _refusal(error: Exception, node: ir.Node) -> str:
    """What ONNX says, with the names of the values instead of the numbers `node_proto` gives them."""
    names = {f"i{i}": value.name for i, value in enumerate(node.inputs) if value is not None}
    return re.sub(r"\bi\d+\b", lambda m: repr(names.get(m[0], m[0])), str(error).strip())


def node_proto(node: ir.Node) -> onnx.NodeProto:
    """The node without its names: inputs i0, i1, …, outputs o0, o1, …"""
    proto = onnx.NodeProto(op_type=node.op_type, domain=node.domain)
    proto.input.extend("" if value is None else f"i{i}" for i, value in enumerate(node.inputs))
    proto.output.extend(f"o{i}" if value.name else "" for i, value in enumerate(node.outputs))
    while len(proto.output) > 1 and not proto.output[-1]:
        del proto.output[-1]
    proto.attribute.extend(ir.to_proto(attr) for attr in node.attributes.values())
    return proto


def type_proto(value: ir.Value, facts: Facts) -> onnx.TypeProto:
    """Type of a value with symbolic extents as printed expressions."""
    if value.type is None:
        raise InvalidModel(f"the type of {value.name!r} is unknown")
    proto: onnx.TypeProto = ir.serde.serialize_type(value.type)
    dims = facts.dims.get(value)
    if isinstance(value.type, ir.TensorType) and dims is not None:
        shape = proto.tensor_type.shape
        shape.Clear()
        proto.tensor_type.shape.SetInParent()
        for dim in dims:
            if isinstance(dim, int):
                shape.dim.add().dim_value = dim
            else:
                shape.dim.add().dim_param = str(dim)
    return proto


def _read_dims(proto: onnx.TypeProto, facts: Facts) -> PartialDims | None:
    if not proto.tensor_type.HasField("shape"):
        return None
    dims: list[Dim | None] = []
    for dim in proto.tensor_type.shape.dim:
        if dim.HasField("dim_value"):
            dims.append(dim.dim_value)
        else:
            dims.append(facts.printed.get(dim.dim_param) if dim.dim_param else None)
    return tuple(dims)


def _merge(node: ir.Node, value: ir.Value, found: PartialDims | None, own: PartialDims | None) -> PartialDims | None:
    if own is None or found is None:
        return own if found is None else found
    if len(own) != len(found):
        raise InvalidModel(f"node {label(node)!r}: rank {len(found)} and rank {len(own)} for {value.name!r}")
    merged: list[Dim | None] = []
    for left, right in zip(found, own, strict=True):
        if isinstance(left, int) and isinstance(right, int) and left != right:
            shown = dims_text(tuple(-1 if d is None else d for d in own))
            raise InvalidModel(f"node {label(node)!r}: contradictory extents {left} and {shown}")
        merged.append(left if isinstance(left, int) or right is None else right)
    return tuple(merged)
