"""One Define and its schedule → loops in C.

The tile is emitted by substitution: every point of the register tile is the Define's expression with
its variables replaced (row → row0 + r, column → column0 + 16*j + lane). Interned expressions make loads
that points share one load. Rows and columns that do not fill a tile get loops of their own with smaller
tiles and, for the last vector, fewer lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from headrace.codegen.emit import Emitter
from headrace.codegen.pack import Packer, Range
from headrace.codegen.reduction import ReductionEmitter
from headrace.codegen.scope import Scope
from headrace.codegen.tile import TileEmitter
from headrace.codegen.transpose import emit_transposed
from headrace.program.expr import Axis, Expr, Extent, index, minimum, substitute, substitution, var
from headrace.program.ir import Define
from headrace.schedule import steps as st
from headrace.schedule.steps import reductions
from headrace.schedule.tile import sums_of

Mapping = dict[Expr, Expr]
Points = Callable[[Expr], list[Expr]]  # the base of a tile → the points of the axis in it


@dataclass
class Tile:
    """What the loops around have fixed so far."""

    points: list[Mapping]  # one substitution per point of the register tile
    ranges: dict[Expr, Range] = field(default_factory=dict)  # variable → where it runs
    lane: Expr | None = None


def _rows(count: int) -> Points:
    """As many consecutive points."""
    return lambda v: [v + r for r in range(count)]


@dataclass
class NestEmitter:
    """Emits one Define."""

    emitter: Emitter
    define: Define
    schedule: st.Schedule
    packer: Packer

    def __post_init__(self) -> None:
        n = len(self.define.axes)
        self.order = tuple(range(n))
        self.vector: st.Vectorize | None = None
        self.rows: dict[int, int] = {}
        self.written: set[int] = set()  # axes whose tiles are written out
        self.pack = False
        self.parallel: st.Parallel | None = None
        self.block: st.Block | None = None
        self.within: dict[int, tuple[Extent, Extent]] = {}  # where the loop over an axis runs: inside a block
        for step in self.schedule:
            if isinstance(step, st.Order):
                self.order = step.axes
            elif isinstance(step, st.Vectorize):
                self.vector = step
            elif isinstance(step, st.RegisterTile):
                self.rows[step.axis] = step.count
            elif isinstance(step, st.UnrollTiles):
                self.written.add(step.axis)
            elif isinstance(step, st.Block):
                self.block = step
            elif isinstance(step, st.Pack):
                self.pack = True
            elif isinstance(step, st.Parallel):
                self.parallel = step
        self.reduction = ReductionEmitter(self.schedule, n)
        tensor = next((s for s in self.schedule if isinstance(s, st.Tensorize)), None)
        self.tiles: TileEmitter | None = None
        if tensor is not None:
            sums = sums_of(self.define, self.schedule)
            self.tiles = TileEmitter(self.emitter, self.define, tensor, sums, self.packer, self.reduction)

    def emit(self, scope: Scope) -> None:
        self.emitter.reduce = self.reduction.single
        self.emitter.padded = self.packer.padded
        if self.tiles is not None:
            self.tiles.begin(scope)
        if self.block is None:
            self._level(0, scope, Tile([{}]))
        else:
            self._blocks(scope, self.block)
        if self.tiles is not None:
            self.tiles.end(scope)

    def _blocks(self, scope: Scope, step: st.Block) -> None:
        """The nest inside a loop over blocks of whole tiles, and once more for what is left of the axis."""
        extent, count = self.define.axes[step.axis].extent, self.rows.get(step.axis, 1)
        assert isinstance(extent, int)
        main = extent // count * count
        if main:
            v, name = scope.names.variable("block", main)
            self.emitter.variables[v] = name
            inner = scope.child(binds=(v,))
            self.within = {step.axis: (v, minimum(v + step.count, index(main)))}
            self._level(0, inner, Tile([{}]))
            scope.close(f"for (ptrdiff_t {name} = 0; {name} < {main}; {name} += {step.count})", inner)
        if extent > main:
            self.within = {step.axis: (main, extent)}
            self._level(0, scope, Tile([{}]))

    def _level(self, level: int, scope: Scope, tile: Tile) -> None:
        if level == len(self.order):
            self._body(scope, tile)
            return
        position = self.order[level]
        axis = self.define.axes[position]
        if self.vector is not None and self.vector.axis == position:
            self._vector_loops(level, scope, tile, axis, self.vector)
        elif position in self.written:
            self._each_tile(level, scope, tile, axis, self.rows.get(position, 1))
        elif self.tiles is not None and self.tiles.step.axis == position:
            self._tile_loops(level, scope, tile, axis, self.tiles)
        elif self.rows.get(position, 1) > 1:
            self._row_loops(level, scope, tile, axis, self.rows[position], self.within.get(position))
        elif axis.extent == 1:
            inner = replace(tile, points=[{**p, axis.var: index(0)} for p in tile.points])
            self._level(level + 1, scope, inner)
        else:
            start, stop = self.within.get(position, (0, axis.extent))
            self._loop(level, scope, tile, axis, start, stop, 1, lambda v: [v])

    def _loop(
        self,
        level: int,
        scope: Scope,
        tile: Tile,
        axis: Axis,
        start: Extent,
        stop: Extent,
        step: int,
        values: Points,
        lane: Expr | None = None,
    ) -> None:
        """for (v = start; v + step <= stop; v += step) with `values(v)` as the points of the tile."""
        e = self.emitter

        def points(v: Expr) -> list[Mapping]:
            return [{**p, axis.var: x} for p in tile.points for x in values(v)]

        if isinstance(stop, int) and isinstance(start, int) and stop - start < 2 * step:
            if stop - start < step:
                return
            ranges = {**tile.ranges, axis.var: Range(index(start), start, start + step, step, lane)}
            once = Tile(points(index(start)), ranges, tile.lane if lane is None else lane)
            self._once(level, scope, lambda inner: self._level(level + 1, inner, once))
            return
        v, name = scope.names.variable("i", axis.extent)
        e.variables[v] = name
        ranges = {
            **tile.ranges,
            axis.var: Range(v, start, stop if isinstance(stop, int) else None, step, lane),
        }
        inner = scope.child(binds=(v,))
        self._level(level + 1, inner, Tile(points(v), ranges, tile.lane if lane is None else lane))
        limit = e.extent(stop, scope)
        condition = f"{name} < {limit}" if step == 1 else f"{name} <= {limit} - {step}"
        if isinstance(stop, int):
            condition = f"{name} < {start + (stop - start) // step * step}"
        begin = e.extent(start, scope)
        if self._cuts(level) and start == 0:
            begin, condition = self._part(name, limit, step)
        head = f"for (ptrdiff_t {name} = {begin}; {condition}; {name} += {step})"
        if start == 0:
            scope.close(head, inner)
        else:
            self._once(level, scope, lambda outer: outer.close(head, inner))

    def _cuts(self, level: int) -> bool:
        """Whether the loop of a level is the one that is cut into parts."""
        return self.parallel is not None and self.parallel.axis == self.order[level]

    def _part(self, name: str, limit: str, step: int) -> tuple[str, str]:
        """Start and condition of the loop from 0 in part `hr_part`: whole tiles."""
        assert self.parallel is not None
        tiles = limit if step == 1 else f"{int(limit) // step}" if limit.isdigit() else f"{limit} / {step}"
        times, parts = f" * {step}" if step > 1 else "", self.parallel.parts
        begin, end = (f"{tiles} * {n} / {parts}{times}" for n in ("hr_part", "(hr_part + 1)"))
        return begin, f"{name} < {end}"

    def _once(self, level: int, scope: Scope, emit: Callable[[Scope], None]) -> None:
        """What a loop does beside its whole tiles, by the last part if it is cut."""
        if not self._cuts(level):
            emit(scope)
            return
        assert self.parallel is not None
        inner = scope.child(fenced=True)
        emit(inner)
        scope.close(f"if (hr_part == {self.parallel.parts - 1})", inner)

    def _each_tile(self, level: int, scope: Scope, tile: Tile, axis: Axis, count: int) -> None:
        """The tiles of an axis one after the other. Compilers would load what two tiles read once for both, and keep
        it on the stack."""
        assert isinstance(axis.extent, int)
        for start in range(0, axis.extent, count):
            stop = min(start + count, axis.extent)
            inner = scope.child(fenced=True)
            if start:
                inner.line("keep_apart();")
            self._loop(level, inner, tile, axis, start, stop, stop - start, _rows(stop - start))
            scope.block(inner)

    def _row_loops(
        self, level: int, scope: Scope, tile: Tile, axis: Axis, count: int, within: tuple[Extent, Extent] | None
    ) -> None:
        extent, rows = axis.extent, _rows
        if within is not None:
            start, stop = within
            step = count if isinstance(start, Expr) or isinstance(stop, Expr) else stop - start
            self._loop(level, scope, tile, axis, start, stop, step, rows(step))
            return
        if isinstance(extent, int):
            main = extent // count * count
            if main:
                self._loop(level, scope, tile, axis, 0, main, count, rows(count))
            if extent > main:
                self._loop(level, scope, tile, axis, main, extent, extent - main, rows(extent - main))
            return
        self._loop(level, scope, tile, axis, 0, extent, count, rows(count))
        start = (extent // count) * count
        self._loop(level, scope, tile, axis, start, extent, 1, rows(1))

    def _tile_loops(self, level: int, scope: Scope, tile: Tile, axis: Axis, tiles: TileEmitter) -> None:
        for start, stop, count in tiles.sections:
            tiles.section(scope, count)
            self._loop(level, scope, tile, axis, start, stop, count, lambda v: [v])

    def _vector_loops(self, level: int, scope: Scope, tile: Tile, axis: Axis, step: st.Vectorize) -> None:
        lanes, extent = step.lanes, axis.extent

        def columns(vectors: int, last: Expr | None) -> Points:
            full = self._lane(lanes)
            return lambda v: [
                v + j * lanes + (last if last is not None and j == vectors - 1 else full) for j in range(vectors)
            ]

        block = lanes * step.registers
        if isinstance(extent, int):
            main = extent // block * block
            lane = self._lane(lanes)
            if main:
                self._loop(level, scope, tile, axis, 0, main, block, columns(step.registers, None), lane)
            rest = extent - main
            if rest:
                vectors = -(-rest // lanes)
                last = self._lane(rest - (vectors - 1) * lanes)
                self._loop(level, scope, tile, axis, main, extent, rest, columns(vectors, last), last)
            return
        lane = self._lane(lanes)
        self._loop(level, scope, tile, axis, 0, extent, lanes, columns(1, None), lane)
        start = (extent // lanes) * lanes
        self._symbolic_tail(level, scope, tile, axis, start)

    def _symbolic_tail(self, level: int, scope: Scope, tile: Tile, axis: Axis, start: Expr) -> None:
        e = self.emitter
        count = axis.extent - start if isinstance(axis.extent, Expr) else index(0)
        assert self.vector is not None
        left, name = scope.names.variable("rest", self.vector.lanes)
        scope.line(f"const int {name} = (int){e.index(count, scope)};")
        e.variables[left] = name
        lane = var(f"lane_{name}", left)
        e.lane_vars.add(lane)
        inner = scope.child(binds=(left,), fenced=True)
        ranges = {**tile.ranges, axis.var: Range(start, start, None, 0, lane)}
        points = [{**p, axis.var: start + lane} for p in tile.points]
        self._level(level + 1, inner, Tile(points, ranges, lane))
        self._once(level, scope, lambda outer: outer.close(f"if ({name} > 0)", inner))

    def _lane(self, extent: int) -> Expr:
        """The lane variable of a vector with `extent` lanes in use."""
        lane = var(f"lane{extent}", extent)
        self.emitter.lane_vars.add(lane)
        return lane

    def _in_order(self, points: list[Mapping]) -> list[Mapping]:
        """The points of a tile so that few operands are alive at a time: the shorter side runs fastest."""
        rows = [n for n in self.order if self.rows.get(n, 1) > 1]
        if self.vector is None or len(rows) != 1 or self.vector.axis not in self.order:
            return points
        row, column = (self.define.axes[n].var for n in (rows[0], self.vector.axis))
        first = points[0]
        lines = sum(p[column] is first[column] for p in points)
        columns = sum(p[row] is first[row] for p in points)
        if lines * columns != len(points):
            return points
        outer_is_row = lines == 1 or points[1 % len(points)][row] is first[row]
        wants_row = lines >= columns
        if outer_is_row == wants_row:
            return points
        n = columns if outer_is_row else lines  # how many stand together now
        return [p for k in range(n) for p in points[k::n]]

    def _is_square(self) -> bool:
        """Whether a tile has a row for every lane, and nothing but rows and lanes."""
        rows = list(self.rows.values())
        return self.vector is not None and rows == [self.vector.lanes] and not reductions(self.define)

    def _body(self, scope: Scope, tile: Tile) -> None:
        if self.tiles is not None:
            self.tiles.block(scope, tile, self._points)
            return
        tile = replace(tile, points=self._in_order(tile.points))
        maps = self.packer.region(self.define, tile.ranges, tile.points, self.reduction) if self.pack else None
        self._points(scope, tile, maps)

    def _points(self, scope: Scope, tile: Tile, maps: list[Mapping] | None) -> None:
        """The values at the points of a tile, and their stores. maps: packed loads of each point."""
        roots = []
        for n, p in enumerate(tile.points):
            packed, go = maps[n] if maps else {}, substitution(p)
            for s in self.define.stores:
                roots.append((s, tuple(map(go, s.index)), go(substitute(s.value, packed))))
        if self._is_square():
            emit_transposed(self.emitter, scope, [r[2] for r in roots])
        self.reduction.prepare(self.emitter, scope, [r[2] for r in roots])
        for _, _, value in roots:
            self.emitter.value(value, scope)
        for _, idx, _ in roots:
            self.emitter.settle(idx, scope)
        for s, idx, value in roots:
            self.emitter.store(s.buffer, idx, value, s.combiner, scope)
