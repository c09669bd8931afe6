"""Time, delay and state of every layer, as rows for people; and the table of operators for the guide."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from headrace.errors import NotStreamable
from headrace.graph.facts import label
from headrace.graph.model import Model
from headrace.ops.registry import stream_facet, streamed_operators
from headrace.ops.timed import TimeFact
from headrace.streaming.analyse import Analysis
from headrace.streaming.model import WindowSpec
from headrace.streaming.rewrite import analyse_model
from headrace.streaming.work import window_spec


@dataclass(frozen=True)
class LayerTime:
    """One layer. time: fact of each output, "[axis 2, delay 1, rate 1/2]"; state: what it keeps, or "".

    work: of a model over windows, the multiply-accumulates per window and what keeps windows from sharing them.
    """

    name: str
    op: str
    time: tuple[str, ...]
    state: str
    work: str = ""


@dataclass(frozen=True)
class TimeReport:
    """Layers in order. blocked: the refusal at the first layer that cannot stream, or None.

    window: of a model over windows, what they share.
    """

    layers: tuple[LayerTime, ...]
    chunk: int
    blocked: NotStreamable | None
    window: WindowSpec | None = None

    def __str__(self) -> str:
        """One line per layer in columns, then the chunk, or what blocks."""
        rows = [(r.name, r.op, " ".join(r.time), f"keeps {r.state}" if r.state else "", r.work) for r in self.layers]
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
        lines = ["  ".join([*(f"{c:{w}}" for c, w in zip(row, widths, strict=False)), row[4]]).rstrip() for row in rows]
        lines.append(str(self.blocked) if self.blocked else f"chunk of {self.chunk} frames")
        return "\n".join([*lines, *([str(self.window)] if self.window else [])])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        blocked = self.blocked and {"node": self.blocked.node, "reason": self.blocked.reason, "hint": self.blocked.hint}
        layers = [asdict(layer) for layer in self.layers]
        window = None if self.window is None else asdict(self.window)
        return {"layers": layers, "chunk": self.chunk, "blocked": blocked, "window": window}


def explain(
    model: Model,
    axes: Mapping[str, int],
    *,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    constants: Mapping[str, Any] | None = None,
    multiple: Mapping[str, int] | None = None,
    max_past: int | None = None,
    window: int | Mapping[str, int] | None = None,
    hop: int = 1,
    lengths: Mapping[str, str] | None = None,
) -> TimeReport:
    """What `stream` finds out about a model, up to the layer that blocks it where one does."""
    seen: list[Analysis] = []
    blocked = None
    try:
        analyse_model(
            model, axes, shapes=shapes, constants=constants, multiple=multiple, max_past=max_past,
            window=window, hop=hop, lengths=lengths, seen=seen,
        )  # fmt: skip
    except NotStreamable as error:
        blocked = error
    if not seen:
        return TimeReport((), 0, blocked)
    spec = window_spec(seen[0])
    layers = _layers(seen[0]) if spec is None else _with_windows(seen[0], spec)
    return TimeReport(tuple(layers), seen[0].chunk, blocked, spec)


def _with_windows(analysis: Analysis, spec: WindowSpec) -> list[LayerTime]:
    """The layers that windows share, then those of every window."""
    assert analysis.windows is not None
    work = {layer.name: layer for layer in spec.work}

    def told(name: str) -> str:
        layer = work.get(name)
        if layer is None:
            return ""
        if not layer.why:
            return f"{layer.shared:,} MAC instead of {layer.alone:,}"
        return f"{layer.alone:,} MAC: {layer.why}"

    rows = [replace(row, work=told(row.name)) for row in _layers(analysis)]
    inner = [LayerTime(label(n), n.op_type, ("[every window]",), "", told(label(n))) for n in analysis.windows.body]
    return [*rows, *inner]


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
