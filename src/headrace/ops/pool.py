"""Pools: MaxPool, AveragePool, LpPool, their global forms, MaxUnpool."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from headrace.ops.numeric import count, need_float, product, wide
from headrace.ops.registry import Node, lower
from headrace.ops.window import Window, auto_pad, explicit_pads, inside, spatial_attribute, window
from headrace.program.build import Builder, Tensor
from headrace.program.expr import (
    Expr,
    Extent,
    Scalar,
    call,
    cast,
    check,
    const,
    index,
    maximum,
    minimum,
    reduce_identity,
    select,
)


def _window(node: Node, x: Tensor) -> Window:
    win = window(node, x.shape[2:], spatial_attribute(node, "kernel_shape", x.rank - 2))
    if auto_pad(node).startswith("SAME") and any(
        (k - 1) * d + 1 < s for k, d, s in zip(win.kernel, win.dilations, win.strides, strict=True)
    ):
        raise node.refuse(
            f"auto_pad places a window {win.kernel} narrower than its stride {win.strides} in no agreed way",
            "give pads instead of auto_pad",
        )
    return win


def _shape(node: Node, n: int = 0) -> tuple[Extent, ...]:
    return node.out_shapes[n] or ()


@lower("MaxPool")
def max_pool(b: Builder, node: Node) -> list[Tensor | None]:
    x = node.input(0)
    win, spatial = _window(node, x), x.shape[2:]
    least = reduce_identity("max", x.dtype)

    def tap(n: Expr, c: Expr, o: tuple[Expr, ...], k: tuple[Expr, ...]) -> Expr:
        at = win.positions(o, k)
        return select(inside(at, spatial), x[(n, c, *at)], least)

    def element(n: Expr, c: Expr, *o: Expr) -> Expr:
        return b.reduce("max", win.kernel, lambda *k: tap(n, c, o, k))

    def place(n: Expr, c: Expr, *o: Expr) -> Expr:
        flat = b.reduce("argmax", (math.prod(win.kernel),), lambda k: tap(n, c, o, _unflatten(k, win.kernel)))
        k = [maximum(v, _first(win, d, o[d])) for d, v in enumerate(_unflatten(flat, win.kernel))]
        at = win.positions(o, k)
        return cast((n * x.shape[1] + c) * product(spatial) + _flatten(at, spatial, columns), "i64")

    columns = bool(node.attr("storage_order", 0))
    y = b.compute(_shape(node, 0), element) if node.wants(0) else None
    return [y, b.compute(_shape(node, 1), place) if node.wants(1) else None]


def _first(win: Window, d: int, o: Expr) -> Expr:
    """The first tap along axis `d` that lies in the signal (padding wins the argmax only over -inf)."""
    return maximum((win.begin[d] - o * win.strides[d] + win.dilations[d] - 1) // win.dilations[d], 0)


def _unflatten(flat: Expr, extents: tuple[int, ...]) -> tuple[Expr, ...]:
    out = []
    for e in reversed(extents):
        out.append(flat % e)
        flat = flat // e
    return tuple(reversed(out))


def _flatten(at: list[Expr], extents: tuple[Extent, ...], columns: bool) -> Expr:
    """Offset in a box; with `columns` the first axis is the fastest."""
    pairs = list(zip(at, extents, strict=True))
    out: Expr = index(0)
    for p, e in reversed(pairs) if columns else pairs:
        out = out * e + p
    return out


@lower("AveragePool")
def average_pool(b: Builder, node: Node) -> Tensor:
    x = node.input(0)
    need_float(node, x)
    win, spatial = _window(node, x), x.shape[2:]
    padded = bool(node.attr("count_include_pad", 0))
    taps = _taps(b, win, spatial, _shape(node)[2:], padded)

    def element(n: Expr, c: Expr, *o: Expr) -> Expr:
        def tap(*k: Expr) -> Expr:
            at = win.positions(o, k)
            return select(inside(at, spatial), wide(x[(n, c, *at)]), 0)

        total = b.sum(win.kernel, tap)
        return cast(total / taps(o, total.dtype), x.dtype)

    return b.compute(_shape(node), element)


def _taps(
    b: Builder, win: Window, spatial: tuple[Extent, ...], out: tuple[Extent, ...], padded: bool
) -> Callable[[tuple[Expr, ...], str], Expr]:
    """How many taps of a window count, as a function of the output position.

    Those in the signal, or with `padded` also those in its padding, but none beyond (ceil_mode).
    """
    fixed = math.prod(win.kernel)
    tables: list[tuple[int, Tensor]] = []
    symbolic: list[int] = []
    for d, (e, o) in enumerate(zip(spatial, out, strict=True)):
        if not isinstance(e, int) or not isinstance(o, int):
            fixed //= win.kernel[d]
            symbolic.append(d)
            continue
        low, high = (-win.begin[d], e + win.end[d]) if padded else (0, e)
        at = np.arange(o)[:, None] * win.strides[d] + np.arange(win.kernel[d]) * win.dilations[d] - win.begin[d]
        valid = ((at >= low) & (at < high)).sum(1)
        if np.any(valid != win.kernel[d]):
            fixed //= win.kernel[d]
            tables.append((d, b.constant(valid.astype(np.int64), "taps")))

    def formula(d: int, o: Expr) -> Expr:
        start = o * win.strides[d] - win.begin[d]
        low: Scalar = -win.begin[d] if padded else 0
        high = index(spatial[d]) + (win.end[d] if padded else 0)
        step = win.dilations[d]
        before = maximum((low - start + step - 1) // step, 0)
        return minimum((high - start + step - 1) // step, win.kernel[d]) - before

    def taps(o: tuple[Expr, ...], dtype: str) -> Expr:
        out = const(fixed, dtype)
        for d, table in tables:
            out = out * cast(table[o[d]], dtype)
        for d in symbolic:
            out = out * cast(formula(d, o[d]), dtype)
        return out

    return taps


def power(e: Expr, p: int) -> Expr:
    """|e|^p"""
    if p == 2:
        return e * e
    size = call("abs", e)
    return size if p == 1 else call("pow", size, float(p))


def root(e: Expr, p: int) -> Expr:
    """e^(1/p)"""
    if p == 2:
        return call("sqrt", e)
    return e if p == 1 else call("pow", e, 1.0 / p)


def _order(node: Node) -> int:
    p = int(node.attr("p", 2))
    if p < 1:
        raise node.refuse(f"p is {p}", "use a positive p")
    return p


@lower("LpPool")
def lp_pool(b: Builder, node: Node) -> Tensor:
    x, p = node.input(0), _order(node)
    need_float(node, x)
    win, spatial = _window(node, x), x.shape[2:]

    def element(n: Expr, c: Expr, *o: Expr) -> Expr:
        def tap(*k: Expr) -> Expr:
            at = win.positions(o, k)
            return select(inside(at, spatial), power(wide(x[(n, c, *at)]), p), 0)

        return cast(root(b.sum(win.kernel, tap), p), x.dtype)

    return b.compute(_shape(node), element)


def _global(b: Builder, node: Node, fn: Callable[[Tensor, tuple[Extent, ...], Expr, Expr], Expr]) -> Tensor:
    x = node.input(0)
    spatial = x.shape[2:]
    return b.compute(_shape(node), lambda n, c, *o: cast(fn(x, spatial, n, c), x.dtype))


@lower("GlobalAveragePool")
def global_average_pool(b: Builder, node: Node) -> Tensor:
    need_float(node, node.input(0))

    def mean(x: Tensor, spatial: tuple[Extent, ...], n: Expr, c: Expr) -> Expr:
        total = b.sum(spatial, lambda *k: wide(x[(n, c, *k)]))
        return total / count(spatial, total.dtype)

    return _global(b, node, mean)


@lower("GlobalMaxPool")
def global_max_pool(b: Builder, node: Node) -> Tensor:
    return _global(b, node, lambda x, spatial, n, c: b.reduce("max", spatial, lambda *k: x[(n, c, *k)]))


@lower("GlobalLpPool")
def global_lp_pool(b: Builder, node: Node) -> Tensor:
    p = _order(node)
    need_float(node, node.input(0))

    def norm(x: Tensor, spatial: tuple[Extent, ...], n: Expr, c: Expr) -> Expr:
        return root(b.sum(spatial, lambda *k: power(wide(x[(n, c, *k)]), p)), p)

    return _global(b, node, norm)


@lower("MaxUnpool")
def max_unpool(b: Builder, node: Node) -> Tensor:
    """Indices count in the shape that kernel, strides and pads imply; output_shape adds zeros at the end."""
    x, places = node.input(0), node.input(1)
    n, c, *spatial = node.static(x)
    kernel = spatial_attribute(node, "kernel_shape", len(spatial))
    strides = spatial_attribute(node, "strides", len(spatial))
    begin, end = explicit_pads(node, len(spatial))
    full = [(e - 1) * s + k - p - q for e, s, k, p, q in zip(spatial, strides, kernel, begin, end, strict=True)]
    out = node.out_shapes[0]
    if out is None or any(isinstance(e, int) and e < f for e, f in zip(out, (n, c, *full), strict=True)):
        raise node.refuse(f"its output_shape {out} is smaller than the {full} that it unpools", "enlarge it")
    inferred = (n, c, *full)
    size = math.prod(inferred)
    blank = b.compute((size,), lambda i: const(0, x.dtype))
    flat = b.scatter(blank, x.shape, lambda *i: (check(cast(places[i], "index"), size),), lambda *i: x[i])

    def element(*i: Expr) -> Expr:
        return select(inside(i, inferred), flat[_flatten(list(i), inferred, False)], 0)

    return b.compute(out, element)
