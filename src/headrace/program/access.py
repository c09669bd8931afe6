"""Where an expression touches memory: flat addresses, and whether touching it in vain does harm."""

from __future__ import annotations

from functools import lru_cache

from headrace.program.expr import Expr, index, walk
from headrace.program.index import bounds
from headrace.program.ir import Buffer


def flat(buffer: Buffer, idx: tuple[Expr, ...]) -> Expr:
    """Row-major element offset of buffer[idx]."""
    offset: Expr = index(0)
    for i, extent in zip(idx, buffer.shape, strict=True):
        offset = offset * extent + i
    return offset


def apart(a: tuple[Expr, ...], b: tuple[Expr, ...]) -> bool:
    """Whether two indices of one buffer never meet, because their ranges in some dimension do not."""
    ranges = [(*bounds(i), *bounds(j)) for i, j in zip(a, b, strict=True)]
    return any(high < least or most < low for low, high, least, most in ranges)


@lru_cache(maxsize=1 << 16)
def harmless(e: Expr) -> bool:
    """Whether `e` may be evaluated in vain: no checks, no reductions, every load inside its buffer."""
    for node in walk(e):
        if node.op in ("check", "reduce"):
            return False
        if node.op == "load":
            for i, extent in zip(node.args, node.arg.shape, strict=True):
                lo, hi = bounds(i)
                if lo < 0 or not isinstance(extent, int) or hi >= extent:
                    return False
    return True
