"""Contractions: MatMul, Gemm, Einsum, and their integer forms."""

from __future__ import annotations

from collections.abc import Callable

from headrace.ops.numeric import broadcast, multiplier, nonzero, requantise, wide
from headrace.ops.registry import Node, lower
from headrace.program.build import Builder, Tensor
from headrace.program.dtypes import is_float
from headrace.program.expr import Expr, Extent, cast, const

Element = Callable[[tuple[Expr, ...]], Expr]


def _contraction(b: Builder, x: Tensor, y: Tensor, left: Element, right: Element, i: tuple[Expr, ...]) -> Expr:
    """Σ over k of left·right for element `i` of numpy.matmul(x, y)."""
    batch = i[: len(i) - (x.rank > 1) - (y.rank > 1)]
    row = (i[len(batch)],) if x.rank > 1 else ()
    column = (i[-1],) if y.rank > 1 else ()
    inner = x.shape[-1]
    if not isinstance(inner, int) and isinstance(y.shape[-2 if y.rank > 1 else 0], int):
        inner = y.shape[-2 if y.rank > 1 else 0]

    def term(k: Expr) -> Expr:
        return left((*_batch(x, batch), *row, k)) * right((*_batch(y, batch), k, *column))

    return b.sum((inner,), term)


def _batch(t: Tensor, batch: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """Leading indices of an operand; axes of extent 1 repeat."""
    own = max(t.rank - 2, 0)
    tail = batch[len(batch) - own :] if own else ()
    return tuple(v * 0 if e == 1 else v for e, v in zip(t.shape[:own], tail, strict=True))


def _shape(node: Node) -> tuple[Extent, ...]:
    return node.out_shapes[0] or ()


@lower("MatMul")
def matmul(b: Builder, node: Node) -> Tensor:
    x, y = node.input(0), node.input(1)

    def element(*i: Expr) -> Expr:
        return cast(_contraction(b, x, y, lambda j: wide(x[j]), lambda j: wide(y[j]), i), x.dtype)

    return b.compute(_shape(node), element)


@lower("Gemm")
def gemm(b: Builder, node: Node) -> Tensor:
    x, y, c = node.input(0), node.input(1), node.optional(2)
    flip_x, flip_y = bool(node.attr("transA", 0)), bool(node.attr("transB", 0))
    alpha, beta = float(node.attr("alpha", 1.0)), float(node.attr("beta", 1.0))
    if not is_float(x.dtype) and not (alpha.is_integer() and beta.is_integer()):
        raise node.refuse(f"alpha {alpha} or beta {beta} is a fraction and the tensors are integers", "use floats")
    inner = x.shape[0] if flip_x else x.shape[1]

    def element(i: Expr, j: Expr) -> Expr:
        def term(k: Expr) -> Expr:
            return wide(x[(k, i) if flip_x else (i, k)]) * wide(y[(j, k) if flip_y else (k, j)])

        total = b.sum((inner,), term)
        if alpha != 1:
            total = total * const(alpha, total.dtype)
        if c is not None and beta != 0:
            bias = wide(broadcast(c, (i, j)))
            total = total + (bias if beta == 1 else bias * const(beta, total.dtype))
        return cast(total, x.dtype)

    return b.compute(_shape(node), element)


def _shifted(t: Tensor, zero: Tensor | None, rows: bool) -> Element:
    """Elements of an operand as i32, less its zero point: one, one per row (left) or column (right)."""
    zero = nonzero(zero)
    if zero is None:
        return lambda i: cast(t[i], "i32")
    if zero.rank == 1 and rows:
        return lambda i: cast(t[i], "i32") - cast(broadcast(zero, i[:-1]), "i32")
    return lambda i: cast(t[i], "i32") - cast(broadcast(zero, i), "i32")


@lower("MatMulInteger")
def matmul_integer(b: Builder, node: Node) -> Tensor:
    x, y = node.input(0), node.input(1)
    left, right = _shifted(x, node.optional(2), True), _shifted(y, node.optional(3), False)
    return b.compute(_shape(node), lambda *i: _contraction(b, x, y, left, right, i))


def _row_scale(b: Builder, t: Tensor) -> Tensor:
    """A parameter with one value per row, as a column."""
    if t.rank != 1 or t.shape[0] == 1:
        return t
    if t.data is not None:
        return b.constant(t.data.reshape(-1, 1), "row")
    return b.compute((t.shape[0], 1), lambda i, j: t[i], "row")


@lower("QLinearMatMul")
def qlinear_matmul(b: Builder, node: Node) -> Tensor:
    x, x_scale, x_zero, y, y_scale, y_zero, out_scale, out_zero = (node.input(i) for i in range(8))
    if x.rank < 2 or y.rank < 2:
        raise node.refuse(f"its operands have ranks {x.rank} and {y.rank}", "reshape vectors to matrices")
    scale = multiplier(b, node, _row_scale(b, x_scale), y_scale, _row_scale(b, out_scale))
    zero = _row_scale(b, out_zero)
    left, right = _shifted(x, x_zero, True), _shifted(y, y_zero, False)

    def element(*i: Expr) -> Expr:
        acc = _contraction(b, x, y, left, right, i)
        return requantise(acc, broadcast(scale, i), broadcast(zero, i))

    return b.compute(_shape(node), element)
