"""Values of expressions on whole index grids, with NumPy: the inside of the interpreter.

Axes of a reduction are put in front of the axes around it, so values of outer scopes broadcast by
themselves. Nothing is evaluated where a select does not take it: an index out of range there is
harmless, anywhere else it is a Fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol

import numpy as np

from headrace.program.dtypes import is_int, numpy_dtype
from headrace.program.expr import BINARY, UNARY, Axis, Expr, Sym, children, reduce_identity, walk
from headrace.program.index import ONE, free_vars, terms
from headrace.program.ir import Buffer, Define
from headrace.program.numeric import (
    Array,
    apply_binary,
    apply_cast,
    apply_reduce,
    apply_unary,
    apply_word,
    combine,
    contract,
)

POINTS = 1 << 21  # largest grid that is evaluated at once
Range = tuple[int, int]


class Fault(Exception):
    """The program did at run time what it must not: an index out of range, an integer division by zero."""


class Memory(Protocol):
    """What a grid reads: buffers, symbols, and the counters of the loops around."""

    symbols: dict[Sym, int]
    counters: dict[Expr, int]

    def array(self, b: Buffer) -> Array: ...


class Scope:
    """Values on one grid. A reduction opens a scope with more axes, a side of a select one with a mask.

    places: variable → (position counted from the last axis, start, stop).
    """

    def __init__(
        self,
        memory: Memory,
        parent: Scope | None,
        places: dict[Expr, tuple[int, int, int]],
        depth: int,
        mask: Array | None,
    ) -> None:
        self.memory, self.parent, self.places, self.depth, self.mask = memory, parent, places, depth, mask
        self.memo: dict[Expr, Array] = {}
        self.sides: dict[tuple[Expr, bool], Scope] = {}

    def value(self, e: Expr) -> Array:
        scope: Scope | None = self
        while scope is not None:
            found = scope.memo.get(e)
            if found is not None:
                return found
            scope = scope.parent
        home = self._home(e)
        out = home.memo[e] = home._evaluate(e)
        return out

    def _home(self, e: Expr) -> Scope:
        """The outermost scope that can evaluate `e`: reductions do not repeat what does not vary in them."""
        home = self
        while home.parent is not None and home.mask is home.parent.mask and home.depth > home.parent.depth:
            inner = home.places.keys() - home.parent.places.keys()
            if free_vars(e) & inner:
                break
            home = home.parent
        return home

    def _evaluate(self, e: Expr) -> Array:
        if e.op == "const":
            return np.asarray(e.arg, numpy_dtype(e.dtype))
        if e.op == "var":
            return self._variable(e)
        if e.op == "sym":
            return np.asarray(self.memory.symbols[e.arg], np.int64)
        if e.op == "load":
            return self._load(e)
        if e.op == "select":
            return self._select(e)
        if e.op == "reduce":
            return self._reduce(e)
        if e.op == "check":
            return self._check(e)
        args = [self.value(a) for a in e.args]
        if e.op == "cast":
            return apply_cast(args[0], e.args[0].dtype, e.dtype, e.arg)
        if e.op == "word":
            return apply_word(args)
        if e.op in UNARY:
            return apply_unary(e.op, e.args[0].dtype, args[0])
        if e.op in BINARY:
            if e.op in ("div", "floordiv", "mod", "fmod") and is_int(e.args[1].dtype):
                args[1] = self._nonzero(e, args[1])
            return apply_binary(e.op, e.args[0].dtype, args[0], args[1])
        raise TypeError(f"no meaning for {e.op}")

    def _variable(self, e: Expr) -> Array:
        place = self.places.get(e)
        if place is None:
            if e not in self.memory.counters:
                raise Fault(f"{e} is not bound here")
            return np.asarray(self.memory.counters[e], np.int64)
        position, start, stop = place
        return np.arange(start, stop, dtype=np.int64).reshape((-1,) + (1,) * position)

    def _bad(self, wrong: Array) -> bool:
        """Whether `wrong` holds anywhere that counts."""
        return bool(wrong.any() if self.mask is None else (wrong & self.mask).any())

    def _nonzero(self, e: Expr, divisor: Array) -> Array:
        zero = divisor == 0
        if not zero.any():
            return divisor
        if self._bad(zero):
            raise Fault(f"integer division by zero: {e}")
        return np.where(zero, divisor.dtype.type(1), divisor)

    def _check(self, e: Expr) -> Array:
        i = self.value(e.args[0])
        extent = np.asarray(e.arg, np.int64) if isinstance(e.arg, int) else self.value(e.arg)
        outside = np.asarray((i < 0) | (i >= extent))
        if not outside.any():
            return i
        if self._bad(outside):
            raise Fault(f"{e}: the index is {i.min()} to {i.max()}")
        return np.where(outside, 0, i)

    # --- loads -----------------------------------------------------------------------------------

    def _load(self, e: Expr) -> Array:
        array = self.memory.array(e.arg)
        view = self._view(e, array)
        if view is not None:
            return view
        idx = []
        for d, a in enumerate(e.args):
            i = self.value(a)
            outside = np.asarray((i < 0) | (i >= array.shape[d]))
            if outside.any():
                if self._bad(outside):
                    raise Fault(f"load {e}: index {d} is {i.min()} to {i.max()}, the extent {array.shape[d]}")
                i = np.where(outside, 0, i)
            idx.append(i)
        if 0 in array.shape:
            return np.zeros(np.broadcast_shapes(*(i.shape for i in idx)), array.dtype)
        return np.asarray(array[tuple(idx)])

    def _view(self, e: Expr, array: Array) -> Array | None:
        """The load as a strided view when each index is k*variable + constant with a variable of its own."""
        cuts: list[slice | int] = []
        positions: list[int] = []
        for a, extent in zip(e.args, array.shape, strict=True):
            parts = dict(terms(a))
            constant = parts.pop(ONE, 0)
            if not parts:
                start = last = constant
                cuts.append(constant)
            else:
                v, step = next(iter(parts.items()))
                place = self.places.get(v)
                if len(parts) > 1 or place is None or step <= 0 or place[0] in positions or place[1] == place[2]:
                    return None
                positions.append(place[0])
                start, last = step * place[1] + constant, step * (place[2] - 1) + constant
                cuts.append(slice(start, last + 1, step))
            if start < 0 or last >= extent:
                return None
        view = np.asarray(array[tuple(cuts)])
        order = sorted(range(len(positions)), key=lambda n: -positions[n])
        depth = max(positions, default=-1) + 1
        shape = [1] * depth
        for n in order:
            shape[depth - 1 - positions[n]] = view.shape[n]
        return view.transpose(order).reshape(shape)

    # --- select and reduce -----------------------------------------------------------------------

    def _select(self, e: Expr) -> Array:
        cond = self.value(e.args[0])
        if cond.all():
            return self.value(e.args[1])
        if not cond.any():
            return self.value(e.args[2])
        return np.where(cond, self._side(e.args[0], True, e.args[1]), self._side(e.args[0], False, e.args[2]))

    def _side(self, cond: Expr, taken: bool, e: Expr) -> Array:
        scope = self.sides.get((cond, taken))
        if scope is None:
            here = self.value(cond) if taken else np.logical_not(self.value(cond))
            mask = here if self.mask is None else here & self.mask
            scope = self.sides[(cond, taken)] = Scope(self.memory, self, self.places, self.depth, mask)
        return scope.value(e)

    def _reduce(self, e: Expr) -> Array:
        kind, axes = e.arg
        limits = [self._extent(a) for a in axes]
        extents = [int(n.max()) if n.size else 0 for n in limits]
        ragged = [(a, n) for a, n in zip(axes, limits, strict=True) if n.size > 1]
        if 0 in extents:
            return self._identity(e)
        value = e.args[0]
        points = math.prod(extents) * math.prod(n for _, n in self._varying(value))
        if kind.startswith("arg") or points <= POINTS or _is_contraction(e):
            return self._partial(e, [(0, n) for n in extents], ragged)
        pieces = min(extents[0], -(-points // POINTS))
        edges = [extents[0] * p // pieces for p in range(pieces + 1)]
        total: Array | None = None
        for start, stop in pairwise(edges):
            part = self._partial(e, [(start, stop), *((0, n) for n in extents[1:])], ragged)
            total = part if total is None else combine(kind, e.dtype, total, part)
        return self._identity(e) if total is None else total

    def _extent(self, a: Axis) -> Array:
        return np.asarray(a.extent, np.int64) if isinstance(a.extent, int) else self.value(a.extent)

    def _varying(self, e: Expr) -> list[tuple[Expr, int]]:
        return [(v, self.places[v][2] - self.places[v][1]) for v in free_vars(e) if v in self.places]

    def _identity(self, e: Expr) -> Array:
        if e.arg[0].startswith("arg"):
            return np.asarray(0, np.int64)
        return np.asarray(reduce_identity(e.arg[0], e.dtype).arg, numpy_dtype(e.dtype))

    def _partial(self, e: Expr, ranges: list[Range], ragged: list[tuple[Axis, Array]]) -> Array:
        """The reduction over a part of its box."""
        kind, axes = e.arg
        m, depth = len(axes), self.depth
        places = dict(self.places)
        for n, a in enumerate(axes):
            places[a.var] = (depth + m - 1 - n, *ranges[n])
        scope = Scope(self.memory, self, places, depth + m, self.mask)
        extents = tuple(stop - start for start, stop in ranges)
        if ragged:
            return self._ragged(e, scope, extents, ragged)
        if _is_contraction(e):
            x, y = (_lift(scope.value(a), depth + m) for a in e.args[0].args)
            out = contract(e.dtype, x, y, m, extents)
            if out is not None:
                return out
        value = _lift(scope.value(e.args[0]), depth + m)
        return apply_reduce(kind, np.broadcast_to(value, extents + value.shape[m:]), m)

    def _ragged(self, e: Expr, scope: Scope, extents: tuple[int, ...], ragged: list[tuple[Axis, Array]]) -> Array:
        """A box whose extents vary over the grid: the greatest box with a mask."""
        kind, axes = e.arg
        if kind.endswith("_last"):
            raise TypeError(f"{kind} needs an extent that does not vary")
        inside = np.asarray(True)
        for a, limit in ragged:
            inside = inside & (scope.value(a.var) < limit)
        mask = inside if scope.mask is None else inside & scope.mask
        value = Scope(self.memory, scope, scope.places, scope.depth, mask).value(e.args[0])
        neutral = reduce_identity({"argmax": "max", "argmin": "min"}.get(kind, kind), e.args[0].dtype).arg
        filled = _lift(np.where(inside, value, np.asarray(neutral, value.dtype)), scope.depth)
        m = len(axes)
        return apply_reduce(kind, np.broadcast_to(filled, extents + filled.shape[m:]), m)


def _lift(x: Array, rank: int) -> Array:
    return x.reshape((1,) * (rank - x.ndim) + x.shape)


def _is_contraction(e: Expr) -> bool:
    return bool(
        e.op == "reduce" and e.arg[0] == "sum" and e.args[0].op == "mul" and e.dtype in ("f32", "f64", "i32", "i64")
    )


def spreads(s: Define, extents: dict[Expr, int]) -> set[frozenset[tuple[Expr, int]]]:
    """For every value in the definition: the variables over which it is spread, with their extents."""
    extent = dict(extents)
    out: set[frozenset[tuple[Expr, int]]] = {frozenset(extent.items())}
    for root in [x for st in s.stores for x in (st.value, *st.index)]:
        skipped = {x.args[0] for x in walk(root) if _is_contraction(x)}
        for e in walk(root):
            if e.op == "reduce":
                extent.update((a.var, a.bound) for a in e.arg[1])
        for e in walk(root):
            if e not in skipped and children(e):
                out.add(frozenset((v, extent[v]) for v in free_vars(e) if v in extent))
    return out


def blocks(s: Define, ranges: list[Range], sets: set[frozenset[tuple[Expr, int]]]) -> Iterator[list[Range]]:
    """Parts of the box, in row-major order, on which no value has more than POINTS elements (if possible)."""
    length = {a.var: stop - start for a, (start, stop) in zip(s.axes, ranges, strict=True)}
    size, worst = 0, frozenset[Expr]()
    for members in sets:
        n = math.prod(length.get(v, extent) for v, extent in members)
        if n > size:
            size, worst = n, frozenset(v for v, _ in members)
    splittable = [n for n, a in enumerate(s.axes) if length[a.var] > 1 and (s.ordered or a.var in worst)]
    if size <= POINTS or not splittable:
        yield ranges
        return
    n = splittable[0]
    start, stop = ranges[n]
    middle = (start + stop) // 2
    for part in ((start, middle), (middle, stop)):
        yield from blocks(s, [*ranges[:n], part, *ranges[n + 1 :]], sets)
