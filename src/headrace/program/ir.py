"""Waist 2: a module of statements over buffers.

A statement is a `Define` (all points of a box, in any order), a `Loop` (in order, with carried
values) or a `Branch`. Together with the reductions inside expressions these are all the kinds that
operators lower to; everything after knows only them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Union

import numpy as np

from headrace.program.dtypes import size_of
from headrace.program.expr import Axis, Expr, Extent, Sym, extent_bound, walk

SPACES = ("const", "state", "scratch", "input", "output")


@dataclass(frozen=True, eq=False)
class Buffer:
    """A dense row-major array. Two buffers are the same only if they are the same object.

    space: where it lives. data: the contents of a const buffer. Extents may be symbolic; memory is
    planned for their bounds.
    """

    name: str
    dtype: str
    shape: tuple[Extent, ...]
    space: str = "scratch"
    data: np.ndarray | None = None

    @property
    def bound(self) -> tuple[int, ...]:
        """The shape with every symbol at its bound."""
        return tuple(extent_bound(e) for e in self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes at the bound."""
        out = size_of(self.dtype)
        for e in self.bound:
            out *= e
        return out

    def __repr__(self) -> str:
        return f"{self.name}:{self.dtype}{list(self.shape)}@{self.space}"


@dataclass(frozen=True)
class Store:
    """buffer[index] = value, or buffer[index] = combiner(buffer[index], value).

    combiner: None, "add", "mul", "min" or "max".
    """

    buffer: Buffer
    index: tuple[Expr, ...]
    value: Expr
    combiner: str | None = None


