"""Whether a Define is computed in tile registers rather than vectors, by the cost model."""

from __future__ import annotations

from collections.abc import Callable

from headrace.schedule import steps as st
from headrace.schedule.access import Facts
from headrace.schedule.cost import cost_of
from headrace.schedule.tile import candidates
from headrace.targets.machine import typical
from headrace.targets.simd import Isa
from headrace.targets.tile import ROWS

SURE = 0.7  # of the cost in vectors, below which tiles are taken: what they cost was never measured
OrderFn = Callable[[int, int], tuple[st.Step, ...]]  # axes of rows and columns → the steps that order loops


def tensorized(facts: Facts, vectors: st.Schedule, isa: Isa, order: OrderFn) -> st.Schedule:
    """The best schedule with a Tensorize step where it is clearly cheaper than `vectors`, else `vectors`."""
    pairs = candidates(facts.define)
    if not pairs:
        return vectors

    def cost(s: st.Schedule) -> float:
        return cost_of(facts, s, isa, typical(isa), 0).cycles

    best = min((_between(facts, r, c, order(r, c)) for r, c in pairs), key=cost)
    return best if cost(best) < SURE * cost(vectors) else vectors


def _between(facts: Facts, rows: int, columns: int, order: tuple[st.Step, ...]) -> st.Schedule:
    """The largest blocks that the axes fill."""
    lines, vectors = (-(-facts.axes[n].bound // ROWS) for n in (rows, columns))
    return (*order, st.Vectorize(columns, ROWS, min(2, vectors)), st.Tensorize(rows, min(2, lines)), st.Pack())
