"""Streaming of operators that make each frame from the same frame of their inputs."""

from __future__ import annotations

from headrace.ops.registry import stream
from headrace.ops.timed import Plan, Site, framewise

UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitCast", "BitwiseNot", "Cast", "Ceil",
    "Celu", "Cos", "Cosh", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish",
    "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round",
    "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan",
    "Tanh", "ThresholdedRelu",
)  # fmt: skip
BROADCAST = (
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Clip", "Div", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow",
    "Sub", "Sum", "Where", "Xor",
)  # fmt: skip


@stream(*UNARY)
def unary(site: Site) -> Plan:
    fact = site.fact(0)
    if fact is None or site.timed() != [0]:
        raise site.refuse("has a parameter that changes over time", "make the parameter a constant")
    return framewise(site, {0: fact.axis})


@stream("CastLike")
def cast_like(site: Site) -> Plan:
    fact = site.fact(0)
    if fact is None:
        raise site.refuse("takes its type from the signal", "use Cast")
    to = site.node.outputs[0].dtype
    return framewise(site, {0: fact.axis}, lambda e: [e.op("Cast", e.read(0), to=int(to or 1))])


@stream(*BROADCAST)
def broadcasting(site: Site) -> Plan:
    rank = len(site.out_dims())
    axes = {}
    for i in site.timed():
        fact = site.fact(i)
        assert fact is not None
        axes[i] = fact.axis + rank - len(site.dims(i))
    return framewise(site, axes)


@stream("QuantizeLinear", "DequantizeLinear")
def quantize(site: Site) -> Plan:
    fact = site.fact(0)
    if fact is None or site.timed() != [0]:
        raise site.refuse("has a scale that changes over time", "use static quantisation")
    scale = site.dims(1)
    axis = int(site.attr("axis", 1))
    axis += len(site.dims(0)) if axis < 0 else 0
    if scale and scale != (1,) and axis == fact.axis:
        raise site.refuse("has one scale per frame", "quantise per channel or per tensor")
    return framewise(site, {0: fact.axis})


@stream("DynamicQuantizeLinear")
def dynamic_quantize(site: Site) -> Plan:
    raise site.refuse(
        "takes its scale from the whole signal", "use static quantisation (QuantizeLinear with a constant scale)"
    )
