"""Arithmetic, comparison, logic and activations: one element in, one element out, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable

from headrace.ops.registry import Node, lower
from headrace.program.build import Builder, Tensor
from headrace.program.expr import Expr, Extent, binary, call, cast, const, maximum, minimum, select
from headrace.program.dtypes import is_float


def broadcast(t: Tensor, i: tuple[Expr, ...]) -> Expr:
    """Element of `t` at the last axes of `i`, extent-1 axes repeated."""
    tail = i[len(i) - t.rank :] if t.rank else ()
    return t[tuple(0 if e == 1 else v for e, v in zip(t.shape, tail, strict=True))]


def _binary(b: Builder, node: Node, fn: Callable[[Expr, Expr], Expr]) -> Tensor:
    x, y = node.input(0), node.input(1)
    shape = node.out_shapes[0] or ()
    return b.compute(shape, lambda *i: fn(broadcast(x, i), broadcast(y, i)))


_ARITHMETIC = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "And": "and", "Or": "or", "Xor": "xor",
    "Less": "lt", "LessOrEqual": "le", "Equal": "eq", "BitwiseAnd": "and", "BitwiseOr": "or",
    "BitwiseXor": "xor",
}  # fmt: skip


@lower(*_ARITHMETIC)
def arithmetic(b: Builder, node: Node) -> Tensor:
    op = _ARITHMETIC[node.op]
    return _binary(b, node, lambda x, y: binary(op, x, y))


@lower("Greater", "GreaterOrEqual")
def greater(b: Builder, node: Node) -> Tensor:
    op = "lt" if node.op == "Greater" else "le"
    return _binary(b, node, lambda x, y: binary(op, y, x))


_UNARY = {
    "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Tanh": "tanh", "Sigmoid": "sigmoid", "Erf": "erf",
    "Sin": "sin", "Cos": "cos", "Tan": "tan", "Asin": "asin", "Acos": "acos", "Atan": "atan",
    "Sinh": "sinh", "Cosh": "cosh", "Asinh": "asinh", "Acosh": "acosh", "Atanh": "atanh",
    "Floor": "floor", "Ceil": "ceil", "Round": "round", "Neg": "neg", "Abs": "abs", "Softplus": "softplus",
    "IsNaN": "isnan", "Not": "not", "BitwiseNot": "not",
}  # fmt: skip


@lower(*_UNARY)
def unary(b: Builder, node: Node) -> Tensor:
    x = node.input(0)
    return b.compute(x.shape, lambda *i: call(_UNARY[node.op], x[i]))


@lower("Relu")
def relu(b: Builder, node: Node) -> Tensor:
    x = node.input(0)
    return b.compute(x.shape, lambda *i: maximum(x[i], 0))
