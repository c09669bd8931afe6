"""Sliding windows: the step model gives what the offline model gives on every window of the signal.

y[k] = f(x[k·hop : k·hop + frames]): another function than f over the whole signal. Layers that windows
share (streaming/shared.py) run as a stream; the rest of the model is one node of the analysis, `Windows`,
which reads a window of each shared value and holds the model's own nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from headrace.errors import NotStreamable
from headrace.graph.facts import label
from headrace.graph.model import Model
from headrace.graph.prepare import Prepared
from headrace.graph.rewrite import subgraphs
from headrace.graph.symbolic import floor_div, symbol
from headrace.ops.timed import TIME, Emit, Plan, Read, Site, Timed
from headrace.streaming.analyse import Analysis, analyse, at, settle, smallest_chunk
from headrace.streaming.emit import NodeWriter, static
from headrace.streaming.opening import prepare_open, streamed_natively
from headrace.streaming.shared import Grid, Shared, shared_values

DOMAIN = "headrace.window"


@dataclass(frozen=True)
class Cut:
    """A shared value where the nodes of one window begin: in the window's graph, over the signal, frames, hop."""

    inside: ir.Value
    shared: ir.Value
    axis: int
    frames: int
    hop: int


@dataclass(frozen=True)
class Windows:
    """How a model runs over windows.

    one: the model for a single window; body: its nodes that run for every window; reasons: why, by label.
    """

    grid: Grid
    one: Prepared
    body: tuple[ir.Node, ...]
    cuts: tuple[Cut, ...]
    reasons: Mapping[str, str]


def window_grid(model: Model, axes: Mapping[str, int], window: int | Mapping[str, int], hop: int) -> Grid:
    """The windows that are asked for. ValueError where they do not fit the model or each other."""
    given = window if isinstance(window, Mapping) else dict.fromkeys(axes, window)
    if set(given) != set(axes):
        raise ValueError(f"window={dict(given)}: name the frames of every time input: {', '.join(axes)}")
    if len(set(given.values())) > 1 or any(n < 1 for n in given.values()):
        raise ValueError(f"window={dict(given)}: all time inputs share one clock; give one positive number of frames")
    if hop < 1:
        raise ValueError(f"hop={hop}: windows must be at least 1 frame apart")
    frames = next(iter(given.values()))
    for name, axis in axes.items():
        declared = model.inputs[name].shape[axis] if axis < len(model.inputs[name].shape) else ""
        if isinstance(declared, int) and declared != frames:
            raise ValueError(f"window={frames}: input {name!r} takes {declared} frames")
    return Grid(frames, hop)


def analyse_windows(
    model: Model,
    axes: Mapping[str, int],
    grid: Grid,
    known: Mapping[str, tuple[int | str, ...]],
    constants: Mapping[str, Any] | None,
    seen: list[Analysis] | None = None,
) -> Analysis:
    """The analysis of the model on every window of a signal. NotStreamable names a node that cannot be repeated."""
    one = _one_window(model, axes, grid, known, constants)
    open_shapes = {n: tuple(TIME if i == axes.get(n) else d for i, d in enumerate(s)) for n, s in known.items()}
    shared = shared_values(model, axes, grid, shapes=open_shapes, constants=constants)
    body, cuts = _taken_apart(one, shared, grid)
    graph = shared.prepared.model.graph
    graph.outputs.clear()
    graph.outputs.extend(cut.shared for cut in cuts)
    result = analyse(shared.prepared, axes, 1, seen=seen)
    result.windows = Windows(grid, one, body, cuts, shared.reasons)
    _join(result, result.windows)
    return result


def _one_window(
    model: Model,
    axes: Mapping[str, int],
    grid: Grid,
    known: Mapping[str, tuple[int | str, ...]],
    constants: Mapping[str, Any] | None,
) -> Prepared:
    shapes = {n: tuple(grid.frames if i == axes.get(n) else d for i, d in enumerate(s)) for n, s in known.items()}
    return prepare_open(model, shapes=shapes, constants=constants, native=streamed_natively, algebra=False)


def _taken_apart(one: Prepared, shared: Shared, grid: Grid) -> tuple[tuple[ir.Node, ...], tuple[Cut, ...]]:
    """From the outputs of one window back to shared values; the nodes on the way, and these values."""
    graph = one.model.graph
    needed: set[ir.Node] = set()
    cuts: dict[ir.Value, Cut] = {}
    queue = list(graph.outputs)
    while queue:
        value = queue.pop()
        cut = _cut(value, one, shared, grid)
        node = value.producer()
        if cut is not None:
            cuts[value] = cut
        elif node is not None and node not in needed:
            if any(True for _ in subgraphs(node)):
                raise NotStreamable(
                    label(node),
                    f"{node.op_type} has inner graphs, which cannot be repeated for every window",
                    "fix its condition with constants=, or export the model without it",
                )
            needed.add(node)
            queue += [v for v in node.inputs if v is not None]
    if not cuts:
        raise ValueError("no output depends on the time inputs: there is nothing to do for every window")
    return tuple(n for n in graph if n in needed), tuple(sorted(cuts.values(), key=lambda c: c.inside.name or ""))


def _cut(value: ir.Value, one: Prepared, shared: Shared, grid: Grid) -> Cut | None:
    """The shared value of the same name, where it has the same extents in one window."""
    twin = shared.values.get(value.name or "")
    if twin is None or one.facts.constant(value) is not None or twin.dtype != value.dtype:
        return None
    dims = tuple(at(d, grid.frames) for d in shared.prepared.facts.dims[twin])
    if dims != one.facts.dims[value]:
        return None
    return Cut(value, twin, *shared.place(twin, grid))


