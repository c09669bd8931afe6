"""States of frames as rings: what a run keeps stays where it lies.

    line[c, t] = past[c, t]        for t < n        y = f(line)
    line[c, n + t] = x[c, t]       for t < step     past[c, t] <- line[c, t + step]

becomes, with a head that moves on by `step` after each run,

    past[(head + n + t) % size, c] = x[c, t]        y = f(past[(head + t) % size, c] for line[c, t])

Nothing is copied but the new frames. Frames come first, so that each of them is one piece of memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from headrace.program.expr import Expr, Sym, index, sym, walk
from headrace.program.index import bounds, free_vars
from headrace.program.ir import Buffer, Define, Module, Ring, Statement, StatePair, Store, nested, reads, writes
from headrace.program.rewrite import move_buffer

Array = np.ndarray[Any, Any]
FRAME = 8  # elements of a frame from which vectors run along it
FRAMES = 2  # frames kept for each new one, from which a ring saves more than it costs


@dataclass(frozen=True)
class Line:
    """Old frames of a state and new ones behind each other in `whole`, along dimension `axis`.

    pair: the state; copies: the statements that only move frames from state to line and back; wide: the
    dimension of a frame along which new frames are computed.
    """

    pair: StatePair
    whole: Buffer
    axis: int
    step: int
    copies: tuple[Define, Define]
    wide: int

    @property
    def ring(self) -> Ring:
        kept = self.pair.buffer.bound[self.axis]
        size = -(-(kept + self.step) // self.step) * self.step
        rest = [d for d in range(len(self.whole.shape)) if d not in (self.axis, self.wide)]
        return Ring(Sym(f"head.{size}.{self.step}", size, self.step), self.step, (self.axis, *rest, self.wide))


def use_rings(modules: Sequence[Module]) -> list[Module]:
    """Modules of one program, which share its states: those that may in all of them become rings."""
    found = [{line.pair.name: line for line in _lines(m)} for m in modules]
    names = [name for name, line in found[0].items() if all(name in f and f[name].ring == line.ring for f in found[1:])]
    return [_with_rings(m, [f[name] for name in names]) for m, f in zip(modules, found, strict=True)]


def laid_out(value: Array, ring: Ring, head: int) -> Array:
    """The contents of a ring's buffer that holds `value`, with the head there; what holds no frame is zero."""
    frames = value.transpose(ring.order)
    out = np.zeros((ring.head.bound, *frames.shape[1:]), value.dtype)
    out[(head + np.arange(len(frames))) % ring.head.bound] = frames
    return out


def taken_out(contents: Array, ring: Ring, head: int, frames: int) -> Array:
    """The state that a ring's buffer holds: the inverse of laid_out()."""
    return contents[(head + np.arange(frames)) % ring.head.bound].transpose(np.argsort(ring.order))


def _lines(module: Module) -> Iterator[Line]:
    access = _Accesses(module)
    outside = {*module.outputs, *(b for s in module.body for x in nested(s) for b in (*reads(x), *writes(x)))}
    for pair in module.states:
        line = _line(pair, access) if pair.update not in (None, *outside) else None
        if line is not None and line.whole not in outside and _pays(line):
            yield line


class _Accesses:
    """Who reads and who writes each buffer, of the statements of a module that stand outside of loops."""

    def __init__(self, module: Module) -> None:
        self.readers: dict[Buffer, list[Statement]] = {}
        self.writers: dict[Buffer, list[Statement]] = {}
        for s in module.body:
            for b in reads(s):
                self.readers.setdefault(b, []).append(s)
            for b in writes(s):
                self.writers.setdefault(b, []).append(s)

    def only_writer(self, b: Buffer) -> Define | None:
        found = self.writers.get(b, [])
        return found[0] if len(found) == 1 and isinstance(found[0], Define) else None

    def only_reader(self, b: Buffer) -> Define | None:
        found = self.readers.get(b, [])
        return found[0] if len(found) == 1 and isinstance(found[0], Define) else None


