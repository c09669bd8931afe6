"""Fusion by substitution: a definition with one reader moves into it.

    t[i] = x[i] + 1;  y[i] = exp(t[i])                →  y[i] = exp(x[i] + 1)
    t[i] = sum(k: a[i,k]*b[k]);  y[i] = max(t[i], 0)  →  y[i] = max(sum(k: a[i,k]*b[k]), 0)

A view (a load with other indices) moves into all readers. Nothing is computed twice: arithmetic moves
only where the reader visits every element once. A definition that others read too, and an element-wise
reader of it, become one Define with two stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headrace.program.expr import Expr, substitute, transform, walk
from headrace.program.ir import Buffer, Define, Loop, Module, Statement, Store, reads, writes
from headrace.program.rewrite import replace_body

MAX_NODES = 400


def fuse(module: Module) -> Module:
    """Inline and merge definitions, at every nesting level, until nothing changes."""
    fixed = {p.update for p in module.states if p.update is not None}
    counts = _write_counts(module.body)
    body = _fuse_list(module.body, counts, fixed)
    return replace_body(module, body)


def _write_counts(body: Sequence[Statement]) -> dict[Buffer, int]:
    counts: dict[Buffer, int] = {}

    def visit(s: Statement) -> None:
        if isinstance(s, Define):
            for st in s.stores:
                counts[st.buffer] = counts.get(st.buffer, 0) + 1
        elif isinstance(s, Loop):
            for dst, _ in s.carry:
                counts[dst] = counts.get(dst, 0) + 1
            for x in s.body:
                visit(x)
        else:
            for x in s.then + s.other:
                visit(x)

    for s in body:
        visit(s)
    return counts


def _fuse_list(body: Sequence[Statement], counts: dict[Buffer, int], fixed: set[Buffer]) -> list[Statement]:
    inner: list[Statement] = []
    for n, s in enumerate(body):
        if isinstance(s, Define):
            inner.append(s)
            continue
        elsewhere = {b for m, other in enumerate(body) if m != n for b in reads(other)}
        if isinstance(s, Loop):
            kept = fixed | elsewhere | {b for pair in s.carry for b in pair}
            inner.append(replace(s, body=tuple(_fuse_list(s.body, counts, kept))))
        else:
            then, other = (tuple(_fuse_list(x, counts, fixed | elsewhere)) for x in (s.then, s.other))
            inner.append(replace(s, then=then, other=other))
    return _Fuser(inner, counts, fixed).run()


class _Fuser:
    """One list of statements. fixed: buffers that something outside the list reads."""

    def __init__(self, body: list[Statement], counts: dict[Buffer, int], fixed: set[Buffer]) -> None:
        self.body: list[Statement | None] = list(body)
        self.counts = counts
        self.fixed = fixed
        self.readers: dict[Buffer, set[int]] = {}
        self.writes: list[frozenset[Buffer]] = []
        for n, s in enumerate(body):
            self.writes.append(frozenset(writes(s)))
            for b in reads(s):
                self.readers.setdefault(b, set()).add(n)

    def run(self) -> list[Statement]:
        changed = True
        while changed:
            changed = False
            for n in range(len(self.body)):
                while self._try(n):
                    changed = True
        return [s for s in self.body if s is not None]

    def _try(self, n: int) -> bool:
        s = self.body[n]
        if not isinstance(s, Define) or s.ordered:
            return False
        if all(self._dead(st) for st in s.stores):
            self._remove(n)
            return True
        if len(s.stores) != 1 or not _plain(s) or s.stores[0].buffer.space != "scratch":
            return False
        buffer = s.stores[0].buffer
        if self.counts.get(buffer, 0) != 1:
            return False
        readers = sorted(self.readers.get(buffer, ()))
        if not readers or readers[0] <= n:
            return False
        return self._inline(n, s, buffer, readers) or self._merge(n, s, buffer, readers)

    def _dead(self, st: Store) -> bool:
        b = st.buffer
        return b.space == "scratch" and b not in self.fixed and self.counts.get(b, 0) == 1 and not self.readers.get(b)

    def _inline(self, n: int, p: Define, buffer: Buffer, readers: list[int]) -> bool:
        if buffer in self.fixed:
            return False
        value = p.stores[0].value
        view = is_view(value)
        if not view and len(readers) != 1:
            return False
        for r in readers:
            if not self._may_move(p, n, r):
                return False
            c = self.body[r]
            if view:
                if not _view_fits(value, c, buffer):
                    return False
            elif not isinstance(c, Define) or c.ordered or not _visits_once(p, c, buffer):
                return False
        for r in readers:
            self._replace(r, _rewrite(self.body[r], buffer, p))
        self._remove(n)
        return True

    def _merge(self, n: int, p: Define, buffer: Buffer, readers: list[int]) -> bool:
        """Join an element-wise reader, the first one, with its producer, whose value others need too."""
        r = readers[0]
        c = self.body[r]
        if not isinstance(c, Define) or c.ordered or not _plain(c) or is_view(p.stores[0].value):
            return False
        if len(p.axes) != len(c.axes) or [a.extent for a in p.axes] != [a.extent for a in c.axes]:
            return False
        if len(readers) == 1 and buffer not in self.fixed:
            return False
        found = _loads_of(c, buffer)
        identity = tuple(a.var for a in c.axes)
        if any(e.args != identity or inside for e, inside in found) or not self._may_move(p, n, r):
            return False
        if not _visits_once(p, c, buffer):
            return False
        mapping = {a.var: b.var for a, b in zip(p.axes, c.axes, strict=True)}
        own = Store(buffer, identity, substitute(p.stores[0].value, mapping))
        merged = _rewrite(c, buffer, p)
        assert isinstance(merged, Define)
        joined = replace(merged, stores=(own, *merged.stores))
        self.body[n] = None
        self._forget(n, p)
        self.writes[n] = frozenset()
        self._replace(r, joined)
        return True

    def _may_move(self, p: Define, n: int, r: int) -> bool:
        """Whether nothing between statements n and r changes what p reads, r's own stores included."""
        sources = set(reads(p))
        if any(self.writes[k] & sources for k in range(n + 1, r) if self.body[k] is not None):
            return False
        return not (self.writes[r] & sources)

    def _replace(self, r: int, new: Statement | None) -> None:
        old = self.body[r]
        assert old is not None and new is not None
        self._forget(r, old)
        self.body[r] = new
        self.writes[r] = frozenset(writes(new))
        for b in reads(new):
            self.readers.setdefault(b, set()).add(r)

    def _remove(self, n: int) -> None:
        old = self.body[n]
        assert old is not None
        self._forget(n, old)
        self.body[n] = None
        self.writes[n] = frozenset()

    def _forget(self, n: int, s: Statement) -> None:
        for b in reads(s):
            self.readers.get(b, set()).discard(n)


