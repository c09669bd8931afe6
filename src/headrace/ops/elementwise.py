"""Arithmetic, comparison and logic: elements in, one element out, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable

from headrace.ops.numeric import broadcast, wide
from headrace.ops.registry import Node, lower
from headrace.program.build import Builder, Tensor
from headrace.program.dtypes import UNSIGNED, is_float, size_of
from headrace.program.expr import Expr, Scalar, all_of, binary, call, cast, const, maximum, minimum, select

__all__ = ["broadcast"]


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
    "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Tanh": "tanh", "Sigmoid": "sigmoid",
    "Sin": "sin", "Cos": "cos", "Tan": "tan", "Asin": "asin", "Acos": "acos", "Atan": "atan",
    "Sinh": "sinh", "Cosh": "cosh", "Asinh": "asinh", "Acosh": "acosh", "Atanh": "atanh",
    "Floor": "floor", "Ceil": "ceil", "Round": "round", "Neg": "neg", "Softplus": "softplus",
    "IsNaN": "isnan", "Not": "not", "BitwiseNot": "not",
}  # fmt: skip


def _map(b: Builder, node: Node, fn: Callable[[Expr], Expr]) -> Tensor:
    x = node.input(0)
    return b.compute(x.shape, lambda *i: fn(x[i]))


@lower(*_UNARY)
def unary(b: Builder, node: Node) -> Tensor:
    return _map(b, node, lambda x: call(_UNARY[node.op], x))


@lower("Abs")
def absolute(b: Builder, node: Node) -> Tensor:
    return _map(b, node, lambda x: x if x.dtype in UNSIGNED else call("abs", x))


@lower("Erf")
def erf(b: Builder, node: Node) -> Tensor:
    """The error function; on integers by way of f64, rounded toward zero."""
    return _map(
        b,
        node,
        lambda x: call("erf", x) if is_float(x.dtype) else cast(call("erf", cast(x, "f64")), x.dtype),
    )


@lower("Reciprocal")
def reciprocal(b: Builder, node: Node) -> Tensor:
    return _map(b, node, lambda x: 1.0 / x)


@lower("Sign")
def sign(b: Builder, node: Node) -> Tensor:
    """-1, 0 or 1; NaN stays."""

    def element(x: Expr) -> Expr:
        if x.dtype in UNSIGNED:
            return minimum(x, 1)
        rest: Scalar = select(x.eq(0), 0, x) if is_float(x.dtype) else 0
        return select(x > 0, const(1, x.dtype), select(x < 0, const(-1, x.dtype), rest))

    return _map(b, node, element)


@lower("IsInf")
def is_inf(b: Builder, node: Node) -> Tensor:
    positive, negative = bool(node.attr("detect_positive", 1)), bool(node.attr("detect_negative", 1))

    def element(x: Expr) -> Expr:
        if positive and negative:
            return call("isinf", x)
        if positive:
            return call("isinf", x) & (x > 0)
        return call("isinf", x) & (x < 0) if negative else const(False, "bool")

    return _map(b, node, element)


@lower("Clip")
def clip(b: Builder, node: Node) -> Tensor:
    """min(max(x, low), high): where low > high the result is high."""
    low, high = node.optional(1), node.optional(2)

    def element(x: Expr) -> Expr:
        if low is not None:
            x = maximum(x, _scalar(node, low))
        return x if high is None else minimum(x, _scalar(node, high))

    return _map(b, node, element)


def _scalar(node: Node, t: Tensor) -> Expr:
    """The only element of a tensor."""
    if any(e != 1 for e in t.shape):
        raise node.refuse(f"a bound has the shape {t.shape}", "give one value")
    return t[(0,) * t.rank]


@lower("Where")
def where(b: Builder, node: Node) -> Tensor:
    cond, x, y = node.input(0), node.input(1), node.input(2)
    return b.compute(node.out_shapes[0] or (), lambda *i: select(broadcast(cond, i), broadcast(x, i), broadcast(y, i)))


_VARIADIC: dict[str, Callable[[Expr, Expr], Expr]] = {
    "Min": minimum,
    "Max": maximum,
    "Sum": lambda x, y: x + y,
    "Mean": lambda x, y: x + y,
}


@lower(*_VARIADIC)
def variadic(b: Builder, node: Node) -> Tensor:
    """Left fold over any number of inputs; sums of half precision are formed in f32."""
    fold = _VARIADIC[node.op]
    inputs = [node.input(n) for n in range(len(node.inputs))]

    def element(*i: Expr) -> Expr:
        values = [broadcast(t, i) for t in inputs]
        if node.op in ("Sum", "Mean"):
            values = [wide(v) for v in values]
        total = values[0]
        for v in values[1:]:
            total = fold(total, v)
        if node.op == "Mean":
            total = total / len(values)
        return cast(total, inputs[0].dtype)

    return b.compute(node.out_shapes[0] or (), element)


@lower("Mod")
def modulo(b: Builder, node: Node) -> Tensor:
    """Sign of the divisor with fmod=0, of the dividend with fmod=1."""
    op = "fmod" if node.attr("fmod", 0) else "mod"
    return _binary(b, node, lambda x, y: binary(op, x, y))


@lower("BitShift")
def bit_shift(b: Builder, node: Node) -> Tensor:
    """Shift by fewer bits than the type has; beyond that 0, or -1 for a negative number to the right."""
    direction = node.attr("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise node.refuse(f"direction {direction!r} is unknown", "use LEFT or RIGHT")
    op = "shl" if direction == "LEFT" else "shr"
    known = node.input(1).data
    bits = 8 * size_of(node.input(0).dtype)
    plain = known is not None and bool(((known >= 0) & (known < bits)).all())

    def element(x: Expr, y: Expr) -> Expr:
        shifted = binary(op, x, y)
        if plain:
            return shifted
        signed = x.dtype not in UNSIGNED
        inside = all_of([y >= 0, y < bits]) if signed else y < bits
        fill = select(x < 0, const(-1, x.dtype), 0) if signed and op == "shr" else const(0, x.dtype)
        return select(inside, shifted, fill)

    return _binary(b, node, element)


@lower("Pow")
def power(b: Builder, node: Node) -> Tensor:
    """x ** y in the type of x. Integers: exact (modulo 2^bits) for integer y, else by way of f64."""
    x, y = node.input(0), node.input(1)
    if not is_float(x.dtype):
        if y.dtype == "u64":
            raise node.refuse("its exponent is an unsigned 64-bit integer", "cast the exponent to int64")
        return _binary(b, node, _integer_power)
    exponent = float(y.data.reshape(())) if y.data is not None and y.data.size == 1 else None
    special: dict[float | None, Callable[[Expr], Expr]] = {
        2.0: lambda v: v * v,
        3.0: lambda v: v * v * v,
        1.0: lambda v: v,
        -1.0: lambda v: 1.0 / v,
    }
    if exponent in special:
        return _binary(b, node, lambda v, _: cast(special[exponent](wide(v)), v.dtype))
    return _binary(b, node, lambda v, e: cast(binary("pow", wide(v), cast(e, wide(v).dtype)), v.dtype))


def _integer_power(x: Expr, y: Expr) -> Expr:
    if is_float(y.dtype):
        return cast(binary("pow", cast(x, "f64"), cast(y, "f64")), x.dtype)
    return cast(binary("pow", cast(x, "i64"), cast(y, "i64")), x.dtype)
