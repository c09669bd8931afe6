"""Checks of an ONNX protobuf that may be damaged or hostile. Nothing here trusts a length or a name."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from headrace.errors import InvalidModel, UnsupportedOperator
from headrace.graph.facts import MAX_ELEMENTS

NEWEST_OPSET = 28
MAX_NODES = 500_000
ONNX_DOMAINS = ("", "ai.onnx")

_TYPED_FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.COMPLEX64: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.COMPLEX128: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
    TensorProto.STRING: "string_data",
}
_BITS = {
    "INT2": 2, "UINT2": 2, "INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "FLOAT6E2M3": 6, "FLOAT6E3M2": 6,
    "COMPLEX64": 64, "COMPLEX128": 128,
}  # fmt: skip


def check_model(model: ModelProto, folder: Path | None) -> None:
    """Raise InvalidModel or UnsupportedOperator for anything the rest of the compiler could trip over.

    folder: where external data must lie; None when the model did not come from a file.
    """
    opsets = _opset_versions(model)
    local = {(f.domain, f.name, f.overload) for f in model.functions}
    if len(local) != len(model.functions):
        raise InvalidModel("two functions of the model have the same name; rename one")
    for tensor in tensors(model):
        _check_tensor(tensor, folder)
    for info in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        _check_declared(info)
    for sparse in model.graph.sparse_initializer:
        raise UnsupportedOperator(
            "sparse_initializer", sparse.values.name, "load", "store the tensor as a dense initializer"
        )
    _check_graph(model.graph, set())
    for function in model.functions:
        _check_function(function)
    for node in nodes(model):
        _check_operator(node, opsets, local)
    _run_checker(model)


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor in the model: initializers and attributes, also in subgraphs and functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for graph in subgraphs(attribute):
            yield from _graph_tensors(graph)


def subgraphs(attribute: AttributeProto) -> Iterator[GraphProto]:
    """The graphs that one attribute holds."""
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Every node of the main graph and its subgraphs; functions are checked when they are inlined."""
    stack = [iter(model.graph.node)]
    count = 0
    while stack:
        node = next(stack[-1], None)
        if node is None:
            stack.pop()
            continue
        count += 1
        if count > MAX_NODES:
            raise InvalidModel(f"the model has more than {MAX_NODES} nodes")
        yield node
        stack += [iter(graph.node) for attribute in node.attribute for graph in subgraphs(attribute)]


def _opset_versions(model: ModelProto) -> dict[str, int]:
    if not model.HasField("graph"):
        raise InvalidModel("the file holds no ONNX graph; is it an ONNX model?")
    if not 0 < model.ir_version <= onnx.IR_VERSION:
        raise InvalidModel(
            f"ir_version {model.ir_version} is not between 1 and {onnx.IR_VERSION}; "
            "the file is damaged or newer than the installed onnx package"
        )
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        if versions.setdefault(domain, entry.version) != entry.version:
            raise InvalidModel(f"opset {domain or 'ai.onnx'!r} is imported in two versions")
    if not versions and model.ir_version < 3:
        versions[""] = 1
    if "" in versions and not 1 <= versions[""] <= NEWEST_OPSET:
        raise InvalidModel(f"opset {versions['']} is not between 1 and {NEWEST_OPSET}, the newest one known")
    if not versions:
        raise InvalidModel("the model imports no operator set; the file is damaged")
    return versions


def _check_tensor(tensor: TensorProto, folder: Path | None) -> None:
    name = tensor.name or "(unnamed tensor)"
    if any(dim < 0 for dim in tensor.dims):
        raise InvalidModel(f"tensor {name!r} has a negative extent: {list(tensor.dims)}")
    elements = math.prod(tensor.dims)
    if elements >= MAX_ELEMENTS:
        raise InvalidModel(f"tensor {name!r} claims {elements} elements: {list(tensor.dims)}")
    if tensor.data_type not in TensorProto.DataType.values() or tensor.data_type == TensorProto.UNDEFINED:
        raise InvalidModel(f"tensor {name!r} has no valid element type ({tensor.data_type})")
    kind = TensorProto.DataType.Name(tensor.data_type)
    if tensor.HasField("segment"):
        raise InvalidModel(f"tensor {name!r} is split into segments, which ONNX tools do not read")
    if tensor.data_location == TensorProto.EXTERNAL:
        _check_external(tensor, name, byte_size(elements, tensor.data_type), folder)
        return
    if tensor.HasField("raw_data"):
        have, need = len(tensor.raw_data), byte_size(elements, tensor.data_type)
        if have != need:
            raise InvalidModel(f"tensor {name!r} ({kind} {list(tensor.dims)}) has {have} bytes, needs {need}")
        return
    stored = len(getattr(tensor, _TYPED_FIELDS.get(tensor.data_type, "int32_data")))
    if kind in ("COMPLEX64", "COMPLEX128"):
        stored, need = stored // 2, elements
    elif kind in ("INT2", "UINT2", "INT4", "UINT4", "FLOAT4E2M1"):
        need = byte_size(elements, tensor.data_type)
    else:
        need = elements
    if stored != need:
        raise InvalidModel(f"tensor {name!r} ({kind} {list(tensor.dims)}) has {stored} entries, needs {need}")


