"""Softmax, LogSoftmax, Hardmax: over one axis."""

from __future__ import annotations

from headrace.ops.numeric import axis_of, need_float, wide
from headrace.ops.registry import Node, lower
from headrace.program.build import Builder, Tensor
from headrace.program.expr import Expr, call, cast, const, index, select


def _rows(b: Builder, x: Tensor, axis: int, fn: str) -> Tensor:
    """max or argmax over the axis."""
    rest = x.shape[:axis] + x.shape[axis + 1 :]
    return b.compute(rest, lambda *i: b.reduce(fn, (x.shape[axis],), lambda k: wide(x[(*i[:axis], k, *i[axis:])])), fn)


@lower("Softmax")
def softmax(b: Builder, node: Node) -> Tensor:
    x = node.input(0)
    need_float(node, x)
    if x.rank == 0:
        return b.compute((), lambda: call("exp", x[()] - x[()]))
    axis = axis_of(node, x.rank, -1)
    rest = x.shape[:axis] + x.shape[axis + 1 :]
    top = _rows(b, x, axis, "max")

    def power(*i: Expr) -> Expr:
        return call("exp", wide(x[i]) - top[(*i[:axis], *i[axis + 1 :])])

    e = b.compute(x.shape, power, "exp")
    total = b.compute(rest, lambda *i: b.sum((x.shape[axis],), lambda k: e[(*i[:axis], k, *i[axis:])]), "total")
    return b.compute(x.shape, lambda *i: cast(e[i] / total[(*i[:axis], *i[axis + 1 :])], x.dtype))


@lower("LogSoftmax")
def log_softmax(b: Builder, node: Node) -> Tensor:
    x = node.input(0)
    need_float(node, x)
    if x.rank == 0:
        return b.compute((), lambda: x[()] - x[()])
    axis = axis_of(node, x.rank, -1)
    rest = x.shape[:axis] + x.shape[axis + 1 :]
    top = _rows(b, x, axis, "max")

    def log_total(*i: Expr) -> Expr:
        def power(k: Expr) -> Expr:
            return call("exp", wide(x[(*i[:axis], k, *i[axis:])]) - top[i])

        return call("log", b.sum((x.shape[axis],), power))

    total = b.compute(rest, log_total, "log_total")

    def element(*i: Expr) -> Expr:
        row = (*i[:axis], *i[axis + 1 :])
        return cast(wide(x[i]) - top[row] - total[row], x.dtype)

    return b.compute(x.shape, element)


@lower("Hardmax")
def hardmax(b: Builder, node: Node) -> Tensor:
    x = node.input(0)
    need_float(node, x)
    if x.rank == 0:
        return b.compute((), lambda: const(1, x.dtype))
    axis = axis_of(node, x.rank, -1)
    first = _rows(b, x, axis, "argmax")

    def element(*i: Expr) -> Expr:
        hit = index(first[(*i[:axis], *i[axis + 1 :])]).eq(i[axis])
        return select(hit, const(1, x.dtype), 0)

    return b.compute(x.shape, element)
