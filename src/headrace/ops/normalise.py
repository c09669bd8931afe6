"""Normalisation: batch, instance, layer, group, RMS, local response, mean-variance, Lp."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headrace.ops.numeric import accumulator, axis_of, broadcast, count, need_float, wide
from headrace.ops.pool import power, root
from headrace.ops.registry import Node, lower
from headrace.program.build import Builder, Tensor
from headrace.program.dtypes import numpy_dtype
from headrace.program.expr import Expr, Extent, all_of, call, cast, const, index, select

Row = tuple[Expr, ...]


@lower("BatchNormalization")
def batch_normalization(b: Builder, node: Node) -> Tensor:
    x, scale, bias, mean, variance = (node.input(i) for i in range(5))
    if int(node.attr("training_mode", 0)):
        raise node.refuse("it is in training form", "export the model for inference (training_mode=0)")
    dtype = accumulator(x.dtype)
    epsilon = float(node.attr("epsilon", 1e-5))
    fixed = [None if t.data is None else t.data.astype(np.float64) for t in (scale, bias, mean, variance)]
    if all(a is not None for a in fixed):
        s, t, m, v = (a for a in fixed if a is not None)
        slope = s / np.sqrt(v + epsilon)
        slopes = b.constant(slope.astype(numpy_dtype(dtype)), "slope")
        offsets = b.constant((t - m * slope).astype(numpy_dtype(dtype)), "offset")

        def folded(*i: Expr) -> Expr:
            c = i[1] if x.rank > 1 else index(0)
            return cast(wide(x[i]) * slopes[c] + offsets[c], x.dtype)

        return b.compute(x.shape, folded)

    def element(*i: Expr) -> Expr:
        c = i[1] if x.rank > 1 else index(0)
        a, d, m, v = (cast(t[c], dtype) for t in (scale, bias, mean, variance))
        return cast((wide(x[i]) - m) / call("sqrt", v + epsilon) * a + d, x.dtype)

    return b.compute(x.shape, element)


def _moments(
    b: Builder,
    rows: tuple[Extent, ...],
    box: tuple[Extent, ...],
    at: Callable[[Row, Row], Expr],
) -> tuple[Tensor, Tensor]:
    """Mean and mean squared deviation of at(row, inner index) over `box`, for each row."""

    def mean_of(*r: Expr) -> Expr:
        total = b.sum(box, lambda *k: at(r, k))
        return total / count(box, total.dtype)

    mean = b.compute(rows, mean_of, "mean")

    def variance_of(*r: Expr) -> Expr:
        def square(*k: Expr) -> Expr:
            d = at(r, k) - mean[r]
            return d * d

        total = b.sum(box, square)
        return total / count(box, total.dtype)

    return mean, b.compute(rows, variance_of, "variance")


def _inverse(b: Builder, spread: Tensor, epsilon: float) -> Tensor:
    """1/√(spread + epsilon)"""
    return b.compute(spread.shape, lambda *r: const(1, spread.dtype) / call("sqrt", spread[r] + epsilon), "inverse")


@lower("InstanceNormalization")
def instance_normalization(b: Builder, node: Node) -> Tensor:
    x, scale, bias = node.input(0), node.input(1), node.input(2)
    need_float(node, x)
    mean, variance = _moments(b, x.shape[:2], x.shape[2:], lambda r, k: wide(x[(*r, *k)]))
    inverse = _inverse(b, variance, float(node.attr("epsilon", 1e-5)))

    def element(*i: Expr) -> Expr:
        r, c = i[:2], i[1]
        return cast((wide(x[i]) - mean[r]) * inverse[r] * wide(scale[c]) + wide(bias[c]), x.dtype)

    return b.compute(x.shape, element)


@lower("GroupNormalization")
def group_normalization(b: Builder, node: Node) -> Tensor:
    x, scale, bias = node.input(0), node.input(1), node.input(2)
    need_float(node, x)
    groups, channels = int(node.attr("num_groups", 1)), x.shape[1]
    if not isinstance(channels, int) or groups < 1 or channels % groups:
        raise node.refuse(f"num_groups {groups} does not divide the {channels} channels", "correct num_groups")
    each = channels // groups

    def at(r: Row, k: Row) -> Expr:
        return wide(x[(r[0], r[1] * each + k[0], *k[1:])])

    mean, variance = _moments(b, (x.shape[0], groups), (each, *x.shape[2:]), at)
    inverse = _inverse(b, variance, float(node.attr("epsilon", 1e-5)))

    def element(*i: Expr) -> Expr:
        r, c = (i[0], i[1] // each), i[1]
        return cast((wide(x[i]) - mean[r]) * inverse[r] * wide(scale[c]) + wide(bias[c]), x.dtype)

    return b.compute(x.shape, element)


@lower("LayerNormalization")
def layer_normalization(b: Builder, node: Node) -> list[Tensor | None]:
    x, scale, bias = node.input(0), node.input(1), node.optional(2)
    need_float(node, x)
    axis = axis_of(node, x.rank, -1)
    rows, box = x.shape[:axis], x.shape[axis:]
    mean, variance = _moments(b, rows, box, lambda r, k: wide(x[(*r, *k)]))
    inverse = _inverse(b, variance, float(node.attr("epsilon", 1e-5)))

    def element(*i: Expr) -> Expr:
        r = i[:axis]
        y = (wide(x[i]) - mean[r]) * inverse[r] * wide(broadcast(scale, i))
        return cast(y if bias is None else y + wide(broadcast(bias, i)), x.dtype)

    def kept(t: Tensor, n: int) -> Tensor | None:
        dtype = node.out_dtypes[n] if node.wants(n) else None
        if dtype is None:
            return None
        return b.compute(node.out_shapes[n] or (), lambda *i: cast(t[i[:axis]], dtype))

    y = b.compute(x.shape, element) if node.wants(0) else None
    return [y, kept(mean, 1), kept(inverse, 2)]


@lower("RMSNormalization")
def rms_normalization(b: Builder, node: Node) -> Tensor:
    x, scale = node.input(0), node.input(1)
    need_float(node, x)
    axis = axis_of(node, x.rank, -1)
    box = x.shape[axis:]

    def mean_square(*r: Expr) -> Expr:
        def square(*k: Expr) -> Expr:
            v = wide(x[(*r, *k)])
            return v * v

        total = b.sum(box, square)
        return total / count(box, total.dtype)

    spread = b.compute(x.shape[:axis], mean_square, "mean_square")
    inverse = _inverse(b, spread, float(node.attr("epsilon", 1e-5)))
    return b.compute(
        node.out_shapes[0] or (),
        lambda *i: cast(wide(x[i]) * inverse[i[:axis]] * wide(broadcast(scale, i)), x.dtype),
    )


@lower("LRN")
def lrn(b: Builder, node: Node) -> Tensor:
    x = node.input(0)
    need_float(node, x)
    size, channels = int(node.attr("size", 0)), x.shape[1]
    if size < 1:
        raise node.refuse(f"size is {size}", "use a positive size")
    alpha, beta, bias = (float(node.attr(k, v)) for k, v in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))

    def element(*i: Expr) -> Expr:
        def square(k: Expr) -> Expr:
            c = i[1] + k - (size - 1) // 2
            v = wide(x[(i[0], c, *i[2:])])
            return select(all_of([c >= 0, c < index(channels)]), v * v, 0)

        total = b.sum((size,), square) * (alpha / size) + bias
        return cast(wide(x[i]) / call("pow", total, beta), x.dtype)

    return b.compute(x.shape, element)


@lower("MeanVarianceNormalization")
def mean_variance_normalization(b: Builder, node: Node) -> Tensor:
    x = node.input(0)
    need_float(node, x)
    given = node.attr("axes")
    axes = {int(a) % x.rank for a in ([0, 2, 3] if given is None else given)}
    kept = [d for d in range(x.rank) if d not in axes]
    order = [*kept, *sorted(axes)]

    def at(r: Row, k: Row) -> Expr:
        place = dict(zip(order, (*r, *k), strict=True))
        return wide(x[tuple(place[d] for d in range(x.rank))])

    mean, variance = _moments(b, tuple(x.shape[d] for d in kept), tuple(x.shape[d] for d in sorted(axes)), at)

    def element(*i: Expr) -> Expr:
        r = tuple(i[d] for d in kept)
        return cast((wide(x[i]) - mean[r]) / (call("sqrt", variance[r]) + 1e-9), x.dtype)

    return b.compute(x.shape, element)


@lower("LpNormalization")
def lp_normalization(b: Builder, node: Node) -> Tensor:
    x = node.input(0)
    need_float(node, x)
    axis, p = axis_of(node, x.rank, -1), int(node.attr("p", 2))
    if p not in (1, 2):
        raise node.refuse(f"p is {p}", "the operator is defined for p = 1 and p = 2")
    rest = x.shape[:axis] + x.shape[axis + 1 :]

    def norm_of(*r: Expr) -> Expr:
        return root(b.sum((x.shape[axis],), lambda k: power(wide(x[(*r[:axis], k, *r[axis:])]), p)), p)

    norm = b.compute(rest, norm_of, "norm")

    def element(*i: Expr) -> Expr:
        n = norm[(*i[:axis], *i[axis + 1 :])]
        return cast(select(n.eq(0), 0, wide(x[i]) / n), x.dtype)

    return b.compute(x.shape, element)
