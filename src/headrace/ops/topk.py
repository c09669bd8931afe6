"""TopK by selection: pass p finds the best element after the one that pass p-1 found."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.ops.registry import Node, lower
from headrace.ops.shape import normal_axis, out_shape, zero
from headrace.program.build import Builder, Tensor
from headrace.program.dtypes import is_float
from headrace.program.expr import Expr, call, cast, const, index, reduce_identity, select


@lower("TopK")
def top_k(b: Builder, node: Node) -> list[Tensor | None]:
    """The k largest (or smallest) values in order and their positions; equal values by position.

    NaN counts as larger (with largest=0: as smaller) than every number.
    """
    x = node.input(0)
    axis = normal_axis(node, node.attr("axis", -1), x.rank)
    largest = bool(node.attr("largest", 1))
    shape = out_shape(node, 0 if node.wants(0) else 1)
    n, k = x.shape[axis], shape[axis]
    rest = (*x.shape[:axis], *x.shape[axis + 1 :])
    values = b.empty(x.dtype, shape, "values") if node.wants(0) else None
    places = b.empty("i64", shape, "places") if node.wants(1) else None

    def at(i: Sequence[Expr], t: Expr) -> tuple[Expr, ...]:
        return (*i[:axis], t, *i[axis:])

    def step(t: Expr, carried: tuple[Tensor, ...]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        last, last_place = carried

        def left(i: Sequence[Expr], j: Expr) -> Expr:
            return t.eq(0) | _after(x[at(i, j)], j, last[tuple(i)], index(last_place[tuple(i)]), largest)

        kind = "max" if largest else "min"
        worst = reduce_identity(kind, x.dtype)
        best = b.compute(
            rest,
            lambda *i: b.reduce(kind, (n,), lambda j: select(left(i, j), x[at(i, j)], worst)),
            "best",
        )

        def hit(i: Sequence[Expr], j: Expr) -> Expr:
            return cast(left(i, j) & _same(x[at(i, j)], best[tuple(i)]), "i32")

        place = b.compute(rest, lambda *i: cast(b.reduce("argmax", (n,), lambda j: hit(i, j)), "i64"), "place")
        if values is not None:
            b.assign(values, lambda *i: at(i, t), best)
        if places is not None:
            b.assign(places, lambda *i: at(i, t), place)
        return [best, place], ()

    none = [
        b.compute(rest, lambda *i: zero(x.dtype), "best"),
        b.compute(rest, lambda *i: const(0, "i64"), "place"),
    ]
    if k == 1:
        step(index(0), (none[0], none[1]))
    else:
        b.scan(k, none, step)
    return [values, places]


def _same(a: Expr, b: Expr) -> Expr:
    return a.eq(b) | (call("isnan", a) & call("isnan", b)) if is_float(a.dtype) else a.eq(b)


def _after(x: Expr, j: Expr, last: Expr, last_j: Expr, largest: bool) -> Expr:
    """Whether element j comes after the last one found."""
    worse = (x < last) if largest else (last < x)
    if is_float(x.dtype):
        worse = worse | (call("isnan", last) & ~call("isnan", x))
    return worse | (_same(x, last) & (last_j < j))
