"""Rows of large scratch buffers that would lie a power of two apart get a gap between them.

    x[h, w, 1024]   →   x[h, w, 1024 + 16]      of which the last 16 are never touched

First caches find a line by the low twelve bits of its address: rows 4096 bytes apart share the few lines of one
set, rows of 1024 those of four, so that a register tile of many rows throws out what it is about to read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from headrace.program.dtypes import size_of
from headrace.program.ir import Buffer, Module, Statement, carried
from headrace.program.rewrite import move_buffer, replace_body

ROW = 1024  # bytes
GAP = 64  # bytes: a cache line, so that rows stay aligned
MIN_BYTES = 64 << 10  # of a buffer: what the first cache holds as a whole is never thrown out


def space_rows(module: Module) -> Module:
    """Give the crowded scratch buffers of a module a longer last dimension."""
    fixed = {b for s in module.body for b in carried(s)} | {p.update for p in module.states}
    body: Sequence[Statement] = module.body
    for b in module.buffers():
        if b.space == "scratch" and b not in fixed and _is_crowded(b):
            new = Buffer(b.name, b.dtype, (*b.shape[:-1], b.bound[-1] + GAP // size_of(b.dtype)))
            body = move_buffer(body, b, new, lambda i: i)
    return replace_body(module, body)


def _is_crowded(b: Buffer) -> bool:
    if not b.shape or not isinstance(b.shape[-1], int):
        return False
    row = b.bound[-1] * size_of(b.dtype)
    return row > 0 and row % ROW == 0 and b.nbytes >= MIN_BYTES and prod(b.bound[:-1]) > 1
