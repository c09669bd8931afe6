"""Copies that go away: who produces x writes where the copy would have put it.

    x[i] = f(i);  p[i+1] = x[i];  y = g(x)     →     p[i+1] = f(i);  y = g(p shifted by 1)

Serves concatenation, padding, stacks of a scan, and outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.program.expr import Expr, substitute
from headrace.program.ir import Buffer, Define, Loop, Module, Statement, nested, reads, writes
from headrace.program.rewrite import move_buffer, replace_body


def forward_copies(module: Module) -> Module:
    """Remove copies of whole scratch buffers into other buffers."""
    pinned = {p.update for p in module.states if p.update is not None}
    pinned |= {b for s in module.body for b in _carried(s)}
    body = list(module.body)
    while True:
        new = _once(body, pinned)
        if new is None:
            return replace_body(module, body)
        body = new


def _carried(s: Statement) -> set[Buffer]:
    own = {b for pair in s.carry for b in pair} if isinstance(s, Loop) else set()
    return own.union(*(_carried(x) for x in nested(s)))


def _once(body: list[Statement], pinned: set[Buffer]) -> list[Statement] | None:
    for n, s in enumerate(body):
        if not isinstance(s, Define):
            continue
        found = _whole_copy(s)
        if found is None:
            continue
        source, target, place = found
        if source in pinned or source.space != "scratch" or not _may_forward(body, n, source, target):
            continue
        rest = body[:n] + body[n + 1 :]

        def at(
            i: tuple[Expr, ...], place: Sequence[Expr] = place, variables: Sequence[Expr] = s.stores[0].value.args
        ) -> tuple[Expr, ...]:
            mapping = dict(zip(variables, i, strict=True))
            return tuple(substitute(p, mapping) for p in place)

        return move_buffer(rest, source, target, at)
    return None


def _whole_copy(s: Define) -> tuple[Buffer, Buffer, tuple[Expr, ...]] | None:
    """(source, target, index in the target) of a Define that copies all of a buffer."""
    if s.ordered or len(s.stores) != 1:
        return None
    st = s.stores[0]
    x = st.value
    if st.combiner is not None or x.op != "load" or x.arg is st.buffer or x.dtype != st.buffer.dtype:
        return None
    axes = {a.var: a for a in s.axes}
    extents = x.arg.shape
    ordered = []
    for i, extent in zip(x.args, extents, strict=True):
        axis = axes.get(i)
        if axis is None or (axis.extent is not extent and axis.extent != extent):
            return None
        ordered.append(axis)
    if len(ordered) != len(s.axes) or len(set(ordered)) != len(ordered):
        return None
    return x.arg, st.buffer, st.index


def _may_forward(body: list[Statement], n: int, source: Buffer, target: Buffer) -> bool:
    """All accesses to the source must be in this list, its writes before the copy; the target must not be
    read before the copy, nor be an input of what writes the source."""
    if target.space not in ("scratch", "output"):
        return False
    first = None
    for k, s in enumerate(body):
        wrote = source in writes(s)
        if wrote and first is None:
            first = k
        if wrote and k >= n:
            return False
        if first is None and source in reads(s):
            return False
    if first is None:
        return False
    return all(target not in reads(s) for s in body[:n])

