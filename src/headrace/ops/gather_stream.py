"""Streaming of lookups: tables by the signal or by the frame's number, frames cut out of a signal by their numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from headrace.graph.symbolic import SymDim
from headrace.ops.last_stream import is_last, last_frame
from headrace.ops.registry import stream
from headrace.ops.timed import TIME, Emit, Plan, Site, Timed, TimeFact, framewise

SAMPLE = 4096  # frames for which numbers of frames are computed here
LONGEST = 1 << 22  # the same for numbers that may leave a table


@stream("Gather")
def gather(site: Site) -> Plan:
    data, index = site.fact(0), site.fact(1)
    axis = int(site.attr("axis", 0)) % len(site.dims(0))
    count = len(site.dims(1))
    if data is not None and index is not None:
        return _framed(site, data, index, axis)
    if data is None:
        assert index is not None
        return _table(site, index, axis)
    if axis == data.axis:
        places = site.content(1)
        if data.fold == 1 and places and all(is_last(p, data) for p in places):
            return last_frame(site, data, tuple(int(str(d)) for d in site.dims(1)))
        raise site.refuse(
            "picks single frames of the signal", "cut with Slice, which keeps a signal a signal; the last may be picked"
        )
    return framewise(site, {0: data.axis if data.axis < axis else data.axis + count - 1})


def _table(site: Site, index: TimeFact, axis: int) -> Plan:
    """Rows of a table. Chosen by the frame's number, they last for as many frames as the table has rows."""
    size, source = site.dims(0)[axis], site.node.inputs[1]
    assert source is not None
    dtype = np.int32 if source.dtype == ir.DataType.INT32 else np.int64

    def clipped(low: int) -> Callable[[Emit], Sequence[ir.Value | None]]:
        """Numbers of frames outside the signal may lie outside the table."""

        def emit(e: Emit) -> Sequence[ir.Value | None]:
            return e.clone({1: e.op("Clip", e.read(0), e.const(low, dtype), e.const(int(str(size)) - 1, dtype))})

        return emit

    if not index.free:
        fits = source.is_graph_input() or not isinstance(size, int)
        return framewise(site, {1: axis + index.axis}, None if fits else clipped(-int(str(size))))
    numbers = site.sample(1, LONGEST) if isinstance(size, int) else None
    if numbers is None or not isinstance(size, int) or numbers.min(initial=0) < 0:
        raise site.refuse("looks frames up by numbers that cannot be told beforehand", "count frames from 0 with Range")
    plan = framewise(site, {1: axis + index.axis}, clipped(0))
    rows = np.moveaxis(numbers, index.axis, 0).reshape(numbers.shape[index.axis], -1)
    beyond = np.flatnonzero((rows >= size).any(axis=1))
    grows = len(rows) > 1 and rows[len(rows) // 2 :].max() > rows[: len(rows) // 2].max()
    most = int(beyond[0]) if beyond.size else len(rows) if grows else None
    limits = ((index.length, most),) if most is not None else ()
    return Plan(plan.reads, plan.outs, plan.emit, limits=limits)


def _framed(site: Site, data: TimeFact, index: TimeFact, axis: int) -> Plan:
    """Overlapping frames: number o holds places o·hop + offsets, and the offsets are the same for all."""
    out = site.refuse("picks from the signal at places that change over time", "gather along another axis")
    if axis != data.axis or not index.free or data.fold != 1:
        raise out
    wide = math.prod(d for d in site.dims(1) if isinstance(d, int))
    far = max(SAMPLE, min(1 << 20, LONGEST // max(1, wide)))
    sampled = [site.sample(1, frames) for frames in (far, SAMPLE // 2 + 1)]
    rows = [np.moveaxis(s, index.axis, 0).astype(np.int64) for s in sampled if s is not None]
    if len(rows) < 2 or any(len(r) < 2 for r in rows):
        raise out
    base, hop = rows[0][0], int((rows[0][1] - rows[0][0]).reshape(-1)[0])
    regular = all(np.array_equal(r, base + hop * np.arange(len(r)).reshape([-1] + [1] * base.ndim)) for r in rows)
    if hop < 1 or not regular or base.min(initial=0) < 0:
        raise site.refuse("picks frames at irregular places", "take frames of one size at a fixed hop")
    first, last = int(base.min()), int(base.max())
    for frames in range(SAMPLE, SAMPLE + 4 * hop):
        taken = index.length.evaluate({TIME: frames}) if isinstance(index.length, SymDim) else 0
        held = data.length.evaluate({TIME: frames}) if isinstance(data.length, SymDim) else 0
        if (taken - 1) * hop + last >= held:
            raise site.refuse("picks frames after the end of the signal", "pad the signal before it is framed")
    read = site.read(0, hop, 1, first, last)

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        start, end = e.range()
        numbers = hop * np.arange(start, end).reshape([-1] + [1] * base.ndim)
        places = numbers + (base - first) + read.lo - e.window(0)[0]
        return [e.op("Gather", e.read(0), e.const(np.moveaxis(places, 0, index.axis)), axis=axis)]

    state = f"past {max(0, last - first + 1 - hop)} frames"
    return Plan((read,), (Timed(axis + index.axis),), emit, state, ((data.length, last + 1),))


@stream("GatherElements")
def gather_elements(site: Site) -> Plan:
    axis = int(site.attr("axis", 0)) % len(site.dims(0))
    facts = [f for i in site.timed() if (f := site.fact(i)) is not None]
    if len(facts) != 2 or any(f.axis == axis for f in facts):
        raise site.refuse("picks frames along time, or from a fixed number of frames", "gather along another axis")
    return framewise(site, {i: f.axis for i, f in enumerate(facts)})