def _join(result: Analysis, windows: Windows) -> None:
    """Add the node that runs the body for every window; its results are the outputs."""
    graph, facts = result.prepared.model.graph, result.prepared.facts
    outputs = windows.one.model.graph.outputs
    node = ir.Node(DOMAIN, "Windows", [c.shared for c in windows.cuts], num_outputs=len(outputs), name="windows")
    grid = windows.grid
    count = floor_div(symbol(TIME) - grid.frames, grid.hop, facts.symbols) + 1
    for made, value in zip(node.outputs, outputs, strict=True):
        made.name, made.type = value.name, value.type
        facts.dims[made] = (count, *windows.one.facts.dims[value])
    graph.append(node)
    graph.outputs.clear()
    graph.outputs.extend(node.outputs)
    reads = tuple(Read(c.shared, c.hop, 1, 0, c.frames - 1) for c in windows.cuts)
    state = f"window of {grid.frames} frames, every {grid.hop}"
    plan = Plan(reads, tuple(Timed(0) for _ in outputs), lambda e: _emit(e, windows), state)
    result.live.append(node)
    result.plans[node] = plan
    settle(Site(node, facts, result.time), plan, result)
    result.chunk = smallest_chunk(result)
    imports = result.prepared.model.opset_imports
    for domain, version in windows.one.model.opset_imports.items():
        imports[domain] = max(version, imports.get(domain, 1))


def _emit(e: Emit, windows: Windows) -> Sequence[ir.Value | None]:
    """The body once, or in a Scan over the windows of the step; results are stacked on axis 0."""
    assert isinstance(e, NodeWriter)
    blocks = [e.read(k) for k in range(len(windows.cuts))]
    inside = _outer_values(e, windows)
    count = e.frames()
    if count == 1:
        inside.update({c.inside: block for c, block in zip(windows.cuts, blocks, strict=True)})
        for node in windows.body:
            given, attributes = _given(node, inside), dict(node.attributes)
            made = e.writer.add(label(node), node.op_type, given, len(node.outputs), attributes, node.domain)
            inside.update(zip(node.outputs, made, strict=True))
        return [_alone(e, inside[v], k) for k, v in enumerate(windows.one.model.graph.outputs)]
    stacks = []
    for cut, block in zip(windows.cuts, blocks, strict=True):
        index = np.arange(count)[:, None] * cut.hop + np.arange(cut.frames)
        stacks.append(e.op("Gather", block, e.const(index), axis=cut.axis))
    return e.ops(
        "Scan",
        len(windows.one.model.graph.outputs),
        *stacks,
        body=_scan_body(e, windows, inside),
        num_scan_inputs=len(stacks),
        scan_input_axes=[c.axis for c in windows.cuts],
    )


def _alone(e: NodeWriter, value: ir.Value, out: int) -> ir.Value:
    """One result on a new first axis. Expand: onnxruntime 1.31 cannot load some int8 models with Unsqueeze here."""
    return e.op("Expand", value, e.const(e.dims(out)))


def _outer_values(e: NodeWriter, windows: Windows) -> dict[ir.Value, ir.Value]:
    """Constants and side inputs of the body, and of outputs that are made by no node, in the step graph."""
    graph = windows.one.model.graph
    known = {c.inside for c in windows.cuts} | {v for n in windows.body for v in n.outputs}
    sides = {v.name: v for v in e.writer.analysis.prepared.model.graph.inputs}
    found: dict[ir.Value, ir.Value] = {}
    for value in (*(v for n in windows.body for v in n.inputs), *graph.outputs):
        if value is not None and value not in known and value not in found:
            own = sides[value.name] if value.is_graph_input() else value
            found[value] = static(e.writer, own, e.name)
    return found


def _given(node: ir.Node, inside: Mapping[ir.Value, ir.Value]) -> list[ir.Value | None]:
    return [None if v is None else inside[v] for v in node.inputs]


def _scan_body(e: NodeWriter, windows: Windows, outer: Mapping[ir.Value, ir.Value]) -> ir.Graph:
    """A graph of one window; constants and side inputs are those of the step graph around it."""
    writer, inside = e.writer, dict(outer)
    inputs = []
    for cut in windows.cuts:
        name = writer.unique(f"window/{cut.inside.name}")
        value = ir.Value(name=name, type=cut.inside.type, shape=cut.inside.shape)
        inside[cut.inside] = value
        inputs.append(value)
    nodes = []

    def add(site: str, op_type: str, given: Sequence[ir.Value | None], like: Sequence[ir.Value], attributes: Any = None,
            domain: str = "") -> list[ir.Value]:  # fmt: skip
        node = ir.node(op_type, list(given), dict(attributes or {}), domain=domain, num_outputs=len(like))
        node.name = writer.unique(f"window/{site}")
        for value, old in zip(node.outputs, like, strict=True):
            value.name, value.type, value.shape = writer.unique(f"window/{old.name or site}"), old.type, old.shape
        nodes.append(node)
        return list(node.outputs)

    for node in windows.body:
        made = add(label(node), node.op_type, _given(node, inside), node.outputs, node.attributes, node.domain)
        inside.update(zip(node.outputs, made, strict=True))
    outputs = [add("out", "Identity", [inside[v]], [v])[0] for v in windows.one.model.graph.outputs]
    return ir.Graph(inputs, outputs, nodes=nodes, name="window")
