"""Rounding to bounded integers in C, and division by a scale without dividing.

Whether x * low + x * high, with high + low ≈ 1 / scale, rounds to the same integers as x / scale is decided
here for each scale: both never fall as x rises, so they agree everywhere if they agree around every step.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.codegen.scalar import literal
from headrace.program.requantise import Near

if TYPE_CHECKING:
    from headrace.codegen.emit import Emitter
    from headrace.codegen.scope import Scope

Array = np.ndarray[Any, Any]
AROUND = 4  # floats on each side of a step


def near_text(emitter: Emitter, n: Near, scope: Scope, lanes: int) -> str:
    """C text of near(y, low, high) on scalars (lanes 1) or vectors."""

    def text(operand: Any) -> str:
        return emitter.widened(operand, "f32", lanes) if lanes > 1 else str(operand.text)

    suffix = f"x{lanes}" if lanes > 1 else ""
    y, by = n.y, None
    if y.op == "div" and y.args[1].op == "const":
        by = inverse(y.args[1].arg, n.low, n.high)
    if by is None:
        inner = text(emitter.value(y, scope))
    else:
        x = text(emitter.value(y.args[0], scope))
        scale, high, low = (literal(v, "f32") for v in (y.args[1].arg, *by))
        inner = f"hr_quotient_f32{suffix}({x}, {scale}, {high}, {low})"
    return f"hr_near_i32{suffix}_f32{suffix}({inner}, {n.low}, {n.high})"


@lru_cache(maxsize=4096)
def inverse(scale: float, low: int, high: int) -> tuple[float, float] | None:
    """(high, low) parts of 1 / scale that give every x the integer of x / scale within the bounds; else None."""
    if not 1e-25 < scale < 1e25:
        return None
    exact = 1.0 / np.float64(np.float32(scale))
    upper = np.float32(exact)
    if upper > exact:
        upper = np.nextafter(upper, np.float32(0))
    lower = np.float32(exact - upper)
    if not lower > 0 or not rounds_alike(np.float32(scale), upper, lower, low, high):
        return None
    return float(upper), float(lower)


def rounds_alike(scale: np.float32, upper: np.float32, lower: np.float32, low: int, high: int) -> bool:
    """Whether x * lower + x * upper gives the integers of x / scale, clamped to low … high, for every x."""
    steps = np.arange(low, high) + 0.5
    first: Array = (steps * np.float64(scale)).astype(np.float32).view(np.int32)
    with np.errstate(all="ignore"):
        x = (first[:, None] + np.arange(-AROUND, AROUND + 1, dtype=np.int32)).view(np.float32)
        wanted, got = np.rint(x / scale), np.rint(fused(x, upper, x * lower))
    is_step = (wanted.min(1) < steps) & (wanted.max(1) > steps)
    return bool(is_step.all() and (wanted == got).all())


def fused(x: Array, y: Any, z: Array) -> Array:
    """x * y + z in f32, rounded once: the sum in f64 is rounded to odd, so that only the next rounding counts."""
    product = x.astype(np.float64) * np.float64(y)
    addend = z.astype(np.float64)
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)
    even = (total.view(np.int64) & 1) == 0
    away = np.where(error > 0, np.inf, -np.inf)
    return np.asarray(np.where((error != 0) & even, np.nextafter(total, away), total).astype(np.float32))
