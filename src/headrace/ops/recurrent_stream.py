"""Streaming of RNN, GRU and LSTM: initial states become states of the stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from headrace.graph.facts import dtype_name, label
from headrace.ops.held import States, held, joined
from headrace.ops.registry import stream
from headrace.ops.timed import Emit, Final, Plan, Read, Site, Timed, TimeFact, framewise

INITIAL = (5, 6)  # initial_h, initial_c


@stream("RNN", "GRU", "LSTM")
def recurrent(site: Site) -> Plan:
    fact = site.fact(0)
    if fact is None or site.timed() != [0]:
        raise site.refuse("has weights or an initial state that change over time", "make them fixed")
    batch_first = int(site.attr("layout", 0))
    time_axis = 1 if batch_first else 0
    if fact.axis == 2:
        raise site.refuse("takes frames as features", "transpose its input")
    if fact.axis != time_axis:
        return _over_rows(site, fact, batch_first)
    direction = str(site.attr("direction", "forward"))
    if direction != "forward":
        raise site.refuse(
            f"runs {direction}, so its first frame needs the last frame of the signal",
            "train with a forward recurrence, or run the backward half over windows",
        )
    if fact.fold != 1:
        raise site.refuse("runs on from row to row", "reshape rows and time apart")
    if site.value(4) is not None and set(site.content(4) or ()) != {fact.length}:
        raise site.refuse("has sequence_lens", "leave it out: every stream ends at its own flush")
    source = site.node.inputs[0]
    assert source is not None
    _name_frames(site)
    outs = (Timed(0 if not batch_first else 1), Final(), Final())[: len(site.node.outputs)]
    return Plan((Read(source, past=True),), outs, lambda e: _run(e, site, time_axis), "hidden state")


def _over_rows(site: Site, fact: TimeFact, batch_first: int) -> Plan:
    if site.value(5) is not None or site.value(6) is not None or site.value(4) is not None:
        raise site.refuse("has one initial state per frame", "leave the initial state out")
    rows = 0 if batch_first else 2
    last = 0 if batch_first else 1
    return framewise(site, {0: rows}, outs={1: last, 2: last})


def _run(e: Emit, site: Site, axis: int) -> Sequence[ir.Value | None]:
    """One node per stretch of frames that are all real or all outside; the state is held where outside."""
    states = _states(e, site)

    def run(pieces: Sequence[ir.Value], now: States, real: ir.Value | None) -> tuple[list[ir.Value], list[ir.Value]]:
        lens = None
        if real is not None:
            lens = e.op("Expand", e.op("Cast", real, to=ir.DataType.INT32), e.const([_batch(site)]))
        out = e.clone({0: pieces[0], 4: lens, **now}, count=1 + len(now))
        return out[:1], out[1:]

    before = {i: value for i, (_, value) in states.items()}
    parts, after = held(e, 0, [(e.read(0), axis)], before, run, finals=e.used(1) or e.used(2), counts=True)
    for i, (state, _) in states.items():
        e.keep(state, after[i])
    whole = joined(e, [part for (part,) in parts], axis)
    return [whole, *(after[i] for i in states)][: max(1, len(site.node.outputs))]


def _name_frames(site: Site) -> None:
    """A name and extents for the output of all frames, where the model uses only the last state."""
    value = site.node.outputs[0]
    if value.name:
        return
    hidden, (first, second, _) = site.dims(2)[-1], site.dims(0)
    runs = site.dims(1)[0]
    value.name = f"{label(site.node)}/frames"
    value.type = site.node.inputs[0].type if site.node.inputs[0] is not None else None
    batch_first = site.attr("layout", 0)
    site.facts.set_dims(value, (first, second, runs, hidden) if batch_first else (first, runs, second, hidden))


def _states(e: Emit, site: Site) -> dict[int, tuple[ir.Value, ir.Value]]:
    """Input index → (state, the value to start this block with)."""
    found = {}
    for i, name in zip(INITIAL[: 2 if site.op == "LSTM" else 1], ("h", "c"), strict=False):
        given = site.value(i)
        constant = site.const(i)
        if constant is not None:
            state = e.state(name, constant)
            found[i] = (state, state)
            continue
        if given is None:
            state = e.state(name, np.zeros(_state_dims(site), _dtype(site)))
            found[i] = (state, state)
            continue
        adopted = e.adopt(name, given)
        if adopted is not None:
            found[i] = (adopted, adopted)
            continue
        state = e.state(name, np.zeros(_state_dims(site), _dtype(site)))
        found[i] = (state, e.op("Where", e.later(), state, e.given(i)))
    return found


def _state_dims(site: Site) -> list[int]:
    """[1, batch, hidden]; batch first where layout says so."""
    hidden, batch = int(site.dims(2)[-1]), _batch(site)  # type: ignore[arg-type]
    return [batch, 1, hidden] if site.attr("layout", 0) else [1, batch, hidden]


def _batch(site: Site) -> int:
    dims = site.dims(0)
    batch = dims[0] if site.attr("layout", 0) else dims[1]
    if not isinstance(batch, int):
        raise site.refuse("has a batch that depends on the length", "keep rows and time apart")
    return batch


def _dtype(site: Site) -> np.dtype[np.generic]:
    source = site.node.inputs[0]
    assert source is not None
    return np.dtype(dtype_name(source.dtype))
