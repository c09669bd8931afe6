"""Reductions over axes: ReduceSum and its kin, ArgMax, ArgMin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.ops.registry import Node, lower
from headrace.ops.shape import normal_axis, numel, out_shape
from headrace.program.build import Builder, Tensor
from headrace.program.dtypes import is_float
from headrace.program.expr import Expr, Scalar, binary, call, cast, select


@dataclass(frozen=True)
class Reduced:
    """Which axes of a tensor are reduced, and whether they stay with extent 1."""

    rank: int
    axes: tuple[int, ...]
    keep: bool

    def source(self, i: Sequence[Scalar], r: Sequence[Scalar]) -> tuple[Scalar, ...]:
        """Indices of the input from those of the output and those of the reduction."""
        kept = iter(i if not self.keep else [v for d, v in enumerate(i) if d not in self.axes])
        inner = iter(r)
        return tuple(next(inner) if d in self.axes else next(kept) for d in range(self.rank))


def accumulator(dtype: str) -> str:
    """The type in which values of `dtype` are summed."""
    return "f32" if dtype in ("f16", "bf16") else dtype


def reduced(node: Node, rank: int) -> Reduced:
    """Axes of a Reduce node: input 1, else all, or none with noop_with_empty_axes."""
    given = node.optional_const(1, "axes")
    if given is None or given.size == 0:
        axes = () if node.attr("noop_with_empty_axes", 0) else tuple(range(rank))
    else:
        axes = tuple(sorted({normal_axis(node, int(a), rank) for a in given.reshape(-1)}))
    return Reduced(rank, axes, bool(node.attr("keepdims", 1)))


def _same(x: Expr) -> Expr:
    return x


def _in_double(fn: Callable[[Expr], Expr]) -> Callable[[Expr], Expr]:
    """The function; on integers by way of f64, rounded toward zero."""
    return lambda x: fn(x) if is_float(x.dtype) else cast(fn(cast(x, "f64")), x.dtype)


def _square(x: Expr) -> Expr:
    return x * x


_KINDS: dict[str, tuple[str, Callable[[Expr], Expr], Callable[[Expr], Expr]]] = {
    "ReduceSum": ("sum", _same, _same),
    "ReduceMean": ("sum", _same, _same),
    "ReduceProd": ("prod", _same, _same),
    "ReduceMax": ("max", _same, _same),
    "ReduceMin": ("min", _same, _same),
    "ReduceL1": ("sum", lambda x: call("abs", x) if x.dtype not in ("u32", "u64") else x, _same),
    "ReduceL2": ("sum", _square, _in_double(lambda s: call("sqrt", s))),
    "ReduceSumSquare": ("sum", _square, _same),
    "ReduceLogSum": ("sum", _same, _in_double(lambda s: call("log", s))),
}


@lower(*_KINDS)
def reduction(b: Builder, node: Node) -> Tensor:
    """reduce(before(x)), then after(…); ReduceMean also divides by the number of elements."""
    x = node.input(0)
    kind, before, after = _KINDS[node.op]
    over = reduced(node, x.rank)
    extents = [x.shape[a] for a in over.axes]
    if x.dtype == "bool":
        kind = {"max": "or", "min": "and"}[kind]
    acc = accumulator(x.dtype) if kind in ("sum", "prod") else x.dtype

    def element(*i: Expr) -> Expr:
        total = b.reduce(kind, extents, lambda *r: before(cast(x[over.source(i, r)], acc)))
        if node.op == "ReduceMean":
            total = binary("div", total, cast(numel(extents), acc))
        return cast(after(total), x.dtype)

    return b.compute(out_shape(node), element)


@lower("ReduceLogSumExp")
def log_sum_exp(b: Builder, node: Node) -> Tensor:
    """m + log Σ exp(x - m) with m the maximum where that is finite, else 0."""
    x = node.input(0)
    over = reduced(node, x.rank)
    extents, shape = [x.shape[a] for a in over.axes], out_shape(node)
    acc = accumulator(x.dtype) if is_float(x.dtype) else "f64"

    def greatest(*i: Expr) -> Expr:
        m = b.reduce("max", extents, lambda *r: cast(x[over.source(i, r)], acc))
        return select(call("isinf", m), 0.0, m)

    m = b.compute(shape, greatest, "max")

    def element(*i: Expr) -> Expr:
        total = b.sum(extents, lambda *r: call("exp", cast(x[over.source(i, r)], acc) - m[i]))
        return cast(call("log", total) + m[i], x.dtype)

    return b.compute(shape, element)


@lower("ArgMax", "ArgMin")
def arg_extreme(b: Builder, node: Node) -> Tensor:
    """Position of the first (select_last_index: the last) extreme element along one axis."""
    x = node.input(0)
    axis = normal_axis(node, node.attr("axis", 0), x.rank)
    over = Reduced(x.rank, (axis,), bool(node.attr("keepdims", 1)))
    if x.shape[axis] == 0:
        raise node.refuse("it looks for an extreme element along an empty axis", "correct the model")
    kind = node.op.lower() + ("_last" if node.attr("select_last_index", 0) else "")

    def element(*i: Expr) -> Expr:
        return b.reduce(kind, (x.shape[axis],), lambda r: x[over.source(i, (r,))])

    return b.compute(out_shape(node), element)
