"""The slow, exact reading of a module: the oracle that everything after lowering is compared with.

Every definition is evaluated on whole index grids with NumPy. Axes of a reduction are put in front
of the axes around it, so values of outer scopes broadcast by themselves. Nothing is evaluated where
a select does not take it: an index out of range there is harmless, anywhere else it is a Fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from headrace.program.dtypes import is_float, is_int, numpy_dtype
from headrace.program.expr import BINARY, UNARY, Axis, Expr, Extent, Sym, children, reduce_identity, walk
from headrace.program.index import ONE, free_vars, terms
from headrace.program.ir import Buffer, Define, Loop, Module, Statement, Store, loads
from headrace.program.numeric import (
    Array,
    apply_binary,
    apply_cast,
    apply_reduce,
    apply_unary,
    combine,
    contract,
)

POINTS = 1 << 21  # largest grid that is evaluated at once
Range = tuple[int, int]


class Fault(Exception):
    """The program did at run time what it must not: an index out of range, an integer division by zero."""


def run(
    module: Module, feeds: Mapping[str, Array], state: Mapping[str, Array] | None = None
) -> dict[str, Any]:
    """Outputs by name. A module with states also returns "state": name → value after this run.

    feeds: every input by name, of exactly its dtype and shape; symbolic extents are taken from them.
    state: values of the states before the run; those not given have their initial value.
    Raises ValueError for wrong feeds, Fault for what the generated code reports as an error.
    """
    machine = _Machine(bind_symbols(module, feeds))
    for b in module.inputs:
        machine.arrays[b] = np.asarray(feeds[b.name])
    for pair in module.states:
        value = pair.initial if state is None or pair.name not in state else np.asarray(state[pair.name])
        if value.shape != pair.initial.shape or value.dtype != pair.initial.dtype:
            raise ValueError(
                f"state {pair.name!r} is {pair.initial.dtype}{pair.initial.shape}, "
                f"not {value.dtype}{value.shape}"
            )
        machine.arrays[pair.buffer] = value.copy()
    with np.errstate(all="ignore"):
        machine.body(module.body)
    out: dict[str, Any] = {b.name: machine.array(b) for b in module.outputs}
    if module.states:
        out["state"] = {p.name: machine.array(p.update or p.buffer).copy() for p in module.states}
    return out


def bind_symbols(module: Module, feeds: Mapping[str, Array]) -> dict[Sym, int]:
    """Values of the symbols, from the inputs. ValueError where names, dtypes or shapes differ."""
    names = [b.name for b in module.inputs]
    if set(feeds) != set(names):
        raise ValueError(f"inputs are {names}, not {sorted(feeds)}")
    values: dict[Sym, int] = {}
    for b in module.inputs:
        x = np.asarray(feeds[b.name])
        if x.dtype != numpy_dtype(b.dtype) or x.ndim != len(b.shape):
            raise ValueError(
                f"input {b.name!r} must be {b.dtype}{list(b.shape)}, not {x.dtype}{list(x.shape)}"
            )
        for extent, actual in zip(b.shape, x.shape, strict=True):
            _bind(extent, actual, values)
    for b in module.inputs:
        actual_shape = np.asarray(feeds[b.name]).shape
        shape = tuple(extent_value(e, values) for e in b.shape)
        if shape != actual_shape:
            raise ValueError(
                f"input {b.name!r} must have the shape {list(b.shape)}, not {list(actual_shape)}"
            )
    for s, value in values.items():
        if not 1 <= value <= s.bound or value % s.divisor:
            raise ValueError(f"{s.name} is {value}; it must be 1 to {s.bound} and a multiple of {s.divisor}")
    return values


def _bind(extent: Extent, actual: int, values: dict[Sym, int]) -> None:
    """Solve coefficient*symbol + constant == actual for a symbol that is not known yet."""
    if isinstance(extent, int):
        return
    parts = dict(terms(extent))
    constant = parts.pop(ONE, 0)
    unknown = [(a, k) for a, k in parts.items() if a.op != "sym" or a.arg not in values]
    if len(unknown) == 1 and unknown[0][0].op == "sym":
        known = sum(k * values[a.arg] for a, k in parts.items() if a.op == "sym" and a.arg in values)
        atom, k = unknown[0]
        if (actual - constant - known) % k == 0:
            values[atom.arg] = (actual - constant - known) // k


def extent_value(extent: Extent, symbols: Mapping[Sym, int]) -> int:
    """The value of an extent that depends on nothing but symbols."""
    if isinstance(extent, int):
        return extent
    machine = _Machine(dict(symbols))
    with np.errstate(all="ignore"):
        return machine.scalar(extent)


@dataclass
class _Machine:
    symbols: dict[Sym, int]
    arrays: dict[Buffer, Array] = field(default_factory=dict)
    counters: dict[Expr, int] = field(default_factory=dict)  # variables of the loops around

    def array(self, b: Buffer) -> Array:
        found = self.arrays.get(b)
        if found is None:
            if b.data is None:
                raise Fault(f"{b.name} is read before it is written")
            found = self.arrays[b] = b.data
        return found

    def writable(self, b: Buffer) -> Array:
        found = self.arrays.get(b)
        if found is None:
            shape = tuple(self.extent(e) for e in b.shape)
            poison: Any = np.nan if is_float(b.dtype) else b.dtype != "bool" and 0x5A
            found = self.arrays[b] = np.full(shape, poison, numpy_dtype(b.dtype))
        return found

    def extent(self, e: Extent) -> int:
        return e if isinstance(e, int) else self.scalar(e)

    def scalar(self, e: Expr) -> int:
        value = _Scope(self, None, {}, 0, None).value(e)
        return int(value.reshape(()))

    def body(self, statements: list[Statement] | tuple[Statement, ...]) -> None:
        for s in statements:
            if isinstance(s, Define):
                self.define(s)
            elif isinstance(s, Loop):
                self.loop(s)
            else:
                self.body(s.then if self.scalar(s.cond) else s.other)

    def loop(self, s: Loop) -> None:
        for dst, _ in s.carry:
            self.writable(dst)
        for n in range(self.extent(s.axis.extent)):
            self.counters[s.axis.var] = n
            if s.until is not None and not self.scalar(s.until):
                break
            self.body(s.body)
            values = [(dst, self.array(src).copy()) for dst, src in s.carry]
            for dst, value in values:
                self.writable(dst)[...] = value
        self.counters.pop(s.axis.var, None)

    def define(self, s: Define) -> None:
        full = [(0, self.extent(a.extent)) for a in s.axes]
        targets = [st.buffer for st in s.stores]
        for b in targets:
            self.writable(b)
        if any(stop == 0 for _, stop in full):
            return
        if s.ordered and ({x.arg for x in loads(s)} & set(targets) or len(set(targets)) < len(targets)):
            for point in np.ndindex(*(stop for _, stop in full)):
                self._block(s, [(p, p + 1) for p in point])
            return
        sets = _grid_sets(s, self)
        for ranges in _blocks(s, full, sets):
            self._block(s, ranges)

    def _block(self, s: Define, ranges: list[Range]) -> None:
        places = {a.var: (len(ranges) - 1 - n, *ranges[n]) for n, a in enumerate(s.axes)}
        scope = _Scope(self, None, places, len(ranges), None)
        shape = tuple(stop - start for start, stop in ranges)
        ready = [(st, scope.value(st.value), [scope.value(i) for i in st.index]) for st in s.stores]
        for st, value, where in ready:
            plain = st.combiner is None and st.index == tuple(a.var for a in s.axes)
            box = tuple(slice(*r) for r in ranges) if plain else None
            self._store(st, value, where, shape, box)

    def _store(
        self,
        st: Store,
        value: Array,
        where: list[Array],
        shape: tuple[int, ...],
        box: tuple[slice, ...] | None,
    ) -> None:
        target = self.writable(st.buffer)
        for d, i in enumerate(where):
            if i.size and (i.min() < 0 or i.max() >= target.shape[d]):
                raise Fault(f"store to {st.buffer!r}: index {d} is {i.min()} to {i.max()}")
        value = value.astype(target.dtype, copy=False)
        if box is not None:
            target[box] = value
            return
        at = tuple(np.broadcast_to(i, shape) for i in where)
        full = np.broadcast_to(value, shape)
        if st.combiner is None:
            target[at] = full
        else:
            _COMBINERS[st.combiner].at(target, at, full)


_COMBINERS = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


class _Scope:
    """Values on one grid. A reduction opens a scope with more axes, a side of a select one with a mask.

    places: variable → (position counted from the last axis, start, stop).
    """

    def __init__(
        self,
        machine: _Machine,
        parent: _Scope | None,
        places: dict[Expr, tuple[int, int, int]],
        depth: int,
        mask: Array | None,
    ) -> None:
        self.machine, self.parent, self.places, self.depth, self.mask = machine, parent, places, depth, mask
        self.memo: dict[Expr, Array] = {}
        self.sides: dict[tuple[Expr, bool], _Scope] = {}

    def value(self, e: Expr) -> Array:
        scope: _Scope | None = self
        while scope is not None:
            found = scope.memo.get(e)
            if found is not None:
                return found
            scope = scope.parent
        home = self._home(e)
        out = home.memo[e] = home._evaluate(e)
        return out

    def _home(self, e: Expr) -> _Scope:
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
            return np.asarray(self.machine.symbols[e.arg], np.int64)
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
            if e not in self.machine.counters:
                raise Fault(f"{e} is not bound here")
            return np.asarray(self.machine.counters[e], np.int64)
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
        array = self.machine.array(e.arg)
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
                if (
                    len(parts) > 1
                    or place is None
                    or step <= 0
                    or place[0] in positions
                    or place[1] == place[2]
                ):
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
            scope = self.sides[(cond, taken)] = _Scope(self.machine, self, self.places, self.depth, mask)
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
        scope = _Scope(self.machine, self, places, depth + m, self.mask)
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

    def _ragged(
        self, e: Expr, scope: _Scope, extents: tuple[int, ...], ragged: list[tuple[Axis, Array]]
    ) -> Array:
        """A box whose extents vary over the grid: the greatest box with a mask."""
        kind, axes = e.arg
        if kind.endswith("_last"):
            raise TypeError(f"{kind} needs an extent that does not vary")
        inside = np.asarray(True)
        for a, limit in ragged:
            inside = inside & (scope.value(a.var) < limit)
        mask = inside if scope.mask is None else inside & scope.mask
        value = _Scope(self.machine, scope, scope.places, scope.depth, mask).value(e.args[0])
        neutral = reduce_identity({"argmax": "max", "argmin": "min"}.get(kind, kind), e.args[0].dtype).arg
        filled = _lift(np.where(inside, value, np.asarray(neutral, value.dtype)), scope.depth)
        m = len(axes)
        return apply_reduce(kind, np.broadcast_to(filled, extents + filled.shape[m:]), m)


def _lift(x: Array, rank: int) -> Array:
    return x.reshape((1,) * (rank - x.ndim) + x.shape)


def _is_contraction(e: Expr) -> bool:
    return bool(
        e.op == "reduce"
        and e.arg[0] == "sum"
        and e.args[0].op == "mul"
        and e.dtype in ("f32", "f64", "i32", "i64")
    )


def _grid_sets(s: Define, machine: _Machine) -> set[frozenset[tuple[Expr, int]]]:
    """For every value in the definition: the variables over which it is spread, with their extents."""
    extent = {a.var: machine.extent(a.extent) for a in s.axes}
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


def _blocks(s: Define, ranges: list[Range], sets: set[frozenset[tuple[Expr, int]]]) -> Iterator[list[Range]]:
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
        yield from _blocks(s, [*ranges[:n], part, *ranges[n + 1 :]], sets)
