"""Multiply-accumulates of ONNX operators, from the extents of their inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from headrace.graph.symbolic import Dim, product

Dims = tuple[Dim, ...]
DimsOf = Callable[[ir.Value], "Dims | None"]


def macs(node: ir.Node, dims_of: DimsOf) -> Dim | None:
    """Multiply-accumulates of one run of a node; 0 for operators that are not products of matrices.

    None when an extent that matters is not known. Recurrent layers count their two matrix products,
    attention the two products per head, element-wise work is not counted.
    """
    rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx", "com.microsoft") else None
    if rule is None:
        return 0
    try:
        return rule(node, lambda value: _known(value, dims_of))
    except _Unknown:
        return None


class _Unknown(Exception):
    """An extent is not known."""


def _known(value: ir.Value | None, dims_of: DimsOf) -> Dims:
    dims = None if value is None else dims_of(value)
    if dims is None:
        raise _Unknown
    return dims


Get = Callable[["ir.Value | None"], Dims]
Rule = Callable[[ir.Node, Get], Dim]


def _conv(weight: int) -> Rule:
    """Every output element is a sum over one filter."""
    return lambda node, get: product(*get(node.outputs[0]), *get(node.inputs[weight])[1:])


def _conv_transpose(node: ir.Node, get: Get) -> Dim:
    """Every input element is multiplied with one filter."""
    return product(*get(node.inputs[0]), *get(node.inputs[1])[1:])


def _matmul(node: ir.Node, get: Get) -> Dim:
    return product(*get(node.outputs[0]), get(node.inputs[0])[-1])


def _gemm(node: ir.Node, get: Get) -> Dim:
    transposed = node.attributes.get_int("transA", 0)
    return product(*get(node.outputs[0]), get(node.inputs[0])[0 if transposed else 1])


def _recurrent(node: ir.Node, get: Get) -> Dim:
    """Both weight matrices [directions, gates * hidden, …] times every vector of the sequence."""
    length, batch = get(node.inputs[0])[:2]
    return length * product(batch, *get(node.inputs[1])) + length * product(batch, *get(node.inputs[2]))


def _attention(node: ir.Node, get: Get) -> Dim:
    """Queries times keys, weights times values; heads may lie in the last axis or on one of their own."""
    length = get(node.inputs[1])[-2]
    if len(node.inputs) > 4 and node.inputs[4] is not None:
        length = length + get(node.inputs[4])[-2]
    return product(length, *get(node.inputs[0])) + product(length, *get(node.outputs[0]))


def _einsum(node: ir.Node, get: Get) -> Dim:
    """One multiplication for every combination of all indices; none where a single operand is summed."""
    left = node.attributes.get_string("equation", "").replace(" ", "").split("->")[0].split(",")
    if len(left) < 2:
        return 0
    if any("." in part for part in left):
        raise _Unknown
    extents = {
        letter: extent
        for part, value in zip(left, node.inputs, strict=True)
        for letter, extent in zip(part, get(value), strict=True)
    }
    return product(*extents.values())


RULES: dict[str, Rule] = {
    "Conv": _conv(1),
    "ConvInteger": _conv(1),
    "QLinearConv": _conv(3),
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _attention,
    "Einsum": _einsum,
}
