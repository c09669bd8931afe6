"""Two linear operators with nothing between them become one, where that is less work.

    y = Conv(x, a: [64, 1, 3, 3], group=2); z = Conv(y, b: [64, 64, 1, 1], c)
        →   z = Conv(x, b·a: [64, 2, 3, 3], c)
    y = MatMul(x, a); z = MatMul(y, b)   →   z = MatMul(x, a·b)

The product of the weights is computed in float64 and rounded once, so the result is as near to the exact
one as before. What differs: a value between that was NaN or infinite, or overflowed, is not made.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import onnx_ir as ir

from headrace.graph.facts import Facts, label
from headrace.graph.rewrite import Builder, Walk
from headrace.graph.symbolic import Dim, product
from headrace.ops.window import Window
from headrace.passes.linear import (
    F64,
    Convolution,
    Dense,
    constant,
    convolution,
    dense,
    is_inner,
    may_copy,
    spatial,
    stand_in,
    write_convolution,
)
from headrace.passes.notes import Notes
from headrace.passes.scale import write_dense
from headrace.passes.work import convolution_macs, convolution_work, dense_work, is_less

MAX_OPERATIONS = 1 << 32  # spent on one product of weights


def compose(node: ir.Node, walk: Walk, notes: Notes) -> list[ir.Node] | None:
    """Compose a node with the one before it."""
    if node.domain != "":
        return None
    if node.op_type == "Conv":
        return _compose_convolutions(node, walk, notes)
    return _compose_dense(node, walk, notes)


def _compose_convolutions(node: ir.Node, walk: Walk, notes: Notes) -> list[ir.Node] | None:
    facts, source = walk.facts, node.inputs[0]
    before = source.producer() if source is not None and is_inner(source, node) else None
    if before is None or before.op_type != "Conv":
        return None
    first, second = convolution(before, facts), convolution(node, facts)
    if first is None or second is None or why_not(before, first, node, second, facts) is not None:
        return None
    window = composed_window(first.window, second.window)
    weights, bias = composed_weights(first, second, window)
    new = constant(walk, weights, node, "weights")
    added = None if bias is None else constant(walk, bias, node, "bias")
    if new is None or (bias is not None and added is None):
        return None
    make = Builder(walk, node)
    groups = math.gcd(first.groups, second.groups)
    inputs = [first.source, new, *([] if added is None else [added])]
    write_convolution(make, inputs, groups, window)
    out = facts.dims[node.outputs[0]]
    old = product(1, convolution_macs(facts.dims[before.outputs[0]], first.weights.shape)) + convolution_macs(
        out, second.weights.shape
    )
    _say(notes, before, node, old, convolution_macs(out, weights.shape))
    return stand_in(node, make.nodes, walk)


def why_not(before: ir.Node, first: Convolution, node: ir.Node, second: Convolution, facts: Facts) -> str | None:
    """Why two convolutions stay two; None where one of them can do both, and with less work."""
    if not (may_copy(before, 1) and may_copy(node, 1)):
        return "their weights have other readers, and would be stored twice"
    reason = _padding(before, first, second.window, facts)
    if reason is not None:
        return reason
    groups = math.gcd(first.groups, second.groups)
    window = composed_window(first.window, second.window)
    shape = (second.outputs, first.weights.shape[1] * first.groups // groups, *window.kernel)
    middle, out = facts.dims[before.outputs[0]], facts.dims[node.outputs[0]]
    work = convolution_work(out, shape, groups)
    old = convolution_work(middle, first.weights.shape, first.groups) + convolution_work(
        out, second.weights.shape, second.groups
    )
    if not is_less(work, old, facts.symbols):
        return f"one convolution is no less work ({work}, now {old})"
    pairs = math.prod(first.window.kernel) * math.prod(second.window.kernel)
    if second.outputs * shape[1] * (first.outputs // groups) * pairs > MAX_OPERATIONS:
        return "the product of their weights takes too long to compute"
    return None


def _padding(before: ir.Node, first: Convolution, second: Window, facts: Facts) -> str | None:
    """Outside its extent the second reads zeros: there the first must give zeros too, from padding alone."""
    if not any(second.begin) and not any(second.end):
        return None
    if first.bias is not None and first.bias.any():
        return "the second pads with zeros, where the first would give its bias"
    extents, one = spatial(before, facts), first.window
    for a in range(len(second.kernel)):
        if second.begin[a] and one.reach[a] >= one.strides[a] + one.begin[a]:
            return "the second pads with zeros, where the first would still read its input"
        if not second.end[a]:
            continue
        if one.strides[a] == 1 and one.end[a] >= one.reach[a]:
            continue
        known = [side[a] for side in extents] if extents is not None else []
        if len(known) != 2 or not all(isinstance(n, int) for n in known):
            return "the second pads with zeros, and where the first ends is not known"
        if known[1] * one.strides[a] - one.begin[a] < known[0]:  # type: ignore[operator]
            return "the second pads with zeros, where the first would still read its input"
    return None


def composed_window(first: Window, second: Window) -> Window:
    """The window of `second` over `first`: steps of the second count as strides of the first."""
    rows = [_axis(first, second, a) for a in range(len(first.kernel))]
    kernel, strides, dilations, begin, end = (tuple(column) for column in zip(*rows, strict=True))
    return Window(kernel, strides, dilations, begin, end)


def _axis(first: Window, second: Window, a: int) -> tuple[int, int, int, int, int]:
    stride = first.strides[a]
    steps = [
        first.dilations[a] if first.kernel[a] > 1 else 0,
        second.dilations[a] * stride if second.kernel[a] > 1 else 0,
    ]
    dilation = math.gcd(*steps) or 1
    reach = first.reach[a] + second.reach[a] * stride
    begin, end = first.begin[a] + second.begin[a] * stride, first.end[a] + second.end[a] * stride
    return reach // dilation + 1, stride * second.strides[a], dilation, begin, end


def composed_weights(first: Convolution, second: Convolution, window: Window) -> tuple[F64, F64 | None]:
    """Weights (outputs, inputs / groups, *kernel) and bias of both convolutions as one, in float64."""
    groups = math.gcd(first.groups, second.groups)
    a, b = by_group(first, groups), by_group(second, groups)
    whole = (slice(None),) * 3
    total = np.zeros((groups, b.shape[1], a.shape[2], *window.kernel))
    for i in itertools.product(*map(range, first.window.kernel)):
        for j in itertools.product(*map(range, second.window.kernel)):
            at = tuple(
                (x * d + y * e * s) // step
                for x, d, y, e, s, step in zip(
                    i, first.window.dilations, j, second.window.dilations, first.window.strides, window.dilations,
                    strict=True,
                )
            )  # fmt: skip
            total[whole + at] += b[whole + j] @ a[whole + i]
    weights = total.reshape(second.outputs, a.shape[2], *window.kernel)
    bias = None if second.bias is None else second.bias.astype(np.float64)
    if first.bias is not None:
        row = first.bias.astype(np.float64).reshape(groups, -1, 1)
        taps = b.reshape(*b.shape[:3], -1).sum(axis=3)
        bias = (taps @ row).reshape(-1) + (0 if bias is None else bias)
    return weights, bias


def by_group(conv: Convolution, groups: int) -> F64:
    """Weights as (groups, outputs / groups, inputs / groups, *kernel) for fewer groups: zeros between the old."""
    inner = conv.groups // groups
    rows, columns, *kernel = conv.weights.shape
    rows //= conv.groups
    wide = np.zeros((groups, inner, rows, inner, columns, *kernel))
    old = conv.weights.astype(np.float64).reshape(groups, inner, rows, columns, *kernel)
    for n in range(inner):
        wide[:, n, :, n] = old[:, n]
    return wide.reshape(groups, inner * rows, inner * columns, *kernel)


def _compose_dense(node: ir.Node, walk: Walk, notes: Notes) -> list[ir.Node] | None:
    facts = walk.facts
    second = dense(node.outputs[0], facts) if node.op_type in ("MatMul", "Gemm", "Add") else None
    if second is None or not is_inner(second.source, second.nodes[0]):
        return None
    first = dense(second.source, facts)
    if first is None or not (may_copy(first.nodes[0], 1) and may_copy(second.nodes[0], 1)):
        return None
    if node.op_type == "MatMul" and first.bias is not None and _bias_follows(node, facts):
        return None  # done with the Add that follows
    dims = facts.dims[node.outputs[0]]
    rows = product(*dims[:-1])
    inner, middle = first.matrix.shape
    outputs = second.matrix.shape[1]
    work = dense_work(rows, inner, outputs)
    if not is_less(work, dense_work(rows, inner, middle) + dense_work(rows, middle, outputs), facts.symbols):
        return None
    if inner * middle * outputs > MAX_OPERATIONS:
        return None
    made = _composed_dense(node, first, second, walk)
    if made is None:
        return None
    _say(notes, first.nodes[0], second.nodes[0], product(rows, middle, inner + outputs), product(rows, inner, outputs))
    return stand_in(node, made, walk)


def _bias_follows(node: ir.Node, facts: Facts) -> bool:
    """Whether all that reads a product adds a constant row to it."""
    value = node.outputs[0]
    readers = [use.node for use in value.uses()]
    if len(readers) != 1 or not is_inner(value, readers[0]) or readers[0].op_type != "Add":
        return False
    found = dense(readers[0].outputs[0], facts)
    return found is not None and found.bias is not None


def _composed_dense(node: ir.Node, first: Dense, second: Dense, walk: Walk) -> list[ir.Node] | None:
    bias = second.bias
    if first.bias is not None:
        bias = first.bias @ second.weights() + (0 if bias is None else bias)
    kinds = {first.nodes[0].op_type, second.nodes[0].op_type}
    nodes = second.nodes if kinds == {"MatMul"} or second.nodes[0].op_type == "Gemm" else first.nodes
    weights = first.weights() @ second.weights()
    return write_dense(node, Dense(nodes, first.source, weights, 1.0, bias), weights, bias, walk)


def _say(notes: Notes, first: ir.Node, second: ir.Node, before: Dim, after: Dim) -> None:
    notes.say(
        f"{first.op_type} {label(first)!r} and {second.op_type} {label(second)!r} are one {second.op_type}: "
        f"{_count(before)} → {_count(after)} MAC; no value between them can overflow or be infinite any more"
    )


def _count(value: Dim) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
