"""Products of dequantised bytes become products of integers, scaled once.

    y = MatMul(DequantizeLinear(q, s, z), w), w = (p - n)·t   →   y = Mul(Cast(MatMulInteger(q, p, z, n)), s·t)

The weights stay bytes, a quarter of their size in f32. The sum is exact, where the sum of dequantised products
is rounded at every step: the result is at least as near to what the model says. It may differ from that of a
runtime in the last bits, and by one step where it is quantised again and lies that near to a tie.
Convolutions stay products of floats: without an instruction for products of four bytes those are faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from headrace.graph.facts import Facts
from headrace.graph.rewrite import Builder, Walk, attribute, get_input
from headrace.passes.fold import DEQUANTISED, Dequantised
from headrace.passes.linear import stand_in
from headrace.passes.notes import Notes

BYTES = (ir.DataType.INT8, ir.DataType.UINT8)
LEAST = 1 << 14  # weights: beside them, as f32, the first-level cache has no room for anything else
LEAST_INNER = 16
MOST_INNER = 1 << 15  # so that no sum of products of bytes overflows
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Operand:
    """(value - zero)·scale. One zero and scale, or one for each column."""

    value: ir.Value
    zero: Array | None
    scale: Array


def integer_products(node: ir.Node, walk: Walk, notes: Notes) -> list[ir.Node] | None:
    """MatMul or Gemm of a dequantised tensor and constant bytes.

    The weights alone decide, so that a model and its step model do the same.
    """
    if node.domain != "" or node.op_type not in ("MatMul", "Gemm") or node.outputs[0].dtype != ir.DataType.FLOAT:
        return None
    if attribute(node, "transA", 0) or float(attribute(node, "alpha", 1.0)) != 1:
        return None
    left = _dequantised(node.inputs[0], walk.facts)
    weights = node.inputs[1].meta.get(DEQUANTISED) if node.inputs[1] is not None else None
    bias = get_input(node, 2)
    if left is None or weights is None or (bias is not None and float(attribute(node, "beta", 1.0)) != 1):
        return None
    right = _columns(weights, bool(attribute(node, "transB", 0)))
    if right is None or len(walk.facts.dims[node.outputs[0]]) < 2:
        return None
    inner, columns = right[0].shape
    if not LEAST_INNER <= inner <= MOST_INNER or inner * columns < LEAST:
        return None
    made = _written(node, left, right, bias, walk)
    notes.count(f"{node.op_type} of dequantised bytes is a product of integers, with an exact sum", node)
    return stand_in(node, made, walk)


def _dequantised(value: ir.Value | None, facts: Facts) -> Operand | None:
    """The bytes that DequantizeLinear makes a value of, with one scale and zero point."""
    node = value.producer() if value is not None else None
    if node is None or node.domain != "" or node.op_type != "DequantizeLinear" or node.graph is None:
        return None
    source, scale, zero = node.inputs[0], facts.constant(node.inputs[1]), facts.constant(get_input(node, 2))
    if source is None or source.dtype not in BYTES or scale is None or scale.size != 1:
        return None
    if get_input(node, 2) is not None and (zero is None or zero.size != 1):
        return None
    return Operand(source, None if zero is None else zero.reshape(()), _float(scale).reshape(()))


def _columns(w: Dequantised, is_turned: bool) -> tuple[Array, Array, Array] | None:
    """(bytes of shape (inner, columns), zeros, scales), each of these one or one for each column."""
    if w.bytes.ndim != 2 or w.bytes.dtype.name not in ("int8", "uint8"):
        return None
    values = w.bytes.T if is_turned else w.bytes
    axis = w.axis % 2
    along_columns = axis == (0 if is_turned else 1)
    zero = np.zeros((), values.dtype) if w.zero is None else w.zero
    parts = []
    for p in (zero, _float(w.scale)):
        if p.size == 1:
            parts.append(p.reshape(()))
        elif p.ndim == 1 and along_columns and p.size == values.shape[1]:
            parts.append(p)
        else:
            return None
    return np.ascontiguousarray(values), parts[0], parts[1]


def _float(scale: Array) -> Array:
    return scale.astype(np.float32)


def _unsigned(array: Array) -> Array:
    """Moved by 128: runtimes may let sums of unsigned times signed bytes saturate, but not of unsigned ones."""
    return (array.astype(np.int16) + 128).astype(np.uint8)


def _written(
    node: ir.Node, left: Operand, right: tuple[Array, Array, Array], bias: ir.Value | None, walk: Walk
) -> list[ir.Node]:
    values, zeros, scales = right
    if left.value.dtype == ir.DataType.UINT8 and values.dtype == np.int8:
        values, zeros = _unsigned(values), _unsigned(zeros)
    make = Builder(walk, node)
    zero = None if left.zero is None or not left.zero.any() else make.const(left.zero, left.zero.dtype)
    weight_zero = make.const(zeros, zeros.dtype) if zeros.any() else None
    inputs = [left.value, make.const(values, values.dtype), zero, weight_zero]
    while inputs[-1] is None:
        inputs.pop()
    total = make.op("MatMulInteger", inputs)
    number = make.op("Cast", [total], to=int(ir.DataType.FLOAT))
    result = make.op("Mul", [number, make.const(left.scale * scales, np.float32)])
    types = ((total, ir.DataType.INT32), (number, ir.DataType.FLOAT), (result, ir.DataType.FLOAT))
    for value, kind in types:
        value.type = ir.TensorType(kind)
        walk.facts.set_dims(value, walk.facts.dims[node.outputs[0]])
    if bias is not None:
        make.op("Add", [result, bias])
    return make.nodes
