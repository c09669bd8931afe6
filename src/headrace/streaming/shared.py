"""Which values of a model over windows are the same frames in every window, so that a stream computes them once.

A value is shared when frame j of window k is frame k·hop·rate + j of the value over the whole signal: no
layer before it pads, remembers what was before, or knows where in the window it is. Whatever is not
shared is computed for each window; so a doubt costs work, never correctness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import onnx_ir as ir

from headrace.errors import Error, NotStreamable
from headrace.graph.facts import label
from headrace.graph.model import Model
from headrace.graph.prepare import Prepared
from headrace.graph.rewrite import subgraphs
from headrace.ops.timed import TIME, LengthFact, Pending, Plan, TimeFact
from headrace.passes.tidy import remove_unused
from headrace.streaming.analyse import Analysis, at, visit
from headrace.streaming.opening import BOUND, LONG, opened, prepare_open, streamed_natively

BY_SHAPE = ("Reshape", "Expand", "Slice")  # may read the length of the signal as an extent
MAX_FAULTS = 32


@dataclass(frozen=True)
class Grid:
    """Windows of `frames` frames, `hop` frames apart."""

    frames: int
    hop: int


@dataclass(frozen=True)
class Shared:
    """analysis: of the part of the model that holds for every length. values: those that windows share, by name.

    reasons: for nodes whose result windows do not share, by label.
    """

    analysis: Analysis
    values: dict[str, ir.Value]
    reasons: dict[str, str]

    @property
    def prepared(self) -> Prepared:
        return self.analysis.prepared

    def place(self, value: ir.Value, grid: Grid) -> tuple[int, int, int]:
        """(axis, frames in a window, frames from one window to the next)."""
        fact = self.analysis.fact(value)
        return fact.axis, at(fact.length, grid.frames), int(grid.hop * fact.rate)


def shared_values(
    model: Model,
    axes: Mapping[str, int],
    grid: Grid,
    *,
    shapes: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, Any] | None,
) -> Shared:
    """Look at the model over a signal of any length, node by node. Raises for inputs that do not fit."""
    options = {
        "shapes": shapes,
        "constants": constants,
        "bounds": {TIME: (BOUND, 1, LONG)},
        "native": streamed_natively,
        "algebra": False,  # a value of that name is the same in one window
    }
    prepared, reasons = _open_part(model, axes, options)
    search = _Search(Analysis(prepared, 1), grid)
    graph, facts = prepared.model.graph, prepared.facts
    for value in graph.inputs:
        if value.name in axes:
            axis = axes[value.name or ""]
            search.analysis.time[value] = TimeFact(axis, Fraction(1), 0, facts.dims[value][axis])
            search.aligned.add(value)
    for node in graph:
        why = search.visit(node)
        if why:
            reasons[label(node)] = why
    named = {v.name for n in model.ir.graph for v in n.outputs} | set(axes)
    values = {
        v.name or "": v for v in search.aligned if v.name in named and search.analysis.fact(v).fold == 1
    }  # fmt: skip
    return Shared(search.analysis, values, reasons)


@dataclass
class _Search:
    """aligned: values that windows share; failed: values of which nothing is known."""

    analysis: Analysis
    grid: Grid
    aligned: set[ir.Value] = field(default_factory=set)
    failed: set[ir.Value] = field(default_factory=set)
    pending: dict[ir.Value, Pending] = field(default_factory=dict)

    def visit(self, node: ir.Node) -> str:
        """Why windows do not share what the node makes; empty where they do, or where it has no time."""
        if any(v in self.failed for v in read_by(node)):
            self.failed.update(node.outputs)
            return "it follows a layer that is computed for each window"
        known = len(self.analysis.needs)
        try:
            visit(node, self.analysis, self.pending)
        except (NotStreamable, ValueError) as error:
            self.failed.update(node.outputs)
            return error.reason if isinstance(error, NotStreamable) else str(error)
        timed = [v for v in node.outputs if isinstance(self.analysis.time.get(v), TimeFact)]
        if not timed:
            return ""
        why = self._why(node, timed, known)
        if not why:
            self.aligned.update(timed)
        return why

    def _why(self, node: ir.Node, outputs: Sequence[ir.Value], known: int) -> str:
        analysis, grid = self.analysis, self.grid
        plan = analysis.plans.get(node)
        if plan is None or not plan.reads:
            return "it depends on the place in the window"
        facts = [analysis.time.get(v) for v in read_by(node)]
        if any(f is not None and not isinstance(f, (TimeFact, LengthFact)) for f in facts):
            return "it combines frames of the window by their distance"
        if any(isinstance(f, LengthFact) for f in facts) and node.op_type not in BY_SHAPE:
            return "it computes with the length of the window"
        if any(at(length, grid.frames) < least for length, least in analysis.needs[known:]):
            return "it needs a longer signal than one window"
        for value in outputs:
            why = self._misplaced(plan, analysis.fact(value))
            if why:
                return why
        return ""

    def _misplaced(self, plan: Plan, out: TimeFact) -> str:
        grid = self.grid
        count, fresh = at(out.length, grid.frames), grid.hop * out.rate
        if fresh.denominator != 1:
            return f"its frames are not on one grid: a hop of {grid.hop} frames is {fresh} of its own"
        if count <= fresh:
            return f"windows have no frames in common here: {count} in a window, {fresh} in a hop"
        for read in plan.reads:
            source = self.analysis.fact(read.value)
            if read.value not in self.aligned:
                return "it follows a layer that is computed for each window"
            if read.past or read.whole:
                return "it remembers all frames since the start of the window"
            if read.first(0) < 0 or read.last(count - 1) >= at(source.length, grid.frames):
                return "it pads the window"
        return ""


def read_by(node: ir.Node) -> list[ir.Value]:
    """All values that a node reads, also from within its inner graphs."""
    inner = [v for g in subgraphs(node) for n in g.all_nodes() for v in n.inputs if v is not None]
    return [v for v in (*node.inputs, *inner) if v is not None]


def _open_part(model: Model, axes: Mapping[str, int], options: Mapping[str, Any]) -> tuple[Prepared, dict[str, str]]:
    """The model without the nodes that hold for one length only, and all that depends on these.

    The first node of a part that cannot be prepared is found by halving; then the rest is tried.
    """
    faults: set[int] = set()
    reasons: dict[str, str] = {}
    nodes = list(model.ir.graph)
    while True:
        kept = _without(nodes, faults)
        try:
            return prepare_open(opened(_part(model, kept), axes), **options), reasons
        except Error as error:
            last = error
        if not kept or len(faults) == MAX_FAULTS:
            raise last
        low, high = 0, len(kept)
        while high - low > 1:
            middle = (low + high) // 2
            try:
                prepare_open(opened(_part(model, kept[:middle]), axes), **options)
                low = middle
            except Error as error:
                high, last = middle, error
        faults.add(kept[high - 1])
        reasons[label(nodes[kept[high - 1]])] = "it holds for the length of the window only"


def _without(nodes: Sequence[ir.Node], faults: set[int]) -> list[int]:
    """Indexes of the nodes that do not depend on these."""
    lost: set[ir.Value] = set()
    kept = []
    for i, node in enumerate(nodes):
        if i in faults or any(v in lost for v in read_by(node)):
            lost.update(node.outputs)
        else:
            kept.append(i)
    return kept


def _part(model: Model, kept: Sequence[int]) -> Model:
    """The model cut down to these nodes; what others read of them are its outputs."""
    copy = model.ir.clone()
    nodes, wanted = list(copy.graph), set(kept)
    made = {v for i in wanted for v in nodes[i].outputs if v.name}
    outside = {v for i, n in enumerate(nodes) if i not in wanted for v in read_by(n)}
    ends = [v for v in made if v in outside or v.is_graph_output()]
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(sorted(ends, key=lambda v: v.name or ""))
    remove_unused(copy.graph)
    return Model(copy, model.source, model.sha256, model.external)