class _Accesses:
    """The buffers that a statement loads and stores, found once."""

    @cached_property
    def loaded(self) -> tuple[Buffer, ...]:
        return tuple(_reads(self))  # type: ignore[arg-type]

    @cached_property
    def stored(self) -> tuple[Buffer, ...]:
        return tuple(_writes(self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Define(_Accesses):
    """For all points of `axes`: evaluate every value, then store.

    Points are independent unless `ordered`: then they run in row-major order and later stores win
    (scatter), and combiners accumulate in that order. nodes: the graph nodes that this computes.
    """

    axes: tuple[Axis, ...]
    stores: tuple[Store, ...]
    nodes: tuple[str, ...] = ()
    ordered: bool = False


@dataclass(frozen=True)
class Loop(_Accesses):
    """Run `body` for axis.var = 0, 1, …; after each pass copy every carry source to its destination.

    carry: (destination, source) pairs of equal shape. until: if given, evaluated before each pass; the
    loop ends when it is false.
    """

    axis: Axis
    body: tuple[Statement, ...]
    carry: tuple[tuple[Buffer, Buffer], ...] = ()
    until: Expr | None = None
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Branch(_Accesses):
    """Run `then` if the scalar condition holds, else `other`."""

    cond: Expr
    then: tuple[Statement, ...]
    other: tuple[Statement, ...]
    nodes: tuple[str, ...] = ()


Statement = Union[Define, Loop, Branch]


@dataclass(frozen=True)
class Ring:
    """How a state of frames lies where each run adds `step` frames and the oldest go.

    Frame t of the state is frame (head + t) % head.bound of the buffer; the head moves by `step` after each run.
    order: the state's dimensions as they stand in the buffer, the one of its frames first.
    """

    head: Sym
    step: int
    order: tuple[int, ...]

    def advanced(self, head: int) -> int:
        """The head after one more run: a multiple of step from step to head.bound."""
        return self.step if head == self.head.bound else head + self.step


@dataclass(frozen=True)
class StatePair:
    """A buffer that survives from run to run: starts as `initial`; after a run it takes `update`'s value.

    ring: how the state lies in the buffer; None: as `initial` does.
    """

    name: str
    buffer: Buffer
    initial: np.ndarray
    update: Buffer | None = None  # None: updated in place by the body
    ring: Ring | None = None


@dataclass
class Module:
    """One program: entry `run` is `body`. Inputs and outputs keep the order in which they were declared."""

    name: str
    inputs: list[Buffer]
    outputs: list[Buffer]
    body: list[Statement]
    states: list[StatePair] = field(default_factory=list)
    symbols: list[Sym] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # decisions taken on the way, for people

    @property
    def heads(self) -> dict[Sym, Ring]:
        """The symbols that say where rings begin, each with a ring that it belongs to."""
        rings = [p.ring for p in self.states if p.ring is not None]
        return {r.head: r for r in sorted(rings, key=lambda r: r.head.name)}

    def buffers(self) -> list[Buffer]:
        """Every buffer in use, in order of first appearance."""
        seen: dict[Buffer, None] = dict.fromkeys(self.inputs)
        for pair in self.states:
            seen[pair.buffer] = None
        for s in self.body:
            for b in (*reads(s), *writes(s)):
                seen[b] = None
        seen.update(dict.fromkeys(self.outputs))
        return list(seen)


def expressions(s: Statement) -> Iterator[Expr]:
    """The root expressions directly in a statement (not of nested statements)."""
    if isinstance(s, Define):
        for st in s.stores:
            yield st.value
            yield from st.index
        for a in s.axes:
            if isinstance(a.extent, Expr):
                yield a.extent
    elif isinstance(s, Loop):
        if s.until is not None:
            yield s.until
        if isinstance(s.axis.extent, Expr):
            yield s.axis.extent
    else:
        yield s.cond


def nested(s: Statement) -> tuple[Statement, ...]:
    """Statements inside a Loop or Branch."""
    if isinstance(s, Loop):
        return s.body
    if isinstance(s, Branch):
        return s.then + s.other
    return ()


@lru_cache(maxsize=1 << 16)
def loads_in(*roots: Expr) -> tuple[Expr, ...]:
    """Every distinct load in expressions, in order of appearance."""
    return tuple(e for e in walk(*roots) if e.op == "load")


def loads(s: Statement) -> Iterator[Expr]:
    """Every distinct load in the statement's own expressions."""
    yield from loads_in(*expressions(s))


def reads(s: Statement) -> tuple[Buffer, ...]:
    """Buffers that are loaded anywhere in a statement, carries and combiners included; each once."""
    return s.loaded


def writes(s: Statement) -> tuple[Buffer, ...]:
    """Buffers that are stored to anywhere in a statement; each once."""
    return s.stored


def carried(s: Statement) -> set[Buffer]:
    """Sources and destinations of all carries in a statement."""
    own = {b for pair in s.carry for b in pair} if isinstance(s, Loop) else set()
    return own.union(*(carried(x) for x in nested(s)))


def _reads(s: Statement) -> dict[Buffer, None]:
    out: dict[Buffer, None] = {e.arg: None for e in loads_in(*expressions(s))}
    if isinstance(s, Define):
        out.update((st.buffer, None) for st in s.stores if st.combiner is not None)
    if isinstance(s, Loop):
        out.update((src, None) for _, src in s.carry)
    for inner in nested(s):
        out.update(dict.fromkeys(inner.loaded))
    return out


def _writes(s: Statement) -> dict[Buffer, None]:
    out: dict[Buffer, None] = {}
    if isinstance(s, Define):
        out.update((st.buffer, None) for st in s.stores)
    if isinstance(s, Loop):
        out.update((dst, None) for dst, _ in s.carry)
    for inner in nested(s):
        out.update(dict.fromkeys(inner.stored))
    return out


def map_defines(body: tuple[Statement, ...] | list[Statement], fn: object) -> list[Statement]:
    """Rebuild statements with `fn(Define) -> Define | list[Statement]` applied at every depth."""
    out: list[Statement] = []
    for s in body:
        if isinstance(s, Define):
            new = fn(s)  # type: ignore[operator]
            out.extend(new) if isinstance(new, list) else out.append(new)
        elif isinstance(s, Loop):
            out.append(replace(s, body=tuple(map_defines(s.body, fn))))
        else:
            out.append(replace(s, then=tuple(map_defines(s.then, fn)), other=tuple(map_defines(s.other, fn))))
    return out
