"""Remove what nothing uses, and compute equal things once.

a = Exp(x); b = Exp(x); y = Add(a, b); z = Neg(x)   →   a = Exp(x); y = Add(a, a)
"""

from __future__ import annotations

from collections.abc import Hashable

import onnx_ir as ir

from headrace.graph import schemas
from headrace.graph.rewrite import BASE_OPSET, is_used, replace_node, subgraphs
from headrace.passes.walk import PIN, all_graphs

SHARED_BYTES = 1024


def remove_unused(root: ir.Graph) -> None:
    """Remove nodes and initializers that no output depends on, also inside subgraphs."""
    for graph in reversed(all_graphs(root)):
        for node in reversed(graph):
            if not any(is_used(value) for value in node.outputs):
                _detach(node)
                graph.remove(node, safe=True)
    for graph in all_graphs(root):
        for name, value in list(graph.initializers.items()):
            if not is_used(value):
                del graph.initializers[name]


def _detach(node: ir.Node) -> None:
    """Drop the reads of a node's subgraphs, so that what they read may go too."""
    for graph in subgraphs(node):
        for inner in reversed(graph):
            _detach(inner)
            for index in range(len(inner.inputs)):
                inner.replace_input_with(index, None)


def merge_duplicates(root: ir.Graph) -> None:
    """Let equal nodes of one graph, and equal small initializers, share one result."""
    _merge_initializers(root)
    for graph in all_graphs(root):
        seen: dict[Hashable, ir.Node] = {}
        for node in list(graph):
            if PIN in node.meta or any(subgraphs(node)) or not _repeatable(node):
                continue
            key = _key(node)
            if key is None:
                continue
            twin = seen.setdefault(key, node)
            if twin is not node:
                replace_node(node, [], list(twin.outputs))


def _repeatable(node: ir.Node) -> bool:
    schema = schemas.find(node.op_type, node.version or BASE_OPSET, node.domain)
    return schema is not None and schemas.is_deterministic(schema)


def _key(node: ir.Node) -> Hashable | None:
    attributes: list[Hashable] = []
    for name in sorted(node.attributes):
        attr = node.attributes[name]
        if attr.is_ref():
            return None
        if attr.type == ir.AttributeType.TENSOR:
            tensor = attr.as_tensor()
            if tensor.dtype == ir.DataType.STRING or tensor.nbytes > SHARED_BYTES:
                return None
            attributes.append((name, str(tensor.dtype), tuple(tensor.shape.numpy()), tensor.tobytes()))
        else:
            attributes.append((name, repr(attr.value)))
    present = tuple(bool(value.name) for value in node.outputs)
    return (node.domain, node.op_type, node.version, tuple(map(id, node.inputs)), tuple(attributes), present)


def _merge_initializers(root: ir.Graph) -> None:
    seen: dict[Hashable, ir.Value] = {}
    for value in list(root.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes > SHARED_BYTES or tensor.dtype == ir.DataType.STRING:
            continue
        key = (tensor.dtype, tuple(tensor.shape.numpy()), tensor.tobytes())
        twin = seen.setdefault(key, value)
        if twin is not value and not value.is_graph_output() and not value.is_graph_input():
            value.replace_all_uses_with(twin)
            del root.initializers[value.name or ""]
