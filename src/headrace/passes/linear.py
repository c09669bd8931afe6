"""Linear operators with constant weights, read from a graph and written back.

A convolution, or a product with a constant matrix on the right, is taken apart into arrays in float64;
what a pass makes of them is rounded once, when it becomes weights again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from headrace.graph.facts import Facts, label
from headrace.graph.rewrite import Builder, Walk, attribute, get_input, replace_node
from headrace.graph.symbolic import Dim
from headrace.ops.window import Window

F64 = npt.NDArray[np.float64]
FLOATS = frozenset((ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE))
SHARED_BYTES = 64 * 1024  # weights of several readers that may be copied for one of them


@dataclass(frozen=True)
class Convolution:
    """A Conv. weights: (outputs, inputs / groups, *kernel) as they are stored; bias: (outputs,) or None."""

    source: ir.Value
    weights: npt.NDArray[Any]
    bias: npt.NDArray[Any] | None
    groups: int
    window: Window

    @property
    def outputs(self) -> int:
        return int(self.weights.shape[0])


@dataclass(frozen=True)
class Dense:
    """source (…, K) times factor · matrix (K, N), plus bias (N,).

    nodes: a Gemm, a MatMul, or a MatMul and the Add after it; the last one makes the result.
    """

    nodes: tuple[ir.Node, ...]
    source: ir.Value
    matrix: npt.NDArray[Any]
    factor: float
    bias: F64 | None

    def weights(self) -> F64:
        """(K, N) in float64; made for every call."""
        return self.matrix.astype(np.float64) * self.factor


def write_convolution(make: Builder, inputs: Sequence[ir.Value | None], groups: int, window: Window) -> None:
    """Append a Conv with explicit padding."""
    make.op(
        "Conv",
        inputs,
        group=groups,
        kernel_shape=window.kernel,
        strides=window.strides,
        dilations=window.dilations,
        pads=(*window.begin, *window.end),
    )


def spatial(node: ir.Node, facts: Facts) -> tuple[tuple[Dim, ...], tuple[Dim, ...]] | None:
    """Spatial extents of a node's input and output."""
    source = get_input(node, 0)
    before = facts.dims.get(source) if source is not None else None
    after = facts.dims.get(node.outputs[0])
    return None if before is None or after is None else (before[2:], after[2:])


def window_of(node: ir.Node, kernel: Sequence[int], facts: Facts) -> Window | None:
    """The window with explicit padding; None where SAME padding depends on an open extent."""
    rank = len(kernel)
    strides = tuple(int(v) for v in attribute(node, "strides") or [1] * rank)
    dilations = tuple(int(v) for v in attribute(node, "dilations") or [1] * rank)
    pads = [int(v) for v in attribute(node, "pads") or [0] * (2 * rank)]
    auto = str(attribute(node, "auto_pad", "NOTSET"))
    if auto == "NOTSET":
        return Window(tuple(kernel), strides, dilations, tuple(pads[:rank]), tuple(pads[rank:]))
    begin, end = [0] * rank, [0] * rank
    if auto.startswith("SAME"):
        extents = spatial(node, facts)
        if extents is None or not all(isinstance(n, int) for n in (*extents[0], *extents[1])):
            return None
        for a, (size, count) in enumerate(zip(*extents, strict=True)):
            assert isinstance(size, int) and isinstance(count, int)
            total = max(0, (count - 1) * strides[a] + (kernel[a] - 1) * dilations[a] + 1 - size)
            begin[a], end[a] = total // 2, total - total // 2
            if auto == "SAME_LOWER":
                begin[a], end[a] = end[a], begin[a]
    return Window(tuple(kernel), strides, dilations, tuple(begin), tuple(end))


def convolution(node: ir.Node | None, facts: Facts) -> Convolution | None:
    """Read a Conv whose weights and bias are constants; None for anything else."""
    if node is None or node.domain != "" or node.op_type != "Conv" or node.outputs[0].dtype not in FLOATS:
        return None
    source, weights = node.inputs[0], facts.constant(get_input(node, 1))
    bias = facts.constant(get_input(node, 2))
    if source is None or weights is None or (bias is None and get_input(node, 2) is not None):
        return None
    if weights.size == 0:
        return None
    window = window_of(node, weights.shape[2:], facts)
    if window is None:
        return None
    return Convolution(source, weights, bias, int(attribute(node, "group", 1)), window)


def dense(value: ir.Value | None, facts: Facts) -> Dense | None:
    """Read the product with a constant matrix that makes a value, with its bias if it has one."""
    node = value.producer() if value is not None else None
    if node is None or node.domain != "" or node.outputs[0].dtype not in FLOATS:
        return None
    if node.op_type == "Gemm":
        return _gemm(node, facts)
    if node.op_type == "MatMul":
        return _matmul(node, facts)
    if node.op_type != "Add":
        return None
    for i in (0, 1):
        constant, other = facts.constant(node.inputs[1 - i]), node.inputs[i]
        product = other.producer() if other is not None else None
        if constant is None or product is None or product.op_type != "MatMul" or not is_inner(other, node):
            continue
        found = _matmul(product, facts)
        bias = None if found is None else along(constant, node, i, -1, facts)
        if found is None or bias is None:
            return None
        return Dense((product, node), found.source, found.matrix, 1.0, np.broadcast_to(bias, found.matrix.shape[1:]))
    return None


