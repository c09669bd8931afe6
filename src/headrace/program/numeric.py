"""The meaning of every scalar operation, on NumPy arrays: what the interpreter computes.

f16 and bf16 are computed in f32 and rounded after each operation. Functions of f32 are computed in f64
and rounded once. Integers wrap. Callers silence NumPy's warnings with np.errstate(all="ignore").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from headrace.program.dtypes import int_range, is_float, is_int, numpy_dtype

Array = np.ndarray[Any, Any]

_HALF = ("f16", "bf16")
_erf = np.frompyfunc(math.erf, 1, 1)


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


_MATH: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "log2": np.log2,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": lambda x: np.asarray(_erf(x), np.float64),
    "softplus": _softplus,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
}
_ROUNDING: dict[str, Callable[[Array], Array]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "trunc": np.trunc,
}


def apply_unary(op: str, dtype: str, x: Array) -> Array:
    """op(x) for x of `dtype`; isnan and isinf give bool."""
    if op in ("isnan", "isinf"):
        if not is_float(dtype):
            return np.zeros(x.shape, np.bool_)
        return np.asarray(np.isnan(x) if op == "isnan" else np.isinf(x))
    if op == "not":
        return np.asarray(np.logical_not(x) if dtype == "bool" else np.invert(x))
    if op == "neg":
        return np.asarray(np.negative(x))
    if op == "abs":
        return np.asarray(np.abs(x))
    if not is_float(dtype):
        if op in _ROUNDING:
            return x
        raise TypeError(f"{op} of {dtype}")
    if op in _ROUNDING:
        return np.asarray(_ROUNDING[op](_widen(x, dtype))).astype(numpy_dtype(dtype))
    return np.asarray(_MATH[op](x.astype(np.float64))).astype(numpy_dtype(dtype))


def _widen(x: Array, dtype: str) -> Array:
    return x.astype(np.float32) if dtype in _HALF else x


_EXACT: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
    "floordiv": np.floor_divide,
    "mod": np.mod,
    "fmod": np.fmod,
}
_BITS: dict[str, Callable[[Array, Array], Array]] = {
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "shl": np.left_shift,
    "shr": np.right_shift,
}
_COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}


def apply_word(parts: list[Array]) -> Array:
    """Bytes, or bf16, as i32, the first in its lowest bits."""
    total = np.zeros((), np.uint32)
    for n, part in enumerate(parts):
        size = part.dtype.itemsize
        total = total | part.view(f"u{size}").astype(np.uint32) << np.uint32(8 * size * n)
    return total.view(np.int32)


def _dot4(x: Array, y: Array) -> Array:
    x, y = np.broadcast_arrays(x, y)
    a = np.ascontiguousarray(x).view(np.uint8).astype(np.int32)
    b = np.ascontiguousarray(y).view(np.int8).astype(np.int32)
    return np.asarray((a * b).reshape(*x.shape, 4).sum(-1, dtype=np.int32))


def _dot2(x: Array, y: Array) -> Array:
    """The two products are exact in f64; their sum is rounded once."""
    x, y = np.broadcast_arrays(x, y)
    a, b = (np.ascontiguousarray(v).view(numpy_dtype("bf16")).astype(np.float64) for v in (x, y))
    return np.asarray((a * b).reshape(*x.shape, 2).sum(-1).astype(np.float32))


def apply_binary(op: str, dtype: str, x: Array, y: Array) -> Array:
    """x OP y for operands of `dtype`. Integer divisors must not be zero; comparisons give bool."""
    if op in _COMPARE:
        return np.asarray(_COMPARE[op](x, y))
    if op in _BITS:
        return np.asarray(_BITS[op](x, y))
    if is_float(dtype):
        return _float_binary(op, dtype, x, y)
    if op == "div":
        return _truncating(x, y)
    if op == "pow":
        return _integer_power(x, y)
    if op == "dot4":
        return _dot4(x, y)
    if op == "dot2":
        return _dot2(x, y)
    if op == "atan2":
        raise TypeError(f"{op} of {dtype}")
    return np.asarray(_EXACT[op](x, y))


def _float_binary(op: str, dtype: str, x: Array, y: Array) -> Array:
    if op in ("pow", "atan2"):
        wide = x.astype(np.float64), y.astype(np.float64)
        return np.asarray(np.power(*wide) if op == "pow" else np.arctan2(*wide)).astype(numpy_dtype(dtype))
    fn: Callable[[Array, Array], Array] = np.divide if op == "div" else _EXACT[op]
    return np.asarray(fn(_widen(x, dtype), _widen(y, dtype))).astype(numpy_dtype(dtype), copy=False)


def _truncating(x: Array, y: Array) -> Array:
    quotient = np.asarray(x // y)
    inexact = (quotient * y) != x
    return np.asarray(quotient + (inexact & ((x < 0) != (y < 0))).astype(quotient.dtype))


def _integer_power(x: Array, y: Array) -> Array:
    """Wrapping power; a negative exponent gives the power rounded toward zero (0 for the base 0)."""
    if y.dtype.kind == "u":
        return np.asarray(np.power(x, y))
    positive = np.power(x, np.maximum(y, 0))
    odd = (y & 1) == 1
    inverse = np.where(x == 1, 1, np.where(x == -1, np.where(odd, -1, 1), 0))
    return np.where(y >= 0, positive, inverse).astype(x.dtype)


def apply_cast(x: Array, source: str, dtype: str, mode: str) -> Array:
    """Conversion as `headrace.program.expr.cast` states it."""
    target = numpy_dtype(dtype)
    if dtype == "bool":
        return np.asarray(x != 0)
    if is_float(source) and is_int(dtype):
        return _float_to_int(x, dtype, mode)
    if mode == "sat" and is_int(source) and is_int(dtype):
        return _saturate(x, source, dtype)
    return x.astype(target)


def _float_to_int(x: Array, dtype: str, mode: str) -> Array:
    lo, hi = int_range(dtype)
    wide = x.astype(np.float64)
    whole = np.rint(wide) if mode == "round" else np.trunc(wide)
    above, below = whole >= float(hi), whole <= float(lo)
    inside = np.where(above | below | np.isnan(whole), 0.0, whole).astype(numpy_dtype(dtype))
    target = numpy_dtype(dtype).type
    return np.where(above, target(hi), np.where(below, target(lo), inside))


def _saturate(x: Array, source: str, dtype: str) -> Array:
    lo, hi = int_range(dtype)
    least, most = int_range(source)
    return np.clip(x, max(lo, least), min(hi, most)).astype(numpy_dtype(dtype))


_REDUCE: dict[str, Callable[..., Array]] = {
    "sum": np.add.reduce,
    "prod": np.multiply.reduce,
    "max": np.maximum.reduce,
    "min": np.minimum.reduce,
    "and": np.bitwise_and.reduce,
    "or": np.bitwise_or.reduce,
}


def apply_reduce(kind: str, x: Array, axes: int) -> Array:
    """Reduce the first `axes` axes, none of which is empty; arg kinds take one axis and give int64."""
    if kind in _REDUCE:
        over = tuple(range(axes))
        if kind in ("sum", "prod"):
            return np.asarray(_REDUCE[kind](x, axis=over, dtype=x.dtype))
        return np.asarray(_REDUCE[kind](x, axis=over))
    extreme = np.argmax if kind.startswith("argmax") else np.argmin
    if kind.endswith("_last"):
        return np.asarray(x.shape[0] - 1 - extreme(x[::-1], axis=0))
    return np.asarray(extreme(x, axis=0))


def combine(kind: str, dtype: str, a: Array, b: Array) -> Array:
    """Two partial results of one reduction (not of an arg kind)."""
    return apply_binary({"sum": "add", "prod": "mul"}.get(kind, kind), dtype, a, b)


def contract(dtype: str, x: Array, y: Array, axes: int, extents: tuple[int, ...]) -> Array | None:
    """Σ x*y over the first `axes` axes as one matrix product; None where a product must not be used.

    x and y have equal rank; an axis along which one does not vary has the extent 1.
    """
    if dtype not in ("f32", "f64", "i32", "i64"):
        return None
    count = math.prod(extents)
    work = x.dtype if is_float(dtype) else np.dtype(np.float64)
    if not is_float(dtype) and (not x.size or not y.size or _peak(x) * _peak(y) * count >= 1 << 53):
        return None
    x = np.broadcast_to(x, extents + x.shape[axes:]).astype(work, copy=False)
    y = np.broadcast_to(y, extents + y.shape[axes:]).astype(work, copy=False)
    letters = list(range(x.ndim))
    only_x = [d for d in letters[axes:] if y.shape[d] == 1]
    only_y = [d for d in letters[axes:] if x.shape[d] == 1 and y.shape[d] != 1]
    both = [d for d in letters[axes:] if d not in only_x and d not in only_y]
    left = x.transpose(both + only_x + letters[:axes] + only_y)
    right = y.transpose(both + letters[:axes] + only_y + only_x)
    batch, m, n = ([s.shape[d] for d in group] for s, group in ((x, both), (x, only_x), (y, only_y)))
    product = np.matmul(
        left.reshape(math.prod(batch), math.prod(m), count),
        right.reshape(math.prod(batch), count, math.prod(n)),
    )
    order = both + only_x + only_y
    out: Array = product.reshape(batch + m + n).transpose([order.index(d) for d in letters[axes:]])
    return out if is_float(dtype) else out.astype(np.int64).astype(numpy_dtype(dtype))


def _peak(x: Array) -> int:
    return max(abs(int(x.max())), abs(int(x.min())), 1)
