"""Convolutions: Conv, its integer forms, and DeformConv."""

from __future__ import annotations

from collections.abc import Callable

from headrace.ops.numeric import along, multiplier, nonzero, requantise, wide
from headrace.ops.registry import Node, lower
from headrace.ops.window import inside, window
from headrace.program.build import Builder, Tensor
from headrace.program.expr import Expr, Extent, cast, index, select

Element = Callable[[tuple[Expr, ...]], Expr]


def groups(node: Node, x: Tensor, w: Tensor, outputs: int) -> int:
    """The attribute `group`, checked against the channels of input and weights."""
    group = int(node.attr("group", 1))
    channels = x.shape[1]
    fits = group > 0 and outputs % group == 0 and (not isinstance(channels, int) or channels % group == 0)
    if not fits:
        raise node.refuse(
            f"group {group} does not divide the channels of input {x.shape} and weights {w.shape}",
            "correct group",
        )
    return group


def _convolution(
    b: Builder,
    node: Node,
    x: Tensor,
    w: Tensor,
    shape: tuple[Extent, ...],
    data: Element,
    weight: Element,
    finish: Callable[[Expr, Expr], Expr],
) -> Tensor:
    """finish(Σ data·weight, output channel) over channels of the group and taps; padding counts as 0."""
    outputs, within, *kernel = node.static(w, "weights' shape")
    spatial = x.shape[2:]
    given = node.attr("kernel_shape")
    if given and list(given) != kernel:
        raise node.refuse(f"kernel_shape {given} differs from the weights' {kernel}", "correct kernel_shape")
    win = window(node, spatial, kernel)
    per_group = outputs // groups(node, x, w, outputs)

    def element(n: Expr, m: Expr, *o: Expr) -> Expr:
        first = m // per_group * within

        def tap(c: Expr, *k: Expr) -> Expr:
            at = win.positions(o, k)
            return select(inside(at, spatial), data((n, first + c, *at)), 0) * weight((m, c, *k))

        if within == 1:
            return finish(b.sum(kernel, lambda *k: tap(index(0), *k)), m)
        return finish(b.sum((within, *kernel), tap), m)

    return b.compute(shape, element)


def _shape(node: Node) -> tuple[Extent, ...]:
    return node.out_shapes[0] or ()


@lower("Conv")
def conv(b: Builder, node: Node) -> Tensor:
    x, w, bias = node.input(0), node.input(1), node.optional(2)

    def finish(total: Expr, m: Expr) -> Expr:
        return cast(total if bias is None else total + wide(bias[m]), x.dtype)

    return _convolution(b, node, x, w, _shape(node), lambda i: wide(x[i]), lambda i: wide(w[i]), finish)


def _shifted(t: Tensor, zero: Callable[[Expr], Expr] | None) -> Element:
    """Elements as i32, less the zero point of their first index."""
    if zero is None:
        return lambda i: cast(t[i], "i32")
    return lambda i: cast(t[i], "i32") - cast(zero(i[0]), "i32")


def _one(node: Node, t: Tensor | None, what: str) -> Callable[[Expr], Expr] | None:
    if t is not None and t.rank and t.shape != (1,):
        raise node.refuse(f"its {what} has shape {t.shape}", "only one value per tensor is defined")
    return along(t, node, what)


@lower("ConvInteger")
def conv_integer(b: Builder, node: Node) -> Tensor:
    x, w = node.input(0), node.input(1)
    data = _shifted(x, _one(node, nonzero(node.optional(2)), "input's zero point"))
    weight = _shifted(w, along(nonzero(node.optional(3)), node, "weights' zero point"))
    return _convolution(b, node, x, w, _shape(node), data, weight, lambda total, m: total)


@lower("QLinearConv")
def qlinear_conv(b: Builder, node: Node) -> Tensor:
    x, w, bias = node.input(0), node.input(3), node.optional(8)
    data = _shifted(x, _one(node, nonzero(node.optional(2)), "input's zero point"))
    weight = _shifted(w, along(nonzero(node.input(5)), node, "weights' zero point"))
    scale = along(multiplier(b, node, node.input(1), node.input(4), node.input(6)), node, "scale")
    zero = _one(node, node.optional(7), "output's zero point")
    if scale is None or zero is None:
        raise node.refuse("input 7 is missing", "give the output's zero point")

    def finish(total: Expr, m: Expr) -> Expr:
        return requantise(total if bias is None else total + bias[m], scale(m), zero(m))

    return _convolution(b, node, x, w, _shape(node), data, weight, finish)
