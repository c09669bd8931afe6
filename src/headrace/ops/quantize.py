"""QuantizeLinear and DequantizeLinear, with one scale per tensor, index of an axis, or block of an axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from headrace.ops.numeric import axis_of
from headrace.ops.registry import Node, lower
from headrace.program.build import Builder, Tensor
from headrace.program.dtypes import size_of
from headrace.program.expr import Expr, Scalar, call, cast

_PRECISION = {
    ir.DataType.FLOAT: "f32",
    ir.DataType.FLOAT16: "f16",
    ir.DataType.BFLOAT16: "bf16",
    ir.DataType.DOUBLE: "f64",
}


def parameter(node: Node, t: Tensor, x: Tensor, what: str) -> Callable[[Sequence[Expr]], Expr]:
    """Element of a scale or zero point that belongs to an element of `x`."""
    block = int(node.attr("block_size", 0) or 0)
    if all(e == 1 for e in t.shape) and t.rank <= 1:
        return lambda i: t[(0,) * t.rank]
    axis = axis_of(node, x.rank, 1)
    if t.rank == 1 and not block:
        if t.shape[0] != x.shape[axis]:
            raise node.refuse(f"its {what} has {t.shape[0]} values for {x.shape[axis]}", "correct the model")
        return lambda i: t[i[axis]]
    if t.rank != x.rank or block <= 0:
        raise node.refuse(
            f"its {what} has the shape {t.shape} with block_size {block}",
            "give one value, one for each index of the axis, or one for each block",
        )
    blocks = [t.shape[d] if d != axis else _blocks(node, x, axis, block) for d in range(x.rank)]
    if tuple(blocks) != t.shape or any(t.shape[d] != x.shape[d] for d in range(x.rank) if d != axis):
        raise node.refuse(f"its {what} has the shape {t.shape} for {x.shape}", "correct the model")

    def element(i: Sequence[Expr]) -> Expr:
        where: list[Scalar] = [v // block if d == axis else v for d, v in enumerate(i)]
        return t[tuple(where)]

    return element


def _blocks(node: Node, x: Tensor, axis: int, block: int) -> int:
    extent = x.shape[axis]
    if not isinstance(extent, int):
        raise node.refuse(f"the blocked axis has the symbolic extent {extent}", "fix it with shapes=")
    return -(-extent // block)


@lower("QuantizeLinear")
def quantize(b: Builder, node: Node) -> Tensor:
    """saturate(round_half_even(x / scale) + zero), the quotient formed in `precision` or the scale's type."""
    x, scale, zero = node.input(0), node.input(1), node.optional(2)
    dtype = node.out_dtypes[0] or "u8"
    wanted = int(node.attr("precision", 0) or 0)
    if wanted and ir.DataType(wanted) not in _PRECISION:
        raise node.refuse(f"precision {wanted} is no float type", "use float, float16, bfloat16 or double")
    precision = _PRECISION[ir.DataType(wanted)] if wanted else scale.dtype
    if precision not in _PRECISION.values():
        raise node.refuse(f"its scale is {scale.dtype}", "give the scale as float")
    scale_of = parameter(node, scale, x, "scale")
    zero_of = parameter(node, zero, x, "zero point") if zero is not None else None

    def element(*i: Expr) -> Expr:
        q = call("round", cast(x[i], precision) / cast(scale_of(i), precision))
        q = cast(q, "f32") if size_of(precision) < 4 else q
        if zero_of is not None:
            q = q + cast(zero_of(i), q.dtype)
        return cast(q, dtype, "round")

    return b.compute(x.shape, element)


@lower("DequantizeLinear")
def dequantize(b: Builder, node: Node) -> Tensor:
    """(x - zero) * scale, the difference exact and the product formed in f32."""
    x, scale, zero = node.input(0), node.input(1), node.optional(2)
    dtype = node.out_dtypes[0] or scale.dtype
    scale_of = parameter(node, scale, x, "scale")
    zero_of = parameter(node, zero, x, "zero point") if zero is not None else None
    exact = "i64" if size_of(x.dtype) >= 4 else "i32"

    def element(*i: Expr) -> Expr:
        difference = x[i] if zero_of is None else cast(x[i], exact) - cast(zero_of(i), exact)
        return cast(cast(difference, "f32") * cast(scale_of(i), "f32"), dtype)

    return b.compute(x.shape, element)
