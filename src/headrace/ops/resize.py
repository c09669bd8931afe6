"""Resize: each axis reads a few elements per output element, with weights known at compile time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from headrace.ops.reduce import accumulator
from headrace.ops.registry import Node, lower
from headrace.ops.shape import normal_axis, out_shape
from headrace.program.build import Builder, Tensor
from headrace.program.dtypes import is_float, numpy_dtype
from headrace.program.expr import Expr, Scalar, all_of, cast, const, index, select

Array = np.ndarray[Any, Any]
_SAMPLE = 8  # input length on which a formula is found for an axis whose length is symbolic


@dataclass(frozen=True)
class Axis:
    """One resized axis. inside: output elements whose coordinate lies on the input (None: all)."""

    axis: int
    places: Array  # (out, taps): input elements
    weights: Array  # (out, taps)
    inside: Array | None = None


@dataclass(frozen=True)
class Options:
    """The attributes of a Resize node."""

    mode: str
    coordinates: str
    nearest: str
    cubic_a: float
    antialias: bool
    exclude_outside: bool


def coordinates(kind: str, n: int, out: int, scale: Fraction, roi: tuple[float, float]) -> Array:
    """(out,): where each output element lies on the input axis of length n.

    Quotients of whole numbers are rounded once, so that nearest modes see whole and half places exactly.
    """
    i = np.arange(out, dtype=np.float64)
    over, under = float(scale.numerator), float(scale.denominator)
    width = float(scale * n)  # not whole where the scale was given
    if kind == "align_corners":
        return i * 0.0 if width == 1 or out == 1 else i * (n - 1) / (width - 1)
    if kind == "asymmetric":
        return i * under / over
    if kind == "tf_crop_and_resize":
        start, end = roi
        if out == 1:
            return i + 0.5 * (start + end) * (n - 1)
        return start * (n - 1) + i * (end - start) * (n - 1) / (out - 1)
    if kind == "pytorch_half_pixel" and out == 1:
        return i * 0.0
    half = (i + 0.5) * under / over - 0.5
    if kind == "half_pixel_symmetric":
        return half + (n - out * under / over) / 2
    return half


def nearest_places(x: Array, kind: str) -> Array:
    """Coordinates rounded to elements."""
    down, up = np.floor(x), np.ceil(x)
    rounded: dict[str, Array] = {
        "floor": down,
        "ceil": up,
        "round_prefer_floor": np.where(x - down <= 0.5, down, up),
        "round_prefer_ceil": np.where(x - down < 0.5, down, up),
    }
    places: Array = rounded[kind].astype(np.int64)
    return places


def kernel(options: Options, distance: Array) -> Array:
    """Weight of an element at some distance from the coordinate."""
    d: Array = np.abs(distance)
    out: Array
    if options.mode == "linear":
        out = np.maximum(1 - d, 0)
        return out
    a = options.cubic_a
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    out = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    return out


def taps(options: Options, x: Array, n: int, scale: float) -> tuple[Array, Array]:
    """Elements that are read for each coordinate, and their weights."""
    if options.mode == "nearest":
        places = nearest_places(x, options.nearest)[:, None]
        return np.clip(places, 0, n - 1), np.ones(places.shape)
    stretch = min(scale, 1.0) if options.antialias else 1.0
    reach = math.ceil((1 if options.mode == "linear" else 2) / stretch)
    places = np.floor(x).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)
    weights = kernel(options, (places - x[:, None]) * stretch)
    if options.exclude_outside:
        weights = np.where((places < 0) | (places >= n), 0.0, weights)
    if options.exclude_outside or stretch != 1.0:
        weights = weights / weights.sum(axis=1, keepdims=True)
    used = (weights != 0).any(axis=0)
    return np.clip(places, 0, n - 1)[:, used], weights[:, used]


def _options(node: Node) -> Options:
    mode = node.attr("mode", "nearest")
    options = Options(
        mode,
        node.attr("coordinate_transformation_mode", "half_pixel"),
        node.attr("nearest_mode", "round_prefer_floor"),
        float(node.attr("cubic_coeff_a", -0.75)),
        bool(node.attr("antialias", 0)) and mode != "nearest",
        bool(node.attr("exclude_outside", 0)),
    )
    if mode not in ("nearest", "linear", "cubic"):
        raise node.refuse(f"its mode is {mode!r}", "use nearest, linear or cubic")
    known = {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
             "tf_crop_and_resize"}  # fmt: skip
    if options.coordinates not in known:
        raise node.refuse(f"its coordinates are {options.coordinates!r}", f"use one of {sorted(known)}")
    if options.nearest not in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"):
        raise node.refuse(f"its nearest_mode is {options.nearest!r}", "use round_prefer_floor")
    return options


def _scales(node: Node, x: Tensor, axes: Sequence[int]) -> list[Fraction] | None:
    """Factor of each of `axes`; None where it is the ratio of the shapes."""
    if node.has(2) and node.input(2).shape != (0,):
        return [Fraction(float(s)) for s in node.const(2, "scales")]
    policy = node.attr("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return None
    sizes = node.const(3, "sizes")
    ratios = [Fraction(int(s), node.static(x)[a]) for s, a in zip(sizes, axes, strict=True)]
    return [min(ratios) if policy == "not_larger" else max(ratios)] * len(axes)


@lower("Resize")
def resize(b: Builder, node: Node) -> Tensor:
    x, shape, options = node.input(0), out_shape(node), _options(node)
    axes = [normal_axis(node, a, x.rank) for a in node.attr("axes", list(range(x.rank)))]
    scales = _scales(node, x, axes)
    crop = options.coordinates == "tf_crop_and_resize"
    roi = node.const(1, "roi") if crop else np.zeros(2 * len(axes))
    work: list[Axis | tuple[int, Fraction]] = []
    for k, a in enumerate(axes):
        n, out = x.shape[a], shape[a]
        whole = not crop or (roi[k], roi[k + len(axes)]) == (0.0, 1.0)
        if n is out or n == out:
            if whole and (scales is None or scales[k] == 1):
                continue
        if not isinstance(n, int) or not isinstance(out, int):
            work.append((a, _formula(node, options, None if scales is None else scales[k])))
            continue
        if n == 0 or out == 0:
            raise node.refuse("it resizes an empty axis", "correct the model")
        scale = Fraction(out, n) if scales is None else scales[k]
        where = coordinates(options.coordinates, n, out, scale, (float(roi[k]), float(roi[k + len(axes)])))
        places, weights = taps(options, where, n, float(scale))
        inside = (where >= 0) & (where <= n - 1) if crop else None
        work.append(Axis(a, places, weights, inside))
    if options.mode == "nearest":
        return _pick(b, node, x, work)
    return _blend(b, node, x, [w for w in work if isinstance(w, Axis)])


def _formula(node: Node, options: Options, scale: Fraction | None) -> Fraction:
    """The factor f for which output element o of a nearest Resize is input element ⌊o·f⌋ at any length."""
    local = options.coordinates in ("asymmetric", "half_pixel")
    if scale is not None and scale.denominator == 1 and options.mode == "nearest" and local:
        out = _SAMPLE * int(scale)
        where = coordinates(options.coordinates, _SAMPLE, out, scale, (0.0, 1.0))
        found = _ratio(nearest_places(where, options.nearest), _SAMPLE)
        if found is not None:
            return found
    raise node.refuse("it resizes an axis of symbolic extent", "fix it with shapes=")


def _ratio(places: Array, n: int) -> Fraction | None:
    """f with places == ⌊o·f⌋, if f = n / outputs is one."""
    f = Fraction(n, len(places))
    o = np.arange(len(places))
    return f if (places == o * f.numerator // f.denominator).all() else None


def _pick(b: Builder, node: Node, x: Tensor, work: Sequence[Axis | tuple[int, Fraction]]) -> Tensor:
    """One element for each; the index is arithmetic where the table allows."""
    tables: dict[int, Tensor] = {}
    formulas: dict[int, Fraction] = {}
    for item in work:
        if not isinstance(item, Axis):
            formulas[item[0]] = item[1]
            continue
        ratio = _ratio(item.places[:, 0], node.static(x)[item.axis])
        if ratio is not None:
            formulas[item.axis] = ratio
        else:
            tables[item.axis] = b.constant(item.places[:, 0], "places")

    def element(*i: Expr) -> Expr:
        source: list[Scalar] = list(i)
        for a, f in formulas.items():
            source[a] = i[a] * f.numerator // index(f.denominator)
        for a, table in tables.items():
            source[a] = cast(table[i[a]], "index")
        return _cropped(b, node, work, i, x[tuple(source)])

    return b.compute(out_shape(node), element)


def _cropped(b: Builder, node: Node, work: Sequence[object], i: Sequence[Expr], value: Expr) -> Expr:
    """extrapolation_value where a coordinate lies outside the input."""
    conds = [
        b.constant(w.inside, "inside")[i[w.axis]]
        for w in work
        if isinstance(w, Axis) and w.inside is not None and not w.inside.all()
    ]
    if not conds:
        return value
    return select(all_of(conds), value, const(node.attr("extrapolation_value", 0.0), value.dtype))


def _blend(b: Builder, node: Node, x: Tensor, work: Sequence[Axis]) -> Tensor:
    """Weighted sums, one axis after the other: those that shrink first."""
    if not is_float(x.dtype):
        raise node.refuse(f"it interpolates {x.dtype} values", "convert them to float before and back after")
    acc = accumulator(x.dtype)
    current = x
    for w in sorted(work, key=lambda w: len(w.weights) / node.static(x)[w.axis]):
        current = _along(b, current, w, acc)
    return b.compute(out_shape(node), lambda *i: _cropped(b, node, work, i, cast(current[i], x.dtype)))


def _along(b: Builder, x: Tensor, w: Axis, acc: str) -> Tensor:
    out, count = w.weights.shape
    weights = b.constant(w.weights.astype(numpy_dtype(acc)), "weights")
    places = b.constant(w.places, "places")
    shape = tuple(out if d == w.axis else e for d, e in enumerate(x.shape))

    def element(*i: Expr) -> Expr:
        def term(k: Expr) -> Expr:
            at = cast(places[i[w.axis], k], "index")
            return weights[i[w.axis], k] * cast(x[(*i[: w.axis], at, *i[w.axis + 1 :])], acc)

        return b.sum((count,), term)

    return b.compute(shape, element, "resized")
