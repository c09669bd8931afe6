"""C text of scalar operations and index arithmetic."""

from __future__ import annotations

import hashlib
import math

from headrace.errors import UnsupportedOperator
from headrace.program.dtypes import FLOATS, SIGNED, UNSIGNED, int_range, is_float
from headrace.program.expr import Expr, Sym
from headrace.program.index import bounds

CTYPES = {
    "f16": "uint16_t", "bf16": "uint16_t", "f32": "float", "f64": "double", "i8": "int8_t", "i16": "int16_t",
    "i32": "int32_t", "i64": "int64_t", "u8": "uint8_t", "u16": "uint16_t", "u32": "uint32_t", "u64": "uint64_t",
    "bool": "uint8_t", "index": "ptrdiff_t",
}  # fmt: skip
HALF = ("f16", "bf16")
_FLOAT = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_BITS = {"and": "&", "or": "|", "xor": "^"}
_COMPARE = {"lt": "<", "le": "<=", "eq": "==", "ne": "!="}
_INDEX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "and": "&",
    "or": "|",
    "xor": "^",
    "shl": "<<",
    "shr": ">>",
    **_COMPARE,
}


def literal(value: float | int | bool, dtype: str) -> str:
    """A C constant with exactly this value."""
    if dtype == "bool":
        return "1" if value else "0"
    if dtype in HALF:
        import numpy as np

        from headrace.program.dtypes import numpy_dtype

        return f"0x{int(np.asarray(value, numpy_dtype(dtype)).view(np.uint16)):04x}u"
    if dtype in FLOATS:
        return _float_literal(float(value), dtype)
    if dtype == "index":
        return str(value)
    if dtype in UNSIGNED:
        return f"{value}u" if dtype != "u64" else f"UINT64_C({value})"
    lowest = int_range(dtype)[0]
    if value == lowest and dtype in ("i32", "i64"):
        return f"INT{dtype[1:]}_MIN"
    return str(value) if dtype != "i64" else f"INT64_C({value})"


def _float_literal(value: float, dtype: str) -> str:
    suffix = "f" if dtype == "f32" else ""
    if math.isnan(value):
        return f'__builtin_nan{suffix}("")'
    if math.isinf(value):
        return f"{'-' if value < 0 else ''}__builtin_inf{suffix}()"
    if dtype == "f32":
        import numpy as np

        single = np.float32(value)
        if np.isinf(single):
            return _float_literal(math.inf if value > 0 else -math.inf, dtype)
        text = (
            repr(float(str(single))) if float(np.float32(float(str(single)))) == float(single) else repr(float(single))
        )
    else:
        text = repr(value)
    if "e" not in text and "." not in text:
        text += ".0"
    return f"({text}{suffix})" if value < 0 or text.startswith("-") else text + suffix


def symbol_name(s: Sym) -> str:
    """C name of a run-time extent; different symbols get different names."""
    plain = "".join(c if c.isalnum() and c.isascii() else "_" for c in s.name)
    return f"sym_{plain}" if plain == s.name else f"sym_{plain}_{hashlib.sha256(s.name.encode()).hexdigest()[:6]}"


def index_op(op: str, a: str, b: str, x: Expr, y: Expr) -> str:
    """C text of x OP y on indices; // and % round toward minus infinity."""
    if op in _INDEX:
        return f"({a} {_INDEX[op]} {b})"
    if op in ("min", "max"):
        sign = "<" if op == "min" else ">"
        return f"({a} {sign} {b} ? {a} : {b})"
    if op == "div":
        return f"({a} / {b})" if bounds(y)[0] > 0 else f"index_div({a}, {b})"
    plain = bounds(x)[0] >= 0 and bounds(y)[0] > 0
    if op == "floordiv":
        return f"({a} / {b})" if plain else f"index_floordiv({a}, {b})"
    if op == "mod":
        return f"({a} % {b})" if plain else f"index_mod({a}, {b})"
    raise ValueError(op)


