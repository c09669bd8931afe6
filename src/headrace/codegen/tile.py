"""Sums of products of words by tile registers (Intel AMX), as a Tensorize step says.

A block is one or two tiles of rows by one or two vectors of columns: its sums are computed in tiles, stored to a
small array, and a loop over its rows computes what is left of each value in vectors. B lies packed as [word][lane],
which is what a tile of B is; A is read where it lies. Nothing is read beyond the rows and words that the sum has:
rows at the end are tiles of fewer rows, and words that fill no tile are a second phase with narrower tiles. A
signed x, whose top bits the sum has turned, is multiplied as it is: C begins with the 128 times the sum of weights
that this adds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from headrace.codegen.emit import Emitter, bare
from headrace.codegen.pack import Packer
from headrace.codegen.scalar import CTYPES
from headrace.codegen.scope import Operand, Scope
from headrace.program.dtypes import size_of
from headrace.program.expr import Expr, index, substitute, substitution
from headrace.program.index import coefficient, free_vars
from headrace.program.ir import Buffer, Define
from headrace.schedule.steps import Tensorize
from headrace.schedule.tile import WordSum
from headrace.targets.tile import ROWS, A, B, C, configuration

if TYPE_CHECKING:
    from headrace.codegen.nest import Tile
    from headrace.codegen.reduction import ReductionEmitter

Mapping = dict[Expr, Expr]
Points = Callable[[Scope, "Tile", list[Mapping]], None]
Shape = tuple[tuple[int, int], int]  # rows of the two tiles of rows, words of a step
_FENCE = '__asm__ volatile("" ::: "memory");'  # gcc does not know what tile loads read


def _rows(count: int) -> tuple[int, int]:
    return min(count, ROWS), max(count - ROWS, 0)


def _plus(pointer: str, offset: str) -> str:
    return pointer if offset == "0" else f"{pointer} + {offset}"


def _load(tile: int, at: str, stride: int) -> str:
    """stride: bytes from row to row."""
    return f"_tile_loadd({tile}, {at}, {stride});"


@dataclass
class TileEmitter:
    """The tile blocks of one Define."""

    emitter: Emitter
    define: Define
    step: Tensorize
    sums: tuple[WordSum, ...]
    packer: Packer
    reduction: ReductionEmitter
    shapes: dict[Shape, str] = field(default_factory=dict)  # their C names

    @property
    def sections(self) -> list[tuple[int, int, int]]:
        """(start, stop, rows of a block) of the loops over rows: whole blocks, and the rest."""
        extent, count = self.define.axes[self.step.axis].bound, ROWS * self.step.tiles
        main = extent // count * count
        rest = [(main, extent, extent - main)] if extent > main else []
        return [(0, main, count), *rest] if main else rest

    def _words(self) -> list[int]:
        """Words of a step, of all phases."""
        return list(dict.fromkeys(words for s in self.sums for _, _, words in s.phases))

    def begin(self, scope: Scope) -> None:
        """Declare the shapes of tiles; where there is one, it holds for the whole nest."""
        for shape in [(_rows(count), words) for _, _, count in self.sections for words in self._words()]:
            if shape not in self.shapes:
                name = self.shapes[shape] = scope.names.fresh("shape")
                text = ", ".join(map(str, configuration(*shape)))
                scope.line(f"static const uint8_t {name}[64] = {{{text}}};")
        if len(self.shapes) == 1:
            scope.line(f"_tile_loadconfig({next(iter(self.shapes.values()))});")

    def section(self, scope: Scope, count: int) -> None:
        """What stands before a loop over blocks of `count` rows."""
        words = self._words()
        if len(self.shapes) > 1 and len(words) == 1:
            scope.line(f"_tile_loadconfig({self.shapes[_rows(count), words[0]]});")

    def end(self, scope: Scope) -> None:
        scope.line("_tile_release();")

    def block(self, scope: Scope, tile: Tile, points: Points) -> None:
        """The sums of one block, and the loop over its rows; `points` emits what is left of each value."""
        from headrace.codegen.nest import Tile

        row = self.define.axes[self.step.axis].var
        base, count = tile.points[0][row], tile.ranges[row].step
        r, name = scope.names.variable("r", count)
        self.emitter.variables[r] = name
        inner = scope.child(binds=(r,))
        lines = Tile([{**p, row: base + r} for p in tile.points], tile.ranges, tile.lane)
        weights, lanes = frozenset(s.weight for s in self.sums), frozenset(self.emitter.lane_vars)
        maps = self.packer.region(self.define, tile.ranges, lines.points, self.reduction, weights)
        for s in self.sums:
            array = self._sum(scope, _Block(s, tile.points, maps, row, _rows(count), lanes))
            kind = f"{s.reduce.dtype}x{ROWS}"
            for j, (p, packed) in enumerate(zip(lines.points, maps, strict=True)):
                v = scope.names.fresh("v")
                at = _plus(f"{array} + {ROWS * len(maps)} * {name}", str(ROWS * j))
                inner.line(f"const {kind} {v} = hr_load_{kind}({at});")
                key = substitution(p)(substitute(s.reduce, packed))
                inner.values[(key, ROWS)] = Operand(v, s.reduce.dtype, ROWS)
        points(inner, lines, maps)
        scope.close(f"for (ptrdiff_t {name} = 0; {name} < {count}; ++{name})", inner)

    # --- one sum ---------------------------------------------------------------------------------

    def _sum(self, scope: Scope, block: _Block) -> str:
        """The name of an array of [row][column] with the sums of a block."""
        s, several = block.sum, len(self._words()) > 1
        array = scope.names.fresh("tile")
        scope.line(f"{CTYPES[s.reduce.dtype]} {array}[{sum(block.rows) * block.width}] __attribute__((aligned(64)));")
        scope.line(_FENCE)
        for n, (first, steps, words) in enumerate(s.phases):
            if several:
                scope.line(f"_tile_loadconfig({self.shapes[block.rows, words]});")
            for i, j in block.tiles:
                at = _plus(array, str(block.place(i, j)))
                scope.line(self._start(scope, block, i, j) if n == 0 else _load(C[i][j], at, 4 * block.width))
            self._loops(scope, block, first, steps, words)
            for i, j in block.tiles:
                at = _plus(array, str(block.place(i, j)))
                scope.line(f"_tile_stored({C[i][j]}, {at}, {4 * block.width});")
        return array

    def _start(self, scope: Scope, block: _Block, i: int, j: int) -> str:
        """C before the first product: zeros, or in every row what turned top bits add."""
        if not block.sum.top_bits:
            return f"_tile_zero({C[i][j]});"
        buffer, offset = block.added(j, self.packer)
        return _load(C[i][j], self._at(buffer, offset, scope), 0)

    def _loops(self, scope: Scope, block: _Block, first: int, steps: int, words: int) -> None:
        """The loops of a phase around its products."""
        s, env, heads = block.sum, {}, []
        for a in self.reduction.ordered(s.axes, frozenset(x.var for x in s.axes)):
            if a is s.along:
                continue
            v, name = scope.names.variable("k", a.extent)
            self.emitter.variables[v] = name
            env[a.var] = v if a.bound > 1 else index(0)
            heads += [f"for (ptrdiff_t {name} = 0; {name} < {a.bound}; ++{name})"] if a.bound > 1 else []
        v, name = scope.names.variable("q", s.along.extent)
        self.emitter.variables[v] = name
        env[s.along.var] = v if steps > 1 else index(first)
        if steps > 1:
            heads.append(f"for (ptrdiff_t {name} = {first}; {name} < {first + steps * words}; {name} += {words})")
        scopes = [scope]
        for _ in heads:
            scopes.append(scopes[-1].child(fenced=True))
        self._products(scopes[-1], block, env)
        for head, outer, inner in zip(heads[::-1], scopes[-2::-1], scopes[:0:-1], strict=True):
            outer.close(head, inner)

    def _products(self, scope: Scope, block: _Block, env: Mapping) -> None:
        """One step of the sum on every tile of the block: each tile of A and B is loaded once."""
        s, loaded = block.sum, set[int]()
        size = size_of(s.data.dtype)
        for i, j in block.tiles:
            if A[i] not in loaded:
                at = self._at(s.data.arg, substitute(block.data(i), env), scope)
                scope.line(_load(A[i], at, block.stride * size))
            if B[j] not in loaded:
                buffer, offset = block.weights(j)
                step = coefficient(offset, s.along.var)
                assert step is not None
                scope.line(_load(B[j], self._at(buffer, substitute(offset, env), scope), 4 * step))
            loaded |= {A[i], B[j]}
            scope.line(s.product.text(C[i][j], A[i], B[j]))

    def _at(self, buffer: Buffer, offset: Expr, scope: Scope) -> str:
        """C text of the address of an element."""
        return _plus(self.emitter.buffer_name(buffer), bare(self.emitter.index(offset, scope), offset))


@dataclass(frozen=True)
class _Block:
    """One sum on one block. points, maps: one for each vector of columns; row: the axis of rows, in `points` where
    the block begins; rows: of its two tiles; lanes: the lane variables."""

    sum: WordSum
    points: list[Mapping]
    maps: list[Mapping]
    row: Expr
    rows: tuple[int, int]
    lanes: frozenset[Expr]

    @property
    def width(self) -> int:
        """Columns, of whole vectors."""
        return ROWS * len(self.points)

    @property
    def tiles(self) -> list[tuple[int, int]]:
        return [(i, j) for i in (0, 1) if self.rows[i] for j in range(len(self.points))]

    def place(self, i: int, j: int) -> int:
        """Where a tile of C begins in the array."""
        return ROWS * (i * self.width + j)

    def data(self, i: int) -> Expr:
        """Offset of the first element of a tile of A, at the axes of the sum."""
        first = self.points[0]
        return substitute(self.sum.offset, {**first, self.row: first[self.row] + ROWS * i})

    @property
    def stride(self) -> int:
        """Elements from one row of A to the next."""
        found = coefficient(self.sum.offset, self.row)
        assert found is not None
        return found

    def weights(self, j: int) -> tuple[Buffer, Expr]:
        """The packed words, and the offset of the first of a tile of B, at the axes of the sum."""
        packed = self.maps[j][self.sum.weight]
        return packed.arg, substitute(packed.args[0], {v: index(0) for v in self.lanes})

    def added(self, j: int, packer: Packer) -> tuple[Buffer, Expr]:
        """For each column 128 times the sum of its weights over all axes, and the offset of the first column."""
        buffer, offset = self.weights(j)
        assert buffer.data is not None
        used = free_vars(offset)
        steps = prod(a.bound for a in self.sum.axes if a.var in used)
        again = prod(a.bound for a in self.sum.axes if a.var not in used)
        bytes_ = np.ascontiguousarray(buffer.data).view(np.int8).reshape(-1, steps, self.width, 4)
        sums = (bytes_.sum((1, 3), dtype=np.int64) * (128 * again)).astype(np.int32)
        first = substitute(offset, {a.var: index(0) for a in self.sum.axes}) - ROWS * j
        return packer.constant(f"{buffer.name}.sums", sums.ravel()), first // steps + ROWS * j