def _line(pair: StatePair, access: _Accesses) -> Line | None:
    """The line that a state begins and that its next value is cut from."""
    assert pair.update is not None
    into, out = access.only_reader(pair.buffer), access.only_writer(pair.update)
    if into is None or out is None or pair.update in access.readers:
        return None
    first, last = _copied(into), _copied(out)
    if first is None or last is None or first.value.arg is not pair.buffer or last.value.arg is not first.buffer:
        return None
    whole, kept = first.buffer, pair.buffer.shape
    if whole.space != "scratch" or not all(isinstance(e, int) for e in whole.shape) or len(whole.shape) != len(kept):
        return None
    grown = [d for d, (a, b) in enumerate(zip(whole.shape, kept, strict=True)) if a != b]
    if len(grown) != 1 or first.index != first.value.args or len(kept) < 2:
        return None
    (axis,) = grown
    step = whole.bound[axis] - pair.buffer.bound[axis]
    ahead = tuple(i + step if d == axis else i for d, i in enumerate(last.index))
    if step < 1 or last.value.args != ahead or not _covers(into, first) or not _covers(out, last):
        return None
    others = [s for s in access.writers[whole] if s is not into]
    if any(not isinstance(s, Define) or whole in reads(s) for s in others):
        return None
    new = [st for s in others if isinstance(s, Define) for st in s.stores if st.buffer is whole]
    if not new or any(bounds(st.index[axis])[0] < pair.buffer.bound[axis] for st in new):
        return None
    return Line(pair, whole, axis, step, (into, out), _wide(whole, axis, new))


def _copied(s: Define) -> Store | None:
    """The store of a definition that copies elements and does nothing else."""
    if len(s.stores) != 1 or s.ordered or s.stores[0].combiner is not None or s.stores[0].value.op != "load":
        return None
    return s.stores[0] if s.stores[0].value.dtype == s.stores[0].buffer.dtype else None


def _covers(s: Define, st: Store) -> bool:
    """Whether a copy visits every element of the state: each index is an axis of its own, or 0 of one element."""
    state = st.value.arg if st.value.arg.space == "state" else st.buffer
    extents = {a.var: a.extent for a in s.axes}
    free = dict(extents)
    return all(
        free.pop(i, None) == extent or (extent == 1 and bounds(i) == (0, 0))
        for i, extent in zip(st.index, state.shape, strict=True)
    ) and all(extent == 1 for extent in free.values())


def _wide(whole: Buffer, axis: int, new: Sequence[Store]) -> int:
    """The dimension that vectors of new frames should follow: the one of constants in sums, else the last of eight."""
    for st in new:
        constants = {
            v
            for r in walk(st.value)
            if r.op == "reduce"
            for x in walk(r)
            if x.op == "load" and x.arg.space == "const"
            for v in free_vars(x)
        }
        found = [d for d, i in enumerate(st.index) if d != axis and free_vars(i) & constants]
        if found:
            return max(found, key=lambda d: whole.bound[d])
    rest = [d for d in range(len(whole.shape)) if d != axis]
    return next((d for d in reversed(rest) if whole.bound[d] >= FRAME), max(rest, key=lambda d: whole.bound[d]))


def _pays(line: Line) -> bool:
    """Long vectors along a frame, and more frames that stay than frames that come."""
    kept = line.pair.buffer.bound[line.axis]
    return line.whole.bound[line.wide] >= FRAME and kept >= FRAMES * line.step


def _with_rings(module: Module, lines: Sequence[Line]) -> Module:
    dropped = {id(s) for line in lines for s in line.copies}
    body: list[Statement] = [s for s in module.body if id(s) not in dropped]
    states: dict[Buffer, StatePair] = {}
    for line in lines:
        ring, old = line.ring, line.pair.buffer
        shape = (ring.head.bound, *(line.whole.shape[d] for d in ring.order[1:]))
        buffer = Buffer(old.name, old.dtype, shape, "state")
        body = move_buffer(body, line.whole, buffer, lambda i, ring=ring: _place(i, ring))  # type: ignore[misc]
        states[old] = StatePair(line.pair.name, buffer, line.pair.initial, None, ring)
    notes = [*module.notes, *(_note(line) for line in lines)]
    return replace(module, body=body, states=[states.get(p.buffer, p) for p in module.states], notes=notes)


def _place(i: tuple[Expr, ...], ring: Ring) -> tuple[Expr, ...]:
    frame, *rest = (i[d] for d in ring.order)
    return ((sym(ring.head) + frame) % index(ring.head.bound), *rest)


def _note(line: Line) -> str:
    kept = line.pair.buffer
    size = prod(kept.bound) // kept.bound[line.axis]
    return f"{line.pair.name}: a ring of {line.ring.head.bound} frames of {size} elements, nothing is copied"
