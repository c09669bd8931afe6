"""How many output frames a prefix of the signal determines, and which input frames a frame depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from headrace.ops.timed import Plan, Read, TimeFact
from headrace.streaming.analyse import Analysis
from headrace.streaming.length import offsets


@dataclass(frozen=True)
class Reach:
    """Of one value, over one period of `chunk` input frames and m frames of the value, far from the edges.

    ready[r]: frames determined by the first s·chunk + r input frames, less s·m; for r = 0, those that
    s steps give.
    first[j], last[j]: input frames that frame s·m + j depends on, less s·chunk; first is None where the
    past is unbounded, last where it depends on no input.
    """

    ready: tuple[int, ...]
    first: tuple[int, ...] | None
    last: tuple[int, ...] | None


def reaches(analysis: Analysis, chunk: int) -> dict[ir.Value, Reach]:
    """The reach of every value with time."""
    found: dict[ir.Value, Reach] = {}
    for value in analysis.prepared.model.graph.inputs:
        fact = analysis.time.get(value)
        if isinstance(fact, TimeFact):
            count = int(fact.rate * chunk)
            own = [(j * fact.rate.denominator) // fact.rate.numerator for j in range(count)]
            ready = tuple(int(r * fact.rate) for r in range(chunk))
            found[value] = Reach(ready, tuple(own), tuple(own))
    for node in analysis.live:
        plan = analysis.plans.get(node)
        if plan is None:
            continue
        for value in node.outputs:
            fact = analysis.time.get(value)
            if isinstance(fact, TimeFact):
                found[value] = _reach(analysis, fact, plan, found, chunk)
    return found


def _reach(analysis: Analysis, fact: TimeFact, plan: Plan, found: dict[ir.Value, Reach], chunk: int) -> Reach:
    count = int(fact.rate * chunk)
    carry = [int(r * fact.rate) for r in range(chunk)]
    if fact.free:
        return Reach(tuple(carry), tuple([10**9] * count), None)
    exist = offsets(fact.length, fact.rate, chunk, analysis.multiple, above=True)  # of the shortest signal to come
    ready = list(exist)
    if fact.delay == 0:
        ready[0] = min(ready[0], 0)  # a step gives no frames before their time
    first: list[int] | None = [10**9] * count
    last: list[int] | None = None
    for read in plan.reads:
        source, before = analysis.fact(read.value), found[read.value]
        if source.free and read == Read(read.value):
            continue
        if source.free:
            ready = [min(a, read.determined(b)) for a, b in zip(ready, before.ready, strict=True)]
            continue
        size = int(source.rate * chunk)
        known = before.ready
        if read.own:
            known = (min(known[0], 0), *known[1:])
        ready = [min(a, read.determined(b)) for a, b in zip(ready, known, strict=True)]
        if before.first is None or read.past:
            first = None
        elif first is not None:
            first = [min(a, _lookup(before.first, read.first(j), size, chunk)) for j, a in enumerate(first)]
        if before.last is not None:
            reach = [_lookup(before.last, read.last(j), size, chunk) for j in range(count)]
            last = reach if last is None else [max(pair) for pair in zip(last, reach, strict=True)]
    return Reach(tuple(ready), None if first is None else tuple(first), None if last is None else tuple(last))


def _lookup(table: Sequence[int], frame: int, size: int, chunk: int) -> int:
    return table[frame % size] + (frame // size) * chunk


@dataclass(frozen=True)
class Timing:
    """What users are told about one output; see docs/design/streaming.md."""

    ready: tuple[int, ...]
    latency: int
    lookahead: int
    receptive_field: int | None


def timing(fact: TimeFact, reach: Reach, chunk: int, delay: int) -> Timing:
    """Latency, look-ahead and receptive field from the reach of an output."""
    p, q = fact.rate.numerator, fact.rate.denominator
    count = int(fact.rate * chunk)
    ready = tuple(min(r, int(i * fact.rate)) for i, r in enumerate(reach.ready))
    if delay > max(0, -ready[0]):  # shown later than it is known
        ready = tuple(min(r, int(i * fact.rate) - delay) for i, r in enumerate(ready))
    assert max(0, -ready[0]) == delay, (ready, delay)
    latency = max(0, *(i * p // q - r for i, r in enumerate(ready)))
    if reach.last is None:
        return Timing(ready, latency, 0, 0)
    own = [-((-(j + 1) * q) // p) for j in range(count)]
    lookahead = max(0, *(last + 1 - end for last, end in zip(reach.last, own, strict=True)))
    field = None
    if reach.first is not None:
        field = max(last - first + 1 for first, last in zip(reach.first, reach.last, strict=True))
    return Timing(ready, latency, lookahead, field)