def _plain(s: Define) -> bool:
    """Whether every store is at exactly the Define's axes, without combiner."""
    identity = tuple(a.var for a in s.axes)
    return not s.ordered and all(st.combiner is None and st.index == identity for st in s.stores)


def is_view(value: Expr) -> bool:
    """A load, or a literal: nothing is computed but indices."""
    if value.op == "const":
        return True
    return value.op == "load" and all(
        n.op not in ("load", "check", "reduce", "select") or n is value for n in walk(value)
    )


def _loads_of(s: Define, buffer: Buffer) -> list[tuple[Expr, bool]]:
    """Loads of a buffer, each with whether it stands inside a reduction."""
    out: dict[tuple[Expr, bool], None] = {}

    def go(e: Expr, inside: bool, seen: set[tuple[Expr, bool]]) -> None:
        if (e, inside) in seen:
            return
        seen.add((e, inside))
        if e.op == "load" and e.arg is buffer:
            out[(e, inside)] = None
        for a in e.args:
            go(a, inside or e.op == "reduce", seen)

    seen: set[tuple[Expr, bool]] = set()
    for st in s.stores:
        for root in (st.value, *st.index):
            go(root, False, seen)
    return list(out)


def _points(s: Define) -> int:
    n = 1
    for a in s.axes:
        n *= a.bound
    return n


def _size(s: Define) -> int:
    return sum(1 for st in s.stores for _ in walk(st.value))


def _view_fits(value: Expr, c: Statement | None, buffer: Buffer) -> bool:
    """Views go anywhere, except where a reduction would have to divide indices in its loops."""
    if c is None or not isinstance(c, Define):
        return not _divides(value)
    if any(st.combiner is not None and st.buffer is buffer for st in c.stores):
        return False
    return not _divides(value) or not any(inside for _, inside in _loads_of(c, buffer))


def _divides(value: Expr) -> bool:
    return any(n.op in ("floordiv", "mod") for n in walk(value))


def _visits_once(p: Define, c: Define, buffer: Buffer) -> bool:
    """Whether `c` needs each element of p's result at most once."""
    found = _loads_of(c, buffer)
    if len(found) != 1 or _size(p) + _size(c) > MAX_NODES:
        return False
    load, inside = found[0]
    has_reduction = any(n.op == "reduce" for n in walk(p.stores[0].value))
    if has_reduction and any(_divides(i) for i in load.args):
        return False
    if not inside:
        return _points(c) <= _points(p)
    if has_reduction:
        return False
    boxes = [n.arg[1] for st in c.stores for n in walk(st.value) if n.op == "reduce" and load in set(walk(n.args[0]))]
    if len(boxes) != 1:
        return False
    total = _points(c)
    for a in boxes[0]:
        total *= a.bound
    return total <= _points(p)


def _rewrite(s: Statement | None, buffer: Buffer, p: Define) -> Statement:
    """`s` with every load of the buffer replaced by p's value at that index."""
    value = p.stores[0].value
    variables = [a.var for a in p.axes]
    memo: dict[Expr, Expr] = {}

    def inline(e: Expr) -> Expr | None:
        if e.op == "load" and e.arg is buffer:
            return substitute(value, dict(zip(variables, e.args, strict=True)))
        return None

    def go(e: Expr) -> Expr:
        return transform(e, inline, memo)

    def statement(x: Statement) -> Statement:
        nodes = tuple(dict.fromkeys((*p.nodes, *x.nodes)))
        if isinstance(x, Define):
            stores = tuple(
                Store(st.buffer, tuple(go(i) for i in st.index), go(st.value), st.combiner) for st in x.stores
            )
            return replace(x, stores=stores, nodes=nodes if stores != x.stores else x.nodes)
        if isinstance(x, Loop):
            until = go(x.until) if x.until is not None else None
            return replace(x, body=tuple(statement(y) for y in x.body), until=until)
        return replace(
            x,
            cond=go(x.cond),
            then=tuple(statement(y) for y in x.then),
            other=tuple(statement(y) for y in x.other),
        )

    assert s is not None
    return statement(s)
