"""Copies that go away: who produces x writes where the copy would have put it.

    x[i] = f(i);  p[i+1] = x[i];  y = g(x)     →     p[i+1] = f(i);  y = g(p shifted by 1)

Serves concatenation, padding, stacks of a scan, and outputs.
"""

from __future__ import annotations

from headrace.program.access import apart
from headrace.program.dtypes import size_of
from headrace.program.expr import Expr, index, substitute
from headrace.program.ir import Buffer, Define, Module, Statement, Store, carried, nested, reads, writes
from headrace.program.rewrite import Place, move_buffer, replace_body


def forward_copies(module: Module) -> Module:
    """Remove copies of whole scratch buffers into other buffers."""
    pinned = {p.update for p in module.states if p.update is not None}
    pinned |= {b for s in module.body for b in carried(s)}
    body = list(module.body)
    n = 0
    while n < len(body):
        new = _forward(body, n, pinned)
        if new is None:
            n += 1
        else:
            body, n = new, 0 if n < 2 else n - 1
    return replace_body(module, body)


def _forward(body: list[Statement], n: int, pinned: set[Buffer]) -> list[Statement] | None:
    """The body without statement n, if that is a copy that can go away."""
    s = body[n]
    found = _whole_copy(s) if isinstance(s, Define) else None
    if found is None:
        return None
    source, target, place = found
    if source in pinned or source.space != "scratch" or not _may_forward(body, n, source, target):
        return None
    if not _keeps_contents(body, n, source, target):
        return None
    return move_buffer(body[:n] + body[n + 1 :], source, target, place)


def _whole_copy(s: Define) -> tuple[Buffer, Buffer, Place] | None:
    """(source, target, source index → target index) of a Define that copies all of a buffer."""
    if s.ordered or len(s.stores) != 1:
        return None
    st = s.stores[0]
    x = st.value
    if st.combiner is not None or x.op != "load" or x.arg is st.buffer or x.dtype != st.buffer.dtype:
        return None
    return _by_axes(s, st, x) or _by_digits(s, st, x)


def _by_axes(s: Define, st: Store, x: Expr) -> tuple[Buffer, Buffer, Place] | None:
    """Every index of the load is an axis of its own."""
    axes = {a.var: a for a in s.axes}
    found = [axes.get(i) for i in x.args]
    for axis, extent in zip(found, x.arg.shape, strict=True):
        if axis is None or (axis.extent is not extent and axis.extent != extent):
            return None
    if len(found) != len(s.axes) or len(set(found)) != len(found):
        return None

    def place(i: tuple[Expr, ...]) -> tuple[Expr, ...]:
        mapping = dict(zip(x.args, i, strict=True))
        return tuple(substitute(p, mapping) for p in st.index)

    return x.arg, st.buffer, place


def _by_digits(s: Define, st: Store, x: Expr) -> tuple[Buffer, Buffer, Place] | None:
    """The indices of the load are the digits of the target's flat index: a reshape, perhaps of a transpose."""
    source, target = x.arg, st.buffer
    if st.index != tuple(a.var for a in s.axes) or not all(isinstance(e, int) for e in (*source.shape, *target.shape)):
        return None
    if tuple(a.extent for a in s.axes) != target.shape or source.nbytes != target.nbytes:
        return None
    flat: Expr = index(0)
    for a, extent in zip(s.axes, target.bound, strict=True):
        flat = flat * extent + a.var
    strides: dict[int, int] = {}
    for d, (i, extent) in enumerate(zip(x.args, source.bound, strict=True)):
        if extent == 1:
            strides[d] = 0
            continue
        found = _stride(i, extent, flat, source.nbytes // size_of(source.dtype))
        if found is None:
            return None
        strides[d] = found
    used = sorted((k, source.bound[d]) for d, k in strides.items() if k)
    step = 1
    for k, extent in used:
        if k != step:
            return None
        step *= extent

    def place(i: tuple[Expr, ...]) -> tuple[Expr, ...]:
        at: Expr = index(0)
        for d, e in enumerate(i):
            at = at + e * strides[d]
        out: list[Expr] = []
        for extent in reversed(target.bound):
            out.append(at % extent)
            at = at // extent
        return tuple(reversed(out))

    return source, target, place


def _stride(i: Expr, extent: int, flat: Expr, size: int) -> int | None:
    """s such that i is (flat // s) % extent."""
    for s in range(1, size // extent + 1):
        if size % (s * extent) == 0 and (flat // s) % extent is i:
            return s
    return None


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


def _keeps_contents(body: list[Statement], n: int, source: Buffer, target: Buffer) -> bool:
    """Whether nothing else that writes the target changes what was the source, as long as that is read."""
    copy = body[n]
    assert isinstance(copy, Define)
    mine = copy.stores[0].index
    first = next(k for k, s in enumerate(body) if source in writes(s))
    last = max((k for k, s in enumerate(body) if source in reads(s) and k != n), default=n)
    for k, s in enumerate(body):
        if k < first or k == n or (k > n and k > last) or target not in writes(s):
            continue
        if not all(apart(mine, st.index) for st in _stores(s, target)) or target in carried(s):
            return False
    return True


def _stores(s: Statement, target: Buffer) -> list[Store]:
    own = [st for st in s.stores if st.buffer is target] if isinstance(s, Define) else []
    return own + [st for x in nested(s) for st in _stores(x, target)]
