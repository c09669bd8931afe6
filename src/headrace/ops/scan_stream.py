"""Streaming of Scan over frames: its carried values are the state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from headrace.graph.facts import dtype_name
from headrace.ops.held import States, held, joined
from headrace.ops.registry import stream
from headrace.ops.timed import Emit, Final, Out, Plan, Read, Site, Timed, same_clock


@stream("Scan")
def scan(site: Site) -> Plan:
    node, count = site.node, int(site.attr("num_scan_inputs"))
    carried = len(node.inputs) - count
    inputs, outputs = range(carried, len(node.inputs)), range(carried, len(node.outputs))
    in_axes = [a % len(site.dims(i)) for i, a in zip(inputs, _each(site, "scan_input_axes", count), strict=True)]
    ranks = [len(site.out_dims(k)) if node.outputs[k].name else 0 for k in outputs]
    out_axes = [a + r if a < 0 else a for a, r in zip(_each(site, "scan_output_axes", len(ranks)), ranks, strict=True)]
    if any(site.fact(i) is not None for i in range(carried)):
        raise site.refuse("starts from a value that changes over time", "start from a fixed value")
    facts = [site.fact(i) for i in inputs]
    if any(f is None or f.axis != a or f.fold != 1 for f, a in zip(facts, in_axes, strict=True)):
        raise site.refuse("runs over another axis than time", "run over the frames of the signal")
    backwards = _each(site, "scan_input_directions", count) + _each(site, "scan_output_directions", len(ranks))
    if any(backwards):
        raise site.refuse("runs from the end to the start", "its first frame needs the last; run forwards")
    if not any(ranks):
        raise site.refuse("gives nothing for each frame", "let it return one of its values for every frame")
    same_clock(site, list(inputs))
    values = [v for i in inputs if (v := node.inputs[i]) is not None]
    timed = dict(zip(outputs, out_axes, strict=True))
    outs: tuple[Out, ...] = tuple(Timed(timed[k]) if k in timed else Final() for k in range(len(node.outputs)))

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        return _run(e, site, carried, in_axes, timed)

    return Plan(tuple(Read(v, past=True) for v in values), outs, emit, "carried values")


def _each(site: Site, name: str, count: int) -> list[int]:
    return [int(a) for a in site.attr(name) or [0] * count]


def _run(e: Emit, site: Site, carried: int, axes: Sequence[int], timed: Mapping[int, int]) -> Sequence[ir.Value | None]:
    node = site.node
    states = {i: _state(e, site, i) for i in range(carried)}
    body = site.attr("body")

    def run(pieces: Sequence[ir.Value], now: States, real: object) -> tuple[list[ir.Value], list[ir.Value]]:
        given = {**now, **{carried + k: piece for k, piece in enumerate(pieces)}}
        out = e.clone(given, body=e.body(body))
        return out[carried:], out[:carried]

    blocks = [(e.read(k), axis) for k, axis in enumerate(axes)]
    shown = next(k for k in timed if node.outputs[k].name)
    before = {i: value for i, (_, value) in states.items()}
    parts, after = held(e, shown, blocks, before, run, finals=any(e.used(i) for i in range(carried)))
    for i, (state, _) in states.items():
        e.keep(state, after[i])
    made = [joined(e, column, axis) for column, axis in zip(zip(*parts, strict=True), timed.values(), strict=True)]
    return [*(after[i] for i in range(carried)), *made]


def _state(e: Emit, site: Site, i: int) -> tuple[ir.Value, ir.Value]:
    """(the state, the value to start this block with)."""
    value, constant = site.node.inputs[i], site.const(i)
    assert value is not None
    if constant is not None:
        state = e.state(f"carried{i}", constant)
        return state, state
    adopted = e.adopt(f"carried{i}", value)
    if adopted is not None:
        return adopted, adopted
    state = e.state(f"carried{i}", np.zeros([int(str(d)) for d in site.dims(i)], np.dtype(dtype_name(value.dtype))))
    return state, e.op("Where", e.later(), state, e.given(i))
