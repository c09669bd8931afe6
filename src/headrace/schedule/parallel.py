"""Which large Defines are cut into parts for threads, and along which axis.

The last step of a schedule: it changes which thread computes a point, never how.
"""

from __future__ import annotations

from headrace.program.ir import Define
from headrace.schedule import legal
from headrace.schedule import steps as st
from headrace.schedule.cost import estimate
from headrace.targets.simd import Isa
from headrace.targets.tile import ROWS

WORTH = 90_000  # cycles of a Define below which it stays whole: about 30 µs
PART = 30_000  # least cycles of one part, many times what it costs to hand one out
ROUNDS = 4  # most parts for each thread: more even out threads of different speed


def share(define: Define, schedule: st.Schedule, isa: Isa, threads: int) -> st.Schedule:
    """The schedule, with a Parallel step behind it where `threads` make the Define faster."""
    if threads < 2 or any(isinstance(s, st.Parallel) for s in schedule):
        return schedule
    work = estimate(define, schedule, isa).cycles
    if work < WORTH:
        return schedule
    most = min(int(work // PART), ROUNDS * threads)
    best, least = None, 1 / 1.3
    for axis in _order(define, schedule):  # an inner loop must be clearly better than those around it
        parts, time = _cut(_tiles(define, schedule, axis), threads, most)
        step = st.Parallel(axis, parts)
        if time < 0.9 * least and _is_legal(define, (*schedule, step)):
            best, least = step, time
    return schedule if best is None else (*schedule, best)


def _order(define: Define, schedule: st.Schedule) -> tuple[int, ...]:
    """Axes from the outermost loop to the innermost."""
    given = next((s.axes for s in schedule if isinstance(s, st.Order)), None)
    return given or tuple(range(len(define.axes)))


def _tiles(define: Define, schedule: st.Schedule, axis: int) -> int:
    """Whole tiles along an axis, at its bound."""
    size = 1
    for s in schedule:
        if isinstance(s, st.RegisterTile) and s.axis == axis:
            size = s.count
        elif isinstance(s, st.Tensorize) and s.axis == axis:
            size = ROWS * s.tiles
        elif isinstance(s, st.Vectorize) and s.axis == axis:
            size = s.lanes * (s.registers if isinstance(define.axes[axis].extent, int) else 1)
    return define.axes[axis].bound // size


def _cut(tiles: int, threads: int, most: int) -> tuple[int, float]:
    """(parts, time as a share of that on one thread) of the best cut of a loop over `tiles`.

    Among cuts that are about as even the one into most parts, as threads may start late or be slower.
    """
    times = {n: -(-n // threads) * -(-tiles // n) / tiles for n in range(1, min(most, tiles) + 1)}
    least = min(times.values(), default=1.0)
    return max((n for n, time in times.items() if time <= least + 0.03), default=1), least


def _is_legal(define: Define, schedule: st.Schedule) -> bool:
    try:
        legal.check(define, schedule)
    except ValueError:
        return False
    return True
