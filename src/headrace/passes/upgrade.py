"""Bring a node to the meaning its operator has in opset 26 (nodes of opset 27 and 28 stay as they are).

    opset 12: y = Softmax(x: [2, 3, 4], axis=1)   →   f = Flatten(x, axis=1); s = Softmax(f, axis=-1);
                                                      y = Reshape(s, Shape(x))

A step is `(version, adapter)`: the adapter turns a node that follows an older version into one that
follows `version`. It changes the node in place, or returns the nodes that replace it. Operator
versions that are not listed only widened the types or made a default explicit.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from headrace.errors import InvalidModel, UnsupportedOperator
from headrace.graph import schemas
from headrace.graph.facts import label
from headrace.graph.rewrite import BASE_OPSET, Walk, drop_attributes
from headrace.passes.adapt_arguments import ARGUMENT_STEPS
from headrace.passes.adapt_meaning import MEANING_STEPS

Adapter = Callable[[ir.Node, Walk], "list[ir.Node] | None"]

STEPS: dict[str, list[tuple[int, Adapter]]] = {}
for _op, _version, _adapter in (*ARGUMENT_STEPS, *MEANING_STEPS):
    STEPS.setdefault(_op, []).append((_version, _adapter))
for _steps in STEPS.values():
    _steps.sort(key=lambda step: step[0])


def upgrade(node: ir.Node, walk: Walk) -> list[ir.Node] | None:
    """Apply the adapters between the node's version and BASE_OPSET."""
    if node.domain != "" or node.op_identifier() in walk.functions:
        return None
    version = walk.version(node)
    if version >= BASE_OPSET:
        node.version = version
        return None
    schema = schemas.find(node.op_type, version)
    if schema is None:
        raise UnsupportedOperator(node.op_type, label(node), "normalise", f"ONNX opset {version} has no such operator")
    since = schema.since_version
    if since < 6:
        drop_attributes(node, "consumed_inputs")
    for target, adapter in STEPS.get(node.op_type, ()):
        if since < target <= BASE_OPSET:
            replacement = adapter(node, walk)
            if replacement is None or node in replacement:
                node.version = target
            if replacement is not None:
                return replacement
    node.version = BASE_OPSET
    if schemas.find(node.op_type, BASE_OPSET) is None:
        raise UnsupportedOperator(node.op_type, label(node), "normalise", "the operator was removed from ONNX")
    return None


def check_known(node: ir.Node, walk: Walk) -> list[ir.Node] | None:
    """Refuse operators of foreign domains: nothing defines their meaning."""
    schema = schemas.find(node.op_type, walk.version(node), node.domain)
    if schema is None:
        place = f"domain {node.domain!r}" if node.domain else f"ONNX opset {walk.version(node)}"
        raise UnsupportedOperator(
            node.op_type,
            label(node),
            "normalise",
            f"{place} does not define it; export with standard ONNX operators, or include its function body",
        )
    if schema.deprecated:
        raise InvalidModel(f"node {label(node)!r}: {node.op_type} is removed in opset {walk.version(node)}")
    return None
