"""Random legal schedules of Defines."""

from __future__ import annotations

from collections.abc import Callable

from headrace.program.ir import Define
from headrace.schedule import legal
from headrace.schedule import steps as st
from headrace.schedule.tile import candidates

Pick = Callable[[int], int]
BESIDE_TILES = (st.OrderReduce, st.Unroll, st.Accumulators, st.Prefetch)


def random_schedule(define: Define, pick: Pick) -> st.Schedule:
    """Any combination of steps that the Define admits."""
    spatial, reduced = len(define.axes), len(st.reduce_axes(define))
    wanted: list[st.Step] = []
    if pick(4):
        wanted.append(st.Order(_shuffled(spatial, pick)))
    if reduced and pick(2):
        wanted.append(st.OrderReduce(_shuffled(reduced, pick)))
    if spatial + reduced and pick(4):
        wanted.append(st.Vectorize(pick(spatial + reduced), 2 << pick(5), 1 + pick(4)))
    for _ in range(pick(3) if spatial else 0):
        wanted.append(st.RegisterTile(pick(spatial), 1 + pick(5)))
    if spatial and pick(3) == 0:
        wanted.append(st.UnrollTiles(pick(spatial)))
    if spatial and pick(3) == 0:
        wanted.append(st.Block(pick(spatial), (1 + pick(5)) * (1 + pick(4))))
    if pick(3) == 0:
        wanted.append(st.Unroll(1 + pick(6)))
    if pick(3) == 0:
        wanted.append(st.Accumulators(1 + pick(5)))
    if pick(2):
        wanted += [st.Pack(), st.Prefetch()]
    if spatial and pick(2):
        wanted.append(st.Parallel(pick(spatial), 1 + pick(5)))
    schedule: st.Schedule = ()
    for step in wanted:
        try:
            legal.check(define, (*schedule, step))
        except ValueError:
            continue
        schedule = (*schedule, step)
    return schedule


def random_tiles(define: Define, pick: Pick, parallel: bool = False) -> st.Schedule | None:
    """Any schedule with a Tensorize step, cut into parts too with `parallel`; None where the Define admits none."""
    found = candidates(define)
    if not found:
        return None
    row, column = found[pick(len(found))]
    rest = [n for n in range(len(define.axes)) if n != row]
    order = (*(rest[p] for p in _shuffled(len(rest), pick)), row)
    steps: list[st.Step] = [st.Order(order), st.Vectorize(column, 16, 1 + pick(2)), st.Tensorize(row, 1 + pick(2))]
    steps += [st.Pack(), *(s for s in random_schedule(define, pick) if isinstance(s, BESIDE_TILES))]
    cut = st.Parallel((row, column)[pick(2)], 1 + pick(3))
    if parallel and define.axes[cut.axis].bound > 1:
        steps.append(cut)
    legal.check(define, tuple(steps))
    return tuple(steps)


def _shuffled(n: int, pick: Pick) -> tuple[int, ...]:
    left = list(range(n))
    return tuple(left.pop(pick(len(left))) for _ in range(n))
