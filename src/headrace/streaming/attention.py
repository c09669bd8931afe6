"""Attention over a limited past: scores, masks, softmax and the product with the values, in one step.

A product of two signals over their features has time on two axes. Such scores stream when a mask, a
function of the two frame numbers alone, leaves each frame only frames near it: the layer then reads a
window of keys and values. The mask is evaluated for signals of a fixed length, and must depend on
the difference of the two numbers only, or on that and the place of the frame within a block. Without a
softmax (linear attention in its quadratic form) a mask hides by zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from headrace.errors import NotStreamable
from headrace.graph.facts import label
from headrace.graph.rewrite import attribute
from headrace.graph.symbolic import SymDim
from headrace.ops.elementwise_stream import BROADCAST, UNARY
from headrace.ops.timed import (
    BandFact,
    Edge,
    Emit,
    GridFact,
    LengthFact,
    Plan,
    Read,
    RelativeFact,
    Timed,
    TimeFact,
    has_time,
)
from headrace.streaming import relative
from headrace.streaming.grid import Grids, Pattern

if TYPE_CHECKING:
    from headrace.streaming.analyse import Analysis

Array = np.ndarray[Any, Any]
MASKED = -1e6  # scores this low leave nothing after the softmax
DRAWS = (1, -1, 2, -2)  # noise in place of the scores, to see which of them matter
HINT = "limit the past with a causal or windowed mask, or stream(…, max_past=N) where the past is unlimited"


def is_grid(node: ir.Node, analysis: Analysis) -> bool:
    """Whether a node makes a function of two frame numbers, or of one by way of two or counted from the end."""
    time, grid = analysis.time, _counts_back(node, analysis)
    for value in node.inputs:
        fact = time.get(value) if value is not None else None
        if isinstance(fact, BandFact | RelativeFact) or (isinstance(fact, TimeFact) and not fact.free):
            return False
        if fact is None and value is not None and value.is_graph_input():
            return False
        grid = grid or isinstance(fact, GridFact)
    dims = analysis.prepared.facts.dims
    return any(sum(map(has_time, dims.get(v, ()))) >= (1 if grid else 2) for v in node.outputs if v.name)


def _counts_back(node: ir.Node, analysis: Analysis) -> bool:
    """Whether a Range or the Slice of a table starts at a place that depends on the length."""
    index = {"Range": 0, "Slice": 1}.get(node.op_type)
    content = analysis.prepared.facts.content(node.inputs[index]) if index is not None else None
    return content is not None and any(isinstance(item, SymDim) for item in content.reshape(-1))


def visit(node: ir.Node, analysis: Analysis) -> Plan | bool:
    """The plan of a product that ends an attention; True for a node inside one; else False."""
    time = analysis.time
    facts = [time.get(v) if v is not None else None for v in node.inputs]
    if any(isinstance(f, RelativeFact) for f in facts):
        if not relative.moves(node, analysis, facts):
            raise _refuse(node, f"{node.op_type} uses products of every frame with positions", "shift them at once")
        return True
    if not any(isinstance(f, BandFact) for f in facts):
        return _starts(node, analysis, facts) or relative.starts(node, analysis, facts)
    band = next(f for f in facts if isinstance(f, BandFact))
    if node.op_type in ("MatMul", "Einsum") and isinstance(facts[0], BandFact):
        return _ends(node, analysis, facts[1] if len(facts) == 2 else None)
    moved = _inside(node, analysis, band, facts)
    if moved is None:
        raise _refuse(node, f"{node.op_type} uses the scores of every frame against every other")
    time[node.outputs[0]] = moved
    return True


def _refuse(node: ir.Node, reason: str, hint: str = HINT) -> NotStreamable:
    return NotStreamable(label(node), reason, hint)


def _starts(node: ir.Node, analysis: Analysis, facts: Sequence[object]) -> bool:
    """Product of two signals over their features, frames of the first by frames of the second."""
    if node.op_type not in ("MatMul", "Einsum") or len(facts) != 2:
        return False
    query, key = facts
    if not isinstance(query, TimeFact) or not isinstance(key, TimeFact):
        return False
    if node.op_type == "Einsum":
        (left, right), out = _terms(node)
        letters = left[query.axis : query.axis + 1] + right[key.axis : key.axis + 1]
        if len(set(letters)) < 2 or out[-2:] != letters:
            return False
    else:
        dims = [analysis.prepared.facts.dims[v] for v in node.inputs if v is not None]
        if query.axis != len(dims[0]) - 2 or key.axis != len(dims[1]) - 1:
            return False
    if query.fold != 1 or key.fold != 1 or query.length != key.length:
        raise _refuse(node, f"{node.op_type} compares signals of different lengths frame by frame")
    rank = len(analysis.prepared.facts.dims[node.outputs[0]])
    analysis.time[node.outputs[0]] = BandFact(rank - 2, rank - 1)
    return True


def _mask(fact: object) -> bool:
    """Whether a value depends on the frames' numbers only."""
    return isinstance(fact, GridFact) or (isinstance(fact, TimeFact) and fact.free and fact.fold == 1)


