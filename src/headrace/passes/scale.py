"""Scales and offsets of channels become part of the weights beside them.

    y = Conv(x, w, b); z = BatchNormalization(y, …)   →   z = Conv(x, s·w, s·b + t)
    y = MatMul(x, w); z = Mul(Add(y, b), c)           →   z = Add(MatMul(x, c·w), c·b)
    y = Mul(x, s); z = Conv(y, w)                     →   z = Conv(x, w·s)

An offset *before* a convolution or product stays where it is: x − 1000 is exact for x near 1000, and
w·x − w·1000 is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from headrace.graph.facts import Facts
from headrace.graph.rewrite import Builder, Walk, attribute, get_input
from headrace.passes.linear import F64, FLOATS, Dense, along, constant, dense, finite, is_inner, may_copy, stand_in
from headrace.passes.notes import Notes

LINEAR = frozenset(("Conv", "ConvTranspose", "MatMul", "Gemm"))
SCALING = frozenset(("BatchNormalization", "Mul", "Div", "Add", "Sub"))


@dataclass(frozen=True)
class Affine:
    """source · scale + offset; each is one number or one for each channel, float64."""

    source: ir.Value
    scale: F64
    offset: F64 | None


def affine(node: ir.Node | None, axis: int, facts: Facts) -> Affine | None:
    """Read a node that scales the channels along an axis by constants, and offsets them."""
    if node is None or node.domain != "" or node.outputs[0].dtype not in FLOATS:
        return None
    if node.op_type == "BatchNormalization":
        return _batch_norm(node, facts) if axis == 1 else None
    if node.op_type not in SCALING:
        return None
    for i in (0, 1):
        source, given = node.inputs[i], facts.constant(node.inputs[1 - i])
        if given is None or source is None or facts.constant(source) is not None:
            continue
        values = along(given, node, i, axis, facts)
        if values is None or not finite(values) or (node.op_type == "Div" and (i == 1 or not values.all())):
            return None
        one = np.ones(())
        match node.op_type:
            case "Mul":
                return Affine(source, values, None)
            case "Div":
                return Affine(source, 1 / values, None)
            case "Add":
                return Affine(source, one, values)
            case _:
                return Affine(source, one, -values) if i == 0 else Affine(source, -one, values)
    return None


def _batch_norm(node: ir.Node, facts: Facts) -> Affine | None:
    source, given = node.inputs[0], [facts.constant(value) for value in node.inputs[1:5]]
    if (
        source is None
        or attribute(node, "training_mode", 0)
        or len(node.outputs) > 1
        or any(array is None for array in given)
    ):
        return None
    arrays = [array.astype(np.float64) for array in given if array is not None]
    if len(arrays) != 4 or not all(map(finite, arrays)):
        return None
    scale, bias, mean, variance = arrays
    spread = variance + float(attribute(node, "epsilon", 1e-5))
    if not (spread > 0).all():
        return None
    factor = scale / np.sqrt(spread)
    return Affine(source, factor, bias - mean * factor)


def absorb_after(node: ir.Node, walk: Walk, notes: Notes) -> list[ir.Node] | None:
    """Let a convolution or product do all the scales and offsets that follow it; this node is the last."""
    facts = walk.facts
    nodes, linear = _chain(node, facts)
    if linear is None or linear.domain != "" or linear.op_type not in LINEAR:
        return None
    spatial = linear.op_type.startswith("Conv")
    axis = 1 if spatial else len(facts.dims[linear.outputs[0]]) - 1
    found = _product([affine(one, axis, facts) for one in reversed(nodes)])
    if found is None or _goes_on(node, axis, facts):
        return None
    if spatial:
        made = _scaled_convolution(node, linear, found, walk)
    else:
        product = dense(linear.outputs[0], facts)
        made = None if product is None else _scaled_dense(node, product, found, len(nodes), walk)
    if made is None:
        return None
    for one in reversed(nodes):
        notes.count(f"{one.op_type} is folded into the weights of {linear.op_type}", one)
    return stand_in(node, made, walk)


def _chain(node: ir.Node, facts: Facts) -> tuple[list[ir.Node], ir.Node | None]:
    """Nodes that may be scales, from this one back, and what they work on; each is read by the next alone."""
    nodes: list[ir.Node] = []
    at: ir.Node | None = node
    while at is not None and at.domain == "" and at.op_type in SCALING:
        nodes.append(at)
        value = next((v for v in at.inputs if v is not None and facts.constant(v) is None), None)
        at = value.producer() if value is not None and is_inner(value, at) else None
    return nodes, at if nodes else None


def _product(parts: Sequence[Affine | None]) -> Affine | None:
    """All of them, the first one first, as one."""
    total: Affine | None = None
    for part in parts:
        if part is None:
            return None
        if total is None:
            total = part
            continue
        offset = part.offset
        if total.offset is not None:
            offset = total.offset * part.scale + (0 if offset is None else offset)
        total = Affine(total.source, total.scale * part.scale, offset)
    return total


def _goes_on(node: ir.Node, axis: int, facts: Facts) -> bool:
    """Whether a scale or offset follows, so that both are done with it and rounded once."""
    value = node.outputs[0]
    readers = [use.node for use in value.uses()]
    return len(readers) == 1 and is_inner(value, readers[0]) and affine(readers[0], axis, facts) is not None


def _scaled_convolution(node: ir.Node, linear: ir.Node, by: Affine, walk: Walk) -> list[ir.Node] | None:
    facts = walk.facts
    weights, bias = facts.constant(linear.inputs[1]), facts.constant(get_input(linear, 2))
    if weights is None or (bias is None and get_input(linear, 2) is not None) or not may_copy(linear, 1):
        return None
    channels = facts.dims[linear.outputs[0]][1]
    if not isinstance(channels, int):
        return None
    scale = np.broadcast_to(by.scale, (channels,))
    wide = weights.astype(np.float64)
    if linear.op_type == "Conv":
        wide = wide * scale.reshape(-1, *[1] * (wide.ndim - 1))
    else:  # (inputs, outputs / groups, *kernel)
        groups = int(attribute(linear, "group", 1))
        factors = np.repeat(scale.reshape(groups, -1), wide.shape[0] // groups, axis=0)
        wide = wide * factors.reshape(*factors.shape, *[1] * (wide.ndim - 2))
    total = None if bias is None else bias.astype(np.float64) * scale
    if by.offset is not None:
        total = np.broadcast_to(by.offset, (channels,)) + (0 if total is None else total)
    new = constant(walk, wide, node, "weights")
    added = None if total is None else constant(walk, total, node, "bias")
    if new is None or (total is not None and added is None):
        return None
    return [like(linear, [linear.inputs[0], new, *([] if added is None else [added])], node, walk)]


def _scaled_dense(node: ir.Node, product: Dense, by: Affine, steps: int, walk: Walk) -> list[ir.Node] | None:
    bare = product.nodes[0].op_type == "MatMul" and steps == 1 and bool((by.scale == 1).all())
    if bare or not may_copy(product.nodes[0], 1):
        return None  # a MatMul with its bias is as short as it gets
    bias = None if product.bias is None else product.bias * by.scale
    if by.offset is not None:
        bias = np.broadcast_to(by.offset, product.matrix.shape[1:]) + (0 if bias is None else bias)
    return write_dense(node, product, product.weights() * by.scale, bias, walk)


def absorb_before(node: ir.Node, walk: Walk, notes: Notes) -> list[ir.Node] | None:
    """Let the weights of a convolution or product do the scaling of its input."""
    facts = walk.facts
    source = get_input(node, 0)
    scaling = source.producer() if source is not None and is_inner(source, node) else None
    if node.domain != "" or scaling is None or node.op_type not in LINEAR:
        return None
    if node.op_type in ("MatMul", "Gemm"):
        product = dense(node.outputs[0], facts)
        found = affine(scaling, len(facts.dims[node.outputs[0]]) - 1, facts) if product is not None else None
        if product is None or found is None or found.offset is not None or not may_copy(node, 1):
            return None
        rows = product.weights() * np.broadcast_to(found.scale, product.matrix.shape[:1])[:, None]
        made = write_dense(node, replace(product, source=found.source), rows, product.bias, walk)
    else:
        found = affine(scaling, 1, facts)
        if found is None or found.offset is not None or not may_copy(node, 1):
            return None
        made = _scaled_inputs(node, found, walk)
    if made is None:
        return None
    notes.count(f"{scaling.op_type} is folded into the weights of {node.op_type}", scaling)
    return stand_in(node, made, walk)


def _scaled_inputs(node: ir.Node, by: Affine, walk: Walk) -> list[ir.Node] | None:
    weights = walk.facts.constant(node.inputs[1])
    channels = walk.facts.dims[by.source][1]
    if weights is None or not isinstance(channels, int):
        return None
    wide, scale = weights.astype(np.float64), np.broadcast_to(by.scale, (channels,))
    if node.op_type == "Conv":  # (outputs, inputs / groups, *kernel)
        groups = int(attribute(node, "group", 1))
        factors = np.repeat(scale.reshape(groups, -1), wide.shape[0] // groups, axis=0)
        wide = wide * factors.reshape(*factors.shape, *[1] * (wide.ndim - 2))
    else:
        wide = wide * scale.reshape(-1, *[1] * (wide.ndim - 1))
    new = constant(walk, wide, node, "weights")
    return None if new is None else [like(node, [by.source, new, *node.inputs[2:]], node, walk)]


def like(model: ir.Node, inputs: list[ir.Value | None], site: ir.Node, walk: Walk) -> ir.Node:
    """A node of the same operator and attributes with other inputs."""
    make = Builder(walk, site)
    made = make.op(model.op_type, inputs).producer()
    assert made is not None
    for attr in model.attributes.values():
        made.attributes[attr.name] = attr
    return made


def write_dense(node: ir.Node, like: Dense, weights: F64, bias: F64 | None, walk: Walk) -> list[ir.Node] | None:
    """Nodes for like.source · weights + bias in the place of a node: a Gemm for a Gemm, else MatMul and Add."""
    matrix = constant(walk, weights, node, "weights")
    row = None if bias is None else constant(walk, bias, node, "bias")
    if matrix is None or (bias is not None and row is None):
        return None
    make = Builder(walk, node)
    if like.nodes[0].op_type == "Gemm":
        make.op("Gemm", [like.source, matrix, *([] if row is None else [row])])
        return make.nodes
    product = make.op("MatMul", [like.source, matrix])
    if row is not None:
        make.op("Add", [product, row])
        product.type = node.outputs[0].type
        walk.facts.set_dims(product, walk.facts.dims[node.outputs[0]])
    return make.nodes
