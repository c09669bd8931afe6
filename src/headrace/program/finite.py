"""Values that are sure to be finite: those computed from literals, constants and integers by bounded arithmetic.

y[i] = f32(n[i]) * 0.1;  z[i] = sum(k < 64: y[k] * w[k, i]) + b[i]   →   y and z are finite
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from headrace.program.dtypes import int_range, is_int
from headrace.program.expr import Expr
from headrace.program.ir import Branch, Buffer, Define, Loop, Module, Statement, Store

LARGE = 1e30  # sums and products of values below it do not overflow in f32 on their way
_KEPT = ("neg", "abs", "round", "floor", "ceil", "trunc")
_WITHIN_ONE = ("tanh", "sigmoid", "erf")


class Magnitudes:
    """Bounds of the absolute values in a module's buffers, found statement by statement."""

    def __init__(self, module: Module) -> None:
        self.known: dict[Buffer, float] = {}
        self._memo: dict[Expr, float | None] = {}
        stores = list(_stores(module.body))
        carried = {b for s in _loops(module.body) for pair in s.carry for b in pair}
        fixed = carried | {b for p in module.states for b in (p.buffer, p.update) if b is not None}
        left = Counter(s.buffer for s in stores)
        worst: dict[Buffer, float] = {}
        for s in stores:
            b, found = s.buffer, self.of(s.value) if s.combiner is None else None
            left[b] -= 1
            worst[b] = max(worst.get(b, 0.0), np.inf if found is None else found)
            if left[b] == 0 and worst[b] < LARGE and b not in fixed:
                self.known[b] = worst[b]

    def is_finite(self, e: Expr) -> bool:
        return self.of(e) is not None

    def of(self, e: Expr) -> float | None:
        """A bound of |e|; None where none is known, and then e may be NaN or infinite."""
        if e not in self._memo:
            found = self._find(e)
            self._memo[e] = found if found is not None and found < LARGE else None
        return self._memo[e]

    def _find(self, e: Expr) -> float | None:
        if e.op == "load":
            return self._load(e)
        if is_int(e.dtype) and e.op not in ("const", "cast"):
            low, high = int_range(e.dtype)
            return float(max(-low, high))
        if e.op == "const":
            return abs(float(e.arg))
        if e.op == "cast":
            return self._cast(e)
        if e.op == "select":
            return self._worst(e.args[1:])
        if e.op == "reduce":
            return self._reduction(e)
        args = [self.of(a) for a in e.args]
        known = [a for a in args if a is not None]
        if len(known) < len(args):
            return None
        if e.op in ("add", "sub"):
            return 1.001 * sum(known)
        if e.op == "mul":
            return 1.001 * known[0] * known[1]
        if e.op == "div":
            return 1.001 * known[0] / abs(e.args[1].arg) if e.args[1].op == "const" and e.args[1].arg else None
        if e.op in ("min", "max"):
            return max(known)
        if e.op in _KEPT:
            return known[0] + 1
        return 1.001 if e.op in _WITHIN_ONE else None

    def _worst(self, values: Iterable[Expr]) -> float | None:
        found = [self.of(v) for v in values]
        known = [f for f in found if f is not None]
        return max(known) if len(known) == len(found) else None

    def _load(self, e: Expr) -> float | None:
        if e.arg.data is not None and e.arg.data.size and e.arg.data.dtype.kind in "fiu":
            top = float(np.abs(e.arg.data.astype(np.float64)).max())
            return top if np.isfinite(top) else None
        if is_int(e.dtype):
            low, high = int_range(e.dtype)
            return float(max(-low, high))
        return self.known.get(e.arg)

    def _cast(self, e: Expr) -> float | None:
        source = e.args[0]
        if is_int(e.dtype):
            low, high = int_range(e.dtype)
            top = float(max(-low, high))
            inner = self.of(source) if source.dtype != "bool" else 1.0
            return top if inner is None else min(top, inner + 1)
        return 1.0 if source.dtype == "bool" else self.of(source)

    def _reduction(self, e: Expr) -> float | None:
        inner = self.of(e.args[0])
        if inner is None or e.arg[0] not in ("sum", "max", "min"):
            return None
        count = 1
        for a in e.arg[1]:
            count *= a.bound
        return inner * count * 1.001 if e.arg[0] == "sum" else inner if _never_empty(e) else None


def _never_empty(e: Expr) -> bool:
    return all(isinstance(a.extent, int) and a.extent > 0 for a in e.arg[1])


def _stores(body: Iterable[Statement]) -> Iterator[Store]:
    for s in body:
        if isinstance(s, Define):
            yield from s.stores
        elif isinstance(s, Loop):
            yield from _stores(s.body)
        else:
            yield from _stores((*s.then, *s.other))


def _loops(body: Iterable[Statement]) -> Iterator[Loop]:
    for s in body:
        if isinstance(s, Loop):
            yield s
            yield from _loops(s.body)
        elif isinstance(s, Branch):
            yield from _loops((*s.then, *s.other))
