"""Recurrences over a block of frames of which some may lie outside the signal: there the state is held."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from headrace.ops.timed import Emit

Run = Callable[[Sequence[ir.Value], Mapping[int, ir.Value]], tuple[Sequence[ir.Value], Sequence[ir.Value]]]


def held(
    e: Emit,
    out: int,
    blocks: Sequence[tuple[ir.Value, int]],
    states: Mapping[int, ir.Value],
    run: Run,
    *,
    finals: bool,
) -> tuple[list[list[ir.Value]], dict[int, ir.Value]]:
    """(outputs of every stretch, states at the end of the block).

    out: an output of the node that has time; blocks: (value, its time axis); states: key → value before the
    block; finals: whether the states themselves are results. run(pieces, states) makes (outputs, new states,
    in the order of `states`) of one stretch of frames that are all real or all outside.
    """
    fact, count = e.fact(out), e.frames(out)
    late = fact.delay
    ends = finals and e.overrun(fact)
    cuts = list(range(count + 1)) if ends else sorted({0, late % count, count})
    kept, made = dict(states), []
    for first, end in itertools.pairwise(cuts):
        pieces = [
            value if (first, end) == (0, count) else e.op("Slice", value, *map(e.const, ([first], [end], [axis])))
            for value, axis in blocks
        ]
        outputs, following = run(pieces, dict(kept))
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
