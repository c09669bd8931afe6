"""Reading at computed places: Gather, GatherElements, GatherND, OneHot."""

from __future__ import annotations

import numpy as np

from headrace.ops.registry import Node, lower
from headrace.ops.shape import normal_axis, out_shape
from headrace.program.build import Builder, Tensor
from headrace.program.dtypes import is_float
from headrace.program.expr import Expr, Extent, Scalar, cast, check, index, select


def place(b: Builder, node: Node, indices: Tensor, extents: tuple[Extent, ...]) -> Tensor:
    """The indices as given, or as a constant without negative ones when they are known.

    extents: of the axis that each element of the last dimension addresses, or one for all.
    """
    data = indices.data
    if data is None or not all(isinstance(e, int) for e in extents):
        return indices
    limits = np.asarray(extents if len(extents) > 1 else extents[0], dtype=np.int64)
    if ((data < -limits) | (data >= limits)).any():
        raise node.refuse(f"an index is outside the axis of extent {list(extents)}", "correct the model")
    return b.constant(np.where(data < 0, data + limits, data).astype(np.int64), "indices")


def position(indices: Tensor, at: tuple[Scalar, ...], extent: Extent) -> Expr:
    """The element of `indices` as a safe index below `extent`; constant ones were checked by place()."""
    i = cast(indices[at], "index")
    if indices.data is not None and isinstance(extent, int):
        return i
    return check(select(i < 0, i + index(extent), i), extent)


@lower("Gather")
def gather(b: Builder, node: Node) -> Tensor:
    x = node.input(0)
    axis = normal_axis(node, node.attr("axis", 0), x.rank)
    indices = place(b, node, node.input(1), (x.shape[axis],))
    n = indices.rank

    def element(*i: Expr) -> Expr:
        at = position(indices, i[axis : axis + n], x.shape[axis])
        return x[(*i[:axis], at, *i[axis + n :])]

    return b.compute(out_shape(node), element)


@lower("GatherElements")
def gather_elements(b: Builder, node: Node) -> Tensor:
    x = node.input(0)
    axis = normal_axis(node, node.attr("axis", 0), x.rank)
    indices = place(b, node, node.input(1), (x.shape[axis],))

    def element(*i: Expr) -> Expr:
        return x[(*i[:axis], position(indices, i, x.shape[axis]), *i[axis + 1 :])]

    return b.compute(indices.shape, element)


@lower("GatherND")
def gather_nd(b: Builder, node: Node) -> Tensor:
    """out[batch…, j…, rest…] = x[batch…, indices[batch…, j…, :]…, rest…]."""
    x, given = node.input(0), node.input(1)
    batch = node.attr("batch_dims", 0)
    depth = given.shape[-1]
    if not isinstance(depth, int):
        raise node.refuse("the length of its index tuples is symbolic", "fix it with shapes=")
    addressed = x.shape[batch : batch + depth]
    indices = place(b, node, given, addressed)
    outer = indices.rank - 1

    def element(*i: Expr) -> Expr:
        at = [position(indices, (*i[:outer], k), addressed[k]) for k in range(depth)]
        return x[(*i[:batch], *at, *i[outer:])]

    return b.compute(out_shape(node), element)


@lower("OneHot")
def one_hot(b: Builder, node: Node) -> Tensor:
    """values[1] where the index (negative: from the end) equals the place on the new axis, else values[0]."""
    indices, values, shape = node.input(0), node.input(2), out_shape(node)
    axis = normal_axis(node, node.attr("axis", -1), len(shape))
    depth = index(shape[axis])

    def element(*i: Expr) -> Expr:
        given = indices[(*i[:axis], *i[axis + 1 :])]
        at = cast(cast(given, "i64") if is_float(given.dtype) else given, "index")
        hot = i[axis].eq(select(at < 0, at + depth, at))
        return select(hot, values[1], values[0])

    return b.compute(shape, element)
