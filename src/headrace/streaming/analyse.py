"""Where time is in every value of a prepared graph, and how every node streams."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from headrace.errors import NotStreamable
from headrace.graph.facts import label
from headrace.graph.prepare import Prepared
from headrace.graph.rewrite import subgraphs
from headrace.graph.symbolic import Dim, SymDim
from headrace.ops.registry import stream_facet
from headrace.ops.timed import (
    TIME,
    BandFact,
    End,
    Fact,
    Final,
    FinalFact,
    GridFact,
    LengthFact,
    Pending,
    Plan,
    Read,
    RelativeFact,
    Site,
    TimeFact,
    divisors,
    has_time,
    slope,
    unfold,
)
from headrace.streaming import attention
from headrace.streaming.evaluate import CannotEvaluate, evaluate, first_frames

if TYPE_CHECKING:
    from headrace.streaming.model import BoundLength
    from headrace.streaming.windows import Windows

LONGEST = 1 << 40


@dataclass
class Analysis:
    """Facts by value, plans by node (static nodes have none), and the smallest chunk.

    needs, limits: (length, least or greatest value) for which the model is defined. blocks: a step must hold a
    whole number of each of these (blocks per input frame). max_past: the longest signal, where `unlimited`.
    """

    prepared: Prepared
    multiple: int
    time: dict[ir.Value, Fact] = field(default_factory=dict)
    plans: dict[ir.Node, Plan] = field(default_factory=dict)
    live: list[ir.Node] = field(default_factory=list)
    chunk: int = 1
    needs: list[tuple[Dim, int]] = field(default_factory=list)
    max_past: int | None = None
    unlimited: bool = False
    windows: Windows | None = None
    limits: list[tuple[Dim, int]] = field(default_factory=list)
    blocks: list[Fraction] = field(default_factory=list)
    align: bool = False
    lengths: dict[str, BoundLength] = field(default_factory=dict)

    @property
    def limit(self) -> int | None:
        """The longest signal for which every table is long enough, or None."""
        if not self.limits:
            return None
        low, high = 0, LONGEST // self.multiple
        while high - low > 1:
            middle = (low + high) // 2
            fits = all(at(length, middle * self.multiple) <= most for length, most in self.limits)
            low, high = (middle, high) if fits else (low, middle)
        return low * self.multiple

    def shown_delay(self, value: ir.Value) -> int:
        """Delay of an output as it leaves the step model: not negative, and with `align` that of the slowest."""
        delay = max(0, self.fact(value).delay)
        if not self.align:
            return delay
        outputs = [f for v in self.prepared.model.graph.outputs if isinstance(f := self.time.get(v), TimeFact)]
        slowest = max(max(0, f.delay) / f.rate for f in outputs)
        return max(delay, math.ceil(slowest * self.fact(value).rate))

    def fact(self, value: ir.Value) -> TimeFact:
        """Time of a value that has it."""
        fact = self.time[value]
        assert isinstance(fact, TimeFact)
        return fact


def analyse(
    prepared: Prepared,
    axes: Mapping[str, int],
    multiple: int,
    max_past: int | None = None,
    seen: list[Analysis] | None = None,
) -> Analysis:
    """Time facts and plans for the whole graph. NotStreamable names the first node that cannot stream.

    seen: receives the analysis as far as it went, also when it is refused.
    """
    result = Analysis(prepared, multiple, max_past=max_past)
    result.limits += prepared.facts.limits
    if seen is not None:
        seen.append(result)
    graph, facts = prepared.model.graph, prepared.facts
    for value in graph.inputs:
        if value.name in axes:
            axis = axes[value.name or ""]
            length = facts.dims[value][axis]
            result.time[value] = TimeFact(axis, slope(length) or Fraction(1), 0, length)
    pending: dict[ir.Value, Pending] = {}
    needed = _needed(graph)
    for node in graph:
        if node in needed:
            result.live.append(node)
            visit(node, result, pending)
    for value in graph.outputs:
        fact = result.time.get(value)
        if isinstance(fact, BandFact | GridFact | RelativeFact):
            raise NotStreamable(
                _producer(value),
                f"output {value.name!r} holds every frame against every other",
                "leave that output out",
            )
        if isinstance(fact, LengthFact) and not _countable(value, result):
            raise NotStreamable(_producer(value), "its result is the length of the signal", "drop that output")
        if isinstance(fact, TimeFact) and fact.fold != 1:
            raise NotStreamable(
                _producer(value), f"output {value.name!r} merges rows with time", "leave out the last reshape"
            )
    result.chunk = smallest_chunk(result)
    limit = result.limit
    if limit is not None:
        result.max_past = min(limit, result.max_past or limit) if result.unlimited else limit
        result.unlimited = True
    return result


def _countable(value: ir.Value, result: Analysis) -> bool:
    """Whether an output is made of lengths that follow the clock, so that the flush can give it."""
    content = result.prepared.facts.contents.get(value)
    lengths = [] if content is None else [x for x in content.reshape(-1) if isinstance(x, SymDim)]
    rates = [rate for x in lengths if (rate := slope(x)) is not None]
    if not lengths or len(rates) < len(lengths):
        return False
    periods = [math.lcm(rate.denominator, *divisors(x)) for rate, x in zip(rates, lengths, strict=True)]
    result.blocks += [Fraction(1, period) for period in periods]
    return True


def _needed(graph: ir.Graph) -> set[ir.Node]:
    """Nodes that an output depends on."""
    found: set[ir.Node] = set()
    queue = [v.producer() for v in graph.outputs]
    while queue:
        node = queue.pop()
        if node is None or node in found:
            continue
        found.add(node)
        queue += [v.producer() for v in node.inputs if v is not None]
        for inner in subgraphs(node):
            queue += [v.producer() for n in inner.all_nodes() for v in n.inputs if v is not None and v.graph is graph]
    return found


def _producer(value: ir.Value) -> str:
    node = value.producer()
    return label(node) if node is not None else value.name or ""


def visit(node: ir.Node, result: Analysis, pending: dict[ir.Value, Pending]) -> None:
    """Facts and plan of one node whose inputs were visited. NotStreamable where its rule says so."""
    facts, time = result.prepared.facts, result.time
    outputs = [v for v in node.outputs if v.name]
    if all(facts.contents.get(v) is not None for v in outputs):
        if any(isinstance(x, SymDim) for v in outputs for x in facts.contents[v].reshape(-1)):
            time.update({v: LengthFact() for v in outputs})
        elif not any(isinstance(time.get(v), TimeFact) for v in node.inputs if v is not None):
            return
        return
    inner = [v for g in subgraphs(node) for n in g.all_nodes() for v in n.inputs if v is not None]
    known = {type(time[v]) for v in (*node.inputs, *inner) if v is not None and v in time}
    grows = any(has_time(d) for v in outputs for d in facts.dims.get(v, ()))
    if not known and not grows:
        return
    if FinalFact in known:
        _final(node, result, known, outputs)
        return
    if known == {LengthFact} and not grows:
        time.update({v: LengthFact() for v in outputs})
        return
    if attention.is_grid(node, result):
        time.update({v: GridFact() for v in outputs})
        return
    inside = attention.visit(node, result) if not any(True for _ in subgraphs(node)) else False
    if inside is True:
        return
    if isinstance(inside, Plan):
        result.plans[node] = inside
        settle(Site(node, facts, time, pending), inside, result)
        return
    rule = stream_facet(node.domain, node.op_type)
    outer = {v for v in inner if v in time} - set(node.inputs)
    if any(True for _ in subgraphs(node)) and (rule is None or outer):
        raise NotStreamable(
            label(node),
            f"{node.op_type} has inner graphs that use the signal",
            "fix its condition with constants=, or export the model without it",
        )
    if rule is None:
        raise NotStreamable(
            label(node),
            f"{node.op_type} has no streaming rule",
            "replace it by operators that have one, or leave it out of the streamed part",
        )
    site = Site(node, facts, time, pending, lambda value, frames: sampled(result, value, frames))
    plan = rule(site)
    result.plans[node] = plan
    result.needs += plan.needs
    result.limits += plan.limits
    settle(site, plan, result)


def sampled(result: Analysis, value: ir.Value, frames: int) -> np.ndarray[Any, Any] | None:
    """A value for T near frames, where it depends on no input."""
    step, limit = result.multiple, result.limit
    try:
        return evaluate(value, min(frames, limit or frames) // step * step, result)
    except CannotEvaluate:
        return None


def _final(node: ir.Node, result: Analysis, known: set[type], outputs: list[ir.Value]) -> None:
    if known != {FinalFact}:
        raise NotStreamable(
            label(node),
            f"{node.op_type} combines frames with a result that is known only at the end of the signal",
            "compute it from the frames so far instead",
        )
    ends = frozenset(
        end for v in node.inputs if v is not None and isinstance(f := result.time.get(v), FinalFact) for end in f.ends
    )
    result.time.update({v: FinalFact(ends) for v in outputs})


def settle(site: Site, plan: Plan, result: Analysis) -> None:
    """Rate, delay and length of every output, from the plan's reads."""
    facts = site.facts
    inputs = [(r, result.fact(r.value)) for r in plan.reads]
    free = all(f.free and r == Read(r.value) for r, f in inputs)
    rates = {f.rate * r.den / r.num for r, f in inputs}
    if len(rates) > 1:
        raise site.refuse(f"joins signals at rates {', '.join(map(str, sorted(rates)))}", "resample one of them")
    for k, out in enumerate(plan.outs):
        if k >= len(site.node.outputs) or out is None:
            continue
        value = site.node.outputs[k]
        if not value.name:
            continue
        if isinstance(out, Final):
            result.time[value] = FinalFact(
                frozenset(End(f.rate, max(0, f.delay) if r.own else f.delay, f.length) for r, f in inputs)
            )
            continue
        length = unfold(facts.dims[value][out.axis], out.fold, facts)
        rate = next(iter(rates), None) or slope(length)
        if not rate or slope(length) != rate:
            raise site.refuse(
                f"keeps {length} frames of the signal, not a fixed number per frame",
                "only signals whose length follows the input's can stream",
            )
        delay = 0
        if not free:
            reads = [
                -r.determined(-(max(0, f.delay) if r.own else f.delay))
                for r, f in inputs
                if not (f.free and r == Read(r.value))
            ]
            delay = max(missing(length, rate, result.multiple), *reads)
            if plan.late or any(r.past or r.whole or (r.edge and r.edge.moves) for r, _ in inputs):
                delay = max(0, delay)
        fact = TimeFact(out.axis, rate, delay, length, out.fold, free)
        result.time[value] = fact
        if delay < 0 and not _known_before(result, value, fact):
            result.time[value] = replace(fact, delay=0)
        result.needs.append((length, 1))


def _known_before(result: Analysis, value: ir.Value, fact: TimeFact) -> bool:
    """Whether the frames before the first step can be computed now."""
    try:
        first_frames(result, value, -fact.delay)
    except CannotEvaluate:
        return False
    return True


def missing(length: Dim, rate: Fraction, multiple: int) -> int:
    """How many frames fewer than rate·T there are where T is a multiple of every stride."""
    period = math.lcm(multiple, rate.denominator, *divisors(length))
    return int(rate * period * 64) - at(length, period * 64)


def at(length: Dim, frames: int) -> int:
    """The length for T = frames."""
    return length if isinstance(length, int) else length.evaluate({TIME: frames})


def smallest_chunk(result: Analysis) -> int:
    """The fewest input frames for which every value has whole frames in each step."""
    found = [1, *(f.denominator for f in result.blocks)]
    for fact in result.time.values():
        if isinstance(fact, TimeFact):
            found += [fact.rate.denominator, *divisors(fact.length)]
    return math.lcm(*found)
