"""The schedule of a Define by a small cost estimate, without measuring.

First the axes worth vectorising: those that cost the fewest instructions, counting contiguous, broadcast,
strided and scattered accesses. For each the register tile: the number of vectors and rows that balances
multiply-adds, loads and the latency of the accumulators, over all full and partial tiles. Of these schedules
the one that the cost model ranks first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from headrace.program.clip import Window, clipped
from headrace.program.dtypes import size_of
from headrace.program.expr import Axis, Expr
from headrace.program.ir import Define
from headrace.schedule import steps as st
from headrace.schedule.access import Access, Facts
from headrace.schedule.cost import cost_of
from headrace.schedule.tensorize import tensorized
from headrace.targets.machine import typical
from headrace.targets.simd import Isa

LATENCY = 4  # cycles of a multiply-add
PORTS = 2  # multiply-adds, or loads, per cycle
WIDE = 16  # sums in registers that also hide the latency of loads
MAX_ROWS = 16
MIN_ROWS, MAX_TAPS = 3, 32  # of windows that slide
TURNED = frozenset(("f32", "i32"))  # element types of square tiles that are turned in registers
L1_PANEL = 24 << 10  # bytes of constants that stay in the first and second cache between rows of tiles
L2_PANEL = 1 << 20
FEW_TILES = 10  # that read a panel before the next one is needed
NEAR = 1.03  # tiles that cost about the same: the one with the least code
FAR = 2.0  # times the instructions of the best axis, from where another is no candidate
PAGE, WAYS = 4096, (4, 12)  # rows so many bytes apart crowd each other out of the first cache if they are more;
# processors with vectors of 64 bytes have more ways
MAX_STEP = 48  # instructions of one step of a reduction on a tile, beyond which it is not unrolled
MAX_WRITTEN = 1500  # instructions beside the reductions of all the tiles that are written out


@dataclass(frozen=True)
class Heuristic:
    """Schedules for one instruction set."""

    isa: Isa

    def schedule(self, define: Define) -> st.Schedule:
        """Steps for a Define; () leaves plain loops in the order of its axes."""
        facts = Facts(define)
        order = default_order(facts) if not define.ordered else tuple(range(len(facts.axes)))
        window = clipped(define)
        if window is not None:
            return self._clipped(facts, window, order)
        if not facts.vector_types or self.isa.lanes == 1 or facts.points * facts.box < 8:
            return (st.Order(order), st.OrderReduce(reduce_order(facts))) if facts.reduced else (st.Order(order),)
        axes = self._vector_axes(facts)
        if axes[0] is None:
            return (st.Order(order), st.OrderReduce(reduce_order(facts))) if facts.reduced else (st.Order(order),)
        found = [self._along(facts, vector, order) for vector in axes if vector is not None]
        return self._in_tiles(facts, self._first(facts, found), order)

    def _first(self, facts: Facts, found: list[st.Schedule]) -> st.Schedule:
        """The schedule in vectors."""
        if len(found) == 1 or not self._is_modelled(facts):
            return found[0]
        costs = [cost_of(facts, schedule, self.isa, typical(self.isa), 0).cycles for schedule in found]
        return next(s for s, cost in zip(found, costs, strict=True) if cost <= NEAR * min(costs))

    def _along(self, facts: Facts, vector: int, order: tuple[int, ...]) -> st.Schedule:
        if vector >= len(facts.axes):
            return self._along_reduction(facts, vector, order)
        return self._along_axis(facts, vector, order)

    def _is_modelled(self, facts: Facts) -> bool:
        """Whether the cost model knows all that happens: sums of floats, whose operations have vector forms."""
        return bool(facts.reduced) and all(n.dtype in ("f32", "index", "bool") for n in facts.nodes)

    def _in_tiles(self, facts: Facts, vectors: st.Schedule, order: tuple[int, ...]) -> st.Schedule:
        """The schedule that takes tile registers, if the target has them and the cost model says that it pays."""
        if not self.isa.tiles:
            return vectors
        inside = st.OrderReduce(reduce_order(facts))
        return tensorized(facts, vectors, self.isa, lambda r, c: (st.Order(self._order(facts, c, r, order)), inside))

    # --- which axis ------------------------------------------------------------------------------

    def _vector_axes(self, facts: Facts) -> list[int | None]:
        """Axes that may be vectorised, None for none, the cheapest first, without those that cost far more."""
        costs: dict[int | None, float] = {None: self._cost(facts, None, False)}
        candidates = list(enumerate(facts.axes))
        same_box = len({r.arg[1] for r in facts.reductions}) == 1
        if facts.reduced and same_box:
            candidates += [(len(facts.axes) + n, a) for n, a in enumerate(facts.reduced)]
        for n, a in candidates:
            inside = n >= len(facts.axes)
            if a.bound < 2 or (inside and not isinstance(a.extent, int)):
                continue
            costs[n] = self._cost(facts, a, inside)
        ranked = sorted(costs, key=lambda n: costs[n])
        return [n for n in ranked if costs[n] <= FAR * costs[ranked[0]]]

    def _cost(self, facts: Facts, axis: Axis | None, inside: bool) -> float:
        """Instructions of the whole Define when `axis` is vectorised (None: none is)."""
        lanes = self.isa.lanes
        vectors = 1.0 if axis is None else -(-axis.bound // lanes) / axis.bound
        outer, inner = float(facts.points), float(facts.points * facts.box)
        if axis is not None:
            inner *= vectors
            outer *= 1.0 if inside else vectors
        total = sum((inner if a.inside else outer) * self._access(a, axis) for a in facts.loads)
        if not inside:
            total += sum(outer * self._access(a, axis, store=True) for a in facts.stores)
        arithmetic = sum(1 for n in facts.nodes if n.dtype != "index" and n.op not in ("load", "const"))
        total += arithmetic * (inner if facts.reduced else outer)
        if inside:
            total += facts.points * 10.0 * len(facts.reductions)
        if axis is not None and facts.guarded(axis.var):
            total *= lanes
        return total

    def _access(self, a: Access, axis: Axis | None, store: bool = False) -> float:
        if axis is None:
            return 1.0
        if a.packable:
            return 1.0 if a.uses(axis.var) else 0.5
        step = a.step(axis.var)
        if step is None:
            return 3.0 * self.isa.lanes
        if step == 0:
            return 0.5
        return 1.0 if step == 1 else (1.0 if store else 0.8) * self.isa.lanes

    # --- along an axis of the result -------------------------------------------------------------

    def _along_axis(self, facts: Facts, vector: int, order: tuple[int, ...]) -> st.Schedule:
        square = self._square(facts, vector)
        if square is not None:
            vector, turned = square
            order = (*(n for n in order if n not in square), vector, turned)
            return (st.Order(order), st.Vectorize(vector, self.isa.lanes), st.RegisterTile(turned, self.isa.lanes))
        window = sliding(facts, vector)
        if window is not None and facts.within * facts.reduced[window.taps].bound <= MAX_STEP:
            return self._along_window(facts, vector, window, order)
        rows = self._row_axis(facts, vector)
        registers, count = self._tile(facts, vector, rows)
        steps: list[st.Step] = [st.Order(self._order(facts, vector, rows, order))]
        if facts.reduced:
            steps.append(st.OrderReduce(reduce_order(facts)))
        steps.append(st.Vectorize(vector, self.isa.lanes, registers))
        if rows is not None and count > 1:
            steps.append(st.RegisterTile(rows, count))
        if facts.reduced:
            steps += self._inner(facts, registers * count)
            if any(a.packable for a in facts.loads):
                steps.append(st.Pack())
            if self._comes_back(facts, vector, rows, registers, count):
                steps.append(st.Prefetch())
        return tuple(steps)

    def _comes_back(self, facts: Facts, vector: int, rows: int | None, registers: int, count: int) -> bool:
        """Whether some tiles read the same constants, which come from outer caches, one panel after the other.

        Many tiles take so long that waiting for a panel does not count, and asking for it in each would.
        """
        v = facts.axes[vector].var
        constants = [a.buffer.nbytes for a in facts.loads if a.packable and a.uses(v)]
        if rows is None or len(constants) != 1 or constants[0] <= L2_PANEL // 2:
            return False
        panel = 4 * registers * self.isa.lanes * facts.box
        return count < facts.axes[rows].bound <= FEW_TILES * count and L1_PANEL // 8 <= panel <= L2_PANEL // 8

    def _square(self, facts: Facts, vector: int) -> tuple[int, int] | None:
        """(axis along which the stores are contiguous, axis along which strided loads are), when that transposes."""
        lanes = self.isa.lanes
        if facts.reduced or lanes < 4:
            return None
        along = [n for n, a in enumerate(facts.axes) if all(s.step(a.var) == 1 for s in facts.stores)]
        for n in (vector, *along):
            v = facts.axes[n]
            strided = [a for a in facts.loads if a.buffer.dtype in TURNED and abs(a.step(v.var) or 0) > 1]
            for m, a in enumerate(facts.axes):
                fits = n in along and m != n and min(a.bound, v.bound) >= lanes
                if fits and (n == vector or m == vector) and any(x.step(a.var) == 1 for x in strided):
                    return n, m
        return None

    def _along_window(self, facts: Facts, vector: int, window: Window, order: tuple[int, ...]) -> st.Schedule:
        """Rows of one tile read the same vectors one tap later: all taps at once, every vector loaded once.

        Where a row of windows has more data than the first cache, every window has all its vectors before the next.
        """
        most = self._window_rows
        extent, taps = facts.axes[window.points].bound, facts.reduced[window.taps].bound
        count = -(-extent // -(-extent // most))
        vectors = -(-facts.axes[vector].bound // self.isa.lanes) if isinstance(facts.axes[vector].extent, int) else 1
        inside = tuple(n for n in reduce_order(facts) if n != window.taps)
        around = prod(facts.reduced[n].bound for n in inside)
        is_wide = size_of("f32") * facts.axes[vector].bound * extent * around > L1_PANEL
        last = (window.points, vector) if is_wide else (vector, window.points)
        return (
            st.Order((*(n for n in order if n not in last), *last)),
            st.OrderReduce((*inside, window.taps)),
            st.Vectorize(vector, self.isa.lanes, max(1, min(vectors, most // count))),
            st.RegisterTile(window.points, count),
            st.Unroll(taps),
            st.Pack(),
        )

    def _clipped(self, facts: Facts, window: Window, order: tuple[int, ...]) -> st.Schedule:
        """All points and taps written out, so that every condition is known."""
        points = facts.axes[window.points].bound
        count = -(-points // -(-points // self._window_rows))
        axes = [n for n in self._vector_axes(facts) if n is not None and n < len(facts.axes) and n != window.points]
        vector = axes[0] if axes and facts.vector_types and self.isa.lanes > 1 else None
        last = (window.points,) if vector is None else (vector, window.points)
        steps: list[st.Step] = [st.Order((*(n for n in order if n not in last), *last))]
        steps.append(st.OrderReduce(reduce_order(facts)))
        if vector is not None:
            steps.append(st.Vectorize(vector, self.isa.lanes))
        steps += [st.RegisterTile(window.points, count), st.UnrollTiles(window.points)]
        return (*steps, st.Unroll(facts.reduced[window.taps].bound), st.Pack())

    @property
    def _window_rows(self) -> int:
        """Sums of a window that slides: the data of the taps are in registers beside them."""
        return self.isa.vectors // 2 - 2 * (self.isa.vectors > 16)

    def _row_axis(self, facts: Facts, vector: int) -> int | None:
        """The axis along which the most vector loads can be shared."""
        v = facts.axes[vector].var
        best, best_gain = None, 0.0
        for n, a in enumerate(facts.axes):
            if n == vector or a.bound == 1 or not facts.reduced:
                continue
            shared = sum(1.0 for x in facts.loads if x.inside and x.uses(v) and not x.uses(a.var))
            overlapping = sum(
                0.5 for x in facts.loads if x.inside and not x.packable and x.uses(a.var) and facts.box > 1
            )
            gain = (shared + 0.01 * overlapping) * (1 - 1 / min(a.bound, MAX_ROWS)) + 0.0001 * n
            if shared and gain > best_gain:
                best, best_gain = n, gain
        return best

    def _tile(self, facts: Facts, vector: int, rows: int | None) -> tuple[int, int]:
        """(vectors, rows) of the register tile with the least estimated time."""
        lanes = self.isa.lanes
        vectors = -(-facts.axes[vector].bound // lanes)
        if not facts.reduced:
            return min(vectors, 2 if len(facts.nodes) < 40 else 1), 1
        if not isinstance(facts.axes[vector].extent, int):
            vectors = 1
        limit = facts.axes[rows].bound if rows is not None else 1
        v, r = facts.axes[vector].var, facts.axes[rows].var if rows is not None else None
        shape = _Kernel.of(facts, v, r, lanes)
        costs = {
            (n, count): shape.total(n, count, vectors, limit, facts.box)
            for count in range(1, min(limit, MAX_ROWS) + 1)
            for n in range(1, min(vectors, 12) + 1)
            if shape.fits(n, count, self.isa.vectors)
        }
        small = {t: c for t, c in costs.items() if _written(*t, vectors, limit) * facts.around <= MAX_WRITTEN}
        costs = small or {(1, 1): costs[1, 1]}
        near = [tile for tile, cost in costs.items() if cost <= NEAR * min(costs.values())]
        return min(near, key=lambda tile: (_written(tile[0], tile[1], vectors, limit), costs[tile]))

    def _inner(self, facts: Facts, tile: int) -> list[st.Step]:
        """Unrolling and independent accumulators for small tiles."""
        width = tile * max(1, len(facts.reductions))
        innermost = facts.reduced[reduce_order(facts)[-1]].bound
        if width < LATENCY * PORTS and innermost >= 4:
            ways = min(4, -(-LATENCY * PORTS // width))
            return [st.Accumulators(ways), st.Unroll(max(ways, 4) if width * facts.within <= MAX_STEP else ways)]
        if width <= 12 and innermost >= 4 and width * facts.within <= MAX_STEP:
            return [st.Unroll(4)]
        return []

    def _order(self, facts: Facts, vector: int, rows: int | None, order: tuple[int, ...]) -> tuple[int, ...]:
        """Vectors outside rows where constants follow the vectors; otherwise vectors innermost."""
        rest = [n for n in order if n not in (vector, rows)]
        tile = [vector] if rows is None else [vector, rows]
        v = facts.axes[vector].var
        heavy = [a for a in facts.loads if a.packable and a.uses(v)]
        if facts.reduced and heavy:
            outside = [n for n in rest if any(a.uses(facts.axes[n].var) for a in heavy)]
            inside = [n for n in rest if n not in outside]
            return tuple(outside + [vector] + inside + ([rows] if rows is not None else []))
        return tuple(rest + list(reversed(tile)))

    # --- along a reduction -----------------------------------------------------------------------

    def _along_reduction(self, facts: Facts, vector: int, order: tuple[int, ...]) -> st.Schedule:
        extent = facts.reduced[vector - len(facts.axes)].bound
        registers = max(1, min(4, extent // self.isa.lanes))
        steps: list[st.Step] = [
            st.Order(order),
            st.OrderReduce(reduce_order(facts)),
            st.Vectorize(vector, self.isa.lanes, registers),
        ]
        if any(a.packable for a in facts.loads):
            steps.append(st.Pack())
        return tuple(steps)


@dataclass(frozen=True)
class _Kernel:
    """Loads of one step of a reduction, by what they depend on."""

    sums: int  # in the largest group of reductions that share their loops
    both: int  # vector loads that change with the row
    column: int  # vector loads shared by the rows
    row: int  # scalar loads that change with the row
    once: int
    outside: bool  # loops outside the tile come back to the constants
    lanes: int
    crowded: bool  # rows lie in the same few lines of the first cache

    @staticmethod
    def of(facts: Facts, v: Expr, r: Expr | None, lanes: int) -> _Kernel:
        counts = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
        for a in facts.loads:
            if a.inside:
                counts[(a.uses(v), r is not None and a.uses(r))] += 1
        return _Kernel(
            max(Counter(tuple(a.bound for a in r.arg[1]) for r in facts.reductions).values(), default=1),
            counts[(True, True)],
            counts[(True, False)],
            counts[(False, True)],
            counts[(False, False)],
            any(
                x.bound > 1 and any(a.inside and a.uses(v) and not a.uses(x.var) for a in facts.loads)
                for x in facts.axes
                if x.var is not v and x.var is not r
            ),
            lanes,
            r is not None
            and any(a.inside and (a.step(r) or 1) * size_of(a.buffer.dtype) % PAGE == 0 for a in facts.loads),
        )

    def fits(self, n: int, count: int, vectors: int) -> bool:
        if n == count == 1:
            return True
        operands = min(n * max(1, self.column), count * max(1, self.row)) + 1 + (self.both > 0)
        return n * count * self.sums + operands <= vectors

    def cycles(self, n: int, count: int, box: int, again: bool) -> float:
        """Cycles of one step of the reduction on a tile.

        again: loops come back to the constants of a tile: from L1 when they fit, else from L2 or beyond.
        Compilers keep the broadcast rows in registers too, which bounds what fits().
        """
        sums = n * count * self.sums
        panel = 4 * self.lanes * n * self.column * box
        far = self.lanes / 16  # as many cache lines for a vector
        price = 0.5 if panel <= L1_PANEL or not again else 0.25 + 1.25 * far if panel <= L2_PANEL else 3.0 * far
        if self.crowded and count > WAYS[self.lanes > 8]:
            return 2.0 * sums
        loads = (n * count * self.both + count * self.row + self.once) / PORTS + n * self.column * price
        ways = 1 if sums >= LATENCY * PORTS else min(4, -(-LATENCY * PORTS // sums))
        waits = 0.2 * max(0.0, 1 - sums / WIDE) * sums / PORTS
        return max(sums / PORTS, loads, LATENCY / ways) + 0.1 * (sums / PORTS + loads) + waits

    @lru_cache(maxsize=4096)  # noqa: B019
    def total(self, n: int, count: int, vectors: int, rows: int, box: int) -> float:
        """Cycles of all tiles, with a fixed price for starting each."""
        out = 0.0
        for cols, times in ((n, vectors // n), (vectors % n, 1)):
            for lines, repeats in ((count, rows // count), (rows % count, 1)):
                if cols and lines and times and repeats:
                    step = self.cycles(cols, lines, box, self.outside or rows > count)
                    out += times * repeats * (step * box + 6 + cols * lines * self.sums)
        return out


def sliding(facts: Facts, vector: int) -> Window | None:
    """The window of data that a Define weighs element by element, as depthwise convolutions do: steps along its
    points read what steps along its taps do."""
    v = facts.axes[vector].var
    data = [a for a in facts.loads if a.inside and not a.packable]
    if not data or not any(a.packable for a in facts.loads) or any(a.step(v) != 1 for a in data):
        return None
    found = {}
    for n, rows in enumerate(facts.axes):
        for k, taps in enumerate(facts.reduced):
            steps = {(a.step(rows.var), a.step(taps.var)) for a in data}
            far, near = next(iter(steps))
            fits = n != vector and isinstance(rows.extent, int) and rows.bound >= MIN_ROWS and taps.bound <= MAX_TAPS
            if fits and len(steps) == 1 and far and near and far in (near, 2 * near):
                found[abs(far)] = Window(n, k)
    return found[min(found)] if found else None


def _written(n: int, count: int, vectors: int, rows: int) -> int:
    """Points of all the tiles that are written out: the full one, and those at the ends."""
    columns = n * (vectors >= n) + vectors % n
    lines = count * (rows >= count) + rows % count
    return columns * lines


def default_order(facts: Facts) -> tuple[int, ...]:
    """The loops so that the first store walks through memory."""
    if not facts.stores:
        return tuple(range(len(facts.axes)))
    store = facts.stores[0]
    steps = [store.step(a.var) for a in facts.axes]
    return tuple(sorted(range(len(facts.axes)), key=lambda n: -abs(steps[n] or 0)))


def reduce_order(facts: Facts) -> tuple[int, ...]:
    """Reduction loops so that loads of non-constants walk through memory."""

    def stride(a: Axis) -> int:
        if a.extent == 1:
            return 1 << 40  # outermost, where it is in nobody's way
        found = [
            abs(x.step(a.var) or 1 << 30)
            for x in facts.loads
            if x.inside and x.buffer.space != "const" and x.uses(a.var)
        ]
        return max(found, default=0)

    return tuple(sorted(range(len(facts.reduced)), key=lambda n: -stride(facts.reduced[n])))
