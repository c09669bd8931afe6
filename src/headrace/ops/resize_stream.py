"""Streaming of resampling along time by whole factors: nearest, linear, cubic."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from headrace.graph.facts import dtype_name
from headrace.graph.symbolic import SymDim, exact_div, product
from headrace.ops.registry import stream
from headrace.ops.resize import Options, coordinates, taps
from headrace.ops.timed import Edge, Emit, Plan, Read, Site, Timed, TimeFact, framewise

SAMPLE = 16  # frames on which the taps of one period are found, far from both ends


@stream("Resize")
def resize(site: Site) -> Plan:
    fact = site.fact(0)
    if fact is None or site.timed() != [0]:
        raise site.refuse("has scales that change over time", "make them constant")
    axes = [int(a) % len(site.dims(0)) for a in site.attr("axes") or range(len(site.dims(0)))]
    if fact.axis not in axes:
        return framewise(site, {0: fact.axis})
    options = _options(site)
    factor = _factor(site, fact, axes)
    if factor == 1 and options.coordinates != "tf_crop_and_resize":
        return framewise(site, {0: fact.axis}, lambda e: [_resized(e, site, axes, e.read(0), e.dims())])
    if fact.fold != 1:
        raise site.refuse("resamples rows merged with time", "reshape rows and time apart")
    if options.coordinates in ("align_corners", "tf_crop_and_resize"):
        raise site.refuse(
            f"places its samples by {options.coordinates}: each depends on the length of the signal",
            "use half_pixel or asymmetric coordinates (align_corners=False)",
        )
    if options.mode == "cubic" and options.exclude_outside:
        raise site.refuse("weights the frames at the border anew", "use exclude_outside=0")
    if factor.denominator == 1:
        return _up(site, fact, options, axes, int(factor))
    return _down(site, fact, options, axes, factor)


def _options(site: Site) -> Options:
    return Options(
        str(site.attr("mode", "nearest")),
        str(site.attr("coordinate_transformation_mode", "half_pixel")),
        str(site.attr("nearest_mode", "round_prefer_floor")),
        float(site.attr("cubic_coeff_a", -0.75)),
        bool(site.attr("antialias", 0)),
        bool(site.attr("exclude_outside", 0)),
    )


def _scales(site: Site) -> np.ndarray[tuple[int], np.dtype[np.float32]] | None:
    """The scales, where they and not the sizes are given."""
    given = site.const(2)
    return given if given is not None and given.size else None


def _factor(site: Site, fact: TimeFact, axes: Sequence[int]) -> Fraction:
    """Output frames per input frame: a whole number or its reciprocal."""
    scales = _scales(site)
    if scales is not None:
        factor = Fraction(float(scales[axes.index(fact.axis)]))
    elif site.value(3) is None:
        raise site.refuse("has scales computed at run time", "make them constant")
    else:
        after = site.out_dims()[fact.axis]
        up = exact_div(after, fact.length, site.facts.symbols)
        down = exact_div(fact.length, after, site.facts.symbols) if isinstance(after, SymDim) else None
        factor = Fraction(up) if isinstance(up, int) else Fraction(1, down) if isinstance(down, int) else Fraction(0)
    if (factor.numerator != 1 and factor.denominator != 1) or factor <= 0:
        raise site.refuse(
            f"resamples {fact.length} frames to {site.out_dims()[fact.axis]}, not by a whole factor",
            "use a whole factor, or say that the length is always a multiple (multiple=)",
        )
    return factor


def _resized(e: Emit, site: Site, axes: Sequence[int], value: ir.Value, dims: Sequence[int]) -> ir.Value:
    """The node on other frames."""
    scales = _scales(site)
    if scales is not None:
        return e.clone({0: value, 1: None, 3: None})[0]
    return e.clone({0: value, 1: None, 2: None, 3: e.const([dims[a] for a in axes])})[0]


def _others(e: Emit, site: Site, axes: Sequence[int], value: ir.Value, time: int) -> ir.Value:
    """The node on the axes that are not time, where it changes any."""
    if all(site.out_dims()[a] == site.dims(0)[a] for a in axes if a != time):
        return value
    scales = _scales(site)
    if scales is None:
        return _resized(e, site, axes, value, e.dims())
    kept = [1.0 if a == time else float(s) for a, s in zip(axes, scales, strict=True)]
    return e.clone({0: value, 1: None, 2: e.const(kept, np.float32), 3: None})[0]


def _up(site: Site, fact: TimeFact, options: Options, axes: Sequence[int], factor: int) -> Plan:
    """Resize of the frames that a block reads; what that makes beyond the block is cut off."""
    middle = SAMPLE // 2
    where = coordinates(options.coordinates, SAMPLE, SAMPLE * factor, Fraction(factor), (0.0, 1.0))
    places, weights = taps(options, where, SAMPLE, float(factor))
    used = [np.flatnonzero(w) for w in weights]
    block = range(middle * factor, (middle + 1) * factor)
    spans = [(int(places[o, used[o]].min()) - middle, int(places[o, used[o]].max()) - middle) for o in block]
    lo = min(factor * first - r for r, (first, _) in enumerate(spans))
    hi = max(factor * last - r for r, (_, last) in enumerate(spans))
    inside = all(span == (0, 0) for span in spans)
    source = site.node.inputs[0]
    assert source is not None
    read = Read(source, 1, factor, lo, hi, None if inside else Edge("edge"))

    offsets = np.array([first for first, _ in spans])

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        (first, end), (start, stop) = e.window(0), e.range()
        if options.mode == "nearest":
            frames = np.arange(start, stop)
            places = frames // factor + offsets[frames % factor] - first
            value = e.op("Gather", e.read(0), e.const(places), axis=fact.axis)
            return [_others(e, site, axes, value, fact.axis)]
        dims, base = e.dims(), first * factor
        dims[fact.axis] = (end - first) * factor
        value = _resized(e, site, axes, e.read(0), dims)
        if (start, stop) == (base, end * factor):
            return [value]
        return [e.op("Slice", value, e.const([start - base]), e.const([stop - base]), e.const([fact.axis]))]

    return Plan((read,), (Timed(fact.axis),), emit, "" if inside else f"past {spans[-1][1] - spans[0][0]} frames")


def _down(site: Site, fact: TimeFact, options: Options, axes: Sequence[int], factor: Fraction) -> Plan:
    """Every q-th frame, or a fixed mean of neighbours."""
    q = factor.denominator
    others = any(site.out_dims()[a] != site.dims(0)[a] for a in axes if a != fact.axis)
    if options.mode == "cubic" or options.antialias or others:
        raise site.refuse("makes the signal shorter by more than one axis or by a wide kernel", "use AveragePool")
    if options.mode == "nearest" and q & (q - 1):
        raise site.refuse(f"picks every {q}th frame by inexact coordinates", "use Slice with a step")
    whole = product(site.out_dims()[fact.axis], q) == fact.length
    if options.coordinates == "half_pixel_symmetric" and not whole:
        raise site.refuse(
            "places its samples by the length of the signal",
            f"say that the length is always a multiple, multiple={{…: {q}}}, or use half_pixel coordinates",
        )
    where = coordinates(options.coordinates, SAMPLE * q, SAMPLE, factor, (0.0, 1.0))
    places, weights = taps(options, where, SAMPLE * q, float(factor))
    middle = SAMPLE // 2
    found = [(int(p) - middle * q, float(w)) for p, w in zip(places[middle], weights[middle], strict=True) if w]
    source = site.node.inputs[0]
    assert source is not None
    dtype = np.dtype(dtype_name(source.dtype))
    if len(found) > 1 and dtype.kind != "f":
        raise site.refuse("rounds means of whole numbers", "resize after a Cast to float")
    first, last = min(p for p, _ in found), max(p for p, _ in found)
    read = Read(source, q, 1, first, last)

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        value, span = e.read(0), (e.frames() - 1) * q + 1
        parts = []
        for place, weight in found:
            at = [e.const([x]) for x in (place - first, place - first + span, fact.axis, q)]
            part = e.op("Slice", value, *at)
            parts.append(part if weight == 1 else e.op("Mul", part, e.const(weight, dtype)))
        return [parts[0] if len(parts) == 1 else e.op("Sum", *parts)]

    alone = options.coordinates == "pytorch_half_pixel"  # a single sample is taken from the start instead
    needs = ((site.out_dims()[fact.axis], 2),) if alone else ()
    return Plan((read,), (Timed(fact.axis),), emit, needs=needs)
