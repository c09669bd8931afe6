"""A small constant matrix times a vector of expressions, written out with the fewest operations.

Rows that differ only in signs share what they add and subtract, and so do columns:

    y0 = a + b;  y1 = a - b     for rows    (a, b) and (a, -b), a and b sums of their own
    s = x0 + x1;  d = x0 - x1   for columns that are equal in some rows and opposite in the others
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.program.expr import Expr, const

Values = np.ndarray[Any, np.dtype[np.object_]]
Matrix = np.ndarray[Any, np.dtype[np.float64]]
Term = tuple[float, Expr]


def apply(matrix: Matrix, x: Sequence[Expr | None]) -> list[Expr | None]:
    """matrix [rows, columns] @ x; None stands for zero."""
    used = [n for n, e in enumerate(x) if e is not None]
    matrix, values = matrix[:, used], [e for e in x if e is not None]
    matrix, values = _joined(matrix, values)
    out: list[Expr | None] = [None] * matrix.shape[0]
    for i in range(matrix.shape[0]):
        if out[i] is not None:
            continue
        j = _twin(matrix, i, out)
        if j is None:
            out[i] = _sum(matrix[i], values)
        else:
            out[i], out[j] = _both(matrix[i], matrix[j], values)
    return out


def _joined(matrix: Matrix, values: list[Expr]) -> tuple[Matrix, list[Expr]]:
    """Pairs of columns that agree but for signs become a sum and a difference."""
    columns: list[Any] = []
    new: list[Expr] = []
    left = list(range(len(values)))
    while left:
        i = left.pop(0)
        a = matrix[:, i]
        j = next((j for j in left if np.array_equal(abs(a), abs(matrix[:, j])) and np.count_nonzero(a) > 1), None)
        if j is None:
            columns.append(a)
            new.append(values[i])
            continue
        left.remove(j)
        same = a == matrix[:, j]
        columns += [np.where(same, a, 0.0), np.where(same, 0.0, a)]
        new += [values[i] + values[j], values[i] - values[j]]
    return (np.stack(columns, 1) if columns else matrix), new


def _twin(matrix: Matrix, i: int, out: list[Expr | None]) -> int | None:
    """A later row with the same magnitudes, some with the same sign and some not."""
    a = matrix[i]
    for j in range(i + 1, matrix.shape[0]):
        b = matrix[j]
        if out[j] is None and np.array_equal(abs(a), abs(b)) and np.any((a == b) & (a != 0)) and np.any(a != b):
            return j
    return None


def _both(a: Matrix, b: Matrix, values: list[Expr]) -> tuple[Expr | None, Expr | None]:
    even, odd = _sum(np.where(a == b, a, 0.0), values), _sum(np.where(a == b, 0.0, a), values)
    assert even is not None and odd is not None
    return even + odd, even - odd


def _sum(row: Matrix, values: list[Expr]) -> Expr | None:
    """The terms of one row, those that are only added first."""
    terms: list[Term] = [(float(c), e) for c, e in zip(row, values, strict=True) if c]
    terms.sort(key=lambda t: (t[0] != 1, t[0] < 0))
    out: Expr | None = None
    for c, e in terms:
        part = e if abs(c) == 1 else e * const(abs(c), "f32")
        if out is None:
            out = part if c > 0 else -part
        else:
            out = out + part if c > 0 else out - part
    return out
