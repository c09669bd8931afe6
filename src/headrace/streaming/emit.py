"""Writes the step graph: blocks, lines (histories), edges, masks, states."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from headrace.errors import NotStreamable
from headrace.graph.facts import dtype_name, label
from headrace.graph.rewrite import clone_graph, renamable
from headrace.graph.symbolic import SymDim
from headrace.ops.timed import Edge, End, Fact, FinalFact, LengthFact, Plan, Read, TimeFact, slope
from headrace.streaming.analyse import Analysis, at
from headrace.streaming.evaluate import first_frames
from headrace.streaming.length import LengthCode, offsets

FAR = 1 << 30


@dataclass
class Line:
    """History of one value as its readers need it."""

    value: ir.Value
    edge: Edge | None
    history: int = 0
    start: bool = False
    end: bool = False
    full: ir.Value | None = None


@dataclass
class Writer:
    """The step graph while it grows. steps: offline value → its block in the step graph."""

    analysis: Analysis
    chunk: int
    inputs: list[ir.Value] = field(default_factory=list)
    nodes: list[ir.Node] = field(default_factory=list)
    constants: dict[str, ir.Value] = field(default_factory=dict)
    steps: dict[ir.Value, ir.Value] = field(default_factory=dict)
    windows: dict[tuple[ir.Value, int, int], ir.Value] = field(default_factory=dict)
    lines: dict[tuple[ir.Value, Edge | None], Line] = field(default_factory=dict)
    states: list[tuple[ir.Value, ir.Value]] = field(default_factory=list)
    initial: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    masks: dict[Any, ir.Value] = field(default_factory=dict)
    exposed: set[ir.Value] = field(default_factory=set)
    position: ir.Value | None = None
    valid: ir.Value | None = None
    steady: int = 0
    absolute: bool = False

    def unique(self, stem: str) -> str:
        """A name that nothing else has."""
        name, count = stem, 1
        while name in self.names:
            count += 1
            name = f"{stem}.{count}"
        self.names.add(name)
        return name

    def add(
        self,
        site: str,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        count: int = 1,
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
        version: int | None = None,
    ) -> list[ir.Value]:
        """Append a node."""
        node = ir.node(op_type, list(inputs), dict(attributes or {}), domain=domain, num_outputs=count)
        node.name = self.unique(f"{site}/{op_type}" if not site.endswith(op_type) else site)
        for i, value in enumerate(node.outputs):
            value.name = self.unique(f"{node.name}:{i}")
        self.nodes.append(node)
        return list(node.outputs)

    def constant(self, array: np.ndarray[Any, Any], name: str) -> ir.Value:
        """A constant; equal small ones are shared."""
        array = np.asarray(array)
        key = f"{array.dtype}{array.shape}{array.tobytes()!r}" if array.size <= 64 else ""
        if key and key in self.masks:
            return self.masks[key]
        value = initializer(array, self.unique(name))
        self.constants[value.name or ""] = value
        if key:
            self.masks[key] = value
        return value

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int]) -> ir.Value:
        """A new graph input."""
        value = ir.Value(name=self.unique(name), type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.inputs.append(value)
        return value

    def state(self, name: str, initial: np.ndarray[Any, Any], dtype: ir.DataType | None = None) -> ir.Value:
        """A state input with its initial value."""
        tensor = ir.Tensor(np.ascontiguousarray(initial).reshape(initial.shape), dtype=dtype)
        value = self.input(name, tensor.dtype, initial.shape)
        value.const_value = tensor
        return value

    def keep(self, state: ir.Value, following: ir.Value) -> None:
        """Pair a state with its next value."""
        out = self.expose(following, self.unique(f"{state.name}.next"))
        out.type, out.shape = state.type, state.shape
        self.states.append((state, out))

    def expose(self, value: ir.Value, name: str) -> ir.Value:
        """The value as a graph output of that name: itself where it is free, else a copy."""
        if value.producer() is None or value in self.exposed:
            (value,) = self.add(name, "Identity", [value])
        self.exposed.add(value)
        value.name = name
        return value

    # time

    def frames(self, fact: TimeFact) -> int:
        """Frames per step."""
        count = fact.rate * self.chunk
        assert count.denominator == 1
        return int(count)

    def now(self) -> ir.Value:
        """`position`: frames in earlier steps, int64 [1]."""
        if self.position is None:
            self.position = self.input("position", ir.DataType.INT64, [1])
        return self.position

    def left(self) -> ir.Value:
        """`valid`: frames from the start of this chunk to the end of the signal, int64 [1]."""
        if self.valid is None:
            self.valid = self.input("valid", ir.DataType.INT64, [1])
        return self.valid

    def offset(self, fact: TimeFact) -> ir.Value:
        """s·m, int64 [1]."""
        key = ("offset", fact.rate)
        if key not in self.masks:
            value = self.now()
            if fact.rate.numerator != 1:
                value = self.small("Mul", value, fact.rate.numerator)
            if fact.rate.denominator != 1:
                value = self.small("Div", value, fact.rate.denominator)
            self.masks[key] = value
        return self.masks[key]

    def small(self, op: str, value: ir.Value, other: Any) -> ir.Value:
        """Integer arithmetic on [1] arrays."""
        return self.add("time", op, [value, self.constant(np.array(other, np.int64).reshape(-1), "time/const")])[0]

    def end(self, fact: TimeFact) -> ir.Value:
        """L(T) - s·m + d: how many frames of the block lie before the end of the signal."""
        key = ("end", fact.length, fact.delay)
        if key not in self.masks:
            code = LengthCode.of(fact.length, fact.rate, self.chunk, self.analysis.multiple)
            self.masks[key] = code.emit(self, self.left(), fact.delay)
        return self.masks[key]

    def inside(self, fact: TimeFact, start: bool, end: bool, rank: int) -> ir.Value:
        """bool [m, 1, …]: which frames of the block lie in the signal."""
        count = self.frames(fact)
        tail = rank - fact.axis - 1
        key = ("inside", fact.rate, fact.delay, fact.length if end else None, start, end, count, tail)
        if key in self.masks:
            return self.masks[key]
        column = self.constant(np.arange(count).reshape([count] + [1] * tail), "time/frame")
        parts = []
        if start:
            self.steady = max(self.steady, -(-fact.delay // count) * self.chunk)
            here = self.add("time", "Add", [column, self.offset(fact)])[0]
            limit = self.constant(np.array([fact.delay]), "time/const")
            parts.append(self.add("time", "GreaterOrEqual", [here, limit])[0])
        if end:
            parts.append(self.add("time", "Less", [column, self.end(fact)])[0])
        mask = parts[0] if len(parts) == 1 else self.add("time", "And", parts)[0]
        self.masks[key] = mask
        return mask

    def overrun(self, fact: TimeFact) -> bool:
        """Whether a step may compute frames of this value that lie after its end."""
        analysis, chunk = self.analysis, self.chunk
        if chunk > 1:
            return True
        for value in analysis.prepared.model.graph.outputs:
            known = analysis.time.get(value)
            ends: list[tuple[TimeFact | End, int]] = []
            if isinstance(known, FinalFact):
                ends = [(e, e.delay) for e in known.ends]
            if isinstance(known, TimeFact):
                ends = [(known, analysis.shown_delay(value))]
            for item, delay in ends:
                if offsets(item.length, item.rate, 1, analysis.multiple)[0] + delay > 0:
                    return True
        return offsets(fact.length, fact.rate, 1, analysis.multiple)[0] + fact.delay < 0

    def block_dims(self, value: ir.Value, frames: int | None = None) -> list[int]:
        """Extents of a block, or of that many frames."""
        fact = self.analysis.time.get(value)
        dims = list(self.analysis.prepared.facts.dims[value])
        if isinstance(fact, TimeFact):
            dims[fact.axis] = fact.fold * (self.frames(fact) if frames is None else frames)
        fixed = [d for d in dims if isinstance(d, int)]
        if len(fixed) < len(dims):
            raise NotStreamable(
                value.name or "",
                f"{value.name!r} has time on two axes: {dims}",
                "causal or windowed attention streams; whole-sequence products do not",
            )
        return fixed

    # blocks, lines

    def line(self, line: Line) -> ir.Value:
        """History and block of a value: frames s·m - d - history … of it, edges filled."""
        if line.full is not None:
            return line.full
        fact = self.analysis.fact(line.value)
        name = line.value.name or "value"
        block = self.steps[line.value] if not fact.free else self.generate(line.value, 0, self.frames(fact))
        dims = self.block_dims(line.value)
        block, axis = self.unfolded(block, fact, dims)
        edge = line.edge
        fill = np.array(0 if edge is None else edge.value, self.dtype(line.value))
        start = line.start and fact.delay > 0
        if edge is not None and edge.mode == "constant" and (start or line.end):
            mask = self.inside(fact, start, line.end, len(dims))
            block = self.add(name, "Where", [mask, block, self.constant(fill, "fill")])[0]
        if line.history:
            shape = self.split_dims(fact, dims, line.history)
            past = self.state(f"{name}.past", self.before(line, np.full(shape, fill), axis), line.value.dtype)
            count = self.frames(fact)
            block = self.add(name, "Concat", [past, block], attributes={"axis": axis})[0]
            self.keep(past, self.cut(name, block, axis, count, count + line.history))
        line.full = block
        return block

    def before(self, line: Line, past: np.ndarray[Any, Any], axis: int) -> np.ndarray[Any, Any]:
        """What a line holds before the first step: padding, and the first frames where no input decides them."""
        fact = self.analysis.fact(line.value)
        known = min(-fact.delay, line.history)
        if known <= 0:
            return past
        head = first_frames(self.analysis, line.value, -fact.delay)
        part = np.take(head, range(-fact.delay - known, -fact.delay), axis)
        rest = np.take(past, range(line.history - known), axis)
        return np.concatenate([rest, part.astype(past.dtype)], axis)

    def split_dims(self, fact: TimeFact, dims: Sequence[int], frames: int) -> list[int]:
        """Extents with rows and time apart."""
        rows = [fact.fold] if fact.fold != 1 else []
        return [*dims[: fact.axis], *rows, frames, *dims[fact.axis + 1 :]]

    def unfolded(self, block: ir.Value, fact: TimeFact, dims: Sequence[int]) -> tuple[ir.Value, int]:
        """The block with its rows apart from time, and the time axis."""
        if fact.fold == 1:
            return block, fact.axis
        apart = self.split_dims(fact, dims, self.frames(fact))
        return self.reshape(block, apart), fact.axis + 1

    def reshape(self, value: ir.Value, dims: Sequence[int]) -> ir.Value:
        return self.add("time", "Reshape", [value, self.constant(np.array(dims, np.int64), "shape")])[0]

    def cut(self, name: str, value: ir.Value, axis: int, first: int, end: int) -> ir.Value:
        """Slice along one axis."""
        bounds = [self.constant(np.array([x], np.int64), "cut") for x in (first, end, axis)]
        return self.add(name, "Slice", [value, *bounds])[0]

    def dtype(self, value: ir.Value) -> np.dtype[Any]:
        return np.dtype(dtype_name(value.dtype))

    def fetch(self, read: Read, first: int, end: int) -> ir.Value:
        """Frames s·m + first … s·m + end - 1 of a value, as a reader with this edge sees them."""
        fact = self.analysis.fact(read.value)
        if fact.free and read.edge is None:
            return self.generate(read.value, first, end)
        line = self.lines[(read.value, read.edge)]
        full = self.line(line)
        axis = fact.axis + (fact.fold != 1)
        base = first + fact.delay + line.history
        total = line.history + self.frames(fact)
        if read.edge is not None and read.edge.moves:
            full = self.mirrored(read, line, full, axis, first, end)
        elif (base, base + end - first) != (0, total):
            assert base >= 0 and base + end - first <= total, (read.value.name, base, first, end, total)
            full = self.cut(read.value.name or "value", full, axis, base, base + end - first)
        if fact.fold != 1:
            full = self.reshape(full, self.block_dims(read.value, end - first))
        return full

    def mirrored(self, read: Read, line: Line, full: ir.Value, axis: int, first: int, end: int) -> ir.Value:
        """Frames by index, those outside taken from inside (reflect) or from the border (edge)."""
        fact, edge = self.analysis.fact(read.value), read.edge
        assert edge is not None
        index = self.constant(np.arange(first, end), "time/window")
        if line.start:
            now = self.offset(fact)
            count = self.frames(fact)
            self.steady = max(self.steady, max(0, -(first // count)) * self.chunk)
            border = self.small("Mul", now, -1)
            inner = border
            if edge.mode == "reflect":
                inner = self.add("time", "Sub", [self.small("Mul", now, -2), index])[0]
            outside = self.add("time", "Less", [index, border])[0]
            index = self.add("time", "Where", [outside, inner, index])[0]
        if line.end:
            last = self.small("Sub", self.end(fact), fact.delay + 1)
            inner = last
            if edge.mode == "reflect":
                inner = self.add("time", "Sub", [self.small("Mul", last, 2), index])[0]
            outside = self.add("time", "Greater", [index, last])[0]
            index = self.add("time", "Where", [outside, inner, index])[0]
        index = self.small("Add", index, fact.delay + line.history)
        top = line.history + self.frames(fact) - 1
        low, high = (self.constant(np.array(x, np.int64), "time/limit") for x in (0, top))
        index = self.add("time", "Clip", [index, low, high])[0]
        return self.add(read.value.name or "value", "Gather", [full, index], attributes={"axis": axis})[0]

    def emitted(self, value: ir.Value) -> ir.Value:
        """Block of an output, as late as it is shown."""
        fact, delay = self.analysis.fact(value), self.analysis.shown_delay(value)
        if fact.free:
            return self.generate(value, -delay, self.frames(fact) - delay)
        if fact.delay == delay:
            return self.steps[value]
        return self.fetch(Read(value), -delay, self.frames(fact) - delay)

    def counted(self, value: ir.Value) -> ir.Value:
        """An output that is made of lengths: right in the last step."""
        content = self.analysis.prepared.facts.contents[value]
        self.absolute = True
        parts = []
        for length in content.reshape(-1):
            if not isinstance(length, SymDim):
                parts.append(self.constant(np.array([length], np.int64), "time/const"))
                continue
            rate = slope(length)
            assert rate is not None
            fact = TimeFact(0, rate, 0, length)
            parts.append(self.add("time", "Add", [self.end(fact), self.offset(fact)])[0])
        whole = parts[0] if len(parts) == 1 else self.add("time", "Concat", parts, attributes={"axis": 0})[0]
        cast = self.add("time", "Cast", [whole], attributes={"to": int(value.dtype or ir.DataType.INT64)})[0]
        return self.reshape(cast, content.shape)

    def generate(self, value: ir.Value, first: int, end: int) -> ir.Value:
        """Those frames of a value that is a function of the index alone."""
        key = (value, first, end)
        if key not in self.windows:
            node = value.producer()
            assert node is not None
            made = NodeWriter(self, node, self.analysis.plans[node], (first, end)).run()
            for out, new in zip(node.outputs, made, strict=False):
                if new is not None:
                    self.windows[(out, first, end)] = new
        return self.windows[key]


@dataclass
class NodeWriter:
    """Emit for one node. span: frames to make of each output, relative to s·m, where they are free."""

    writer: Writer
    node: ir.Node
    plan: Plan
    span: tuple[int, int] | None = None

    @property
    def chunk(self) -> int:
        return self.writer.chunk

    @property
    def name(self) -> str:
        return label(self.node)

    def run(self) -> Sequence[ir.Value | None]:
        return self.plan.emit(self)

    def fact(self, out: int = 0) -> TimeFact:
        return self.writer.analysis.fact(self.node.outputs[out])

    def range(self, out: int = 0) -> tuple[int, int]:
        """First frame and end of the block of an output, relative to s·m."""
        if self.span is not None:
            return self.span
        fact = self.fact(out)
        return -fact.delay, self.writer.frames(fact) - fact.delay

    def frames(self, out: int = 0) -> int:
        first, end = self.range(out)
        return end - first

    def dims(self, out: int = 0) -> list[int]:
        return self.writer.block_dims(self.node.outputs[out], self.frames(out))

    def window(self, k: int) -> tuple[int, int]:
        if self.span is not None:
            return self.span
        read = self.plan.reads[k]
        if read.own:
            source = self.writer.analysis.fact(read.value)
            late = max(0, source.delay)
            return -late, self.writer.frames(source) - late
        timed = next(
            i for i, v in enumerate(self.node.outputs) if isinstance(self.writer.analysis.time.get(v), TimeFact)
        )
        return bounds(read, self.fact(timed), self.frames(timed))

    def read(self, k: int) -> ir.Value:
        read = self.plan.reads[k]
        got = self.writer.fetch(read, *self.window(k))
        return got if read.post is None else read.post(self, got)

    def given(self, index: int) -> ir.Value | None:
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        if value is None:
            return None
        return static(self.writer, value, self.name)

    def fixed(self, value: ir.Value | None) -> ir.Value | None:
        return None if value is None else static(self.writer, value, self.name)

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        return self.writer.add(self.name, op_type, inputs, 1, attributes)[0]

    def ops(self, op_type: str, count: int, *inputs: ir.Value | None, **attributes: Any) -> list[ir.Value]:
        return self.writer.add(self.name, op_type, inputs, count, attributes)

    def const(self, values: Any, dtype: Any = np.int64) -> ir.Value:
        return self.writer.constant(np.array(values, dtype), f"{self.name}/const")

    def body(self, graph: ir.Graph) -> ir.Graph:
        outer = self.writer.analysis.prepared.model.graph
        values: dict[ir.Value, ir.Value | None] = {}
        for node in graph.all_nodes():
            values.update({v: self.fixed(v) for v in node.inputs if v is not None and v.graph is outer})
        return clone_graph(graph, values, {}, lambda name: self.writer.unique(f"{self.name}/{name}"))

    def clone(
        self,
        inputs: Mapping[int, ir.Value | None],
        drop: Sequence[str] = (),
        count: int | None = None,
        **attributes: Any,
    ) -> list[ir.Value]:
        size = max(len(self.node.inputs), *(i + 1 for i, v in inputs.items() if v is not None), 0)
        given = [inputs[i] if i in inputs else self.given(i) for i in range(size)]
        kept = {k: a for k, a in self.node.attributes.items() if k not in drop and k not in attributes}
        count = len(self.node.outputs) if count is None else count
        return self.writer.add(self.name, self.node.op_type, given, count, {**kept, **attributes}, self.node.domain)

    def state(self, name: str, initial: np.ndarray[Any, Any]) -> ir.Value:
        return self.writer.state(f"{self.name}.{name}", initial)

    def adopt(self, name: str, value: ir.Value) -> ir.Value | None:
        writer = self.writer
        if not value.is_graph_input() or value in writer.steps or len(value.uses()) > 1:
            return None
        dims = writer.block_dims(value)
        writer.names.discard(value.name or "")
        state = writer.state(value.name or name, np.zeros(dims, writer.dtype(value)), value.dtype)
        writer.initial.append(state.name or name)
        return state

    def keep(self, state: ir.Value, following: ir.Value) -> None:
        self.writer.keep(state, following)

    def begun(self, fact: TimeFact, frame: int = 0) -> ir.Value:
        writer = self.writer
        count = writer.frames(fact)
        writer.steady = max(writer.steady, -(-max(0, fact.delay - frame) // count) * writer.chunk)
        limit = writer.constant(np.array([fact.delay - frame]), "time/const")
        return writer.add("time", "GreaterOrEqual", [writer.offset(fact), limit])[0]

    def later(self) -> ir.Value:
        writer = self.writer
        writer.steady = max(writer.steady, writer.chunk)
        return writer.add("time", "Greater", [writer.now(), writer.constant(np.array([0]), "time/const")])[0]

    def going(self, fact: TimeFact, frame: int = 0) -> ir.Value:
        writer = self.writer
        return writer.add("time", "Greater", [writer.end(fact), writer.constant(np.array([frame]), "time/const")])[0]

    def left(self, fact: TimeFact) -> ir.Value:
        return self.writer.end(fact)

    def index(self, fact: TimeFact, first: int, end: int) -> ir.Value:
        writer = self.writer
        writer.absolute = True
        column = writer.constant(np.arange(first, end), "time/window")
        return writer.add("time", "Add", [column, writer.offset(fact)])[0]

    def within(self, k: int) -> ir.Value:
        writer, read = self.writer, self.plan.reads[k]
        fact = writer.analysis.fact(read.value)
        first, end = self.window(k)
        index = writer.constant(np.arange(first, end), "time/window")
        writer.steady = max(writer.steady, -(first // writer.frames(fact)) * writer.chunk)
        here = writer.add("time", "Add", [index, writer.offset(fact)])[0]
        begun = writer.add("time", "GreaterOrEqual", [here, writer.constant(np.array([0]), "time/const")])[0]
        last = writer.small("Sub", writer.end(fact), fact.delay)
        going = writer.add("time", "Less", [index, last])[0]
        return writer.add("time", "And", [begun, going])[0]

    def beyond(self, k: int, end: bool) -> ir.Value:
        writer, read = self.writer, self.plan.reads[k]
        fact = writer.analysis.fact(read.value)
        first, stop = self.window(k)
        index, zero = writer.constant(np.arange(first, stop), "time/window"), self.const(0)
        writer.steady = max(writer.steady, -(first // writer.frames(fact)) * writer.chunk)
        place = self.op("Min", self.op("Add", index, writer.offset(fact)), zero)
        if not end:
            return place
        after = self.op("Sub", index, writer.small("Sub", writer.end(fact), fact.delay + 1))
        return self.op("Add", place, self.op("Max", after, zero))

    def overrun(self, fact: TimeFact) -> bool:
        return self.writer.overrun(fact)

    def used(self, out: int) -> bool:
        if out >= len(self.node.outputs):
            return False
        value = self.node.outputs[out]
        live = set(self.writer.analysis.live)
        return value.is_graph_output() or any(use.node in live for use in value.uses())


def static(writer: Writer, value: ir.Value, reader: str) -> ir.Value:
    """A value that is the same in every step."""
    if value in writer.steps:
        return writer.steps[value]
    fact: Fact | None = writer.analysis.time.get(value)
    if isinstance(fact, LengthFact):
        raise NotStreamable(
            reader,
            "it computes with the length of the signal, which is known only at the end",
            "replace it by a fixed number",
        )
    if fact is not None:
        raise NotStreamable(
            reader,
            f"it combines the signal with {value.name!r}, which is {fact}",
            "only values that are the same for every frame can be combined with a signal here",
        )
    constant = writer.analysis.prepared.constant(value)
    if constant is not None:
        tensor = value.const_value
        assert tensor is not None
        new = ir.Value(
            name=writer.unique(value.name or "const"),
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=renamable(tensor),
        )
        writer.constants[new.name or ""] = new
    else:
        if not value.is_graph_input():
            raise NotStreamable(reader, f"it needs {value.name!r} before it is computed", "export the model anew")
        writer.names.discard(value.name or "")
        new = writer.input(value.name or "side", value.dtype or ir.DataType.FLOAT, writer.block_dims(value))
    writer.steps[value] = new
    return new


def initializer(array: np.ndarray[Any, Any], name: str) -> ir.Value:
    """A named constant."""
    tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape))
    return ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)


def bounds(read: Read, out: TimeFact, frames: int) -> tuple[int, int]:
    """First frame and end of what a block of `out` reads, relative to s·m of the value read."""
    return read.span(-out.delay, frames - out.delay)


def collect_lines(writer: Writer) -> None:
    """How much history every value needs, and where its readers meet an edge."""
    analysis = writer.analysis
    for node, plan in analysis.plans.items():
        outs = [f for v in node.outputs if isinstance(f := analysis.time.get(v), TimeFact)]
        if not outs:
            _collect_own(writer, plan)
            continue
        out = outs[0]
        for read in plan.reads:
            source = analysis.fact(read.value)
            if source.free and read.edge is None:
                continue
            start, end = touches(read, out, source, writer)
            if read.edge is None and (start or end):
                raise AssertionError(f"{label(node)} reads outside {read.value.name}")
            line = writer.lines.setdefault((read.value, read.edge), Line(read.value, read.edge))
            first = -max(0, source.delay) if read.own else bounds(read, out, writer.frames(out))[0]
            if read.edge is not None and read.edge.moves and end:
                first = min(first, read.last(-out.delay) - 2 * overhang(read, out, source, writer))
            line.start, line.end = line.start or start, line.end or end
            line.history = max(line.history, -source.delay - first)
    for value in analysis.prepared.model.graph.outputs:
        known = analysis.time.get(value)
        if isinstance(known, TimeFact) and not known.free and known.delay != analysis.shown_delay(value):
            line = writer.lines.setdefault((value, None), Line(value, None))
            line.history = max(line.history, analysis.shown_delay(value) - known.delay)


def _collect_own(writer: Writer, plan: Plan) -> None:
    """What a node without results in time reads: the block of this step."""
    for read in plan.reads:
        source = writer.analysis.fact(read.value)
        if not source.free:
            line = writer.lines.setdefault((read.value, read.edge), Line(read.value, read.edge))
            line.history = max(line.history, -source.delay + max(0, source.delay))


def touches(read: Read, out: TimeFact, source: TimeFact, writer: Writer) -> tuple[bool, bool]:
    """Whether real output frames read before the start, beyond the end."""
    before = read.first(0) < 0 or (read.past and read.edge is not None)
    several = read.whole and writer.frames(out) > 1
    return before or several, several or overhang(read, out, source, writer) > 0


def overhang(read: Read, out: TimeFact, source: TimeFact, writer: Writer) -> int:
    """How many frames beyond the end the last output frames read."""
    step = math.lcm(writer.analysis.multiple, 1)
    base = math.lcm(writer.chunk, step) * 64
    lengths = range(base, base + math.lcm(writer.chunk, step), step)
    return max(read.last(at(out.length, t) - 1) - at(source.length, t) + 1 for t in lengths)
