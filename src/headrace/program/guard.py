"""Guards of converted elements become guards of the element, so that `pad` finds them.

    select(inside, i32(x[i]) - 3, 0)   →   i32(select(inside, x[i], 3)) - 3
    select(inside, f32(h[i]), 0)       →   f32(select(inside, h[i], 0))

A quantised convolution pads with zeros after its zero point was taken off, one of 16-bit floats after they
were widened.
"""

from __future__ import annotations

from headrace.program.dtypes import int_range
from headrace.program.expr import Expr, cast, const, is_const, select, transform
from headrace.program.ir import Define, Module, Statement
from headrace.program.rewrite import each_list, map_expressions, replace_body

BYTES = ("u8", "i8")
HALVES = ("f16", "bf16")


def guard_narrow(module: Module) -> Module:
    """Move the guards of u8, i8, f16 and bf16 operands inward, at every nesting level."""

    def statements(body: list[Statement]) -> list[Statement]:
        return [map_expressions(s, lambda e: transform(e, _rule)) if isinstance(s, Define) else s for s in body]

    return replace_body(module, each_list(module.body, statements))


def _rule(e: Expr) -> Expr | None:
    if e.op != "select" or e.dtype not in ("i32", "f32") or not is_const(e.args[2], 0):
        return None
    cond, value, _ = e.args
    if e.dtype == "f32":
        return _half(cond, value) if str(e.args[2].arg)[0] != "-" else None  # -0.0 stays itself
    wide, zero = (value.args[0], value.args[1]) if value.op == "sub" else (value, const(0, "i32"))
    if wide.op != "cast" or wide.args[0].op != "load" or wide.args[0].dtype not in BYTES or zero.op != "const":
        return None
    byte = wide.args[0]
    low, high = int_range(byte.dtype)
    if not low <= zero.arg <= high:
        return None
    inner = cast(select(cond, byte, const(zero.arg, byte.dtype)), "i32")
    return inner - zero if value.op == "sub" else inner


def _half(cond: Expr, value: Expr) -> Expr | None:
    if value.op != "cast" or value.args[0].op != "load" or value.args[0].dtype not in HALVES:
        return None
    narrow = value.args[0]
    return cast(select(cond, narrow, const(0.0, narrow.dtype)), "f32")
