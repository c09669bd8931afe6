"""Compute what is fixed: nodes with constant inputs, and contents known from shapes.

    s = Shape(x: [1, 3, 8]); n = Gather(s, 2); y = Mul(n, 2)   →   y = 16

A result may not be much larger than what it is computed from, so that a broadcast stays a broadcast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from headrace.graph import schemas
from headrace.graph.rewrite import Walk, attribute, replace_node, subgraphs
from headrace.graph.symbolic import SymDim
from headrace.passes.evaluate import evaluate
from headrace.passes.infer import node_proto
from headrace.passes.walk import NAME, PIN

SMALL_BYTES = 64 * 1024
MAX_BYTES = 64 * 2**20
MAX_GROWTH = 16

DEQUANTISED = "headrace.dequantised"  # in the meta of a constant: the bytes that it was

_SLOW = frozenset(("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "LSTM", "GRU", "RNN", "Resize"))


@dataclass(frozen=True)
class Dequantised:
    """(bytes - zero)·scale; zero and scale are one value, or one for each index of the axis."""

    bytes: np.ndarray[Any, Any]
    scale: np.ndarray[Any, Any]
    zero: np.ndarray[Any, Any] | None
    axis: int


def fold(node: ir.Node, walk: Walk) -> list[ir.Node] | None:
    """Replace a node whose outputs can be computed now by initializers."""
    if PIN in node.meta or node.op_type in walk.keep:
        return None
    if node.op_type == "Constant" and node.domain == "":
        return _replace(node, [_constant_tensor(node)], walk)
    if not _may_fold(node, walk):
        return None
    inputs = [None if value is None else _array(value) for value in node.inputs]
    try:
        with np.errstate(all="ignore"):
            results = _run(node, inputs, walk)
    except Exception:  # the reference evaluator has gaps; an unfolded node is still right
        return None
    if len(results) != len(node.outputs) or not all(map(_matches, node.outputs, results)):
        return None
    tensors = [ir.Tensor(np.ascontiguousarray(r).reshape(r.shape), dtype=o.dtype)
               for o, r in zip(node.outputs, results, strict=True)]  # fmt: skip
    return _replace(node, list(tensors), walk)


def fold_contents(node: ir.Node, walk: Walk) -> list[ir.Node] | None:
    """Note contents known from shapes; a node whose contents have no symbol left becomes a constant."""
    facts = walk.facts
    if node.op_type in walk.keep:
        return None
    results = evaluate(node, facts)
    if results is None:
        return None
    for value, content in zip(node.outputs, results, strict=False):
        if content is not None:
            facts.contents[value] = content
    fixed = all(c is not None and not any(isinstance(i, SymDim) for i in c.reshape(-1)) for c in results)
    if not fixed or PIN in node.meta:
        return None
    tensors = []
    for value, content in zip(node.outputs, results, strict=True):
        assert content is not None and value.dtype is not None
        tensors.append(ir.Tensor(content.astype(value.dtype.numpy()), dtype=value.dtype))
    return _replace(node, list(tensors), walk)


def _array(value: ir.Value) -> np.ndarray[Any, Any]:
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy())


def _may_fold(node: ir.Node, walk: Walk) -> bool:
    schema = schemas.get(node.op_type, walk.version(node), node.domain)
    if not schemas.is_deterministic(schema) or any(subgraphs(node)):
        return False
    given = [value for value in node.inputs if value is not None]
    if not given or any(walk.facts.constant(value) is None for value in given):
        return False
    size = 0
    for value in node.outputs:
        dims = walk.facts.dims.get(value)
        if dims is None or value.dtype is None or any(isinstance(dim, SymDim) for dim in dims):
            return False
        size += math.prod(dim for dim in dims if isinstance(dim, int)) * (value.dtype.bitwidth + 7) // 8
    source = sum(value.const_value.nbytes for value in given if value.const_value is not None)
    if size > max(SMALL_BYTES, source, min(MAX_GROWTH * source, MAX_BYTES)):
        return False
    return node.op_type not in _SLOW or (size <= SMALL_BYTES and source <= SMALL_BYTES)


def _run(node: ir.Node, inputs: list[np.ndarray[Any, Any] | None], walk: Walk) -> list[np.ndarray[Any, Any]]:
    view = _VIEWS.get(node.op_type) if node.domain == "" else None
    if view is not None:
        result = view(node, inputs)
        if result is not None:
            return [result]
    proto = node_proto(node)
    feeds = {f"i{i}": array for i, array in enumerate(inputs) if array is not None}
    evaluator = ReferenceEvaluator(proto, opsets={node.domain: walk.version(node), "": 26} if node.domain else
                                   {"": walk.version(node)})  # fmt: skip
    return [np.asarray(item) for item in evaluator.run(None, feeds)]


def _transpose(node: ir.Node, inputs: list[np.ndarray[Any, Any] | None]) -> np.ndarray[Any, Any] | None:
    perm = node.attributes.get("perm")
    assert inputs[0] is not None
    return np.transpose(inputs[0], None if perm is None else perm.as_ints())


def _reshaped(node: ir.Node, inputs: list[np.ndarray[Any, Any] | None]) -> np.ndarray[Any, Any] | None:
    shape = node.outputs[0].shape
    assert inputs[0] is not None
    return None if shape is None else inputs[0].reshape(shape.numpy())


_VIEWS = {
    "Transpose": _transpose,
    "Reshape": _reshaped,
    "Squeeze": _reshaped,
    "Unsqueeze": _reshaped,
    "Flatten": _reshaped,
    "Identity": _reshaped,
}


def _matches(value: ir.Value, result: np.ndarray[Any, Any]) -> bool:
    if value.shape is None or value.dtype is None:
        return False
    same_type = value.dtype == ir.DataType.STRING or result.dtype == value.dtype.numpy()
    return same_type and tuple(result.shape) == value.shape.numpy()


def _constant_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    for name, attr in node.attributes.items():
        if name == "value":
            return attr.as_tensor()
        if name in ("value_float", "value_floats"):
            return ir.Tensor(np.array(attr.value, np.float32))
        if name in ("value_int", "value_ints"):
            return ir.Tensor(np.array(attr.value, np.int64))
        if name in ("value_string", "value_strings"):
            items = [attr.value] if name == "value_string" else list(attr.value)
            shape = [] if name == "value_string" else [len(items)]
            return ir.StringTensor([item.encode() for item in items], shape=ir.Shape(shape))
    return None


def _dequantised(node: ir.Node) -> Dequantised | None:
    if attribute(node, "block_size", 0):
        return None
    given = [None if value is None else _array(value) for value in node.inputs]
    data, scale, zero = (*given, None)[:3]
    assert data is not None and scale is not None
    return Dequantised(data, scale, zero, int(attribute(node, "axis", 1)))


def _replace(node: ir.Node, tensors: list[ir.TensorProtocol | None], walk: Walk) -> list[ir.Node] | None:
    if any(tensor is None for tensor in tensors):
        return None
    values: list[ir.Value | None] = []
    for old, tensor in zip(node.outputs, tensors, strict=True):
        assert tensor is not None
        used = bool(old.uses()) or old.is_graph_output()
        name = old.name or f"{node.op_type}/const"
        new = walk.initializer(tensor, name) if used else None
        if new is not None:
            new.meta[NAME] = name
            if node.op_type == "DequantizeLinear" and node.domain == "":
                new.meta[DEQUANTISED] = _dequantised(node)
        values.append(new)
    return replace_node(node, [], values)
