"""Attention over a limited past: scores, masks, softmax and the product with the values, in one step.

A product of two signals over their features has time on two axes. Such scores stream when a mask, a
function of the two frame numbers alone, leaves each frame only frames near it: the layer then reads a
window of keys and values. The mask is evaluated here for signals of a fixed length, and must depend on
the difference of the two numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from headrace.errors import NotStreamable
from headrace.graph.facts import label
from headrace.graph.rewrite import attribute
from headrace.graph.symbolic import SymDim
from headrace.ops.elementwise_stream import BROADCAST, UNARY
from headrace.ops.timed import (
    TIME,
    BandFact,
    Edge,
    Emit,
    GridFact,
    LengthFact,
    Plan,
    Read,
    Timed,
    TimeFact,
    has_time,
)
from headrace.streaming.evaluate import CannotEvaluate, evaluate

if TYPE_CHECKING:
    from headrace.streaming.analyse import Analysis

Array = np.ndarray[Any, Any]
SAMPLE = (192, 512)
MASKED = -1e6  # scores this low leave nothing after the softmax
HINT = "limit the past with a causal or windowed mask, or stream(…, max_past=N) where the past is unlimited"


def is_grid(node: ir.Node, analysis: Analysis) -> bool:
    """Whether a node makes a function of two frame numbers."""
    time = analysis.time
    for value in node.inputs:
        fact = time.get(value) if value is not None else None
        if isinstance(fact, BandFact) or (isinstance(fact, TimeFact) and not fact.free):
            return False
        if fact is None and value is not None and value.is_graph_input():
            return False
    return any(sum(has_time(d) for d in analysis.prepared.facts.dims.get(v, ())) >= 2 for v in node.outputs if v.name)


def visit(node: ir.Node, analysis: Analysis) -> Plan | bool:
    """The plan of a product that ends an attention; True for a node inside one; else False."""
    time = analysis.time
    facts = [time.get(v) if v is not None else None for v in node.inputs]
    if not any(isinstance(f, BandFact) for f in facts):
        return _starts(node, analysis, facts)
    band = next(f for f in facts if isinstance(f, BandFact))
    if node.op_type == "MatMul" and isinstance(facts[0], BandFact):
        return _ends(node, analysis, band, facts[1])
    moved = _inside(node, analysis, band, facts)
    if moved is None:
        raise _refuse(node, f"{node.op_type} uses the scores of every frame against every other")
    time[node.outputs[0]] = moved
    return True


def _refuse(node: ir.Node, reason: str, hint: str = HINT) -> NotStreamable:
    return NotStreamable(label(node), reason, hint)


def _starts(node: ir.Node, analysis: Analysis, facts: Sequence[object]) -> bool:
    """MatMul of two signals over their features."""
    if node.op_type != "MatMul" or len(facts) != 2:
        return False
    query, key = facts
    if not isinstance(query, TimeFact) or not isinstance(key, TimeFact):
        return False
    dims = [analysis.prepared.facts.dims[v] for v in node.inputs if v is not None]
    if query.axis != len(dims[0]) - 2 or key.axis != len(dims[1]) - 1:
        return False
    if query.fold != 1 or key.fold != 1 or query.length != key.length:
        raise _refuse(node, "MatMul compares signals of different lengths frame by frame")
    rank = len(analysis.prepared.facts.dims[node.outputs[0]])
    analysis.time[node.outputs[0]] = BandFact(rank - 2, rank - 1)
    return True


def _inside(node: ir.Node, analysis: Analysis, band: BandFact, facts: Sequence[object]) -> BandFact | None:
    """Time of what a node makes of scores, or None where it cannot stream."""
    dims = analysis.prepared.facts.dims
    others = [f for f in facts if f is not None and not isinstance(f, BandFact | GridFact | LengthFact)]
    if others or len(node.outputs) != 1:
        return None
    kind, out = node.op_type, dims[node.outputs[0]]
    if kind in UNARY or kind in BROADCAST:
        same = all(f == band for f in facts if isinstance(f, BandFact))
        first = next(v for v, f in zip(node.inputs, facts, strict=True) if isinstance(f, BandFact))
        assert first is not None
        shift = len(out) - len(dims[first])
        return BandFact(band.rows + shift, band.columns + shift, band.softmax) if same else None
    if kind == "Softmax":
        axis = int(attribute(node, "axis", -1)) % len(out)
        return BandFact(band.rows, band.columns, True) if axis == band.columns and not band.softmax else None
    if kind in ("Reshape", "Squeeze", "Unsqueeze"):
        places = [i for i, d in enumerate(out) if has_time(d)]
        source = node.inputs[0]
        assert source is not None
        kept = [dims[source][i] for i in (band.rows, band.columns)] == [out[i] for i in places]
        last = kept and places == [len(out) - 2, len(out) - 1] and band.columns == len(dims[source]) - 1
        return BandFact(places[0], places[1], band.softmax) if last else None
    return None


def _ends(node: ir.Node, analysis: Analysis, band: BandFact, values: object) -> Plan:
    """MatMul of the weights with the values: reads a window of keys and values."""
    if not isinstance(values, TimeFact) or values.fold != 1:
        raise _refuse(node, "MatMul sums over all frames of the signal")
    rank = len(analysis.prepared.facts.dims[node.inputs[1]])  # type: ignore[index]
    if values.axis != rank - 2 or not band.softmax:
        raise _refuse(node, "MatMul sums over all frames of the signal")
    chain = Chain.of(node, analysis)
    past, future = chain.reach()
    unlimited = False
    if future is None:
        raise _refuse(node, "attention reaches to the end of the signal: no mask hides the frames to come")
    if past is None:
        if analysis.max_past is None:
            raise _refuse(node, "attention reaches back without limit", HINT)
        past = math.ceil(analysis.max_past * values.rate) - 1
        analysis.unlimited = unlimited = True
    out = len(analysis.prepared.facts.dims[node.outputs[0]])
    source = node.inputs[1]
    assert source is not None
    query, key = chain.scores.inputs
    assert query is not None and key is not None
    reads = (
        Read(query),
        Read(key, lo=-past, hi=future, edge=Edge(), past=unlimited, whole=True),
        Read(source, lo=-past, hi=future, edge=Edge(), past=unlimited, whole=True),
    )
    return Plan(reads, (Timed(out - 2),), chain.emit, f"past {past} keys and values")


@dataclass
class Chain:
    """The nodes from the product of queries and keys to the product with the values."""

    end: ir.Node
    scores: ir.Node
    analysis: Analysis
    grids: dict[tuple[ir.Value, int], Array] = field(default_factory=dict)

    @staticmethod
    def of(end: ir.Node, analysis: Analysis) -> Chain:
        """Follow the scores back to where they start. NotStreamable when two sets of scores meet."""
        starts: set[ir.Node] = set()
        queue = [end.inputs[0]]
        while queue:
            value = queue.pop()
            node = value.producer() if value is not None else None
            if node is None or value is None or not isinstance(analysis.time.get(value), BandFact):
                continue
            bands = [v for v in node.inputs if v is not None and isinstance(analysis.time.get(v), BandFact)]
            if bands:
                queue += bands
            else:
                starts.add(node)
        if len(starts) != 1:
            raise _refuse(end, "attention adds several products of frames with frames")
        return Chain(end, starts.pop(), analysis)

    def softmax(self) -> ir.Node:
        """The node that normalises the scores."""
        value = self.end.inputs[0]
        while True:
            assert value is not None
            node = value.producer()
            assert node is not None
            if node.op_type == "Softmax":
                return node
            value = next(v for v in node.inputs if v is not None and isinstance(self.analysis.time.get(v), BandFact))

    def reach(self) -> tuple[int | None, int | None]:
        """(past, future) that the mask leaves; None where it grows with the signal."""
        found = []
        for size in SAMPLE:
            before = self.softmax().inputs[0]
            assert before is not None
            low = self.evaluate(before, size)
            low = low.reshape(-1, size, size)
            open_ = np.any(low > MASKED, axis=0)
            if not open_.any(axis=1).all():
                raise _refuse(self.end, "attention has frames whose mask hides everything")
            row, column = np.nonzero(open_)
            past, future = int(max(0, (row - column).max())), int(max(0, (column - row).max()))
            self.check_difference(before, low)
            found.append((past, future))
        (p1, f1), (p2, f2) = found
        return p1 if p1 == p2 else None, f1 if f1 == f2 else None

    def check_difference(self, value: ir.Value, grid: Array) -> None:
        """Refuse a mask that is not a function of the difference of the two frame numbers."""
        if not np.array_equal(grid[:, 1:, 1:], grid[:, :-1, :-1], equal_nan=True):
            raise _refuse(
                self.end,
                "attention has a mask that depends on the frame's own number, not on the distance",
                "use the same window for every frame",
            )

    def evaluate(self, value: ir.Value, size: int) -> Array:
        """A mask, or scores as if every product were 0, for a signal with `size` frames here."""
        frames = _frames(self.analysis, self.scores, size)
        if (value, size) not in self.grids:
            try:
                self.grids[(value, size)] = evaluate(value, frames, self.analysis, self.scores)
            except CannotEvaluate as error:
                raise _refuse(
                    self.end,
                    f"the mask of attention cannot be evaluated: {error}",
                    "make it of constants, or fix its inputs with constants=",
                ) from error
        return self.grids[(value, size)]

    def emit(self, e: Emit) -> Sequence[ir.Value | None]:
        made: dict[ir.Value, ir.Value] = {}
        weights = self._emit(e, self.end.inputs[0], made)
        return [e.op("MatMul", weights, e.read(2))]

    def _emit(self, e: Emit, value: ir.Value | None, made: dict[ir.Value, ir.Value]) -> ir.Value:
        assert value is not None
        if value in made:
            return made[value]
        node, facts = value.producer(), self.analysis.time
        assert node is not None
        if node is self.scores:
            made[value] = e.op("MatMul", e.read(0), e.read(1))
            return made[value]
        inputs: list[ir.Value | None] = []
        for given in node.inputs:
            fact = facts.get(given) if given is not None else None
            if isinstance(fact, BandFact):
                inputs.append(self._emit(e, given, made))
            elif isinstance(fact, GridFact):
                assert given is not None
                inputs.append(self._band(e, given))
            else:
                inputs.append(e.fixed(given))
        if node.op_type == "Softmax":
            inputs[0] = self._hide(e, inputs[0], value)
        if node.op_type in ("Reshape", "Squeeze", "Unsqueeze"):
            dims = list(self.analysis.prepared.facts.dims[value][:-2])
            first, end = e.window(1)
            made[value] = e.op("Reshape", inputs[0], e.const([*dims, e.frames(), end - first]))
            return made[value]
        made[value] = e.op(node.op_type, *inputs, **dict(node.attributes))
        return made[value]

    def _hide(self, e: Emit, scores: ir.Value | None, value: ir.Value) -> ir.Value:
        """Keys before the start and after the end do not exist."""
        dtype = np.dtype(value.dtype.numpy()) if value.dtype is not None else np.dtype(np.float32)
        return e.op("Where", e.within(1), scores, e.const(-np.inf, dtype))

    def _band(self, e: Emit, value: ir.Value) -> ir.Value:
        """A mask over the rows of this block and the columns of its window."""
        first, end = e.window(1)
        start, stop = e.range()
        rows, columns = np.arange(start, stop), np.arange(first, end)
        far = int(max(abs(columns[-1] - rows[0]), abs(columns[0] - rows[-1]))) + 2
        size = max(SAMPLE[0], far)
        grid = self.evaluate(value, size)
        dims = self.analysis.prepared.facts.dims[value]
        places = [i for i, d in enumerate(dims) if has_time(d)]
        if places != [len(dims) - 2, len(dims) - 1]:
            raise _refuse(self.end, "attention has a mask with other axes than frames by frames")
        self.check_difference(value, grid.reshape(-1, size, size))
        distance = columns[None, :] - rows[:, None]
        middle = np.where(distance > 0, 0, size - 1)
        other = np.clip(middle + distance, 0, size - 1)
        part = grid[..., middle, other]
        return e.const(part, part.dtype)


def _frames(analysis: Analysis, scores: ir.Node, size: int) -> int:
    """T for which the scores have that many rows."""
    query = scores.inputs[0]
    assert query is not None
    fact = analysis.fact(query)
    guess = int(size / fact.rate)
    for frames in range(max(1, guess - 4096), guess + 4096):
        if isinstance(fact.length, SymDim) and fact.length.evaluate({TIME: frames}) == size:
            return frames
    raise _refuse(scores, f"attention runs at rate {Fraction(fact.rate)}, at which masks cannot be checked")
