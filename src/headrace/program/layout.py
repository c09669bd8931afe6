"""Order of dimensions in memory: scratch buffers lie so that the vectors of their producer are contiguous.

A contraction with constants is vectorised along the axis that the constants have and the data does not
(the output channels); that dimension moves innermost. Readers without constants follow what they read.
Operands of contractions of data with data lie as program/operands.py says. Buffers that mostly hold what
states held lie like those.
Declared inputs, outputs and states keep their order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod

from headrace.program.expr import Expr, walk
from headrace.program.index import free_vars
from headrace.program.ir import Buffer, Define, Module, Statement, carried, nested
from headrace.program.operands import copy_operands, wanted_dimensions
from headrace.program.rewrite import innermost, move_buffer, replace_body


def choose_layout(module: Module, lanes: int) -> Module:
    """Permute scratch buffers. lanes: f32 elements of a vector."""
    wanted = wanted_dimensions(module.body, lanes)
    pinned = {b for s in module.body for b in carried(s)}
    _visit(module.body, wanted, lanes)
    body: Sequence[Statement] = module.body
    kept = _kept(module, wanted)
    for buffer, d in wanted.items():
        if buffer.space != "scratch" or buffer in pinned | kept or d == len(buffer.shape) - 1:
            continue
        if any(p.update is buffer for p in module.states):
            continue
        new, place = innermost(buffer, d, buffer.name)
        body = move_buffer(body, buffer, new, place)
    return replace_body(module, copy_operands(body, lanes))


def _kept(module: Module, wanted: dict[Buffer, int]) -> set[Buffer]:
    """Buffers that mostly hold what states held: copying those across would cost more than it gains."""
    fixed: set[Buffer | None] = {b for p in module.states for b in (p.buffer, p.update)}
    copied: Counter[Buffer] = Counter()
    made: Counter[Buffer] = Counter()
    for s in module.body:
        if not isinstance(s, Define):
            continue
        points = prod(a.bound for a in s.axes)
        for st in s.stores:
            if st.value.op == "load" and st.value.arg in fixed:
                copied[st.buffer] += points
            elif st.value.op == "load" and st.buffer in fixed:
                copied[st.value.arg] += points
            else:
                made[st.buffer] += points
    return {b for b in wanted if copied[b] > made[b]}


def _visit(body: Sequence[Statement], wanted: dict[Buffer, int], lanes: int) -> None:
    for s in body:
        if not isinstance(s, Define):
            _visit(nested(s), wanted, lanes)
            continue
        v = _column(s, lanes)
        for st in s.stores:
            if st.buffer in wanted:
                continue
            if v is None:
                d = _inherited(st.index, st.value, wanted)
            else:
                d = _dimension(st.index, v)
            if d is not None:
                wanted[st.buffer] = d


def _column(s: Define, lanes: int) -> Expr | None:
    """The axis that constants inside reductions have, and, if possible, the data has not."""
    only: dict[Expr, int] = {}
    shared: dict[Expr, int] = {}
    axes = {a.var: a for a in s.axes}
    for r in walk(*(st.value for st in s.stores)):
        if r.op != "reduce":
            continue
        loads = [x for x in walk(r.args[0]) if x.op == "load"]
        constant = {v for x in loads if x.arg.space == "const" for v in free_vars(x)}
        data = {v for x in loads if x.arg.space != "const" for v in free_vars(x)}
        for v in (v for v in axes if v in constant):
            (shared if v in data else only)[v] = axes[v].bound
    for found in (only, shared):
        wide = {v: n for v, n in found.items() if n >= lanes // 2}
        if wide:
            return max(wide, key=lambda v: wide[v])
    return None


def _dimension(idx: tuple[Expr, ...], v: Expr) -> int | None:
    found = [d for d, i in enumerate(idx) if v in free_vars(i)]
    return found[0] if len(found) == 1 else None


def _inherited(idx: tuple[Expr, ...], value: Expr, wanted: dict[Buffer, int]) -> int | None:
    for e in walk(value):
        if e.op == "load" and e.arg in wanted:
            found = [_dimension(idx, v) for v in free_vars(e.args[wanted[e.arg]])]
            if any(d is not None for d in found):
                return max(d for d in found if d is not None)
    return None
