"""Constants in the order in which the loops read them.

For one tile region of a Define, every constant load inside a reduction gets an array of its own: outer
loops first, then the reduction's loops, then the points of the register tile, lanes last. The index
arithmetic of the original load is evaluated here, once, whatever it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.program.expr import Axis, Expr, index, load, walk
from headrace.program.index import free_vars
from headrace.program.ir import Buffer, Define
from headrace.schedule.steps import reductions

if TYPE_CHECKING:
    from headrace.codegen.reduction import ReductionEmitter

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Range:
    """Where a tiled variable runs: base = start, start + step, … below stop; `lane`: its vector lane variable."""

    base: Expr
    start: int | Expr
    stop: int | None
    step: int
    lane: Expr | None = None


@dataclass(frozen=True)
class Dim:
    """One dimension of a packed array: its size, the variable's value along it, its place in an offset."""

    var: Expr
    values: Array  # what it adds to the variable
    kind: str  # "base", "reduce", "row", "lanes"


@dataclass
class Packer:
    """Packed constants of one program, shared when equal. padded: those in which the last vector is whole too."""

    lanes: int
    made: dict[str, Buffer] = field(default_factory=dict)
    padded: set[Buffer] = field(default_factory=set)

    def region(
        self,
        define: Define,
        ranges: dict[Expr, Range],
        points: list[dict[Expr, Expr]],
        reduction: ReductionEmitter,
        always: AbstractSet[Expr] = frozenset(),
    ) -> list[dict[Expr, Expr]]:
        """For each point of the tile: constant load → packed load. always: those packed at any price in room."""
        maps: list[dict[Expr, Expr]] = [{} for _ in points]
        for r in reductions(define):
            axes: tuple[Axis, ...] = r.arg[1]
            for e in walk(r.args[0]):
                if e.op == "load" and e.arg.space == "const":
                    self._pack(e, axes, ranges, points, reduction, maps, e in always)
        return maps

    def _pack(
        self,
        e: Expr,
        axes: tuple[Axis, ...],
        ranges: dict[Expr, Range],
        points: list[dict[Expr, Expr]],
        reduction: ReductionEmitter,
        maps: list[dict[Expr, Expr]],
        always: bool,
    ) -> None:
        used = free_vars(e)
        by_var = {a.var: a for a in axes}
        outer = [v for v in points[0] if v in used]
        if not used & set(by_var) or any(not isinstance(by_var[v].extent, int) for v in used if v in by_var):
            return
        if not used <= set(by_var) | set(outer) or any(
            n.op == "load" and n is not e and n.arg.space != "const" for n in walk(e)
        ):
            return
        dims = self._dims(outer, ranges, points, reduction.ordered(axes, used), reduction.vector_axis(axes))
        if dims is None:
            return
        size = 1
        for d in dims:
            size *= len(d.values)
        assert e.arg.data is not None
        if size > 1.5 * e.arg.data.size + 64 * self.lanes and not always:
            return
        buffer = self._buffer(e, dims)
        for p, mapping in zip(points, maps, strict=True):
            mapping[e] = load(buffer, (self._offset(dims, ranges, p),))

    def _dims(
        self,
        outer: list[Expr],
        ranges: dict[Expr, Range],
        points: list[dict[Expr, Expr]],
        inner: list[Axis],
        vector_axis: Axis | None,
    ) -> list[Dim] | None:
        bases: list[Dim] = []
        rows: list[Dim] = []
        lanes: list[Dim] = []
        for v in outer:
            r = ranges.get(v)
            if r is None:
                continue  # an axis of extent 1
            if r.stop is None or not isinstance(r.start, int):
                return None
            if r.base.op != "const":
                bases.append(Dim(v, np.arange(r.start, r.stop - r.step + 1, r.step), "base"))
            else:
                bases.append(Dim(v, np.array([r.start]), "base"))
            if r.lane is not None:
                vectors = -(-r.step // self.lanes)
                lanes.append(Dim(v, np.arange(vectors * self.lanes), "lanes"))
            elif r.step > 1:
                rows.append(Dim(v, np.arange(r.step), "row"))
        reduced = [Dim(a.var, np.arange(a.bound), "reduce") for a in inner if a is not vector_axis]
        last = [Dim(a.var, np.arange(a.bound), "reduce") for a in inner if a is vector_axis]
        return bases + reduced + rows + lanes + last

    def _offset(self, dims: list[Dim], ranges: dict[Expr, Range], point: dict[Expr, Expr]) -> Expr:
        out: Expr = index(0)
        stride = 1
        for d in reversed(dims):
            if d.kind == "reduce":
                out = out + d.var * stride
            elif d.kind == "base":
                r = ranges[d.var]
                if r.base.op != "const":
                    assert stride % r.step == 0 or len(d.values) == 1 or r.step == 1
                    out = out + (r.base - r.start) * self._base_stride(stride, r)
            else:
                out = out + (point[d.var] - ranges[d.var].base) * stride
            stride *= len(d.values)
        return out

    def _base_stride(self, stride: int, r: Range) -> int:
        if stride % r.step:
            raise AssertionError(f"packed stride {stride} is no multiple of the step {r.step}")
        return stride // r.step

    def _buffer(self, e: Expr, dims: list[Dim]) -> Buffer:
        shape = [len(d.values) for d in dims]
        env: dict[Expr, Array] = {v: np.zeros((), np.int64) for v in free_vars(e)}
        for n, d in enumerate(dims):
            grid = d.values.reshape([-1 if m == n else 1 for m in range(len(dims))])
            env[d.var] = env[d.var] + grid
        valid: Array = np.ones((), bool)
        places = []
        for i, extent in zip(e.args, e.arg.bound, strict=True):
            at = evaluate_index(i, env)
            valid = valid & (at >= 0) & (at < extent)
            places.append(np.clip(at, 0, extent - 1))
        for d in dims:
            if d.kind == "lanes":
                limit = d.var.arg[1]
                valid = valid & (env[d.var] < limit)
        data = (
            e.arg.data[tuple(np.broadcast_to(p, shape) for p in places)]
            if places
            else np.broadcast_to(e.arg.data, shape)
        )
        if not valid.all():
            data = np.where(np.broadcast_to(valid, shape), data, np.zeros((), data.dtype))
        data = np.ascontiguousarray(data).ravel()
        is_padded = bool(dims) and dims[-1].kind == "lanes"
        buffer = self._made(f"{e.arg.name}.packed", e.dtype, data, f"{e.dtype} {is_padded}")
        self.padded |= {buffer} if is_padded else set()
        return buffer

    def constant(self, name: str, data: Array) -> Buffer:
        """A constant of i32, of one dimension, that code generation has computed."""
        return self._made(name, "i32", data, "i32 computed")

    def _made(self, name: str, dtype: str, data: Array, kind: str) -> Buffer:
        found = hashlib.sha256(kind.encode())
        found.update(data.view(np.uint8).data)
        digest = found.hexdigest()
        if digest not in self.made:
            self.made[digest] = Buffer(f"{name}{len(self.made)}", dtype, (data.size,), "const", data)
        return self.made[digest]


def evaluate_index(e: Expr, env: dict[Expr, Array]) -> Array:
    """Value of an index expression on grids; loads only from constants."""
    if e.op == "const":
        return np.asarray(e.arg)
    if e.op == "var":
        return env[e]
    args = [evaluate_index(a, env) for a in e.args]
    if e.op == "load":
        assert e.arg.data is not None
        return np.asarray(e.arg.data[tuple(np.clip(a, 0, n - 1) for a, n in zip(args, e.arg.bound, strict=True))])
    if e.op == "cast":
        return args[0].astype(np.int64)
    if e.op == "select":
        return np.where(args[0], args[1], args[2])
    if e.op == "check":
        return args[0]
    return np.asarray(_NUMPY[e.op](*args))


_NUMPY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "floordiv": np.floor_divide, "mod": np.mod,
    "min": np.minimum, "max": np.maximum, "div": np.floor_divide, "lt": np.less, "le": np.less_equal,
    "eq": np.equal, "ne": np.not_equal, "and": np.logical_and, "or": np.logical_or, "not": np.logical_not,
}  # fmt: skip
