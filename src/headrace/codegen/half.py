"""16-bit floats in vectors: their operations are those of f32, rounded."""

from __future__ import annotations

import numpy as np

from headrace.codegen.scalar import HALF
from headrace.program.dtypes import numpy_dtype
from headrace.program.expr import Expr, cast, const, rebuild


def in_single(e: Expr) -> Expr:
    """An operation on 16-bit floats as one on f32 whose result is rounded; other expressions as they are.

    h(a + b)  →  h(f32(a) + f32(b))
    """
    kinds = {e.dtype, *(a.dtype for a in e.args)}
    if not kinds & set(HALF) or not kinds <= {"f32", "bool", *HALF} or e.op in ("const", "load", "reduce", "word"):
        return e
    if e.op == "cast":
        crosses = e.dtype in HALF and e.args[0].dtype in HALF
        return cast(cast(e.args[0], "f32"), e.dtype) if crosses else e
    out = rebuild(e, tuple(_single(a) if a.dtype in HALF else a for a in e.args))
    return cast(out, e.dtype) if e.dtype in HALF else out


def _single(a: Expr) -> Expr:
    if a.op != "const":
        return cast(a, "f32")
    return const(float(np.asarray(a.arg, numpy_dtype(a.dtype)).astype(np.float32)), "f32")