def binary_op(op: str, a: str, b: str, dtype: str) -> str:
    """C text of a OP b on scalars of one dtype."""
    if dtype in HALF:
        if op in _COMPARE:
            return binary_op(op, widen(a, dtype), widen(b, dtype), "f32")
        return narrow(binary_op(op, widen(a, dtype), widen(b, dtype), "f32"), dtype)
    if op in _COMPARE:
        return f"({a} {_COMPARE[op]} {b})"
    if dtype == "bool":
        return {"and": f"({a} & {b})", "or": f"({a} | {b})", "xor": f"({a} ^ {b})", "max": f"({a} | {b})",
                "min": f"({a} & {b})"}[op]  # fmt: skip
    if is_float(dtype):
        if op in ("add", "sub", "mul", "div"):
            return f"({a} {_FLOAT[op]} {b})"
        if op == "floordiv":
            raise UnsupportedOperator(op, "", "codegen", f"no {op} of {dtype}; divide, then round down")
        return f"hr_{op}_{dtype}({a}, {b})"
    if op in ("and", "or", "xor"):
        return f"({CTYPES[dtype]})({a} {_BITS[op]} {b})"
    if op in ("shl", "shr"):
        return _shift(op, a, b, dtype)
    if op == "pow":
        return f"power_{dtype}({a}, {b})"
    if op in ("dot4", "dot2"):
        return f"hr_{op}_{'i32' if op == 'dot4' else 'f32'}({a}, {b}, 0)"
    if op == "floordiv" and dtype in SIGNED:
        inexact = f"(hr_mod_{dtype}({a}, {b}) != hr_rem_{dtype}({a}, {b}))"
        return f"({CTYPES[dtype]})(hr_div_{dtype}({a}, {b}) - {inexact})"
    name = {"floordiv": "div", "fmod": "rem"}.get(op, op)
    return f"hr_{name}_{dtype}({a}, {b})"


def _shift(op: str, a: str, b: str, dtype: str) -> str:
    """Left by too many bits gives 0, right the sign; negative counts are as good as too many."""
    if dtype in UNSIGNED:
        return f"hr_{op}v_{dtype}({a}, {b})"
    c, u = CTYPES[dtype], f"u{dtype[1:]}"
    if op == "shl":
        return f"({c})hr_shlv_{u}(({CTYPES[u]}){a}, ({CTYPES[u]}){b})"
    last = int(dtype[1:]) - 1
    return f"({c})({a} >> (({CTYPES[u]}){b} < {last} ? {b} : {last}))"


def unary_op(op: str, a: str, dtype: str) -> str:
    """C text of a function of one scalar."""
    if dtype in HALF:
        wide = unary_op(op, widen(a, dtype), "f32")
        return wide if op in ("isnan", "isinf") else narrow(wide, dtype)
    if op == "not":
        return f"(!{a})" if dtype == "bool" else f"({CTYPES[dtype]})(~{a})"
    if op == "isnan":
        return f"({a} != {a})" if is_float(dtype) else "0"
    if op == "isinf":
        return f"(hr_abs_{dtype}({a}) == __builtin_inf{'f' if dtype == 'f32' else ''}())" if is_float(dtype) else "0"
    if op == "neg" and is_float(dtype):
        return f"(-{a})"
    if dtype in UNSIGNED and op == "abs":
        return a
    if not is_float(dtype) and op in ("floor", "ceil", "round", "trunc"):
        return a
    if not is_float(dtype) and op not in ("neg", "abs"):
        raise UnsupportedOperator(op, "", "codegen", f"no {op} of {dtype}; cast to float32 first")
    return f"hr_{op}_{dtype}({a})"


def widen(a: str, dtype: str) -> str:
    return f"hr_cvt_f32_{dtype}({a})" if dtype in HALF else a


def narrow(a: str, dtype: str) -> str:
    return f"hr_cvt_{dtype}_f32({a})"


def cast_op(a: str, to: str, source: str, mode: str) -> str:
    """C text of a conversion; see headrace.program.expr.cast for the modes."""
    if source in HALF:
        return cast_op(widen(a, source), to, "f32", mode) if to != "f32" else widen(a, source)
    if to in HALF:
        if source == "f64":
            return f"hr_cvt_{to}_f64({a})"
        return narrow(cast_op(a, "f32", source, mode), to)
    if to == "bool":
        return f"({a} != 0)"
    if mode == "sat" and source == "index" and to != "i64" and not is_float(to):
        return _saturate(a, to, "i64")
    if source in ("bool", "index") or to == "index":
        if to == "index" and is_float(source):
            return f"(ptrdiff_t)hr_sat_i64_{source}({a})"
        return f"({CTYPES[to]})({a})"
    if is_float(source) and not is_float(to):
        inner = f"hr_round_{source}({a})" if mode == "round" else a
        return f"hr_sat_{to}_{source}({inner})"
    if mode == "sat" and not is_float(source) and not is_float(to):
        return _saturate(a, to, source)
    return f"({CTYPES[to]})({a})" if not (to in SIGNED and source not in FLOATS) else f"hr_cvt_{to}_{source}({a})"


def _saturate(a: str, to: str, source: str) -> str:
    (lo, hi), (slo, shi) = int_range(to), int_range(source)
    text = a
    if shi > hi:
        text = f"hr_min_{source}({text}, {literal(hi, source)})"
    if slo < lo:
        text = f"hr_max_{source}({text}, {literal(lo, source)})"
    return f"({CTYPES[to]})({text})"
