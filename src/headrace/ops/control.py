"""If, Loop and Scan whose course is known only at run time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from headrace.ops.registry import Node, lower
from headrace.ops.shape import normal_axis, out_shape
from headrace.program.build import Builder, Tensor
from headrace.program.expr import Expr, Extent, cast, const, index, is_const
from headrace.program.ir import Loop

_ENDLESS = 1 << 62  # passes of a loop that only its condition ends


def _subgraph(node: Node) -> Callable[[str, Sequence[Tensor]], tuple[Tensor, ...]]:
    if node.subgraph is None:
        raise node.refuse("it has no graph", "correct the model")
    return node.subgraph


def _flag(t: Tensor) -> Expr:
    return t[(0,) * t.rank]


@lower("If")
def if_(b: Builder, node: Node) -> list[Tensor | None]:
    cond, graph = _flag(node.input(0)), _subgraph(node)
    used = [n for n in range(len(node.out_shapes)) if node.wants(n)]

    def side(name: str) -> list[Tensor]:
        outs = graph(name, ())
        for n in used:
            if outs[n].shape != node.out_shapes[n]:
                raise node.refuse(
                    f"output {n} is {list(outs[n].shape)} in its {name}, {list(out_shape(node, n))} outside",
                    "give both branches the same shapes",
                )
        return [outs[n] for n in used]

    if cond.op == "const":
        found: Sequence[Tensor] = side("then_branch" if cond.arg else "else_branch")
    else:
        found = b.branch(cond, lambda: side("then_branch"), lambda: side("else_branch"))
    return _spread(node, used, found)


def _spread(node: Node, used: Sequence[int], found: Sequence[Tensor]) -> list[Tensor | None]:
    outs: list[Tensor | None] = [None] * len(node.out_shapes)
    for n, t in zip(used, found, strict=True):
        outs[n] = t
    return outs


def _carried(b: Builder, node: Node, old: Sequence[Tensor], new: Sequence[Tensor]) -> list[Tensor]:
    """The next carried values; one that is another carried value is copied, so that a swap is a swap."""
    for n, (before, after) in enumerate(zip(old, new, strict=True)):
        if before.shape != after.shape or before.dtype != after.dtype:
            raise node.refuse(
                f"carried value {n} changes from {before.dtype}{list(before.shape)} "
                f"to {after.dtype}{list(after.shape)}",
                "give it one shape in all iterations",
            )
    return [
        b.copy(after) if any(after is o for o in old) and after is not before else after
        for before, after in zip(old, new, strict=True)
    ]


@lower("Loop")
def loop(b: Builder, node: Node) -> list[Tensor | None]:
    """Ends after the trip count, or when the condition is false. Inside a pass the condition is true."""
    graph, limit, start = _subgraph(node), node.optional(0), node.optional(1)
    initial = [node.input(n) for n in range(2, len(node.inputs))]
    stacked = [n for n in range(len(initial), len(node.out_shapes)) if node.wants(n)]
    extent, counted = _trips(node, limit, stacked)
    true = b.constant(np.array(True), "true")
    trivial = False

    def first() -> Expr:
        go = const(True, "bool") if start is None else _flag(start)
        return go if counted or limit is None else go & (index(0) < index(_flag(limit)))

    def step(t: Expr, carried: tuple[Tensor, ...]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        nonlocal trivial
        outs = graph("body", (b.compute((), lambda: cast(t, "i64"), "pass"), true, *carried[:-1]))
        go = _flag(outs[0])
        if not counted and limit is not None:
            go = go & (t + 1 < index(_flag(limit)))
        trivial = is_const(go) and bool(go.arg) and is_const(begin) and bool(begin.arg)
        following = _carried(b, node, carried[:-1], outs[1 : 1 + len(initial)])
        return [*following, b.compute((), lambda: go, "go")], [outs[1 + n] for n in stacked]

    begin = first()
    finals, stacks = b.scan(
        extent,
        [*initial, b.compute((), lambda: begin, "go")],
        step,
        until=lambda carried: None if trivial else carried[-1][()],
    )
    if trivial:
        _forget_condition(b)
    used = [n for n in range(len(initial)) if node.wants(n)]
    return _spread(node, [*used, *stacked], [*(finals[n] for n in used), *stacks])


def _trips(node: Node, limit: Tensor | None, stacked: Sequence[int]) -> tuple[Extent, bool]:
    """Greatest number of passes, and whether the trip count is not less than that."""
    if limit is not None and limit.data is not None:
        return max(int(limit.data.reshape(-1)[0]), 0), True
    if stacked:
        return out_shape(node, stacked[0])[0], True
    return _ENDLESS, False


def _forget_condition(b: Builder) -> None:
    made = b.body[-1]
    assert isinstance(made, Loop)
    b.body[-1] = replace(made, carry=made.carry[:-1])


@lower("Scan")
def scan(b: Builder, node: Node) -> list[Tensor | None]:
    """The body on every slice of the scan inputs, with states carried from slice to slice."""
    graph, count = _subgraph(node), node.attr("num_scan_inputs")
    states = [node.input(n) for n in range(len(node.inputs) - count)]
    sources = [node.input(n) for n in range(len(states), len(node.inputs))]
    in_axes = _per_item(node, "scan_input_axes", count)
    in_back = _per_item(node, "scan_input_directions", count)
    collected = len(node.out_shapes) - len(states)
    out_axes = _per_item(node, "scan_output_axes", collected)
    out_back = _per_item(node, "scan_output_directions", collected)
    in_axes = [normal_axis(node, a, t.rank) for a, t in zip(in_axes, sources, strict=True)]
    steps = sources[0].shape[in_axes[0]]
    outs: dict[int, Tensor] = {}
    for n in range(collected):
        if node.wants(len(states) + n):
            dtype, shape = node.out_dtypes[len(states) + n], out_shape(node, len(states) + n)
            assert dtype is not None
            outs[n] = b.empty(dtype, shape, "stack")

    def step(t: Expr, carried: tuple[Tensor, ...]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        last = index(steps) - 1
        slices = [
            _slice(b, x, axis, last - t if back else t) for x, axis, back in zip(sources, in_axes, in_back, strict=True)
        ]
        results = graph("body", (*carried, *slices))
        for n, out in outs.items():
            axis = normal_axis(node, out_axes[n], out.rank)
            _collect(b, out, axis, last - t if out_back[n] else t, results[len(states) + n])
        return _carried(b, node, carried, results[: len(states)]), ()

    finals, _ = b.scan(steps, states, step)
    used = [n for n in range(len(states)) if node.wants(n)]
    return _spread(node, [*used, *(len(states) + n for n in outs)], [*(finals[n] for n in used), *outs.values()])


def _per_item(node: Node, name: str, count: int) -> list[int]:
    return list(node.attr(name) or [0] * count)


def _slice(b: Builder, x: Tensor, axis: int, t: Expr) -> Tensor:
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    return b.compute(shape, lambda *i: x[(*i[:axis], t, *i[axis:])], "slice")


def _collect(b: Builder, out: Tensor, axis: int, t: Expr, part: Tensor) -> None:
    b.assign(out, lambda *i: (*i[:axis], t, *i[axis:]), part)
