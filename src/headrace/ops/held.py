"""Recurrences over a block of frames of which some may lie outside the signal: there the state is held."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from headrace.ops.timed import Emit

States = Mapping[int, ir.Value]
Run = Callable[[Sequence[ir.Value], States, ir.Value | None], tuple[Sequence[ir.Value], Sequence[ir.Value]]]


def held(
    e: Emit,
    out: int,
    blocks: Sequence[tuple[ir.Value, int]],
    states: Mapping[int, ir.Value],
    run: Run,
    *,
    finals: bool,
    counts: bool = False,
) -> tuple[list[list[ir.Value]], dict[int, ir.Value]]:
    """(outputs of every stretch, states at the end of the block).

    out: an output of the node that has time; blocks: (value, its time axis); states: key → value before the
    block; finals: whether the states themselves are results. run(pieces, states, real) makes (outputs, new
    states, in the order of `states`) of one stretch of frames that are all real or all outside. counts: run can
    stop within a stretch, after its first `real` frames (int64 [1], from 1 to all; None: all are real).
    """
    fact, count = e.fact(out), e.frames(out)
    late = fact.delay
    ends = finals and e.overrun(fact)
    cuts = list(range(count + 1)) if ends and not counts else sorted({0, late % count, count})
    kept, made = dict(states), []
    for first, end in itertools.pairwise(cuts):
        pieces = [
            value if (first, end) == (0, count) else e.op("Slice", value, *map(e.const, ([first], [end], [axis])))
            for value, axis in blocks
        ]
        real = None
        if ends and counts and end - first > 1:
            left = e.op("Sub", e.left(fact), e.const([first]))
            real = e.op("Clip", left, e.const(1), e.const(end - first))
        outputs, following = run(pieces, dict(kept), real)
        made.append(list(outputs))
        for key, new in zip(states, following, strict=True):
            value = new
            if late > first:
                value = e.op("Where", e.begun(fact, first), value, kept[key])
            if ends:
                value = e.op("Where", e.going(fact, first), value, kept[key])
            kept[key] = value
    return made, kept


def joined(e: Emit, parts: Sequence[ir.Value], axis: int) -> ir.Value:
    """The frames of all stretches."""
    return parts[0] if len(parts) == 1 else e.op("Concat", *parts, axis=axis)
