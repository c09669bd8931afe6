"""Multiply-accumulates per window, one window after the other and as a stream that shares them."""

from __future__ import annotations

from headrace.graph.facts import label
from headrace.graph.macs import macs
from headrace.ops.timed import slope
from headrace.streaming.analyse import Analysis, at
from headrace.streaming.model import LayerWork, WindowSpec
from headrace.streaming.windows import Windows


def window_spec(analysis: Analysis) -> WindowSpec | None:
    """What the metadata of a step model of windows says about them; None for other models."""
    windows = analysis.windows
    if windows is None:
        return None
    return WindowSpec(windows.grid.frames, windows.grid.hop, _work(analysis, windows))


def _work(analysis: Analysis, windows: Windows) -> tuple[LayerWork, ...]:
    """Every layer that has products, in order. Element-wise work is not counted."""
    facts, one = analysis.prepared.facts, windows.one.facts
    body = set(windows.body)
    stream = {label(n): n for n in analysis.live}
    rows = []
    for node in windows.one.model.graph:
        twin = stream.get(label(node))
        if node in body:
            count = macs(node, one.dims.get)
            work = (count, count)
        elif twin is not None:
            formula = macs(twin, facts.dims.get)
            if formula is None:
                continue
            growth = slope(formula)
            assert growth is not None
            work = (at(formula, windows.grid.frames), int(growth * windows.grid.hop))
        else:
            continue
        alone, shared = work
        if isinstance(alone, int) and isinstance(shared, int) and alone:
            why = windows.reasons.get(label(node), "it follows a layer that is computed for each window")
            rows.append(LayerWork(label(node), node.op_type, alone, shared, why if node in body else ""))
    return tuple(rows)
