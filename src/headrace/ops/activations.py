"""Activation functions: Relu and its kin, smooth gates, shrinkage.

Half precision is computed in f32 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from headrace.ops.numeric import broadcast, wide
from headrace.ops.registry import Node, lower
from headrace.program.build import Builder, Tensor
from headrace.program.dtypes import UNSIGNED, is_float
from headrace.program.expr import Expr, call, cast, maximum, minimum, select

Function = Callable[[Expr], Expr]


@lower("Relu")
def relu(b: Builder, node: Node) -> Tensor:
    x = node.input(0)
    return b.compute(x.shape, lambda *i: maximum(x[i], 0))


def _leaky_relu(node: Node) -> Function:
    alpha = node.attr("alpha", 0.01)
    return lambda x: select(x < 0, x * alpha, x)


def _elu(node: Node) -> Function:
    alpha = node.attr("alpha", 1.0)
    return lambda x: select(x < 0, call("expm1", x) * alpha, x)


def _selu(node: Node) -> Function:
    alpha = node.attr("alpha", 1.67326319217681884765625)
    gamma = node.attr("gamma", 1.05070102214813232421875)
    return lambda x: select(x < 0, call("expm1", x) * (alpha * gamma), x * gamma)


def _celu(node: Node) -> Function:
    alpha = node.attr("alpha", 1.0)
    return lambda x: select(x < 0, call("expm1", x / alpha) * alpha, x)


def _thresholded_relu(node: Node) -> Function:
    alpha = node.attr("alpha", 1.0)
    return lambda x: select(x > alpha, x, 0)


def _hard_sigmoid(node: Node) -> Function:
    alpha, beta = node.attr("alpha", 0.2), node.attr("beta", 0.5)
    return lambda x: maximum(minimum(x * alpha + beta, 1), 0)


def _hard_swish(node: Node) -> Function:
    return lambda x: x * maximum(minimum(x * (1 / 6) + 0.5, 1), 0)


def _softsign(node: Node) -> Function:
    return lambda x: x / (call("abs", x) + 1)


def _gelu(node: Node) -> Function:
    approximate = node.attr("approximate", "none")
    if approximate == "none":
        return lambda x: x * 0.5 * (call("erf", x * math.sqrt(0.5)) + 1)
    if approximate == "tanh":
        scale = math.sqrt(2 / math.pi)
        return lambda x: x * 0.5 * (call("tanh", (x + x * x * x * 0.044715) * scale) + 1)
    raise node.refuse(f"approximate={approximate!r} is unknown", "use none or tanh")


def _mish(node: Node) -> Function:
    return lambda x: x * call("tanh", call("softplus", x))


def _swish(node: Node) -> Function:
    alpha = node.attr("alpha", 1.0)
    return lambda x: x * call("sigmoid", x if alpha == 1 else x * alpha)


_FLOAT: dict[str, Callable[[Node], Function]] = {
    "LeakyRelu": _leaky_relu,
    "Elu": _elu,
    "Selu": _selu,
    "Celu": _celu,
    "ThresholdedRelu": _thresholded_relu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Softsign": _softsign,
    "Gelu": _gelu,
    "Mish": _mish,
    "Swish": _swish,
}


@lower(*_FLOAT)
def activation(b: Builder, node: Node) -> Tensor:
    x = node.input(0)
    function = _FLOAT[node.op](node)
    return b.compute(x.shape, lambda *i: cast(function(wide(x[i])), x.dtype))


@lower("PRelu")
def prelu(b: Builder, node: Node) -> Tensor:
    """x where x ≥ 0, else slope*x; the slope broadcasts to x."""
    x, slope = node.input(0), node.input(1)
    if x.dtype in UNSIGNED:
        return b.compute(x.shape, lambda *i: x[i])
    return b.compute(x.shape, lambda *i: select(x[i] < 0, broadcast(slope, i) * x[i], x[i]))


@lower("Shrink")
def shrink(b: Builder, node: Node) -> Tensor:
    """x + bias below -lambd, x - bias above lambd, 0 between; integers by way of f64, rounded toward zero."""
    x = node.input(0)
    bias, limit = node.attr("bias", 0.0), node.attr("lambd", 0.5)

    def element(*i: Expr) -> Expr:
        v = wide(x[i]) if is_float(x.dtype) else cast(x[i], "f64")
        return cast(select(v < -limit, v + bias, select(v > limit, v - bias, 0)), x.dtype)

    return b.compute(x.shape, element)
