"""Running sums and products along an axis: CumSum, CumProd."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.ops.reduce import accumulator
from headrace.ops.registry import Node, lower
from headrace.ops.shape import normal_axis
from headrace.program.build import Builder, Tensor
from headrace.program.expr import Expr, binary, cast, index, reduce_identity


@lower("CumSum", "CumProd")
def cumulative(b: Builder, node: Node) -> Tensor:
    """y[t] = x[0] ∘ … ∘ x[t]; exclusive: without x[t]; reverse: from the end."""
    x = node.input(0)
    axis = normal_axis(node, int(node.const(1, "axis").reshape(-1)[0]), x.rank)
    op, kind = ("add", "sum") if node.op == "CumSum" else ("mul", "prod")
    exclusive = bool(node.attr("exclusive", 0))
    acc = accumulator(x.dtype)
    rest = (*x.shape[:axis], *x.shape[axis + 1 :])
    out = b.empty(x.dtype, x.shape, "cumulative")

    def at(i: Sequence[Expr], t: Expr) -> tuple[Expr, ...]:
        return (*i[:axis], t, *i[axis:])

    def step(t: Expr, carried: tuple[Tensor, ...]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        (old,) = carried
        new = b.compute(rest, lambda *i: binary(op, old[i], cast(x[at(i, t)], acc)), "total")
        shown = old if exclusive else new
        b.store(out, rest, lambda *i: at(i, t), lambda *i: cast(shown[i], x.dtype))
        return [new], ()

    neutral = b.compute(rest, lambda *i: reduce_identity(kind, acc), "neutral")
    if x.shape[axis] == 1:
        step(index(0), (neutral,))
    else:
        b.scan(x.shape[axis], [neutral], step, reverse=bool(node.attr("reverse", 0)))
    return out
