"""Which schedules a Define admits. What passes here must compile to the Define's meaning."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.program.expr import Expr, walk
from headrace.program.index import free_vars
from headrace.program.ir import Define
from headrace.schedule import steps as st
from headrace.schedule import tile

MAX_LANES = 64


def check(define: Define, schedule: st.Schedule, tiles: bool = True) -> None:
    """Raise ValueError, naming the step and the reason, unless `schedule` may be applied to `define`.

    An ordered Define keeps its order: no Order but the identity, no Vectorize, no RegisterTile. A search for
    the position of an extreme element runs one element after the other, so it may not vary along vectors.
    tiles: whether the instruction set has tile registers, without which no Tensorize is legal.
    """
    seen: set[object] = set()
    for step in schedule:
        kind = (type(step), step.axis) if isinstance(step, st.RegisterTile) else type(step)
        fault = "it stands twice" if kind in seen else _fault(define, step, schedule)
        if isinstance(step, st.Tensorize) and not tiles:
            fault = "the instruction set has no tile registers"
        if fault is not None:
            raise ValueError(f"{st.show((step,))} is not legal here: {fault}")
        seen.add(kind)


def _fault(define: Define, step: st.Step, schedule: st.Schedule) -> str | None:
    spatial = len(define.axes)
    if isinstance(step, st.Order):
        return _order_fault(define, step)
    if isinstance(step, st.OrderReduce):
        return _permutation_fault(step.axes, len(st.reduce_axes(define)), "the reduction")
    if isinstance(step, st.RegisterTile):
        if not 0 <= step.axis < spatial:
            return f"the Define has {spatial} axes"
        if any(isinstance(s, st.Vectorize) and s.axis == step.axis for s in schedule):
            return "the axis is vectorised; ask for registers there"
        return _count_fault(step.count) or _ordered_fault(define)
    if isinstance(step, st.UnrollTiles):
        return _written_fault(define, step, schedule)
    if isinstance(step, st.Block):
        return _block_fault(define, step, schedule)
    if isinstance(step, st.Parallel):
        return _parallel_fault(define, step)
    if isinstance(step, st.Tensorize):
        return tile.fault(define, step, schedule)
    if isinstance(step, st.Unroll | st.Accumulators):
        return _count_fault(step.count)
    return _vector_fault(define, step) if isinstance(step, st.Vectorize) else None


def _written_fault(define: Define, step: st.UnrollTiles, schedule: st.Schedule) -> str | None:
    if not 0 <= step.axis < len(define.axes):
        return f"the Define has {len(define.axes)} axes"
    if not isinstance(define.axes[step.axis].extent, int):
        return "its extent is known at run time"
    if any(isinstance(s, st.Vectorize | st.Parallel | st.Block) and s.axis == step.axis for s in schedule):
        return "the axis is vectorised, blocked or cut into parts"
    return None


def _block_fault(define: Define, step: st.Block, schedule: st.Schedule) -> str | None:
    if not 0 <= step.axis < len(define.axes):
        return f"the Define has {len(define.axes)} axes"
    if not isinstance(define.axes[step.axis].extent, int):
        return "its extent is known at run time"
    for other in schedule:
        if isinstance(other, st.Vectorize | st.Parallel) and other.axis == step.axis:
            return "the axis is vectorised" if isinstance(other, st.Vectorize) else "the axis is cut into parts"
        if isinstance(other, st.RegisterTile) and other.axis == step.axis and step.count % max(other.count, 1):
            return f"{step.count} is no multiple of a tile of {other.count}"
    return _count_fault(step.count) or _ordered_fault(define)


def _count_fault(count: int) -> str | None:
    return None if count >= 1 else f"a count of {count}"


def _ordered_fault(define: Define) -> str | None:
    return "the Define runs in order" if define.ordered else None


def _permutation_fault(axes: Sequence[int], count: int, what: str) -> str | None:
    return None if sorted(axes) == list(range(count)) else f"{what} has {count} axes"


def _order_fault(define: Define, step: st.Order) -> str | None:
    fault = _permutation_fault(step.axes, len(define.axes), "the Define")
    if fault is None and define.ordered and step.axes != tuple(range(len(define.axes))):
        return _ordered_fault(define)
    return fault


def _vector_fault(define: Define, step: st.Vectorize) -> str | None:
    lanes, spatial, reduced = step.lanes, len(define.axes), st.reduce_axes(define)
    if lanes < 2 or lanes > MAX_LANES or lanes & (lanes - 1):
        return f"lanes are a power of two from 2 to {MAX_LANES}"
    if not 0 <= step.axis < spatial + len(reduced):
        return f"the Define has {spatial} axes, its reductions {len(reduced)}"
    if step.registers < 1:
        return _count_fault(step.registers)
    if define.ordered:
        return _ordered_fault(define)
    inner = _reductions(define)
    if step.axis < spatial:
        v = define.axes[step.axis].var
        along = [r for r in inner if v in free_vars(r)]
        return _accumulator_fault(along)
    return _reduction_fault(st.reductions(define), inner, step.axis - spatial)


def _parallel_fault(define: Define, step: st.Parallel) -> str | None:
    """Points write different elements, so only order and the one flag of a failed check stand in the way."""
    if not 0 <= step.axis < len(define.axes):
        return f"the Define has {len(define.axes)} axes"
    if define.ordered or step.parts < 1:
        return _count_fault(step.parts) or _ordered_fault(define)
    if define.axes[step.axis].bound < 2:
        return "the axis has one point"
    checked = any(e.op == "check" for e in walk(*(e for s in define.stores for e in (s.value, *s.index))))
    return "an index is checked in it" if checked else None


def _reductions(define: Define) -> list[Expr]:
    """Every reduction, also inside others."""
    roots = [e for s in define.stores for e in (s.value, *s.index)]
    return [e for e in walk(*roots) if e.op == "reduce"]


def _accumulator_fault(reductions: list[Expr]) -> str | None:
    for r in reductions:
        if r.arg[0].startswith("arg"):
            return f"{r.arg[0]} varies along it"
        if r.dtype in ("f16", "bf16"):
            return f"a {r.arg[0]} of {r.dtype} has no vector form"
    return None


def _reduction_fault(outer: list[Expr], every: list[Expr], position: int) -> str | None:
    """All reductions with as many axes are vectorised along the one at `position`."""
    along = [r for r in outer if position < len(r.arg[1])]
    if len(every) > len(outer):
        return "one reduction stands inside another"
    if any(not isinstance(r.arg[1][position].extent, int) for r in along):
        return "its extent is known at run time"
    return _accumulator_fault(along)
