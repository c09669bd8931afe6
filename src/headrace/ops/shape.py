"""Views: operators that only say where an element comes from. Each is one definition with one load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.ops.elementwise import broadcast
from headrace.ops.registry import Node, lower
from headrace.program.build import Builder, Shape, Tensor
from headrace.program.dtypes import is_float
from headrace.program.expr import Expr, Extent, Scalar, check, const, index, select


def zero(dtype: str) -> Expr:
    """0 (false) of an element type."""
    return const(0.0 if is_float(dtype) else 0, dtype)


def out_shape(node: Node, i: int = 0) -> Shape:
    """Shape that output i must have; refused when the output has no name."""
    shape = node.out_shapes[i] if i < len(node.out_shapes) else None
    if shape is None:
        raise node.refuse(f"output {i} has no shape", "give the output a name and a shape")
    return shape


def numel(shape: Sequence[Extent]) -> Expr:
    """Number of elements."""
    out = index(1)
    for e in shape:
        out = out * index(e)
    return out


def normal_axis(node: Node, axis: int, rank: int) -> int:
    """Axis in 0 … rank-1 from one that may be negative."""
    if not -rank <= axis < max(rank, 1):
        raise node.refuse(f"axis {axis} does not exist in a tensor of rank {rank}", "correct the model")
    return axis % rank if rank else 0


def linear(idx: Sequence[Scalar], shape: Sequence[Extent]) -> Expr:
    """Row-major position of an element."""
    out = index(0)
    for i, e in zip(idx, shape, strict=True):
        out = out * index(e) + index(i)
    return out


def unravel(position: Expr, shape: Sequence[Extent]) -> tuple[Expr, ...]:
    """Indices of the element at a row-major position."""
    idx: list[Expr] = []
    for e in reversed(shape[1:]):
        idx.append(position % index(e))
        position = position // index(e)
    return (*([position] if shape else []), *reversed(idx))


def groups(a: Shape, b: Shape) -> list[tuple[range, range]]:
    """Smallest runs of dimensions of `a` and `b` that hold equally many elements.

    (N, 6, 4) and (N, 2, 3, 4): [N][N] [6][2 3] [4][4]. Dimensions left over are of extent 1.
    """
    out: list[tuple[range, range]] = []
    i = j = 0
    while i < len(a) and j < len(b):
        for total in range(2, len(a) - i + len(b) - j + 1):
            fits = [
                p
                for p in range(max(1, total - (len(b) - j)), min(total - 1, len(a) - i) + 1)
                if numel(a[i : i + p]) is numel(b[j : j + total - p])
            ]
            if fits:
                p, q = fits[0], total - fits[0]
                break
        else:
            p, q = len(a) - i, len(b) - j
        out.append((range(i, i + p), range(j, j + q)))
        i, j = i + p, j + q
    return out


def reshape(b: Builder, x: Tensor, shape: Shape) -> Tensor:
    """`x` in row-major order under another shape of equally many elements."""
    if any(e == 0 for e in shape):
        return b.compute(shape, lambda *i: zero(x.dtype))
    runs = groups(x.shape, shape)

    def element(*i: Expr) -> Expr:
        source: list[Expr] = [index(0)] * x.rank
        for old, new in runs:
            position = linear([i[n] for n in new], [shape[n] for n in new])
            source[old.start : old.stop] = unravel(position, [x.shape[n] for n in old])
        return x[tuple(source)]

    return b.compute(shape, element)


@lower("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def lower_reshape(b: Builder, node: Node) -> Tensor:
    return reshape(b, node.input(0), out_shape(node))


@lower("Identity")
def identity(b: Builder, node: Node) -> Tensor:
    return node.input(0)


@lower("Dropout")
def dropout(b: Builder, node: Node) -> list[Tensor | None]:
    """Inference: the data, and a mask that keeps everything."""
    x = node.input(0)
    if (
        node.has(2)
        and bool(node.const(2, "training_mode").any())
        and not (node.has(1) and float(node.const(1, "ratio").reshape(-1)[0]) == 0.0)
    ):
        raise node.refuse("it is in training mode", "export the model for inference")
    data = b.compute(x.shape, lambda *i: x[i]) if node.wants(0) else None
    mask = b.compute(x.shape, lambda *i: const(True, "bool")) if node.wants(1) else None
    return [data, mask]


@lower("Transpose")
def transpose(b: Builder, node: Node) -> Tensor:
    x = node.input(0)
    perm = [normal_axis(node, p, x.rank) for p in node.attr("perm", list(range(x.rank))[::-1])]
    if sorted(perm) != list(range(x.rank)):
        raise node.refuse(f"perm {perm} is not a permutation of {x.rank} axes", "correct the model")
    return permuted(b, x, perm)


def permuted(b: Builder, x: Tensor, perm: Sequence[int]) -> Tensor:
    """Axis k of the result is axis perm[k] of `x`."""
    where = [list(perm).index(k) for k in range(x.rank)]
    return b.compute([x.shape[p] for p in perm], lambda *i: x[tuple(i[w] for w in where)])


@lower("Expand")
def expand(b: Builder, node: Node) -> Tensor:
    x = node.input(0)
    return b.compute(out_shape(node), lambda *i: broadcast(x, i))


@lower("Tile")
def tile(b: Builder, node: Node) -> Tensor:
    x, shape = node.input(0), out_shape(node)
    if any(e == 0 for e in shape):
        return b.compute(shape, lambda *i: zero(x.dtype))
    return b.compute(shape, lambda *i: x[tuple(v % index(e) for v, e in zip(i, x.shape, strict=True))])


@lower("Trilu")
def trilu(b: Builder, node: Node) -> Tensor:
    """Upper (column - row ≥ k) or lower (column - row ≤ k) triangle of the last two axes; zero elsewhere."""
    x = node.input(0)
    k = scalar(node, 1, 0)

    def element(*i: Expr) -> Expr:
        offset = i[-1] - i[-2]
        kept = k <= offset if node.attr("upper", 1) else offset <= k
        return select(kept, x[i], zero(x.dtype))

    return b.compute(x.shape, element)


def scalar(node: Node, i: int, default: int) -> Expr:
    """Input i, a tensor of one element, as an index expression."""
    t = node.optional(i)
    return index(default) if t is None else index(t[(0,) * t.rank])


@lower("ReverseSequence")
def reverse_sequence(b: Builder, node: Node) -> Tensor:
    """The first sequence_lens[n] steps of row n are reversed, the rest stays."""
    x, lens = node.input(0), node.input(1)
    time = normal_axis(node, node.attr("time_axis", 0), x.rank)
    batch = normal_axis(node, node.attr("batch_axis", 1), x.rank)
    steps = x.shape[time]
    places = None if lens.data is None else _reversed(b, node, lens.data, steps)

    def element(*i: Expr) -> Expr:
        n, t = i[batch], i[time]
        if places is not None:
            source = index(places[n, t])
        else:
            length = index(lens[n])
            source = check(select(t < length, length - 1 - t, t), steps)
        return x[tuple(source if d == time else v for d, v in enumerate(i))]

    return b.compute(x.shape, element)


def _reversed(b: Builder, node: Node, lens: Any, steps: Extent) -> Tensor | None:
    """(batch, steps): the step that each step reads; None when the number of steps is symbolic."""
    if not isinstance(steps, int):
        return None
    if ((lens < 0) | (lens > steps)).any():
        raise node.refuse(f"sequence_lens {lens.tolist()} exceed the {steps} steps", "correct the model")
    t, length = np.arange(steps), lens.astype(np.int64)[:, None]
    return b.constant(np.where(t < length, length - 1 - t, t), "places")


@lower("DepthToSpace")
def depth_to_space(b: Builder, node: Node) -> Tensor:
    """(N, C, H, W) → (N, C/s², H·s, W·s); DCR: the block is the major part of C, CRD: the minor part."""
    x, s = node.input(0), node.attr("blocksize")
    shape = out_shape(node)
    minor = node.attr("mode", "DCR") == "CRD"

    def element(n: Expr, c: Expr, h: Expr, w: Expr) -> Expr:
        block = h % s * s + w % s
        channel = c * (s * s) + block if minor else block * index(shape[1]) + c
        return x[n, channel, h // s, w // s]

    return b.compute(shape, element)


@lower("SpaceToDepth")
def space_to_depth(b: Builder, node: Node) -> Tensor:
    """(N, C, H, W) → (N, C·s², H/s, W/s); the inverse of DepthToSpace."""
    x, s = node.input(0), node.attr("blocksize")
    channels = index(x.shape[1])
    minor = node.attr("mode", "DCR") == "CRD"

    def element(n: Expr, c: Expr, h: Expr, w: Expr) -> Expr:
        block, source = (c % (s * s), c // (s * s)) if minor else (c // channels, c % channels)
        return x[n, source, h * s + block // s, w * s + block % s]

    return b.compute(out_shape(node), element)
