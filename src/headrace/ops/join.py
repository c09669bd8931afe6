"""Parts and wholes along an axis: Concat, Split, Slice, Pad."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headrace.ops.registry import Node, lower
from headrace.ops.shape import normal_axis, out_shape, zero
from headrace.program.build import Builder, Tensor
from headrace.program.expr import Expr, Extent, all_of, check, index, maximum, minimum, select

_FAR = 1 << 40  # stands for "to the end": beyond every extent, and safe to add


def moved(i: tuple[Expr, ...], axis: int, to: Expr) -> tuple[Expr, ...]:
    """The indices with the one of `axis` replaced."""
    return tuple(to if d == axis else v for d, v in enumerate(i))


@lower("Concat")
def concat(b: Builder, node: Node) -> Tensor:
    """Each input is stored to its part of the result, so that its producer can write there."""
    parts = [t for t in node.inputs if t is not None]
    axis = normal_axis(node, node.attr("axis"), parts[0].rank)
    return concatenated(b, parts, axis, out_shape(node))


def concatenated(b: Builder, parts: list[Tensor], axis: int, shape: tuple[Extent, ...]) -> Tensor:
    """`parts` one after the other along `axis`."""
    filled = [t for t in parts if all(e != 0 for e in t.shape)]
    if not filled:
        return b.compute(shape, lambda *i: zero(parts[0].dtype))
    if len(filled) == 1:
        x = filled[0]
        return b.compute(shape, lambda *i: x[i])
    out = b.empty(filled[0].dtype, shape, "concat")
    offset = index(0)
    for part in filled:
        b.assign(out, _shifted(axis, offset), part)
        offset = offset + index(part.shape[axis])
    return out


def _shifted(axis: int, offset: Expr) -> Callable[..., tuple[Expr, ...]]:
    return lambda *i: moved(i, axis, i[axis] + offset)


@lower("Split")
def split(b: Builder, node: Node) -> list[Tensor | None]:
    """Parts whose extents are the input `split`, or equal ones of which the last may be smaller."""
    x = node.input(0)
    axis = normal_axis(node, node.attr("axis", 0), x.rank)
    sizes: list[Extent]
    if node.has(1):
        sizes = [int(n) for n in node.const(1, "split")]
    else:
        total, count = x.shape[axis], node.attr("num_outputs", len(node.out_shapes))
        if not isinstance(total, int):
            raise node.refuse(f"it splits an axis of symbolic extent {total} evenly", "fix it with shapes=")
        each = -(-total // count)
        sizes = [max(0, min(each, total - n * each)) for n in range(count)]
    outs: list[Tensor | None] = []
    offset = index(0)
    for n, size in enumerate(sizes):
        outs.append(_part(b, x, axis, offset, size) if node.wants(n) else None)
        offset = offset + index(size)
    return outs


def _part(b: Builder, x: Tensor, axis: int, offset: Expr, size: Extent) -> Tensor:
    shape = tuple(size if d == axis else e for d, e in enumerate(x.shape))
    return b.compute(shape, lambda *i: x[moved(i, axis, i[axis] + offset)])


@lower("Slice")
def slice_(b: Builder, node: Node) -> Tensor:
    """x[start:end:step] along some axes. Starts may be computed at run time; the output's shape is known."""
    x, shape = node.input(0), out_shape(node)
    starts = node.input(1)
    (count,) = node.static(starts)
    axes = node.optional_const(3, "axes")
    steps = node.optional_const(4, "steps")
    first: dict[int, tuple[Expr, int]] = {}
    for n in range(count):
        axis = normal_axis(node, n if axes is None else int(axes[n]), x.rank)
        step = 1 if steps is None else int(steps[n])
        if step == 0:
            raise node.refuse("its step is 0", "correct the model")
        first[axis] = (_first(_known(starts, n), x.shape[axis], step), step)
    fixed = starts.data is not None

    def element(*i: Expr) -> Expr:
        source = list(i)
        for axis, (start, step) in first.items():
            at = start + i[axis] * step
            source[axis] = at if fixed else check(at, x.shape[axis])
        return x[tuple(source)]

    return b.compute(shape, element)


def _known(t: Tensor, n: int) -> Expr:
    """Element n, as a literal if it is known at compile time."""
    if t.data is not None:
        return index(int(np.clip(t.data[n], -_FAR, _FAR)))
    return index(t[n])


def _first(start: Expr, extent: Extent, step: int) -> Expr:
    """Where a slice begins: negative starts count from the end, then clamped to the axis."""
    n = index(extent)
    start = select(start < 0, start + n, start)
    return maximum(0, minimum(start, n if step > 0 else n - 1))


@lower("Pad")
def pad(b: Builder, node: Node) -> Tensor:
    """Modes constant, edge, reflect, wrap. Negative pads crop first; the rest pads what is left."""
    x, shape = node.input(0), out_shape(node)
    mode = node.attr("mode", "constant")
    if mode not in ("constant", "edge", "reflect", "wrap"):
        raise node.refuse(f"its mode is {mode!r}", "use constant, edge, reflect or wrap")
    pads = node.const(1, "pads")
    given = node.optional_const(3, "axes")
    axes = range(x.rank) if given is None else [normal_axis(node, int(a), x.rank) for a in given]
    around = {a: (int(pads[n]), int(pads[n + len(axes)])) for n, a in enumerate(axes)}
    around = {a: p for a, p in around.items() if p != (0, 0)}
    fill = _fill(node, x)

    def element(*i: Expr) -> Expr:
        source, inside = list(i), []
        for axis, (before, after) in around.items():
            low = max(-before, 0)
            left = index(x.shape[axis]) - low - max(-after, 0)
            at = i[axis] - max(before, 0)
            if mode == "constant":
                inside += [at >= 0, at < left]
            else:
                at = _fold(node, mode, at, left, (max(before, 0), max(after, 0)))
            source[axis] = at + low
        return select(all_of(inside), x[tuple(source)], fill)

    if any(e == 0 for e in shape):
        return b.compute(shape, lambda *i: zero(x.dtype))
    if mode == "constant" and any(e == 0 for e in x.shape):
        return b.compute(shape, lambda *i: fill)
    return b.compute(shape, element)


def _fill(node: Node, x: Tensor) -> Expr:
    value = node.optional(2)
    return zero(x.dtype) if value is None else value[(0,) * value.rank]


def _fold(node: Node, mode: str, at: Expr, n: Expr, width: tuple[int, int]) -> Expr:
    """Index inside 0 … n-1 for a position up to width[0] before it or width[1] after it."""
    if n.op == "const" and n.arg <= 0:
        raise node.refuse(f"it pads an empty axis in mode {mode}", "correct the model")
    if mode == "edge" or (n.op == "const" and n.arg == 1):
        return maximum(0, minimum(at, n - 1))
    if mode == "wrap":
        return at % n
    if n.op != "const":
        raise node.refuse("it reflects an axis of symbolic extent", "fix it with shapes=")
    last = n - 1
    if max(width) < n.arg:
        at = maximum(at, -at)
        return minimum(at, last * 2 - at)
    at = at % (last * 2)
    return minimum(at, last * 2 - at)