def byte_size(elements: int, data_type: int) -> int:
    """Bytes of raw data for a number of elements of an ONNX element type; 0 for strings."""
    kind = TensorProto.DataType.Name(data_type)
    if kind == "STRING":
        return 0
    bits = _BITS.get(kind)
    if bits is None:
        bits = onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize * 8
    return (elements * bits + 7) // 8


def external_fields(tensor: TensorProto, name: str) -> tuple[str, int, int | None]:
    """(location, offset, length) of a tensor stored outside the model file."""
    fields = {entry.key: entry.value for entry in tensor.external_data}
    try:
        offset = int(fields.get("offset", "0"))
        length = int(fields["length"]) if "length" in fields else None
    except ValueError:
        raise InvalidModel(f"tensor {name!r}: offset and length of its external data must be integers") from None
    return fields.get("location", ""), offset, length


def _check_external(tensor: TensorProto, name: str, need: int, folder: Path | None) -> None:
    location, offset, length = external_fields(tensor, name)
    if folder is None:
        raise InvalidModel(f"tensor {name!r} lies in the file {location!r}: load the model by its path")
    if not location or "\0" in location or os.path.isabs(location) or ":" in location.split("/")[0][1:2]:
        raise InvalidModel(f"tensor {name!r}: external data must be a relative path, not {location!r}")
    path = folder / location
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
        size = path.stat().st_size if inside and path.is_file() else -1
    except (OSError, RuntimeError):
        inside, size = True, -1
    if not inside or ".." in Path(location).parts:
        raise InvalidModel(f"tensor {name!r}: external data {location!r} lies outside the model's folder")
    if size < 0:
        raise InvalidModel(f"tensor {name!r}: external data file {location!r} is missing beside the model")
    if tensor.data_type == TensorProto.STRING:
        raise InvalidModel(f"tensor {name!r}: strings cannot be stored as external data")
    if length is not None and length != need:
        raise InvalidModel(f"tensor {name!r}: external data has length {length}, needs {need}")
    if offset < 0 or offset + need > size:
        raise InvalidModel(f"tensor {name!r}: external data {location!r} ends at byte {size}, needs {offset + need}")


def _check_declared(info: onnx.ValueInfoProto) -> None:
    if not info.type.HasField("tensor_type"):
        return
    kind = info.type.tensor_type.elem_type
    if kind not in TensorProto.DataType.values():
        raise InvalidModel(f"value {info.name!r} has an unknown element type ({kind})")
    extents = [dim.dim_value for dim in info.type.tensor_type.shape.dim if dim.HasField("dim_value")]
    if any(extent < 0 for extent in extents):
        raise InvalidModel(f"value {info.name!r} has a negative extent: {extents}; use a named dimension")
    if math.prod(extents) >= MAX_ELEMENTS:
        raise InvalidModel(f"value {info.name!r} claims {math.prod(extents)} elements: {extents}")


def node_label(node: NodeProto) -> str:
    """A node's name, or that of its first output."""
    return node.name or next((name for name in node.output if name), node.op_type)


def _check_graph(graph: GraphProto, outer: set[str]) -> None:
    """Names are defined once and before use (or in any order, if there is no cycle)."""
    defined = set(outer)
    own: set[str] = set()

    def define(name: str, what: str) -> None:
        if name in own:
            raise InvalidModel(f"{name!r} is defined twice, the second time by {what}; names must be unique")
        own.add(name)
        defined.add(name)

    for info in graph.input:
        define(info.name, "a graph input")
    initializers: set[str] = set()
    for tensor in graph.initializer:
        if not tensor.name:
            raise InvalidModel("an initializer has no name")
        if tensor.name in initializers:
            raise InvalidModel(f"{tensor.name!r} is defined by two initializers; names must be unique")
        initializers.add(tensor.name)
        defined.add(tensor.name)
    own |= initializers
    producers: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            define(name, f"node {node_label(node)!r}")
            producers[name] = index
    for node in graph.node:
        for name in filter(None, node.input):
            if name not in defined:
                raise InvalidModel(f"node {node_label(node)!r} reads {name!r}, which nothing defines")
        for attribute in node.attribute:
            for inner in subgraphs(attribute):
                _check_graph(inner, defined)
    for info in graph.output:
        if info.name not in defined:
            raise InvalidModel(f"graph output {info.name!r} is defined by nothing")
    _refuse_cycles(list(graph.node), producers)


