"""hr.stream: prepare, analyse, write the step graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir

from headrace.errors import NotStreamable
from headrace.graph.facts import label
from headrace.graph.model import Model
from headrace.ops.timed import TIME, FinalFact, LengthFact, TimeFact
from headrace.streaming.analyse import Analysis, analyse, at
from headrace.streaming.emit import NodeWriter, Writer, collect_lines, static
from headrace.streaming.length import offsets
from headrace.streaming.lengths import bind_lengths, length_shapes, settle_comparisons
from headrace.streaming.model import STREAM, BoundLength, Passing, Port, StepModel, StreamSpec, TimeOutput
from headrace.streaming.opening import BOUND, LONG, known_shapes, opened, prepare_open, streamed_natively, time_axis
from headrace.streaming.rates import common_step, with_rates
from headrace.streaming.reach import reaches, timing
from headrace.streaming.shared import read_by
from headrace.streaming.sink import sink_pads
from headrace.streaming.windows import analyse_windows, window_grid
from headrace.streaming.work import window_spec


def stream(
    model: Model,
    axes: Mapping[str, int],
    *,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    constants: Mapping[str, Any] | None = None,
    multiple: Mapping[str, int] | None = None,
    max_past: int | None = None,
    window: int | Mapping[str, int] | None = None,
    hop: int = 1,
    chunk: int | None = None,
    align: bool = False,
    lengths: Mapping[str, str] | None = None,
) -> StepModel:
    """The step model of an offline model.

    axes: time input → its time axis (inputs may run at different rates: those follow from where they meet, and
    an input frame is then one whole unit of all of them); shapes: fixes other unknown dims (else 1); multiple:
    the lengths of these inputs are always multiples of that; max_past: longest signal, in input frames, that
    attention without a limit to its past must remember; window, hop: another function, the model on every
    window of so many frames; chunk: frames per step, a multiple of the smallest; align: every output is as
    late as the slowest; lengths: input that holds the length of the signal → the time input that it is of.
    Raises NotStreamable(node, reason, hint), ValueError for wrong arguments.
    """
    analysis = analyse_model(
        model, axes, shapes=shapes, constants=constants, multiple=multiple, max_past=max_past,
        window=window, hop=hop, lengths=lengths,
    )  # fmt: skip
    if chunk is not None and (chunk < 1 or chunk % analysis.chunk):
        raise ValueError(f"chunk={chunk}: must be a multiple of {analysis.chunk}, the smallest for this model")
    analysis.align = align
    shapes_of = length_shapes(model, lengths or {}, axes, shapes or {})
    analysis.lengths = {name: BoundLength(signal, shapes_of[name]) for name, signal in (lengths or {}).items()}
    return write(analysis, model, chunk or analysis.chunk)


def analyse_model(
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
    seen: list[Analysis] | None = None,
) -> Analysis:
    """Prepare a model with its length open, and find where time is in it."""
    if max_past is not None and max_past < 1:
        raise ValueError(f"max_past={max_past}: must be at least 1")
    if not axes:
        raise ValueError("axes is empty: say which axis of which input is time, such as axes={'x': 1}")
    for name in multiple or {}:
        if name not in axes:
            raise ValueError(f"multiple names {name!r}, which is no time input; those are {', '.join(axes)}")
    if any(m < 1 for m in (multiple or {}).values()):
        raise ValueError(f"multiple={dict(multiple or {})}: give positive numbers")
    bound = length_shapes(model, lengths or {}, axes, shapes or {})
    model = bind_lengths(model, lengths or {}, axes, bound)
    known = known_shapes(model, axes, {n: s for n, s in (shapes or {}).items() if n not in bound}, constants or {})
    wanted = {name: time_axis(name, axis, known) for name, axis in axes.items()}
    if window is not None:
        if multiple or max_past is not None:
            raise ValueError("window= runs the model on windows of one length; leave out multiple= and max_past=")
        return analyse_windows(model, wanted, window_grid(model, wanted, window, hop), known, constants, seen)
    if hop != 1:
        raise ValueError(f"hop={hop}: the distance of windows; give their length too, window=")

    def attempt(rates: Mapping[str, int]) -> Analysis:
        step = common_step(multiple or {}, rates)
        clock = {name: TIME if rates[name] == 1 else f"{rates[name]}*{TIME}" for name in wanted}
        fixed = {
            name: tuple(clock[name] if i == wanted.get(name) else d for i, d in enumerate(dims))
            for name, dims in known.items()
        }
        prepared = prepare_open(
            opened(model, wanted),
            shapes=fixed,
            constants=constants,
            bounds={TIME: (BOUND // step * step, step, LONG // step * step)},
            native=streamed_natively,
        )
        settle_comparisons(prepared)
        sink_pads(prepared)
        if seen is not None:
            seen.clear()
        return analyse(prepared, wanted, step, max_past, seen)

    return with_rates(attempt, wanted)


def write(analysis: Analysis, model: Model, chunk: int) -> StepModel:
    """The step graph of an analysed model, with its metadata."""
    writer = Writer(analysis, chunk)
    graph = analysis.prepared.model.graph
    writer.names.update(v.name or "" for v in (*graph.inputs, *graph.outputs))
    _inputs(writer, graph)
    collect_lines(writer)
    for node in analysis.live:
        _node(writer, node)
    outputs = _outputs(writer, graph)
    spec = _spec(writer, graph)
    return _assemble(writer, outputs, spec, model)


def _inputs(writer: Writer, graph: ir.Graph) -> None:
    for value in graph.inputs:
        if isinstance(writer.analysis.time.get(value), TimeFact):
            writer.names.discard(value.name or "")
            new = writer.input(value.name or "", value.dtype or ir.DataType.FLOAT, writer.block_dims(value))
            writer.steps[value] = new


def _node(writer: Writer, node: ir.Node) -> None:
    analysis = writer.analysis
    plan = analysis.plans.get(node)
    facts = [analysis.time.get(v) for v in node.outputs]
    if plan is None:
        if any(f is not None and not isinstance(f, FinalFact) for f in facts):
            return  # lengths; their readers ask for what they need
        if not all(analysis.prepared.facts.contents.get(v) is not None for v in node.outputs):
            _copy(writer, node)
        return
    if any(isinstance(f, TimeFact) and f.free for f in facts):
        return  # made where it is read
    made = NodeWriter(writer, node, plan).run()
    for value, new in zip(node.outputs, made, strict=False):
        if new is not None:
            writer.steps[value] = new


def _copy(writer: Writer, node: ir.Node) -> None:
    given = [
        static(writer, v, label(node))
        if v is not None and v not in writer.steps
        else writer.steps.get(v)
        if v is not None
        else None
        for v in node.inputs
    ]
    new = writer.add(label(node), node.op_type, given, len(node.outputs), dict(node.attributes), node.domain)
    for value, made in zip(node.outputs, new, strict=True):
        writer.steps[value] = made


def _outputs(writer: Writer, graph: ir.Graph) -> list[ir.Value]:
    outputs = []
    for value in graph.outputs:
        fact = writer.analysis.time.get(value)
        if isinstance(fact, TimeFact):
            source = writer.emitted(value)
        elif isinstance(fact, LengthFact):
            source = writer.counted(value)
        else:
            source = writer.steps[value] if value in writer.steps else static(writer, value, value.name or "")
        out = writer.expose(source, value.name or "")
        out.type = value.type
        out.shape = ir.Shape(writer.block_dims(value))
        outputs.append(out)
    return outputs


def _spec(writer: Writer, graph: ir.Graph) -> StreamSpec:
    analysis, chunk = writer.analysis, writer.chunk
    table = reaches(analysis, chunk)
    inputs, outputs, finals = {}, {}, {}
    for value in graph.inputs:
        fact = analysis.time.get(value)
        if isinstance(fact, TimeFact):
            inputs[value.name or ""] = Port(fact.axis, fact.rate.as_integer_ratio(), writer.frames(fact))
    for value in graph.outputs:
        fact = analysis.time.get(value)
        if isinstance(fact, TimeFact):
            delay = analysis.shown_delay(value)
            told = timing(fact, table[value], chunk, delay)
            outputs[value.name or ""] = TimeOutput(
                fact.axis,
                fact.rate.as_integer_ratio(),
                writer.frames(fact),
                delay,
                tuple(offsets(fact.length, fact.rate, chunk, analysis.multiple)),
                told.ready,
                told.latency,
                told.lookahead,
                told.receptive_field,
            )
        else:
            ends = fact.ends if isinstance(fact, FinalFact) else frozenset()
            passing = {
                Passing(int(e.rate * chunk), e.delay, tuple(offsets(e.length, e.rate, chunk, analysis.multiple)))
                for e in ends
            }
            finals[value.name or ""] = tuple(sorted(passing, key=repr))
    state_names = {a.name for a, _ in writer.states}
    names = {v.name for v in writer.inputs}
    side = tuple(
        v.name or "" for v in graph.inputs if v.name in names and v.name not in inputs and v.name not in state_names
    )
    return StreamSpec(
        chunk,
        _min_length(analysis),
        analysis.multiple,
        writer.position.name if writer.position is not None else None,
        writer.valid.name if writer.valid is not None else None,
        writer.steady,
        writer.absolute,
        analysis.max_past if analysis.unlimited else None,
        tuple((a.name or "", b.name or "") for a, b in writer.states),
        tuple(writer.initial),
        side,
        inputs,
        outputs,
        finals,
        window_spec(analysis),
        analysis.align,
        analysis.lengths,
    )


def _min_length(analysis: Analysis) -> int:
    """The least T for which every extent is what its formula says."""

    def works(frames: int) -> bool:
        return all(at(length, frames) >= least for length, least in analysis.needs)

    step = analysis.multiple
    if not works(LONG // step * step):
        raise NotStreamable("", "it is not defined for long signals", "check its slices and paddings")
    low, high = 0, LONG // step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle * step) else (middle, high)
    return high * step


def _assemble(writer: Writer, outputs: list[ir.Value], spec: StreamSpec, model: Model) -> StepModel:
    prepared = writer.analysis.prepared
    following = [b for _, b in writer.states]
    states = [a for a, _ in writer.states]
    used = _used_nodes(writer.nodes, [*outputs, *following])
    nodes = [n for n in writer.nodes if n in used]
    read = {v for n in nodes for v in read_by(n)}
    constants = [v for v in writer.constants.values() if v in read]
    clock = [v for v in (writer.position, writer.valid) if v is not None]
    given = [v for v in writer.inputs if v not in states and v not in clock]
    order = [v.name for v in prepared.model.graph.inputs]
    given.sort(key=lambda v: order.index(v.name))
    graph = ir.Graph(
        [*given, *clock, *states],
        [*outputs, *following],
        nodes=nodes,
        initializers=[*constants, *states],
        name=prepared.model.graph.name or "step",
        opset_imports=dict(prepared.model.opset_imports),
    )
    made = ir.Model(graph, ir_version=prepared.model.ir_version)
    made.metadata_props.update(prepared.model.metadata_props)
    made.metadata_props[STREAM] = spec.dump()
    proto = ir.to_proto(made)
    proto = onnx.shape_inference.infer_shapes(proto, strict_mode=False)
    return StepModel(ir.from_proto(proto), model.source)


def _used_nodes(nodes: Sequence[ir.Node], ends: Sequence[ir.Value]) -> set[ir.Node]:
    found: set[ir.Node] = set()
    queue = [v.producer() for v in ends]
    while queue:
        node = queue.pop()
        if node is not None and node not in found:
            found.add(node)
            queue += [v.producer() for v in read_by(node)]
    return found
