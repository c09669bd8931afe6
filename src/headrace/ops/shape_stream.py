"""Streaming of operators that move axes and frames about."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from headrace.graph.symbolic import Dim, SymDim, exact_div, product
from headrace.ops.registry import stream
from headrace.ops.timed import (
    Edge,
    Emit,
    Pending,
    Plan,
    Read,
    Site,
    Timed,
    TimeFact,
    framewise,
    has_time,
    slope,
)


def _signal(site: Site, i: int = 0) -> TimeFact:
    fact = site.fact(i)
    if fact is None or site.timed() != [i]:
        raise site.refuse("has operands that change over time", "only its data may be a signal")
    return fact


def _axes(site: Site, i: int, rank: int) -> list[int]:
    """Constant axes of input i, not negative."""
    given = site.const(i)
    if given is None:
        raise site.refuse("has axes computed at run time", "make them constant")
    return [int(a) % rank for a in given.reshape(-1)]


@stream("Transpose")
def transpose(site: Site) -> Plan:
    fact = _signal(site)
    perm = list(site.attr("perm") or range(len(site.dims(0)))[::-1])
    return framewise(site, {0: perm.index(fact.axis)})


@stream("Unsqueeze")
def unsqueeze(site: Site) -> Plan:
    fact = _signal(site)
    rank = len(site.out_dims())
    new = _axes(site, 1, rank)
    kept = [axis for axis in range(rank) if axis not in new]
    return framewise(site, {0: kept[fact.axis]})


@stream("Squeeze")
def squeeze(site: Site) -> Plan:
    fact = _signal(site)
    dims = site.dims(0)
    gone = _axes(site, 1, len(dims)) if site.value(1) is not None else [i for i, d in enumerate(dims) if d == 1]
    kept = [axis for axis in range(len(dims)) if axis not in gone]
    return framewise(site, {0: kept.index(fact.axis)})


@stream("Reshape", "Flatten")
def reshape(site: Site) -> Plan:
    """Time may be merged with axes before it (rows) or after it (a higher rate), and be taken apart again."""
    fact = _signal(site)
    dims, target = site.dims(0), site.out_dims()
    before = product(*dims[: fact.axis], fact.fold)
    after = product(*dims[fact.axis + 1 :])
    place = _place(site, target, fact.length, before, after)
    if place is None:
        raise site.refuse(
            f"reshapes {_text(dims)} to {_text(target)}, which mixes frames with other axes",
            "keep time on an axis of its own, or merge it with neighbours only",
        )
    axis, fold, num, den = place
    source = site.node.inputs[0]
    assert source is not None
    if num == den == 1:
        read = Read(source)
    else:
        read = Read(source, num, den, 1 - den, num - 1)

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        value, (first, _), (start, _) = e.read(0), e.window(0), e.range()
        skip = start * num - first * den if den > 1 else 0
        if not skip and e.window(0)[1] * den - first * den == e.frames() * num:
            return [e.op("Reshape", value, e.const(e.dims()))]
        whole = e.dims()
        count = (e.window(0)[1] - first) * den // num
        whole[axis] = fold * count
        value = e.op("Reshape", value, e.const(whole))
        return [e.op("Slice", value, e.const([skip]), e.const([skip + e.frames()]), e.const([axis]))]

    return Plan((read,), (Timed(axis, fold),), emit)


def _place(site: Site, target: Sequence[Dim], length: Dim, before: Dim, after: Dim) -> tuple[int, int, int, int] | None:
    """(axis, fold, num, den) of time in the target: an output frame is num/den input frames."""
    timed = [a for a, d in enumerate(target) if has_time(d)]
    if len(timed) != 1 or not isinstance(before, int) or not isinstance(after, int):
        return None
    axis = timed[0]
    ahead, behind = product(*target[:axis]), product(*target[axis + 1 :])
    if not isinstance(ahead, int) or not isinstance(behind, int):
        return None
    if not ahead or before % ahead:
        return None
    fold = before // ahead
    frames = exact_div(target[axis], fold, site.facts.symbols)
    if frames is None:
        return None
    a, b = slope(frames), slope(length)
    if not a or not b:
        return None
    ratio = a / b
    num, den = ratio.denominator, ratio.numerator
    if num > 1 and den > 1:
        return None
    if fold > 1 and (num > 1 or den > 1):
        return None
    return axis, fold, num, den


def _text(dims: Sequence[Dim]) -> str:
    return "[" + ", ".join(map(str, dims)) + "]"


@stream("Expand")
def expand(site: Site) -> Plan:
    rank = len(site.out_dims())
    emit = _expanded
    if site.fact(0) is None:
        return _spread(site, emit)
    fact = _signal(site)
    return framewise(site, {0: fact.axis + rank - len(site.dims(0))}, emit)


def _expanded(e: Emit) -> Sequence[ir.Value | None]:
    source = e.given(0) if not has_reads(e) else e.read(0)
    return [e.op("Expand", source, e.const(e.dims()))]


def has_reads(e: Emit) -> bool:
    return bool(e.plan.reads)


def _spread(site: Site, emit: object) -> Plan:
    """A timeless value repeated for every frame."""
    timed = [a for a, d in enumerate(site.out_dims()) if has_time(d)]
    if len(timed) != 1:
        raise site.refuse("makes a value with time on two axes", "whole-sequence attention does not stream")
    return Plan((), (Timed(timed[0]),), emit)  # type: ignore[arg-type]


@stream("ConstantOfShape")
def constant_of_shape(site: Site) -> Plan:
    return _spread(site, lambda e: e.clone({0: e.const(e.dims())}))


@stream("Range")
def range_(site: Site) -> Plan:
    start, step = site.content(0), site.content(2)
    if site.timed() or start is None or step is None or any(isinstance(x, SymDim) for x in (*start, *step)):
        raise site.refuse("counts from a value that is not fixed", "count from a constant")
    first, by = int(start[0]), int(step[0])  # type: ignore[arg-type]
    dtype = int(site.node.outputs[0].dtype or 7)

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        lo, hi = e.range()
        index = e.index(e.fact(), lo, hi)
        if by != 1:
            index = e.op("Mul", index, e.const([by]))
        if first:
            index = e.op("Add", index, e.const([first]))
        return [index if dtype == 7 else e.op("Cast", index, to=dtype)]

    return _spread(site, emit)


@stream("Tile")
def tile(site: Site) -> Plan:
    fact = _signal(site)
    repeats = site.content(1)
    if repeats is None or repeats[fact.axis] != 1:
        raise site.refuse("repeats the signal along time", "repeat frames with Resize, or other axes only")
    return framewise(site, {0: fact.axis})


@stream("Slice")
def slice_(site: Site) -> Plan:
    if site.fact(0) is None:
        return _table(site)
    fact = _signal(site)
    dims = site.dims(0)
    rank = len(dims)
    starts, ends = site.content(1), site.content(2)
    axes = _axes(site, 3, rank) if site.value(3) is not None else list(range(rank))
    steps = site.content(4) if site.value(4) is not None else [1] * len(axes)
    if fact.axis not in axes:
        return framewise(site, {0: fact.axis})
    if starts is None or ends is None or steps is None or fact.fold != 1:
        raise site.refuse("cuts time at places computed at run time", "make starts and ends constant")
    k = axes.index(fact.axis)
    start, end, step = starts[k], ends[k], steps[k]
    if isinstance(step, SymDim) or step < 1:
        raise site.refuse("reads the signal backwards", "reversal needs the whole signal; leave it out")
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
    axes = _axes(site, 3, rank) if site.value(3) is not None else list(range(rank))
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
    fact = _signal(site)
    axis = int(site.attr("axis", 0)) % len(site.dims(0))
    if axis == fact.axis:
        raise site.refuse("splits the signal in time", "use Slice with a constant start and step")

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        return e.clone({0: e.read(0)})

    return framewise(site, {0: fact.axis}, emit)


@stream("Concat")
def concat(site: Site) -> Plan:
    facts = [f for i in site.timed() if (f := site.fact(i)) is not None]
    axis = int(site.attr("axis", 0)) % len(site.out_dims())
    place = facts[0].axis
    if axis != place:
        return framewise(site, {i: f.axis for i in site.timed() if (f := site.fact(i)) is not None})
    return _append(site, axis)


def _append(site: Site, axis: int) -> Plan:
    """Constants before or after one signal are padding with given values."""
    if len(site.timed()) != 1:
        raise site.refuse("puts one signal after another in time", "the second would wait for the end of the first")
    (i,) = site.timed()
    values = [site.const(k) for k in range(len(site.node.inputs))]
    flat = [v for v in values if v is not None]
    same = {v.reshape(-1)[:1].tobytes() for v in flat}
    uniform = all((v == v.reshape(-1)[:1]).all() for v in flat if v.size) and len(same) == 1
    if len(flat) + 1 != len(values) or not uniform:
        raise site.refuse("appends frames to the signal that are not one constant value", "append zeros, or use Pad")
    left = sum(v.shape[axis] for v in values[:i] if v is not None)
    edge = Edge("constant", flat[0].reshape(-1)[0].item())
    read = site.read(i, 1, 1, -left, -left, edge)
    return Plan((read,), (Timed(axis),), lambda e: [e.read(0)])


@stream("Pad")
def pad(site: Site) -> Plan:
    fact = _signal(site)
    rank = len(site.dims(0))
    pads = site.content(1)
    if pads is None or any(isinstance(p, SymDim) for p in pads):
        raise site.refuse("pads by amounts computed from the length", "pad by fixed amounts (see multiple=)")
    axes = _axes(site, 3, rank) if site.value(3) is not None else list(range(rank))
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
    site.pending[site.node.outputs[0]] = Pending(source, left, edge, post if rest else None)
    needs = (fact.length, max(left, right, 0) + 1 if mode == "reflect" else 1)
    return Plan((read,), (Timed(fact.axis),), lambda e: [e.read(0)], "padding", (needs,))


@stream("Gather")
def gather(site: Site) -> Plan:
    data, index = site.fact(0), site.fact(1)
    axis = int(site.attr("axis", 0)) % len(site.dims(0))
    count = len(site.dims(1))
    if data is not None and index is not None:
        raise site.refuse("picks from the signal at places that change over time", "gather along another axis")
    if data is None:
        assert index is not None
        size = site.dims(0)[axis]

        def emit(e: Emit) -> Sequence[ir.Value | None]:
            """Numbers of frames outside the signal may lie outside the table."""
            place = e.read(0)
            if index.free and isinstance(size, int):
                dtype = np.int32 if site.node.inputs[1].dtype == ir.DataType.INT32 else np.int64  # type: ignore[union-attr]
                place = e.op("Max", place, e.const(0, dtype))
            return e.clone({1: place})

        return framewise(site, {1: axis + index.axis}, emit)
    if axis == data.axis:
        raise site.refuse("picks single frames of the signal", "cut with Slice, which keeps a signal a signal")
    return framewise(site, {0: data.axis if data.axis < axis else data.axis + count - 1})


@stream("GatherElements")
def gather_elements(site: Site) -> Plan:
    axis = int(site.attr("axis", 0)) % len(site.dims(0))
    facts = [f for i in site.timed() if (f := site.fact(i)) is not None]
    if len(facts) != 2 or any(f.axis == axis for f in facts):
        raise site.refuse("picks frames along time, or from a fixed number of frames", "gather along another axis")
    return framewise(site, {i: f.axis for i, f in enumerate(facts)})


@stream("OneHot")
def one_hot(site: Site) -> Plan:
    fact = _signal(site)
    axis = int(site.attr("axis", -1)) % len(site.out_dims())
    return framewise(site, {0: fact.axis + (axis <= fact.axis)})


@stream("DepthToSpace", "SpaceToDepth")
def depth_to_space(site: Site) -> Plan:
    fact = _signal(site)
    if fact.axis != 0:
        raise site.refuse("moves channels into time", "write it as Reshape and Transpose")
    return framewise(site, {0: 0})


@stream("ReverseSequence")
def reverse_sequence(site: Site) -> Plan:
    raise site.refuse("reverses the signal", "reversal needs the whole signal")


@stream("NonZero", "Compress", "Unique")
def data_dependent(site: Site) -> Plan:
    raise site.refuse("makes a result whose length depends on the data", "do this outside the streamed part")


@stream("Shape", "Size")
def shape(site: Site) -> Plan:
    raise site.refuse("gives the length of the signal", "the length is known only at the end")
