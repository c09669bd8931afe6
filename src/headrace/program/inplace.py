"""Which buffers may share one piece of memory while both are in use.

Three cases, each at one point of the program where the first dies and the second is born:
- a Define reads an operand only at the element that it is about to store (y[i] = f(x[i])),
- the source of a loop's carry is written where its destination lies, so the carry copies nothing,
- a state's next value is written where the state lies, so the commit copies nothing.
Everything else that is in use at the same point lies apart.
"""

from __future__ import annotations

from collections.abc import Iterator

from headrace.program.dtypes import size_of
from headrace.program.expr import Expr, index, substitute
from headrace.program.index import ONE, free_vars, terms
from headrace.program.ir import Buffer, Define, Module, Store, loads
from headrace.program.lifetime import Lifetimes, planned


def element(buffer: Buffer, idx: tuple[Expr, ...]) -> Expr:
    """Position of buffer[idx] in memory, in elements."""
    out = index(0)
    for extent, i in zip(buffer.shape, idx, strict=True):
        out = out * extent + i
    return out


def same_element(a: Buffer, a_index: tuple[Expr, ...], b: Buffer, b_index: tuple[Expr, ...]) -> bool:
    """Whether the two elements lie at equal byte offsets from the start of their buffers."""
    if size_of(a.dtype) != size_of(b.dtype):
        return False
    a_index, b_index = _without_unit_axes(a_index), _without_unit_axes(b_index)
    if a.shape == b.shape:
        if all(x is y for x, y in zip(a_index, b_index, strict=True)):
            return True
    elif not all(isinstance(e, int) for e in a.shape + b.shape):
        return False
    return element(a, a_index) is element(b, b_index)


def _without_unit_axes(idx: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """The index with every variable that can only be 0 as 0."""
    zeros: dict[Expr, Expr] = {v: index(0) for i in idx for v in free_vars(i) if v.arg[1] == 1}
    return tuple(substitute(i, zeros) for i in idx)


def each_once(s: Define, store: Store) -> bool:
    """Whether no two points of the statement store to one element."""
    extents = {a.var: a.extent for a in s.axes}
    if len(set(store.index) & extents.keys()) == len(extents):
        return True
    digits = []
    for atom, k in terms(element(store.buffer, store.index)).items():
        extent = extents.pop(atom, None)
        if isinstance(extent, int):
            digits.append((abs(k), extent))
        elif extent is not None or (atom is not ONE and free_vars(atom) & {a.var for a in s.axes}):
            return False
    reach = 0
    for k, extent in sorted(digits):
        if k <= reach:
            return False
        reach += k * (extent - 1)
    return all(e in (0, 1) for e in extents.values())


def overwrites(s: Define, operand: Buffer, result: Buffer) -> bool:
    """Whether `result` may lie exactly over `operand` in this statement, as far as the indices say.

    Holds for any order of the points and for any number of points evaluated before they are stored, as
    long as a point's stores come after all of its loads (no partial sums in the result's memory).
    """
    stores = [st for st in s.stores if st.buffer is result]
    if s.ordered or len(stores) != 1 or stores[0].combiner is not None or operand is result:
        return False
    here = stores[0].index
    used = [e for e in loads(s) if e.arg is operand]
    return all(same_element(operand, e.args, result, here) for e in used) and each_once(s, stores[0])


class Sharing:
    """Decides pairs for one module; remembers what it has proved."""

    def __init__(self, lives: Lifetimes) -> None:
        self.lives = lives
        self._proved: dict[tuple[int, Buffer, Buffer], bool] = {}

    def allowed(self, n: int, first: Buffer, second: Buffer) -> bool:
        """Whether at point n `first` dies and `second` is born in its memory."""
        key = n, first, second
        if key not in self._proved:
            self._proved[key] = self._dies_and_born(n, first, second) and self._same_place(n, first, second)
        return self._proved[key]

    def _dies_and_born(self, n: int, first: Buffer, second: Buffer) -> bool:
        p, before, after = self.lives.points[n], self.lives.before[n], self.lives.after[n]
        dies = first not in after and first not in p.writes
        born = second in p.writes and second not in before and second not in p.reads
        return dies and born

    def _same_place(self, n: int, first: Buffer, second: Buffer) -> bool:
        p = self.lives.points[n]
        if isinstance(p.statement, Define):
            return overwrites(p.statement, first, second)
        return (second, first) in p.copies

    def candidates(self, module: Module) -> Iterator[tuple[Buffer, Buffer]]:
        """Pairs of equal size worth sharing: states first, then carries, then operands, largest first."""
        for pair in module.states:
            if pair.update is not None and _alike(pair.buffer, pair.update):
                yield pair.buffer, pair.update
        for p in self.lives.points:
            if p.kind == "carry":
                yield from ((dst, src) for dst, src in p.copies if _alike(dst, src))
        found = []
        for n, p in enumerate(self.lives.points):
            if p.kind != "define":
                continue
            for result in p.writes:
                operands = [b for b in p.reads if _alike(b, result) and self.allowed(n, b, result)]
                found += [(-result.nbytes, n, operand, result) for operand in operands]
        yield from ((operand, result) for _, _, operand, result in sorted(found, key=lambda f: f[:2]))


def _alike(a: Buffer, b: Buffer) -> bool:
    return a is not b and planned(a) and planned(b) and a.nbytes == b.nbytes > 0


def shared_memory(module: Module, lives: Lifetimes) -> dict[Buffer, Buffer]:
    """Buffer → the buffer in whose memory it lies (a state, or the first of the group), itself included."""
    sharing = Sharing(lives)
    where: dict[Buffer, int] = dict.fromkeys(lives.buffers, 0)
    for n in range(len(lives.points)):
        for b in lives.occupied(n):
            where[b] |= 1 << n
    groups = {b: [b] for b in lives.buffers}
    for x, y in sharing.candidates(module):
        group, other = groups[x], groups[y]
        if group is other or not all(_together(sharing, where, a, b) for a in group for b in other):
            continue
        group.extend(other)
        groups.update((b, group) for b in other)
    order = {b: n for n, b in enumerate(lives.buffers)}
    return {b: min(groups[b], key=lambda m: (m.space != "state", order[m])) for b in lives.buffers}


def _together(sharing: Sharing, where: dict[Buffer, int], a: Buffer, b: Buffer) -> bool:
    """Whether two buffers may share memory at every point where both are in use."""
    if a.space == b.space == "state":
        return False
    both = where[a] & where[b]
    while both:
        n = (both & -both).bit_length() - 1
        if not (sharing.allowed(n, a, b) or sharing.allowed(n, b, a)):
            return False
        both &= both - 1
    return True
