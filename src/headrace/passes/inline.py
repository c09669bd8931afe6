"""Replace a call by its function body: functions of the model, and ONNX's own function bodies.

y = my.Double(x)             →   y = Add(x, x)
y = Softplus(x)              →   e = Exp(x); one = Constant; s = Add(e, one); y = Log(s)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import onnx
import onnx_ir as ir

from headrace.errors import InvalidModel, UnsupportedOperator
from headrace.graph import schemas
from headrace.graph.facts import label
from headrace.graph.rewrite import BASE_OPSET, MAX_NODES, Walk, clone_nodes, is_used, replace_node, subgraphs
from headrace.passes.infer import node_proto, type_proto

MAX_DEPTH = 100


def check_functions(model: ir.Model) -> None:
    """Refuse functions that call themselves, or that grow beyond MAX_NODES when they are inlined."""
    sizes: dict[ir.OperatorIdentifier, int] = {}

    def size(nodes: Iterable[ir.Node], chain: tuple[ir.OperatorIdentifier, ...]) -> int:
        total = 0
        for node in nodes:
            total += 1
            for graph in subgraphs(node):
                total += size(graph, chain)
            key = node.op_identifier()
            if key in chain or len(chain) > MAX_DEPTH:
                raise InvalidModel(f"function {node.op_type!r} (called by {label(node)!r}) calls itself")
            if key in model.functions:
                if key not in sizes:
                    sizes[key] = size(model.functions[key], (*chain, key))
                total += sizes[key]
        return total

    total = size(model.graph, ())
    if total > MAX_NODES:
        raise InvalidModel(f"the model has {total} nodes when its functions are expanded, more than {MAX_NODES}")


def inline_function(node: ir.Node, walk: Walk) -> list[ir.Node] | None:
    """Replace a call of a function that the model defines."""
    function = walk.functions.get(node.op_identifier())
    if function is None:
        return None
    return _instantiate(node, function, dict(function.attributes), function.opset_imports, walk)


def expand_body(node: ir.Node, walk: Walk) -> list[ir.Node] | None:
    """Replace an operator that the compiler does not know by its ONNX function body."""
    if node.domain == "" and node.op_type in ("If", "Loop", "Scan"):
        return None
    schema = schemas.get(node.op_type, walk.version(node), node.domain)
    if walk.native(node.domain, node.op_type, schema.since_version):
        return None
    body = _function_body(node, schema, walk)
    if body is None:
        raise UnsupportedOperator(
            node.op_type,
            label(node),
            "normalise",
            "Headrace has no rule for this operator and ONNX defines no function body for it; "
            "replace it by simpler operators before the export",
        )
    _complete(body, node)
    walk.facts.decide(f"{node.op_type} expanded through its ONNX function body")
    function = ir.serde.deserialize_function(body)
    defaults = {
        name: ir.serde.deserialize_attribute(attr.default_value)
        for name, attr in schema.attributes.items()
        if attr.default_value.name
    }
    return _instantiate(node, function, defaults, function.opset_imports, walk)


def _function_body(node: ir.Node, schema: Any, walk: Walk) -> onnx.FunctionProto | None:
    limit = max(walk.version(node), BASE_OPSET)
    fixed = [v for v in schema.function_opset_versions if v <= limit]
    if schema.has_function and fixed:
        return _parse(schema.get_function_with_opset_version(max(fixed)))
    dependent = [v for v in schema.context_dependent_function_opset_versions if v <= limit]
    if not (schema.has_context_dependent_function and dependent):
        return None
    types = [
        (onnx.TypeProto() if value is None else type_proto(value, walk.facts)).SerializeToString()
        for value in node.inputs
    ]
    try:
        data = schema.get_context_dependent_function_with_opset_version(
            max(dependent), node_proto(node).SerializeToString(), types
        )
    except RuntimeError:
        return None
    return _parse(data) if data else None


def _parse(data: bytes) -> onnx.FunctionProto:
    function: onnx.FunctionProto = onnx.FunctionProto.FromString(data)
    return function


def _complete(body: onnx.FunctionProto, node: ir.Node) -> None:
    """Define the outputs that a body built for this node leaves out because the node has no use for them."""
    made = {name for inner in body.node for name in inner.output} | set(body.input)
    for index, name in enumerate(body.output):
        if name in made:
            continue
        if index < len(node.outputs) and is_used(node.outputs[index]):
            raise UnsupportedOperator(
                node.op_type, label(node), "normalise", f"its ONNX function body does not compute {name!r}"
            )
        body.node.add(op_type="Identity", input=[body.input[0]], output=[name])


def _instantiate(
    node: ir.Node,
    function: ir.Function,
    defaults: Mapping[str, ir.Attr],
    opsets: Mapping[str, int],
    walk: Walk,
) -> list[ir.Node]:
    actual = {name: attr for name, attr in defaults.items() if attr is not None and attr.value is not None}
    actual.update(node.attributes.items())
    if len(node.inputs) > len(function.inputs) or len(node.outputs) > len(function.outputs):
        raise InvalidModel(
            f"node {label(node)!r} gives {len(node.inputs)} inputs and {len(node.outputs)} outputs "
            f"to function {function.name!r}, which has {len(function.inputs)} and {len(function.outputs)}"
        )
    values: dict[ir.Value, ir.Value | None] = dict.fromkeys(function.inputs)
    values.update(zip(function.inputs, node.inputs, strict=False))
    prefix = label(node)
    new = clone_nodes(list(function), values, actual, lambda name: walk.unique(f"{prefix}/{name}"))
    for inner in _deep(new):
        if inner.version is None:
            inner.version = opsets.get(inner.domain, BASE_OPSET if inner.domain == "" else 1)
    outputs: list[ir.Value | None] = []
    for old, formal in zip(node.outputs, function.outputs, strict=False):
        result = values.get(formal, formal)
        if result is None and is_used(old):
            raise InvalidModel(f"output {old.name!r} of {label(node)!r} is an input of the function that is absent")
        outputs.append(result)
    return replace_node(node, new, outputs)


def _deep(nodes: list[ir.Node]) -> list[ir.Node]:
    found = []
    for node in nodes:
        found.append(node)
        for attr in node.attributes.values():
            if attr.type == ir.AttributeType.GRAPH:
                found += _deep(list(attr.as_graph()))
    return found
