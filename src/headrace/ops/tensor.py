"""Conversions of element type, and tensors made from shapes: Cast, Shape, Range, EyeLike, …"""

from __future__ import annotations

import numpy as np

from headrace.ops.numeric import product, wide
from headrace.ops.registry import Node, lower
from headrace.program.build import Builder, Tensor
from headrace.program.dtypes import INTEGERS, is_int, size_of
from headrace.program.expr import Expr, Extent, cast, const, index, select


@lower("Cast", "CastLike")
def convert(b: Builder, node: Node) -> Tensor:
    """Float → integer rounds toward zero and saturates (NaN gives 0); integers wrap; to bool: value ≠ 0."""
    x, dtype = node.input(0), node.out_dtypes[0] or node.input(0).dtype
    return b.compute(x.shape, lambda *i: cast(x[i], dtype))


@lower("BitCast")
def bit_cast(b: Builder, node: Node) -> Tensor:
    """The same bits as another integer type of the same size."""
    x, dtype = node.input(0), node.out_dtypes[0] or node.input(0).dtype
    same = x.dtype == dtype
    integers = x.dtype in INTEGERS and dtype in INTEGERS and size_of(x.dtype) == size_of(dtype)
    if not same and not integers:
        raise node.refuse(f"it reads {x.dtype} as {dtype}", "only integers of one size are reinterpreted")
    return b.compute(x.shape, lambda *i: cast(x[i], dtype))


@lower("ConstantOfShape")
def constant_of_shape(b: Builder, node: Node) -> Tensor:
    value = node.attr("value")
    fill = 0.0 if value is None else np.asarray(value).reshape(-1)[0].item()
    return b.compute(node.out_shapes[0] or (), lambda *i: const(fill, node.out_dtypes[0] or "f32"))


@lower("Shape")
def shape(b: Builder, node: Node) -> Tensor:
    x = node.input(0)
    extents = x.shape[slice(*_interval(node, x.rank))]
    if all(isinstance(e, int) for e in extents):
        return b.constant(np.array(extents, np.int64), "shape")
    return b.compute((len(extents),), lambda k: cast(_choose(k, extents), "i64"))


def _interval(node: Node, rank: int) -> tuple[int, int]:
    """Attributes start and end, counted from the front and clamped."""
    bounds = (node.attr("start", 0), node.attr("end", rank))
    start, end = (min(max(v + rank if v < 0 else v, 0), rank) for v in bounds)
    return start, max(start, end)


def _choose(k: Expr, extents: tuple[Extent, ...]) -> Expr:
    out = index(extents[-1])
    for n in range(len(extents) - 2, -1, -1):
        out = select(k.eq(n), index(extents[n]), out)
    return out


@lower("Size")
def size(b: Builder, node: Node) -> Tensor:
    n = product(node.input(0).shape)
    return b.constant(np.array(n, np.int64), "size") if isinstance(n, int) else b.compute((), lambda: n)


@lower("EyeLike")
def eye_like(b: Builder, node: Node) -> Tensor:
    """Ones on diagonal k."""
    k = int(node.attr("k", 0))
    dtype = node.out_dtypes[0] or "f32"
    one, zero = const(1, dtype), const(0, dtype)
    return b.compute(node.out_shapes[0] or (), lambda i, j: select(j.eq(i + k), one, zero))


@lower("Range")
def arange(b: Builder, node: Node) -> Tensor:
    """start + i*delta; half precision is formed in f32."""
    start, delta = node.input(0), node.input(2)

    def element(i: Expr) -> Expr:
        first, step = (wide(t[(0,) * t.rank]) if not is_int(t.dtype) else t[(0,) * t.rank] for t in (start, delta))
        return cast(cast(i, first.dtype) * step + first, start.dtype)

    return b.compute(node.out_shapes[0] or (), element)