def _matmul(node: ir.Node, facts: Facts) -> Dense | None:
    source, weights = node.inputs[0], facts.constant(node.inputs[1])
    dims = facts.dims.get(source) if source is not None else None
    if source is None or dims is None or len(dims) < 2 or weights is None or weights.ndim != 2:
        return None
    return Dense((node,), source, weights, 1.0, None)


def _gemm(node: ir.Node, facts: Facts) -> Dense | None:
    source, weights, added = node.inputs[0], facts.constant(node.inputs[1]), get_input(node, 2)
    if source is None or weights is None or attribute(node, "transA", 0):
        return None
    matrix, factor = weights.T if attribute(node, "transB", 0) else weights, float(attribute(node, "alpha", 1.0))
    if added is None:
        return Dense((node,), source, matrix, factor, None)
    bias = facts.constant(added)
    if bias is None or bias.ndim > 2 or (bias.ndim == 2 and bias.shape[0] != 1):
        return None
    row = bias.astype(np.float64).reshape(-1) * float(attribute(node, "beta", 1.0))
    return Dense((node,), source, matrix, factor, np.broadcast_to(row, matrix.shape[1:]))


def along(constant: npt.NDArray[Any], node: ir.Node, i: int, axis: int, facts: Facts) -> F64 | None:
    """A constant operand of an element-wise node as one number, (), or one for each index of an axis, (n,).

    i: the other input, whose extents must be those of the result. None where the constant varies
    along another axis.
    """
    value = node.inputs[i]
    dims = facts.dims.get(value) if value is not None else None
    if dims is None or dims != facts.dims.get(node.outputs[0]) or constant.ndim > len(dims):
        return None
    wide = constant.astype(np.float64).reshape([1] * (len(dims) - constant.ndim) + list(constant.shape))
    if wide.size == 1:
        return wide.reshape(())
    if not dims or wide.size != wide.shape[axis] or wide.shape[axis] != dims[axis]:
        return None
    return wide.reshape(-1)


def finite(array: npt.NDArray[Any]) -> bool:
    """Whether there is neither infinity nor NaN in it."""
    return bool(np.isfinite(array).all())


def is_inner(value: ir.Value | None, reader: ir.Node) -> bool:
    """Whether `reader`, in the graph where the value is made, is all that reads it."""
    if value is None or value.is_graph_output() or len(value.uses()) != 1:
        return False
    producer = value.producer()
    return producer is not None and producer.graph is reader.graph


def may_copy(node: ir.Node, index: int) -> bool:
    """Whether the node may get weights of its own: those it has are its alone, or small."""
    value = node.inputs[index]
    assert value is not None
    return len(value.uses()) == 1 or (value.const_value is not None and value.const_value.nbytes <= SHARED_BYTES)


def rounded(array: F64, dtype: ir.DataType) -> npt.NDArray[Any] | None:
    """The array in that type; None where numbers that matter are out of its range."""
    kind = dtype.numpy()
    limits = ml_dtypes.finfo(kind)  # type: ignore[no-untyped-call]
    size = np.abs(array)
    if not np.isfinite(array).all() or size.max(initial=0.0) > float(limits.max):
        return None
    lost = (size < float(limits.smallest_normal)) & (size > float(limits.eps) * size.max(initial=0.0))
    return None if lost.any() else array.astype(kind)


def constant(walk: Walk, array: F64, node: ir.Node, what: str) -> ir.Value | None:
    """New weights for the result of a node; None where its type cannot hold them."""
    dtype = node.outputs[0].dtype
    assert dtype is not None
    values = rounded(array, dtype)
    return None if values is None else walk.constant(values, f"{label(node)}/{what}", dtype)


def stand_in(node: ir.Node, made: Sequence[ir.Node], walk: Walk) -> list[ir.Node]:
    """Let the new nodes' last result stand for a node's only used result; what nothing reads then goes."""
    old, new = node.outputs[0], made[-1].outputs[0]
    new.type = old.type
    walk.facts.set_dims(new, walk.facts.dims[old])
    sources, name = list(node.inputs), node.name
    nodes = replace_node(node, made, [new])
    made[-1].name = name
    for value in sources:
        remove_unread(value)
    return nodes


def remove_unread(value: ir.Value | None) -> None:
    """Remove the node that makes a value, and what only it reads, where nothing reads the value."""
    node = value.producer() if value is not None else None
    if node is None or node.graph is None or any(v.uses() or v.is_graph_output() for v in node.outputs):
        return
    sources = list(node.inputs)
    node.graph.remove(node, safe=True)
    for source in sources:
        remove_unread(source)
