"""DeformConv: sampling at displaced positions, then a contraction."""

from __future__ import annotations

import itertools
import math

from headrace.ops.conv import groups
from headrace.ops.numeric import wide
from headrace.ops.registry import Node, lower
from headrace.ops.window import inside, window
from headrace.program.build import Builder, Tensor
from headrace.program.expr import Expr, all_of, call, cast, index, select


def _sample(x: Tensor, n: Expr, c: Expr, place: list[Expr]) -> Expr:
    """Multilinear interpolation of the zero-padded signal; 0 where `place` is one or more outside it."""
    spatial = x.shape[2:]
    low = [call("floor", p) for p in place]
    weight = [p - q for p, q in zip(place, low, strict=True)]
    total: Expr | None = None
    for corner in itertools.product((0, 1), repeat=len(place)):
        at = [cast(q, "index") + k for q, k in zip(low, corner, strict=True)]
        value = select(inside(at, spatial), wide(x[(n, c, *at)]), 0)
        for w, k in zip(weight, corner, strict=True):
            value = value * (w if k else 1 - w)
        total = value if total is None else total + value
    if total is None:
        raise ValueError("a signal has at least one axis")
    near = [c for p, e in zip(place, spatial, strict=True) for c in (p > -1, p < cast(index(e), p.dtype))]
    return select(all_of(near), total, 0)


@lower("DeformConv")
def deform_conv(b: Builder, node: Node) -> Tensor:
    x, w, offset = node.input(0), node.input(1), node.input(2)
    bias, mask = node.optional(3), node.optional(4)
    outputs, within, *kernel = node.static(w, "weights' shape")
    channels = node.static(x)[1]
    rank, taps, sets = x.rank - 2, math.prod(kernel), int(node.attr("offset_group", 1))
    given = node.attr("kernel_shape")
    if rank < 1 or (given and list(given) != kernel):
        raise node.refuse(f"kernel_shape {given} and weights {w.shape} do not fit input {x.shape}", "correct them")
    if sets < 1 or channels % sets or node.static(offset)[1] != sets * taps * rank:
        raise node.refuse(
            f"offset_group {sets} does not fit {channels} channels and offsets {offset.shape}",
            "correct offset_group",
        )
    win = window(node, x.shape[2:], kernel)
    per_group = outputs // groups(node, x, w, outputs)
    shape = node.out_shapes[0] or ()

    def sampled(n: Expr, c: Expr, *ko: Expr) -> Expr:
        k, o = ko[:rank], ko[rank:]
        tap = index(0)
        for v, e in zip(k, kernel, strict=True):
            tap = tap * e + v
        tap = c // (channels // sets) * taps + tap
        base = win.positions(o, k)
        shift = [wide(offset[(n, tap * rank + d, *o)]) for d in range(rank)]
        value = _sample(x, n, c, [s + cast(p, s.dtype) for p, s in zip(base, shift, strict=True)])
        return value if mask is None else value * wide(mask[(n, tap, *o)])

    columns = b.compute((shape[0], channels, *kernel, *shape[2:]), sampled, "columns")

    def element(n: Expr, m: Expr, *o: Expr) -> Expr:
        first = m // per_group * within
        total = b.sum((within, *kernel), lambda c, *k: columns[(n, first + c, *k, *o)] * wide(w[(m, c, *k)]))
        return cast(total if bias is None else total + wide(bias[m]), x.dtype)

    return b.compute(shape, element)
