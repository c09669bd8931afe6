"""What several families share: accumulator types, broadcasting parameters, requantisation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headrace.ops.registry import Node
from headrace.program.build import Builder, Tensor
from headrace.program.dtypes import is_float
from headrace.program.expr import Expr, Extent, call, cast, const, index

_WIDER = {"f16": "f32", "bf16": "f32", "i8": "i32", "i16": "i32", "u8": "u32", "u16": "u32"}


def accumulator(dtype: str) -> str:
    """The type in which sums of `dtype` are formed: f32 for half precision, 32 bits for small integers."""
    return _WIDER.get(dtype, dtype)


def wide(e: Expr) -> Expr:
    """`e` in the type of its accumulator."""
    return cast(e, accumulator(e.dtype))


def need_float(node: Node, t: Tensor) -> None:
    """Refuse integers where the operator is defined on floats only."""
    if not is_float(t.dtype):
        raise node.refuse(f"it is defined on floats, not on {t.dtype}", "cast the input to float")


def axis_of(node: Node, rank: int, default: int) -> int:
    """The attribute `axis`, counted from the front."""
    axis = int(node.attr("axis", default))
    if not -rank <= axis < max(rank, 1):
        raise node.refuse(f"axis {axis} is outside a tensor of rank {rank}", "correct the attribute")
    return axis + rank if axis < 0 else axis


def product(extents: tuple[Extent, ...]) -> Extent:
    """Number of elements of a box."""
    out: Extent = 1
    for e in extents:
        out = e * out if isinstance(e, Expr) else out * e
    return int(out.arg) if isinstance(out, Expr) and out.op == "const" else out


def count(extents: tuple[Extent, ...], dtype: str) -> Expr:
    """Number of elements of a box as a scalar of `dtype`."""
    n = product(extents)
    return const(n, dtype) if isinstance(n, int) else cast(index(n), dtype)


def multiplier(b: Builder, node: Node, x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """x_scale · w_scale / y_scale in f32, shaped like their broadcast; a constant if all three are."""
    if x.data is not None and w.data is not None and y.data is not None:
        f32 = np.float32
        return b.constant(x.data.astype(f32) * w.data.astype(f32) / y.data.astype(f32), "multiplier")
    shape = np.broadcast_shapes(*(node.static(t, "scale's shape") for t in (x, w, y)))

    def element(*i: Expr) -> Expr:
        x_scale, w_scale, y_scale = (cast(broadcast(t, i), "f32") for t in (x, w, y))
        return x_scale * w_scale / y_scale

    return b.compute(shape, element, "multiplier")


def broadcast(t: Tensor, i: tuple[Expr, ...]) -> Expr:
    """Element of `t` at the last axes of `i`; axes of extent 1 repeat."""
    tail = i[len(i) - t.rank :] if t.rank else ()
    return t[tuple(0 if e == 1 else v for e, v in zip(t.shape, tail, strict=True))]


def requantise(acc: Expr, scale: Expr, zero: Expr) -> Expr:
    """saturate(round_half_even(acc · scale) + zero) in the type of `zero`; the product is formed in f32."""
    return cast(call("round", cast(acc, "f32") * scale) + cast(zero, "f32"), zero.dtype, "round")


def along(t: Tensor | None, node: Node, what: str) -> Callable[[Expr], Expr] | None:
    """A quantisation parameter that is one value, or one for each index of an axis."""
    if t is None:
        return None
    if t.rank > 1:
        raise node.refuse(f"its {what} has shape {t.shape}", "give one value, or one for each output channel")
    if t.rank == 0:
        return lambda i: t[()]
    return (lambda i: t[0]) if t.shape[0] == 1 else (lambda i: t[i])


def nonzero(t: Tensor | None) -> Tensor | None:
    """A zero point; None where it is known to be 0."""
    return None if t is None or (t.data is not None and not t.data.any()) else t
