"""Time, delay and state of every layer, as rows for people; and the table of operators for the guide."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.errors import NotStreamable
from headrace.graph.facts import label
from headrace.graph.model import Model
from headrace.ops.registry import stream_facet, streamed_operators
from headrace.ops.timed import TimeFact
from headrace.streaming.analyse import Analysis
from headrace.streaming.rewrite import analyse_model


@dataclass(frozen=True)
class LayerTime:
    """One layer. time: fact of each output, "[axis 2, delay 1, rate 1/2]"; state: what it keeps, or ""."""

    name: str
    op: str
    time: tuple[str, ...]
    state: str

    def __str__(self) -> str:
        kept = f"  keeps {self.state}" if self.state else ""
        return f"{self.name}  {self.op}  {' '.join(self.time)}{kept}"


@dataclass(frozen=True)
class TimeReport:
    """Layers in order. blocked: the refusal at the first layer that cannot stream, or None."""

    layers: tuple[LayerTime, ...]
    chunk: int
    blocked: NotStreamable | None

    def __str__(self) -> str:
        lines = [str(layer) for layer in self.layers]
        lines.append(str(self.blocked) if self.blocked else f"chunk of {self.chunk} frames")
        return "\n".join(lines)


def explain(
    model: Model,
    axes: Mapping[str, int],
    *,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    constants: Mapping[str, Any] | None = None,
    multiple: Mapping[str, int] | None = None,
    max_past: int | None = None,
) -> TimeReport:
    """What `stream` finds out about a model, up to the layer that blocks it where one does."""
    seen: list[Analysis] = []
    blocked = None
    try:
        analyse_model(model, axes, shapes=shapes, constants=constants, multiple=multiple, max_past=max_past, seen=seen)
    except NotStreamable as error:
        blocked = error
    return TimeReport(tuple(_layers(seen[0])) if seen else (), seen[0].chunk if seen else 0, blocked)


def _layers(analysis: Analysis) -> list[LayerTime]:
    rows = []
    for node in analysis.live:
        facts = [analysis.time[v] for v in node.outputs if v in analysis.time]
        if not facts:
            continue
        plan = analysis.plans.get(node)
        state = plan.state if plan is not None else ""
        if not state and plan is not None and any(isinstance(f, TimeFact) for f in facts):
            state = _delays(analysis, node.outputs[0], plan.reads)
        rows.append(LayerTime(label(node), node.op_type, tuple(str(f) for f in facts), state))
    return rows


def _delays(analysis: Analysis, out: Any, reads: Sequence[Any]) -> str:
    """Inputs that wait for slower ones."""
    fact = analysis.time[out]
    if not isinstance(fact, TimeFact):
        return ""
    waits = [
        fact.delay - source.delay
        for r in reads
        if r.num == r.den == 1 and r.lo == r.hi == 0 and not (source := analysis.fact(r.value)).free
    ]
    return f"{max(waits)} frames of an earlier branch" if waits and max(waits) > 0 else ""


def operator_table() -> str:
    """Markdown: families of operators that have a streaming rule, from the rules themselves."""
    families: dict[str, list[str]] = {}
    for domain, op in streamed_operators():
        rule = stream_facet(domain, op)
        assert rule is not None
        families.setdefault(rule.__module__, []).append(f"`{op}`")
    lines = ["| What streams | Operators |", "|---|---|"]
    for module, names in sorted(families.items()):
        text = (importlib.import_module(module).__doc__ or "").strip().splitlines()[0]
        lines.append(f"| {text.removeprefix('Streaming of ').rstrip('.')} | {', '.join(sorted(names))} |")
    return "\n".join(lines)
