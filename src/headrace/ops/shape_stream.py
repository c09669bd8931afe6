"""Streaming of operators that move axes and frames about."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from headrace.graph.symbolic import Dim, SymDim, exact_div, product
from headrace.ops.registry import stream
from headrace.ops.timed import (
    Emit,
    Plan,
    Read,
    Site,
    Timed,
    TimeFact,
    framewise,
    has_time,
    slope,
)


def only_signal(site: Site, i: int = 0) -> TimeFact:
    """Time of the one input that may have it."""
    fact = site.fact(i)
    if fact is None or site.timed() != [i]:
        raise site.refuse("has operands that change over time", "only its data may be a signal")
    return fact


def constant_axes(site: Site, i: int, rank: int) -> list[int]:
    """Constant axes of input i, not negative."""
    given = site.const(i)
    if given is None:
        raise site.refuse("has axes computed at run time", "make them constant")
    return [int(a) % rank for a in given.reshape(-1)]


@stream("Transpose")
def transpose(site: Site) -> Plan:
    fact = only_signal(site)
    perm = list(site.attr("perm") or range(len(site.dims(0)))[::-1])
    return framewise(site, {0: perm.index(fact.axis)})


@stream("Unsqueeze")
def unsqueeze(site: Site) -> Plan:
    fact = only_signal(site)
    rank = len(site.out_dims())
    new = constant_axes(site, 1, rank)
    kept = [axis for axis in range(rank) if axis not in new]
    return framewise(site, {0: kept[fact.axis]})


@stream("Squeeze")
def squeeze(site: Site) -> Plan:
    fact = only_signal(site)
    dims = site.dims(0)
    gone = constant_axes(site, 1, len(dims)) if site.value(1) is not None else [i for i, d in enumerate(dims) if d == 1]
    kept = [axis for axis in range(len(dims)) if axis not in gone]
    return framewise(site, {0: kept.index(fact.axis)})


@stream("Reshape", "Flatten")
def reshape(site: Site) -> Plan:
    """Time may be merged with axes before it (rows) or after it (a higher rate), and be taken apart again."""
    fact = only_signal(site)
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
    fact = only_signal(site)
    return framewise(site, {0: fact.axis + rank - len(site.dims(0))}, emit)


def _expanded(e: Emit) -> Sequence[ir.Value | None]:
    source = e.given(0) if not has_reads(e) else e.read(0)
    return [e.op("Expand", source, e.const(e.dims()))]


def has_reads(e: Emit) -> bool:
    return bool(e.plan.reads)


def _spread(site: Site, emit: Callable[[Emit], Sequence[ir.Value | None]]) -> Plan:
    """A timeless value repeated for every frame."""
    timed = [a for a, d in enumerate(site.out_dims()) if has_time(d)]
    if len(timed) != 1:
        raise site.refuse("makes a value with time on two axes", "whole-sequence attention does not stream")
    return Plan((), (Timed(timed[0]),), emit)


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
    repeats = site.content(1)
    if site.fact(0) is None:
        return _repeated(site, repeats)
    fact = only_signal(site)
    if repeats is None or repeats[fact.axis] != 1:
        raise site.refuse("repeats the signal along time", "repeat frames with Resize, or other axes only")
    return framewise(site, {0: fact.axis})


def _repeated(site: Site, repeats: list[Dim] | None) -> Plan:
    """A value without time, once for every frame."""
    places = [a for a, d in enumerate(site.out_dims()) if has_time(d)]
    if site.timed() or repeats is None or any(site.dims(0)[a] != 1 for a in places):
        raise site.refuse("repeats several rows as often as there are frames", "repeat a single row")

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        counts = [e.frames() if a in places else int(str(n)) for a, n in enumerate(repeats)]
        return e.clone({1: e.const(counts)})

    return _spread(site, emit)


@stream("OneHot")
def one_hot(site: Site) -> Plan:
    fact = only_signal(site)
    axis = int(site.attr("axis", -1)) % len(site.out_dims())
    return framewise(site, {0: fact.axis + (axis <= fact.axis)})


@stream("DepthToSpace", "SpaceToDepth")
def depth_to_space(site: Site) -> Plan:
    """Groups of channels become frames, or frames channels."""
    fact = only_signal(site)
    if fact.axis == 0:
        return framewise(site, {0: 0})
    if fact.axis == 1 or fact.fold != 1:
        raise site.refuse("takes frames as channels", "put time on a spatial axis")
    block = int(site.attr("blocksize"))
    source = site.node.inputs[0]
    assert source is not None
    if site.op == "SpaceToDepth":
        return Plan((Read(source, block, 1, 0, block - 1),), (Timed(fact.axis),), lambda e: e.clone({0: e.read(0)}))

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        value, (first, _), (start, end) = e.clone({0: e.read(0)})[0], e.window(0), e.range()
        skip = start - first * block
        bounds = [e.const([x]) for x in (skip, skip + end - start, fact.axis)]
        return [value if not skip and end == e.window(0)[1] * block else e.op("Slice", value, *bounds)]

    return Plan((Read(source, 1, block, 1 - block, 0),), (Timed(fact.axis),), emit)


@stream("ReverseSequence")
def reverse_sequence(site: Site) -> Plan:
    raise site.refuse("reverses the signal", "reversal needs the whole signal")


@stream("NonZero", "Compress", "Unique")
def data_dependent(site: Site) -> Plan:
    raise site.refuse("makes a result whose length depends on the data", "do this outside the streamed part")


@stream("Shape", "Size")
def shape(site: Site) -> Plan:
    raise site.refuse("gives the length of the signal", "the length is known only at the end")
