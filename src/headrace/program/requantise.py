"""Chains of quantising, clamping and dequantising as the least arithmetic that gives the same integers.

    i8(round(round(x / s) + z))          →  i8(near(x / s, -128 - z, 127 - z) + z)
    f32(i32(i8(near(…) + z)) - z)        →  f32(near(…))
    near(max(x, 0) / s, -128, 127)       →  near(x / s, 0, 127)
    near(max(f32(n) * s, 0) / s, …)      →  max(n, 0)

near(y, lo, hi) stands for i32(round(min(max(y, lo), hi))): the nearest integer, ties to even, within lo … hi,
and 0 for NaN. It is the only rounding that is left of a chain, so targets need one good form of it.
A function of one small integer is tabulated over all its values: where the table is a clamp of the integer
moved by a constant, that clamp takes its place. Every rule keeps every bit, NaN and infinities included.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from headrace.program.dtypes import int_range
from headrace.program.expr import (
    Expr,
    binary,
    cast,
    const,
    fresh,
    load,
    maximum,
    minimum,
    substitute,
    transform,
)
from headrace.program.finite import Magnitudes
from headrace.program.interp import run
from headrace.program.ir import Buffer, Define, Module, Statement, Store
from headrace.program.rewrite import each_list, map_expressions, replace_body

SMALL = ("i8", "u8", "i16", "u16")
WIDE = ("add", "sub", "mul", "min", "max", "lt", "le", "eq", "ne")  # of small integers are done in i32
LIMIT = 1 << 20  # of the bounds of near(), where floats hold every integer and its halves
MAX_TABLE = 1 << 16
Interval = tuple[int, int]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Near:
    """i32(round(min(max(y, low), high))): y is f32, low ≤ 0 ≤ high."""

    y: Expr
    low: int
    high: int


def requantise(module: Module) -> Module:
    """Rewrite every expression, at every nesting level."""
    memo: dict[Expr, Expr] = {}
    magnitudes = Magnitudes(module)

    def rule(e: Expr) -> Expr | None:
        return _rule(e, magnitudes)

    def statements(body: list[Statement]) -> list[Statement]:
        return [map_expressions(s, lambda e: transform(e, rule, memo)) if isinstance(s, Define) else s for s in body]

    return replace_body(module, each_list(module.body, statements))


def as_near(e: Expr) -> Near | None:
    """The parts of near(y, low, high), or None for any other expression."""
    if e.op != "cast" or e.dtype != "i32" or e.arg != "round" or e.args[0].op != "min":
        return None
    inner, high = e.args[0].args
    if inner.op != "max" or inner.dtype != "f32" or high.op != "const" or inner.args[1].op != "const":
        return None
    low = inner.args[1].arg
    if not (-LIMIT <= low <= 0 <= high.arg <= LIMIT and low == int(low) and high.arg == int(high.arg)):
        return None
    return Near(inner.args[0], int(low), int(high.arg))


def near(y: Expr, low: int, high: int) -> Expr:
    """The nearest integer of y within low … high, as i32; NaN gives 0."""
    return cast(minimum(maximum(y, float(low)), float(high)), "i32", "round")


def _rule(e: Expr, magnitudes: Magnitudes) -> Expr | None:
    if e.op == "cast" and e.args[0].dtype == "f32" and e.dtype in SMALL and e.arg == "round":
        return _quantised(e, magnitudes)
    if e.op == "cast" and e.dtype in ("i32", "f32"):
        return _widened(e)
    if e.op in WIDE and e.args[0].dtype in SMALL:
        wide = binary(e.op, *(_wide(a) for a in e.args))
        return wide if wide.dtype == "bool" else cast(_rule(wide, magnitudes) or wide, e.dtype)
    if e.dtype == "i32" and e.op in ("add", "sub"):
        return _moved(e)
    if e.dtype == "i32" and e.op in ("min", "max") and e.args[1].op == "const":
        bound = int(e.args[1].arg)
        return _clamped(e.args[0], *((bound, None) if e.op == "max" else (None, bound)))
    return None


# --- quantising --------------------------------------------------------------------------------------


def _quantised(e: Expr, magnitudes: Magnitudes) -> Expr:
    """Rounding and saturation to a small integer type. NaN gives 0, to which no zero point is added."""
    low, high = int_range(e.dtype)
    y = e.args[0]
    if y.op == "round":
        y = y.args[0]
    if y.op == "add" and y.args[0].op == "round" and y.args[1].op == "const":
        zero = y.args[1].arg
        if zero == int(zero) and low <= zero <= high and (zero == 0 or magnitudes.is_finite(y)):
            inner, by = y.args[0].args[0], int(zero)
            found = _nearest(inner, low - by, high - by)
            return cast(found + const(by, "i32") if by else found, e.dtype)
    return cast(_nearest(y, low, high), e.dtype)


def _nearest(y: Expr, low: int, high: int) -> Expr:
    """near(y, low, high) in its simplest form."""
    while True:
        found = _without_clamp(y, low, high)
        if found is None:
            break
        y, low, high = found
    result = near(y, low, high)
    found_clamp = _function_of_integer(result)
    return result if found_clamp is None else found_clamp


def _without_clamp(y: Expr, low: int, high: int) -> tuple[Expr, int, int] | None:
    """max(x, c) / s and min(x, c) / s: the clamp moves into the bounds, since rounding keeps the order."""
    inner, scale = (y.args[0], y.args[1]) if y.op == "div" else (y, const(1.0, "f32"))
    if scale.op != "const" or not 0 < scale.arg < np.inf or inner.op not in ("min", "max"):
        return None
    for x, c in (inner.args, inner.args[::-1]):
        if c.op != "const" or not np.isfinite(c.arg):
            continue
        with np.errstate(all="ignore"):
            at = float(np.rint(np.float32(c.arg) / np.float32(scale.arg)))
        if inner.op == "max" and at <= 0:  # NaN gives 0 on both ways
            low = max(low, int(max(at, low)))
        elif inner.op == "min" and at >= 0:
            high = min(high, int(min(at, high)))
        else:
            continue
        return (binary("div", x, scale) if y.op == "div" else x), low, high
    return None


# --- integers ----------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 14)
def interval(e: Expr) -> Interval | None:
    """Smallest and largest value of an integer expression, where they are known and small."""
    if e.op == "const":
        return (e.arg, e.arg) if abs(e.arg) < 1 << 30 else None
    found = as_near(e)
    if found is not None:
        return found.low, found.high
    if e.op == "cast" and e.args[0].dtype in SMALL:
        inner = interval(e.args[0])
        return inner if inner is not None else int_range(e.args[0].dtype)
    if e.op in ("add", "sub", "min", "max") and e.dtype == "i32":
        a, b = interval(e.args[0]), interval(e.args[1])
        if a is None or b is None:
            return None
        if e.op in ("min", "max"):
            pick = min if e.op == "min" else max
            return pick(a[0], b[0]), pick(a[1], b[1])
        low, high = (a[0] + b[0], a[1] + b[1]) if e.op == "add" else (a[0] - b[1], a[1] - b[0])
        return (low, high) if max(-low, high) < 1 << 30 else None
    return int_range(e.dtype) if e.dtype in SMALL and e.op == "load" else None


def _widened(e: Expr) -> Expr | None:
    """A small integer that comes from an i32 in its range is that i32."""
    small = e.args[0]
    if small.op != "cast" or small.dtype not in SMALL or small.args[0].dtype != "i32":
        return None
    wide = small.args[0]
    found, (low, high) = interval(wide), int_range(small.dtype)
    if found is None or found[0] < low or found[1] > high:
        return None
    return cast(wide, e.dtype)


def _wide(e: Expr) -> Expr:
    wide = cast(e, "i32")
    found = _widened(wide) if wide.op == "cast" else None
    return wide if found is None else found


def _moved(e: Expr) -> Expr | None:
    """Constants that are added one after the other become one; 0 goes away."""
    a, b = e.args
    if b.op != "const":
        return None
    by = b.arg if e.op == "add" else -b.arg
    while a.op in ("add", "sub") and a.args[1].op == "const":
        by += a.args[1].arg if a.op == "add" else -a.args[1].arg
        a = a.args[0]
    if by == 0:
        return a
    return None if abs(by) >= 1 << 31 or a is e.args[0] else a + const(by, "i32")


def _clamped(e: Expr, low: int | None, high: int | None) -> Expr | None:
    """Bounds that do nothing go away, others move into near(); None where neither is so."""
    found, known = as_near(e), interval(e)
    new_low = max(low, known[0]) if known is not None and low is not None else low
    new_high = min(high, known[1]) if known is not None and high is not None else high
    if known is not None and (low is None or low <= known[0]) and (high is None or high >= known[1]):
        return e
    if found is None or (low is not None and low > 0) or (high is not None and high < 0):
        return None
    return near(found.y, found.low if new_low is None else new_low, found.high if new_high is None else new_high)


# --- functions of one small integer ------------------------------------------------------------------


def _function_of_integer(e: Expr) -> Expr | None:
    """A clamp of n + constant that equals e, a function of the small integer n and of literals."""
    leaf = _only_leaf(e)
    if leaf is None:
        return None
    found = interval(leaf)
    if found is None or found[1] - found[0] >= MAX_TABLE:
        return None
    values = np.arange(found[0], found[1] + 1, dtype=np.int32)
    table = _tabulate(e, leaf, values)
    low, high = int(table.min()), int(table.max())
    between = np.flatnonzero((table > low) & (table < high))
    if low == high:
        return const(low, "i32")
    at = int(between[0]) if between.size else int(np.flatnonzero(table == high)[0])
    by = int(table[at]) - int(values[at])
    if not (np.clip(values + by, low, high) == table).all():
        return None
    wide = leaf if leaf.dtype == "i32" else cast(leaf, "i32")
    out = wide + const(by, "i32") if by else wide
    for bound, op, needed in ((low, maximum, found[0] + by < low), (high, minimum, found[1] + by > high)):
        if needed:
            clamped = _clamped(out, *((bound, None) if op is maximum else (None, bound)))
            out = op(out, bound) if clamped is None else clamped
    return out


def _only_leaf(e: Expr) -> Expr | None:
    """The one small integer that a value is computed from; None where anything else but literals goes in."""
    leaves: dict[Expr, None] = {}
    stack, seen = list(e.args), set()
    while stack:
        n = stack.pop()
        if n in seen:
            continue
        seen.add(n)
        if n.op in ("load", "reduce", "var", "sym", "check", "item", "word"):
            if n.dtype not in SMALL or n.op != "load":
                return None
            leaves[n] = None
        elif as_near(n) is not None:
            leaves[n] = None
        else:
            stack.extend(n.args)
    return next(iter(leaves)) if len(leaves) == 1 else None


def _tabulate(e: Expr, leaf: Expr, values: Array) -> Array:
    """e for every value of the leaf, as the interpreter computes it."""
    axis = fresh("n", len(values))
    source = Buffer("values", "i32", (len(values),), "const", values)
    value = cast(load(source, (axis.var,)), leaf.dtype)
    out = Buffer("table", e.dtype, (len(values),), "output")
    define = Define((axis,), (Store(out, (axis.var,), substitute(e, {leaf: value})),))
    return np.asarray(run(Module("table", [], [out], [define]), {})["table"])
