"""The slow, exact reading of a module: the oracle that everything after lowering is compared with.

Statements run in order; every definition is evaluated on whole index grids (see grid.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.program.dtypes import is_float, numpy_dtype
from headrace.program.expr import Expr, Extent, Sym
from headrace.program.grid import Fault, Range, Scope, blocks, spreads
from headrace.program.index import ONE, terms
from headrace.program.ir import Buffer, Define, Loop, Module, Statement, StatePair, Store, loads
from headrace.program.numeric import Array
from headrace.program.ring import laid_out, taken_out

__all__ = ["Fault", "bind_symbols", "extent_value", "run"]


def run(
    module: Module, feeds: Mapping[str, Array], state: Mapping[str, Array] | None = None, turns: int = 0
) -> dict[str, Any]:
    """Outputs by name. A module with states also returns "state": name → value after this run.

    feeds: every input by name, of exactly its dtype and shape; symbolic extents are taken from them.
    state: values of the states before the run; those not given have their initial value.
    turns: after how many runs the rings begin where they do; it makes no difference.
    Raises ValueError for wrong feeds, Fault for what the generated code reports as an error.
    """
    machine = _Machine(bind_symbols(module, feeds))
    for head, ring in module.heads.items():
        machine.symbols[head] = turns * ring.step % head.bound or head.bound
    for b in module.inputs:
        machine.arrays[b] = np.asarray(feeds[b.name])
    for pair in module.states:
        value = pair.initial if state is None or pair.name not in state else np.asarray(state[pair.name])
        if value.shape != pair.initial.shape or value.dtype != pair.initial.dtype:
            raise ValueError(
                f"state {pair.name!r} is {pair.initial.dtype}{pair.initial.shape}, not {value.dtype}{value.shape}"
            )
        around = pair.ring
        lies = value.copy() if around is None else laid_out(value, around, machine.symbols[around.head])
        machine.arrays[pair.buffer] = lies
    with np.errstate(all="ignore"):
        machine.body(module.body)
    out: dict[str, Any] = {b.name: machine.array(b) for b in module.outputs}
    if module.states:
        out["state"] = {p.name: machine.state(p) for p in module.states}
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
            raise ValueError(f"input {b.name!r} must be {b.dtype}{list(b.shape)}, not {x.dtype}{list(x.shape)}")
        for extent, actual in zip(b.shape, x.shape, strict=True):
            _bind(extent, actual, values)
    for b in module.inputs:
        actual_shape = np.asarray(feeds[b.name]).shape
        shape = tuple(extent_value(e, values) for e in b.shape)
        if shape != actual_shape:
            raise ValueError(f"input {b.name!r} must have the shape {list(b.shape)}, not {list(actual_shape)}")
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

    def state(self, p: StatePair) -> Array:
        """The value of a state after the run."""
        contents = self.array(p.update or p.buffer)
        if p.ring is None:
            return contents.copy()
        head = p.ring.advanced(self.symbols[p.ring.head])
        return taken_out(contents, p.ring, head, p.initial.shape[p.ring.order[0]])

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
        value = Scope(self, None, {}, 0, None).value(e)
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
        sets = spreads(s, {a.var: stop for a, (_, stop) in zip(s.axes, full, strict=True)})
        for ranges in blocks(s, full, sets):
            self._block(s, ranges)

    def _block(self, s: Define, ranges: list[Range]) -> None:
        places = {a.var: (len(ranges) - 1 - n, *ranges[n]) for n, a in enumerate(s.axes)}
        scope = Scope(self, None, places, len(ranges), None)
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
