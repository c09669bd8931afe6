"""Streaming of operators that cut, pad and join signals in time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from headrace.graph.symbolic import Dim, SymDim
from headrace.ops.last_stream import is_last, last_frame
from headrace.ops.registry import stream
from headrace.ops.shape_stream import constant_axes, only_signal
from headrace.ops.timed import Edge, Emit, Pending, Plan, Read, Site, Timed, TimeFact, framewise, has_time


@stream("Slice")
def slice_(site: Site) -> Plan:
    if site.fact(0) is None:
        return _table(site)
    fact = only_signal(site)
    dims = site.dims(0)
    rank = len(dims)
    starts, ends = site.content(1), site.content(2)
    axes = constant_axes(site, 3, rank) if site.value(3) is not None else list(range(rank))
    steps = site.content(4) if site.value(4) is not None else [1] * len(axes)
    if fact.axis not in axes:
        return framewise(site, {0: fact.axis})
    if starts is None or ends is None or steps is None or fact.fold != 1:
        raise site.refuse("cuts time at places computed at run time", "make starts and ends constant")
    k = axes.index(fact.axis)
    start, end, step = starts[k], ends[k], steps[k]
    if isinstance(step, SymDim) or step < 1:
        raise site.refuse("reads the signal backwards", "reversal needs the whole signal; leave it out")
    if len(axes) == 1 and step == 1 and site.out_dims()[fact.axis] == 1 and is_last(start, fact):
        return last_frame(site, fact, None)
    first = _start(site, start, fact)
    del end
    read = site.read(0, step, 1, first, first)
    others = [i for i in range(len(axes)) if i != k]

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        value = e.read(0)
        names, lows, highs, by = [], [], [], []
        for i in others:
            names.append(axes[i])
            lows.append(starts[i])
            highs.append(ends[i])
            by.append(steps[i])
        if step > 1:
            names.append(fact.axis)
            lows.append(0)
            highs.append(2**62)
            by.append(step)
        if names:
            value = e.op("Slice", value, e.const(lows), e.const(highs), e.const(names), e.const(by))
        return [value]

    return Plan((read,), (Timed(fact.axis),), emit, needs=((fact.length, first + 1),))


def _table(site: Site) -> Plan:
    """The first rows of a table, one for each frame."""
    rank = len(site.dims(0))
    starts, ends = site.content(1), site.content(2)
    axes = constant_axes(site, 3, rank) if site.value(3) is not None else list(range(rank))
    steps = site.content(4) if site.value(4) is not None else [1] * len(axes)
    grown = [k for k, a in enumerate(axes) if has_time(site.out_dims()[a])]
    start = starts[grown[0]] if starts is not None and len(grown) == 1 else None
    if site.timed() or starts is None or ends is None or steps is None or not isinstance(start, int) or start < 0:
        raise site.refuse("cuts a table by the length of the signal", "cut it from a constant start, on one axis")
    axis, size = axes[grown[0]], site.dims(0)[axes[grown[0]]]
    others = [k for k in range(len(axes)) if k not in grown]
    if not isinstance(size, int) or steps[grown[0]] != 1:
        raise site.refuse("cuts a table by the length of the signal", "cut it with step 1")

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        value = e.given(0)
        if others:
            parts = [[column[k] for k in others] for column in (starts, ends, axes, steps)]
            value = e.op("Slice", value, *map(e.const, parts))
        index = e.index(e.fact(), *e.range())
        place = e.op("Add", index, e.const([start])) if start else index
        place = e.op("Clip", place, e.const(0), e.const(int(size) - 1))
        return [e.op("Gather", value, place, axis=axis)]

    return Plan((), (Timed(axis),), emit)


def _start(site: Site, start: Dim, fact: TimeFact) -> int:
    """First frame of a slice. Refused when it is counted from the end."""
    if isinstance(start, SymDim) or start < 0:
        raise site.refuse(
            "starts a fixed number of frames before the end", "only the last frames would be used; leave it out"
        )
    return int(start)


@stream("Split")
def split(site: Site) -> Plan:
    """Parts along another axis; or, in time, the part that is left after a fixed number of frames."""
    fact = only_signal(site)
    axis = int(site.attr("axis", 0)) % len(site.dims(0))
    if axis != fact.axis:
        return framewise(site, {0: fact.axis}, lambda e: e.clone({0: e.read(0)}))
    if fact.fold != 1:
        raise site.refuse("splits rows merged with time", "reshape rows and time apart first")
    starts: list[Dim] = [0]
    for k in range(len(site.node.outputs)):
        starts.append(starts[-1] + site.out_dims(k)[axis])
    used = [k for k, v in enumerate(site.node.outputs) if v.uses() or v.is_graph_output()]
    (k, *others) = used
    first = starts[k]
    if others or not isinstance(first, int) or not has_time(site.out_dims(k)[axis]):
        raise site.refuse(
            "splits the signal in time", "only the part after (or before) a fixed number of frames streams"
        )
    outs = tuple(Timed(axis) if i == k else None for i in range(len(site.node.outputs)))

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        return [e.read(0) if i == k else None for i in range(len(outs))]

    return Plan((site.read(0, 1, 1, first, first),), outs, emit, needs=((fact.length, first + 1),))


@stream("Concat")
def concat(site: Site) -> Plan:
    facts = [f for i in site.timed() if (f := site.fact(i)) is not None]
    axis = int(site.attr("axis", 0)) % len(site.out_dims())
    place = facts[0].axis
    if axis != place:
        return framewise(site, {i: f.axis for i in site.timed() if (f := site.fact(i)) is not None})
    return _append(site, axis)


def _append(site: Site, axis: int) -> Plan:
    """Frames before or after one signal are padding with given values."""
    if len(site.timed()) != 1:
        raise site.refuse("puts one signal after another in time", "the second would wait for the end of the first")
    (i,) = site.timed()
    if any(site.time.get(v) is not None for k, v in enumerate(site.node.inputs) if k != i and v is not None):
        raise site.refuse("appends what is known only at the end of the signal", "append frames that are given")
    fact, source = site.fact(i), site.node.inputs[i]
    assert fact is not None and source is not None
    if fact.fold != 1:
        raise site.refuse("appends to rows merged with time", "reshape rows and time apart first")
    before, after = range(i), range(i + 1, len(site.node.inputs))
    left, right = (sum(int(str(site.dims(k)[axis])) for k in side) for side in (before, after))
    constants = [site.const(k) for k in (*before, *after)]
    flat = [v.reshape(-1) for v in constants if v is not None and v.size]
    if len(constants) == len([v for v in constants if v is not None]):
        joined = np.concatenate([np.zeros(0), *flat])
        if joined.size and bool((joined == joined[0]).all()):
            read = site.read(i, 1, 1, -left, -left, Edge("constant", flat[0][0].item()))
            return Plan((read,), (Timed(axis),), lambda e: [e.read(0)])

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        value = e.read(0)
        if e.window(0)[0] >= 0 and not right:
            return [value]
        parts = [e.given(k) for k in (*before, *after)]
        table = parts[0] if len(parts) == 1 else e.op("Concat", *parts, axis=axis)
        beyond = e.beyond(0, bool(right))
        place = e.op("Add", beyond, e.const([left]))
        if right:
            place = e.op("Sub", place, e.op("Cast", e.op("Greater", beyond, e.const([0])), to=int(ir.DataType.INT64)))
        place = e.op("Clip", place, e.const(0), e.const(left + right - 1))
        inside = e.op("Equal", beyond, e.const([0]))
        shape = [1] * len(site.out_dims())
        shape[axis] = -1
        inside = e.op("Reshape", inside, e.const(shape))
        return [e.op("Where", inside, value, e.op("Gather", table, place, axis=axis))]

    read = Read(source, 1, 1, -left, -left, Edge("any"))
    late = any(v is None for v in constants)
    return Plan((read,), (Timed(axis),), emit, f"{left} frames before the signal" if left else "", late=late)


@stream("Pad")
def pad(site: Site) -> Plan:
    fact = only_signal(site)
    rank = len(site.dims(0))
    pads = site.content(1)
    if pads is None or any(isinstance(p, SymDim) for p in pads):
        raise site.refuse("pads by amounts computed from the length", "pad by fixed amounts (see multiple=)")
    axes = constant_axes(site, 3, rank) if site.value(3) is not None else list(range(rank))
    sizes = {a: (int(pads[k]), int(pads[k + len(axes)])) for k, a in enumerate(axes)}  # type: ignore[arg-type]
    left, right = sizes.pop(fact.axis, (0, 0))
    if not left and not right:
        return framewise(site, {0: fact.axis})
    mode = str(site.attr("mode", "constant"))
    if mode == "wrap":
        raise site.refuse("wraps the end of the signal around to its start", "use constant, edge or reflect padding")
    if fact.fold != 1:
        raise site.refuse("pads rows merged with time", "reshape before padding")
    fill = site.const(2) if site.value(2) is not None else None
    if site.value(2) is not None and fill is None:
        raise site.refuse("pads with a value computed at run time", "make it constant")
    edge = Edge(mode, fill.item() if fill is not None and fill.size else 0)
    rest = {a: s for a, s in sizes.items() if any(s)}
    source = site.node.inputs[0]
    assert source is not None

    def post(e: Emit, value: ir.Value) -> ir.Value:
        both = [rest[a][0] for a in rest] + [rest[a][1] for a in rest]
        extra = site.node.inputs[2] if len(site.node.inputs) > 2 else None
        fixed = None if extra is None or fill is None else e.const(fill, fill.dtype)
        return e.op("Pad", value, e.const(both), fixed, e.const(list(rest)), mode=mode)

    read = Read(source, 1, 1, -left, -left, edge, False, post if rest else None)
    site.pending[site.node.outputs[0]] = Pending(source, left, min(left, right) < 0, edge, post if rest else None)
    needs = (fact.length, max(left, right, 0) + 1 if mode == "reflect" else 1)
    return Plan((read,), (Timed(fact.axis),), lambda e: [e.read(0)], "padding", (needs,))