def nested_nodes(node: NodeProto) -> Iterator[NodeProto]:
    """All nodes in the subgraphs of a node, at any depth."""
    for attribute in node.attribute:
        for graph in subgraphs(attribute):
            for inner in graph.node:
                yield inner
                yield from nested_nodes(inner)


def outer_reads(node: NodeProto) -> Iterator[str]:
    """Names a node may read, its subgraphs included."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in subgraphs(attribute):
            for inner in graph.node:
                yield from outer_reads(inner)
            yield from (info.name for info in graph.output)


def sorted_nodes(items: list[NodeProto], producers: dict[str, int]) -> list[int]:
    """Indices in an order in which every value is computed before it is read. Cyclic: fewer indices."""
    needs = [{producers[n] for n in outer_reads(node) if n in producers} for node in items]
    users: list[list[int]] = [[] for _ in items]
    for index, sources in enumerate(needs):
        for source in sources:
            users[source].append(index)
    waiting = [len(sources) for sources in needs]
    ready = [i for i in range(len(items) - 1, -1, -1) if not waiting[i]]
    order = []
    while ready:
        index = ready.pop()
        order.append(index)
        for user in users[index]:
            waiting[user] -= 1
            if not waiting[user]:
                ready.append(user)
    return order


def _refuse_cycles(listed: list[NodeProto], producers: dict[str, int]) -> None:
    order = sorted_nodes(listed, producers)
    if len(order) < len(listed):
        left = sorted(set(range(len(listed))) - set(order))
        names = ", ".join(repr(node_label(listed[i])) for i in left[:4])
        raise InvalidModel(f"the graph has a cycle through node(s) {names}")


def _check_function(function: FunctionProto) -> None:
    graph = GraphProto(name=function.name)
    graph.node.extend(function.node)
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in function.input)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in function.output)
    try:
        _check_graph(graph, set())
    except InvalidModel as error:
        raise InvalidModel(f"in function {function.name!r}: {error}") from None


def _check_operator(node: NodeProto, opsets: dict[str, int], local: set[tuple[str, str, str]]) -> None:
    domain = "" if node.domain == "ai.onnx" else node.domain
    if (node.domain, node.op_type, node.overload) in local:
        return
    if domain not in opsets:
        raise InvalidModel(
            f"node {node_label(node)!r} uses domain {domain or 'ai.onnx'!r}, which the model does not import"
        )
    if domain in ONNX_DOMAINS and not onnx.defs.has(node.op_type, opsets[""], ""):
        raise UnsupportedOperator(
            node.op_type, node_label(node), "load", f"ONNX opset {opsets['']} has no such operator"
        )


def _run_checker(model: ModelProto) -> None:
    """onnx.checker on the model without its weights, which would otherwise be copied."""
    try:
        onnx.checker.check_model(_skeleton(model))
    except onnx.checker.ValidationError as error:
        raise InvalidModel(f"not valid ONNX: {str(error).strip()}") from None
    except (ValueError, RuntimeError, TypeError) as error:
        raise InvalidModel(f"not valid ONNX: {error}") from None


def _skeleton(model: ModelProto) -> ModelProto:
    """The model with initializers of the main graph turned into inputs, nodes sorted."""
    graph = GraphProto(name=model.graph.name or "graph")
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    listed = list(model.graph.node)
    producers = {name: i for i, node in enumerate(listed) for name in node.output if name}
    graph.node.extend(listed[i] for i in sorted_nodes(listed, producers))
    for node in graph.node:
        if node.op_type == "GroupNormalization":  # the checker refuses opset 18 to 20, which `upgrade` repairs
            node.domain = "headrace.unchecked"
    names = {info.name for info in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.name not in names:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    result = ModelProto(ir_version=max(model.ir_version, 4), graph=graph)
    result.opset_import.extend(model.opset_import)
    result.opset_import.add(domain="headrace.unchecked", version=1)
    if not model.opset_import:
        result.opset_import.add(domain="", version=1)
    result.functions.extend(model.functions)
    return result