def _terms(node: ir.Node) -> tuple[tuple[str, str], str]:
    """Letters of the two operands and of the result of an Einsum; empty where they cannot be told."""
    equation = str(attribute(node, "equation", "")).replace(" ", "")
    left, arrow, right = equation.partition("->")
    first, comma, second = left.partition(",")
    return ((first, second), right) if arrow and comma and "." not in equation else (("", ""), "")


def _inside(node: ir.Node, analysis: Analysis, band: BandFact, facts: Sequence[object]) -> BandFact | None:
    """Time of what a node makes of scores, or None where it cannot stream."""
    dims = analysis.prepared.facts.dims
    others = [f for f in facts if f is not None and not isinstance(f, BandFact | LengthFact) and not _mask(f)]
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
    if kind == "Trilu":
        fixed = attribute(node, "upper", 1) is not None and (len(node.inputs) < 2 or facts[1] is None)
        return band if fixed and not band.softmax else None
    if kind in ("Reshape", "Squeeze", "Unsqueeze"):
        places = [i for i, d in enumerate(out) if has_time(d)]
        source = node.inputs[0]
        assert source is not None
        kept = [dims[source][i] for i in (band.rows, band.columns)] == [out[i] for i in places]
        last = kept and places == [len(out) - 2, len(out) - 1] and band.columns == len(dims[source]) - 1
        return BandFact(places[0], places[1], band.softmax) if last else None
    return None


def _ends(node: ir.Node, analysis: Analysis, values: object) -> Plan:
    """Product of the weights with the values: reads a window of keys and values."""
    source = node.inputs[1] if len(node.inputs) > 1 else None
    if not isinstance(values, TimeFact) or values.fold != 1 or source is None:
        raise _refuse(node, f"{node.op_type} sums over all frames of the signal")
    out = len(analysis.prepared.facts.dims[node.outputs[0]]) - 2
    if node.op_type == "Einsum":
        (left, right), result = _terms(node)
        row, column = left[-2:-1], left[-1:]
        if (
            not row
            or column in result
            or row not in result
            or right[values.axis : values.axis + 1] != column
            or row in right
        ):
            raise _refuse(node, "Einsum sums over all frames of the signal")
        out = result.index(row)
    elif values.axis != len(analysis.prepared.facts.dims[source]) - 2:
        raise _refuse(node, "MatMul sums over all frames of the signal")
    chain = Chain.of(node, analysis)
    pattern = chain.pattern
    past = max((p for p, _ in pattern.phases if p is not None), default=0)
    if pattern.unlimited:
        longest = min((n for n in (analysis.max_past, analysis.limit) if n is not None), default=None)
        if longest is None:
            raise _refuse(node, "attention reaches back without limit", HINT)
        past = math.ceil(longest * values.rate) - 1
        analysis.unlimited = True
    query, key = chain.scores.inputs
    assert query is not None and key is not None
    analysis.blocks.append(values.rate / len(pattern.phases))

    def window(value: ir.Value) -> Read:
        spans = tuple((-(past if p is None else p), ahead) for p, ahead in pattern.phases)
        lo, hi = min(low for low, _ in spans), max(high for _, high in spans)
        phases = spans if len(spans) > 1 else ()
        return Read(value, lo=lo, hi=hi, edge=Edge(), past=pattern.unlimited, whole=True, phases=phases)

    for place, product in chain.shifted:
        chain.positions(place, product, max(relative.SIZES))
    others = tuple(Read(q) for _, product in chain.shifted if (q := product.inputs[0]) is not None)
    reads = (Read(query), window(key), window(source), *others)
    return Plan(reads, (Timed(out),), chain.emit, f"past {past} keys and values")


@dataclass
class Chain:
    """The nodes from the product of queries and keys to the product with the values.

    shifted: products with relative positions, each with the value that it has become frames by frames.
    """

    end: ir.Node
    scores: ir.Node
    analysis: Analysis
    grids: Grids
    masks: tuple[ir.Value, ...]
    shifted: tuple[tuple[ir.Value, ir.Node], ...]

    @staticmethod
    def of(end: ir.Node, analysis: Analysis) -> Chain:
        """Follow the scores back to where they start. NotStreamable when two sets of scores meet."""
        starts: set[ir.Node] = set()
        masks: list[ir.Value] = []
        shifted: dict[ir.Value, ir.Node] = {}
        queue = [end.inputs[0]]
        while queue:
            value = queue.pop()
            node = value.producer() if value is not None else None
            if node is None or value is None or not isinstance(analysis.time.get(value), BandFact):
                continue
            given = [v for v in node.inputs if v is not None]
            bands = [v for v in given if isinstance(analysis.time.get(v), BandFact)]
            masks += [v for v in given if bands and _mask(analysis.time.get(v))]
            product = relative.product_of(node, analysis)
            if bands:
                queue += bands
            elif product is not None:
                shifted[value] = product
            else:
                starts.add(node)
        if len(starts) != 1:
            raise _refuse(end, "attention adds several products of frames with frames")
        scores = starts.pop()
        query = scores.inputs[0]
        assert query is not None
        length = analysis.fact(query).length
        assert isinstance(length, SymDim)

        def refuse(reason: str, hint: str = HINT) -> NotStreamable:
            return _refuse(end, reason, hint)

        grids = Grids(analysis, frozenset([scores, *shifted.values()]), length, refuse)
        return Chain(end, scores, analysis, grids, tuple(dict.fromkeys(masks)), tuple(shifted.items()))

    @cached_property
    def softmax(self) -> ir.Node | None:
        """The node that normalises the scores, where there is one."""
        value = self.end.inputs[0]
        while True:
            node = value.producer() if value is not None else None
            assert node is not None
            if node.op_type == "Softmax":
                return node
            bands = [v for v in node.inputs if v is not None and isinstance(self.analysis.time.get(v), BandFact)]
            if not bands:
                return None
            value = bands[0]

    @cached_property
    def pattern(self) -> Pattern:
        """Which frames each frame sees."""
        return self.grids.pattern(self._seen, self.grids.period(self.masks))

    def _seen(self, size: int) -> Array:
        """bool [size, size]: what the masks leave open."""
        if self.softmax is not None:
            before = self.softmax.inputs[0]
            assert before is not None
            low = self.grids.evaluate(before, size)
            return np.asarray(np.any(low.reshape(-1, size, size) > MASKED, axis=0))
        weights = self.end.inputs[0]
        assert weights is not None
        drawn = [self.grids.evaluate(weights, size, draw).reshape(-1, size, size) for draw in DRAWS]
        return np.asarray(np.any([np.any(item != 0, axis=0) for item in drawn], axis=0))

    def emit(self, e: Emit) -> Sequence[ir.Value | None]:
        weights = self._emit(e, self.end.inputs[0], {})
        if self.softmax is None:
            weights = e.op("Where", e.within(1), weights, e.const(0, _dtype(self.end.inputs[0])))
        return [e.op(self.end.op_type, weights, e.read(2), **dict(self.end.attributes))]

    def _emit(self, e: Emit, value: ir.Value | None, made: dict[ir.Value, ir.Value]) -> ir.Value:
        assert value is not None
        if value in made:
            return made[value]
        node, facts = value.producer(), self.analysis.time
        assert node is not None
        if node is self.scores:
            made[value] = e.op(node.op_type, e.read(0), e.read(1), **dict(node.attributes))
            return made[value]
        for k, (place, product) in enumerate(self.shifted):
            if value is place:
                made[value] = self._positions(e, e.read(3 + k), place, product)
                return made[value]
        inputs: list[ir.Value | None] = []
        for given in node.inputs:
            fact = facts.get(given) if given is not None else None
            if isinstance(fact, BandFact):
                inputs.append(self._emit(e, given, made))
            elif _mask(fact):
                assert given is not None
                part = self.grids.part(given, *self._places(e), len(self.pattern.phases))
                inputs.append(e.const(part, part.dtype))
            else:
                inputs.append(e.fixed(given))
        made[value] = self._node(e, node, inputs, value)
        return made[value]

    def positions(self, place: ir.Value, product: ir.Node, size: int) -> Array:
        """What queries are multiplied with for every distance below `size`."""
        content = relative.table(place, product, self.analysis, self.grids.largest(size))
        if content is None:
            raise _refuse(
                product,
                "attention has relative positions that are not the same for every length",
                "make them of the distance alone",
            )
        return content

    def _positions(self, e: Emit, query: ir.Value, place: ir.Value, product: ir.Node) -> ir.Value:
        """Products of this block's queries with the positions of its window."""
        rows, columns = self._places(e)
        far = int(max(abs(columns[-1] - rows[0]), abs(columns[0] - rows[-1])))
        content = self.positions(place, product, far + 2)
        lead = [int(str(d)) for d in self.analysis.prepared.facts.dims[place][:-2]]
        return relative.emit(e, query, rows, columns, content, lead)

    def _node(self, e: Emit, node: ir.Node, inputs: list[ir.Value | None], value: ir.Value) -> ir.Value:
        """A node on the rows of this block and the columns of its window."""
        rows, columns = self._places(e)
        if node.op_type == "Trilu":
            given = self.analysis.prepared.constant(node.inputs[1]) if len(inputs) > 1 and node.inputs[1] else None
            distance, k = columns[None, :] - rows[:, None], int(given.item()) if given is not None else 0
            kept = distance >= k if attribute(node, "upper", 1) else distance <= k
            return e.op("Where", e.const(kept, np.bool_), inputs[0], e.const(0, _dtype(value)))
        if node.op_type in ("Reshape", "Squeeze", "Unsqueeze"):
            dims = list(self.analysis.prepared.facts.dims[value][:-2])
            return e.op("Reshape", inputs[0], e.const([*dims, len(rows), len(columns)]))
        if node.op_type == "Softmax":  # keys before the start and after the end do not exist
            inputs[0] = e.op("Where", e.within(1), inputs[0], e.const(-np.inf, _dtype(value)))
        return e.op(node.op_type, *inputs, **dict(node.attributes))

    def _places(self, e: Emit) -> tuple[Array, Array]:
        """Numbers of the frames of this block, and of its window, from the start of a block of the mask."""
        return np.arange(*e.range()), np.arange(*e.window(1))


def _dtype(value: ir.Value | None) -> np.dtype[Any]:
    known = value is not None and value.dtype is not None
    return np.dtype(value.dtype.numpy()) if known else np.dtype(np.float32)  # type: ignore[union-attr]
