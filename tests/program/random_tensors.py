"""Random modules of everything operators lower to: contractions, windows with guards, reductions, views,
joins, gathers, scatters, scans, branches, of all dtypes, with NaN and infinities in the data.

Float results that are compared, rounded to integers or searched for their greatest element come only from
tensors whose values are exact in any order of evaluation ("exact"), so that rounding flips no decision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from headrace.program.build import Builder, Tensor
from headrace.program.dtypes import int_range, is_float, is_int, numpy_dtype
from headrace.program.expr import Expr, call, cast, check, const, index, maximum, minimum, select
from headrace.program.ir import Module

Pick = Callable[[int], int]  # n → a number below n
FLOATS = ("f32", "f32", "f32", "f32", "f64", "f16", "bf16")
INTS = ("i32", "i32", "i8", "u8", "i16", "i64", "u16", "u32", "u64")
SMOOTH = ("exp", "tanh", "sigmoid", "erf", "sin", "cos", "atan", "softplus", "asinh", "expm1", "abs", "neg")
ROUNDING = ("floor", "ceil", "round", "trunc", "abs", "neg")
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 20, 31, 33)


def seeded(seed: int) -> Pick:
    """Choices that follow from a seed."""
    rng = np.random.default_rng(seed)
    return lambda n: int(rng.integers(n))


def feeds_of(module: Module, seed: int, symbols: dict[str, int] | None = None) -> dict[str, Any]:
    """Inputs: small multiples of 1/8, small integers; names that start with "special" hold NaN, ±inf and -0."""
    rng = np.random.default_rng(seed)
    known = symbols or {}
    out: dict[str, Any] = {}
    for b in module.inputs:
        shape = tuple(e if isinstance(e, int) else known[e.arg.name] for e in b.shape)
        out[b.name] = _values(rng, b.dtype, shape, b.name.startswith("special"))
    return out


def _values(rng: np.random.Generator, dtype: str, shape: tuple[int, ...], special: bool) -> Any:
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if is_int(dtype):
        lo, hi = int_range(dtype)
        small = rng.integers(0 if lo == 0 else -20, 21, shape)
        extreme = rng.integers(0, 8, shape) == 0
        edges = rng.choice(np.array([lo, hi, hi - 1], object), shape)
        return np.where(extreme, edges, small.astype(object)).astype(numpy_dtype(dtype))
    x = rng.integers(-24, 25, shape) / 8.0
    if special:
        odd = rng.choice(np.array([np.nan, np.inf, -np.inf, -0.0, 1e-40, 300.0, -300.0]), shape)
        x = np.where(rng.integers(0, 4, shape) == 0, odd, x)
    return x.astype(numpy_dtype(dtype))


class Maker:
    """Adds random definitions to one Builder; `made` names the kinds in order."""

    def __init__(self, pick: Pick, kinds: Sequence[str] = ()) -> None:
        self.pick, self.b = pick, Builder("random")
        self.pool: list[Tensor] = []
        self.exact: set[int] = set()
        self.kinds = list(kinds) or [n[5:] for n in dir(self) if n.startswith("make_")]
        self.made: list[str] = []

    # --- choices ---------------------------------------------------------------------------------

    def of(self, items: Sequence[Any]) -> Any:
        return items[self.pick(len(items))]

    def size(self) -> int:
        return int(self.of(SIZES))

    def shape(self, rank: int | None = None, limit: int = 3000) -> tuple[int, ...]:
        rank = 1 + self.pick(3) if rank is None else rank
        while True:
            s = tuple(self.size() for _ in range(rank))
            if np.prod(s) <= limit:
                return s

    def input(self, dtype: str, shape: Sequence[int], special: bool = False) -> Tensor:
        t = self.b.input(f"{'special' if special else 'x'}{len(self.b.inputs)}", dtype, tuple(shape))
        self.exact.add(id(t.buffer))
        return t

    def constant(self, dtype: str, shape: Sequence[int]) -> Tensor:
        rng = np.random.default_rng(self.pick(1 << 30))
        t = self.b.constant(_values(rng, dtype, tuple(shape), False))
        self.exact.add(id(t.buffer))
        return t

    def operand(self, dtype: str, shape: Sequence[int], special: bool = False) -> Tensor:
        """An earlier result of this dtype and shape, else an input."""
        fitting = [t for t in self.pool if t.dtype == dtype and t.shape == tuple(shape)]
        if fitting and self.pick(4):
            return fitting[-1 - self.pick(min(3, len(fitting)))]
        return self.input(dtype, shape, special)

    def any(self, test: Callable[[Tensor], bool] = lambda t: True) -> Tensor:
        fitting = [t for t in self.pool if t.rank and test(t)]
        if not fitting or not self.pick(6):
            return self.input(self.dtype(), self.shape())
        return fitting[-1 - self.pick(min(6, len(fitting)))]

    def dtype(self) -> str:
        return str(self.of(("bool", *INTS, *FLOATS, *FLOATS)))

    def is_exact(self, t: Tensor) -> bool:
        return not is_float(t.dtype) or id(t.buffer) in self.exact

    def keep(self, t: Tensor, *sources: Tensor, exact: bool = False) -> None:
        if exact and all(self.is_exact(s) for s in sources):
            self.exact.add(id(t.buffer))
        self.pool.append(t)

    # --- the whole -------------------------------------------------------------------------------

    def module(self, count: int) -> Module:
        while len(self.made) < count:
            self.add(str(self.of(self.kinds)))
        return self.finish()

    def add(self, kind: str) -> None:
        getattr(self, f"make_{kind}")()
        self.made.append(kind)

    def finish(self, every: bool = True) -> Module:
        """Declare outputs: every result, or a third of them."""
        chosen = [t for t in self.pool if every or self.pick(3) == 0] or self.pool[-1:]
        for n, t in enumerate(chosen):
            self.b.output(f"y{n}", t)
        return self.b.module()

    # --- maps ------------------------------------------------------------------------------------

    def make_smooth(self) -> None:
        dtype = str(self.of(FLOATS))
        shape = self.shape()
        x, y = self.operand(dtype, shape, True), self.operand(dtype, shape)
        f, op = self.of(SMOOTH), self.of(("add", "sub", "mul", "min", "max", "div"))
        self.keep(self.b.compute(shape, lambda *i: call(op, call(f, x[i]), y[i]) + x[i] * y[i]))

    def make_rounding(self) -> None:
        shape = self.shape()
        x = self.input(str(self.of(FLOATS)), shape, bool(self.pick(2)))
        f = self.of(ROUNDING)
        self.keep(self.b.compute(shape, lambda *i: call(f, x[i])), x, exact=True)

    def make_integer(self) -> None:
        dtype, shape = str(self.of(INTS)), self.shape()
        x, y = self.operand(dtype, shape), self.operand(dtype, shape)
        op = self.of(("add", "sub", "mul", "min", "max", "and", "or", "xor", "abs"))
        by = self.of(("div", "mod", "floordiv", "fmod"))
        k = 3 + self.pick(5)

        def value(*i: Expr) -> Expr:
            v = call("abs", x[i]) if op == "abs" else call(op, x[i], y[i])
            return v if self_by is None else call(self_by, v, const(k, dtype)) + x[i]

        self_by = by if self.pick(2) else None
        self.keep(self.b.compute(shape, value))

    def make_logic(self) -> None:
        dtype, shape = self.dtype(), self.shape()
        x = self.input(dtype, shape, bool(self.pick(2)))
        y = self.input(dtype, shape)
        op = self.of(("lt", "le", "eq", "ne"))
        other, m = self.operand("bool", shape), self.of(("and", "or", "xor"))
        test = is_float(dtype) and self.pick(2)
        self.keep(
            self.b.compute(shape, lambda *i: call(m, call("isnan", x[i]) if test else call(op, x[i], y[i]), ~other[i]))
        )

    def make_select(self) -> None:
        dtype, shape = self.dtype(), self.shape()
        c, x, y = self.operand("bool", shape), self.operand(dtype, shape, True), self.operand(dtype, shape)
        self.keep(self.b.compute(shape, lambda *i: select(c[i], x[i], y[i])), x, y, exact=True)

    def make_cast(self) -> None:
        x = self.any(self.is_exact)
        if not self.is_exact(x):
            return
        to, mode = self.dtype(), str(self.of(("trunc", "round", "sat")))
        if is_float(x.dtype) and mode == "sat":
            mode = "round"
        narrows = is_float(to) and (is_int(x.dtype) or x.dtype == "f64")
        t = self.b.compute(x.shape, lambda *i: cast(x[i], to, mode))
        self.keep(t, x, exact=not (narrows and to in ("f16", "bf16")))

    def make_position(self) -> None:
        """Values made of indices."""
        shape = self.shape()
        to, k = str(self.of(("f32", "i64", "i32", "index"))), self.pick(9)

        def value(*i: Expr) -> Expr:
            e = i[0] * k + i[-1]
            return cast(select(i[0] < 3, e, e * 2 + 1) if k % 2 else e, to)

        self.keep(self.b.compute(shape, value))

    def make_both(self) -> None:
        dtype, shape = str(self.of(FLOATS)), self.shape()
        x, y = self.operand(dtype, shape), self.operand(dtype, shape)
        for t in self.b.compute_many(shape, lambda *i: (x[i] + y[i], x[i] * y[i])):
            self.keep(t)

    # --- views -----------------------------------------------------------------------------------

    def make_reshape(self) -> None:
        x = self.any()
        count = int(np.prod(x.static))
        factors = [d for d in range(1, count + 1) if count % d == 0]
        a = int(self.of(factors))
        b = int(self.of([d for d in factors if (count // a) % d == 0]))
        shape = (a, b, count // a // b)

        def at(*i: Expr) -> Expr:
            flat = (i[0] * shape[1] + i[1]) * shape[2] + i[2]
            idx: list[Expr] = []
            for e in reversed(x.static):
                idx.insert(0, flat % e)
                flat = flat // e
            return x[tuple(idx)]

        self.keep(self.b.compute(shape, at), x, exact=True)

    def make_transpose(self) -> None:
        x = self.any(lambda t: t.rank > 1)
        x = x if x.rank > 1 else self.operand(x.dtype, self.shape(3))
        order = list(range(x.rank))
        for n in range(len(order)):
            m = self.pick(len(order))
            order[n], order[m] = order[m], order[n]
        back = [order.index(n) for n in range(len(order))]
        shape = tuple(x.static[n] for n in order)
        self.keep(self.b.compute(shape, lambda *i: x[tuple(i[k] for k in back)]), x, exact=True)

    def make_slice(self) -> None:
        x = self.any()
        step = [1 + self.pick(3) for _ in x.static]
        start = [self.pick(n) for n in x.static]
        shape = tuple(-(-(n - a) // s) for n, a, s in zip(x.static, start, step, strict=True))
        flip = self.pick(3) == 0

        def at(*i: Expr) -> Expr:
            idx = [e * s + a for e, s, a in zip(i, step, start, strict=True)]
            if flip:
                idx[0] = index((shape[0] - 1) * step[0] + start[0]) - i[0] * step[0]
            return x[tuple(idx)]

        self.keep(self.b.compute(shape, at), x, exact=True)

    def make_pad(self) -> None:
        x = self.any()
        before, after = [self.pick(4) for _ in x.static], [self.pick(4) for _ in x.static]
        shape = tuple(a + n + b for a, n, b in zip(before, x.static, after, strict=True))

        def at(*i: Expr) -> Expr:
            inside = const(True, "bool")
            for e, a, n in zip(i, before, x.static, strict=True):
                inside = inside & (index(a) <= e) & (e < a + n)
            where = tuple(e - a for e, a in zip(i, before, strict=True))
            return select(inside, x[where], const(1, x.dtype))

        self.keep(self.b.compute(shape, at), x, exact=True)

    def make_concat(self) -> None:
        dtype, axis = self.dtype(), 0
        rest = self.shape(1 + self.pick(2), 200)
        parts = [self.operand(dtype, (n, *rest)) for n in (self.size(), self.size(), self.size())]
        total = sum(p.static[0] for p in parts)
        if self.pick(2):  # as stores
            out, at = self.b.empty(dtype, (total, *rest)), 0
            for p in parts:
                self.b.assign(out, lambda i, *j, at=at: (i + at, *j), p)
                at += p.static[axis]
        else:  # as a choice
            a, b, c = parts
            m, n = a.static[0], a.static[0] + b.static[0]
            out = self.b.compute(
                (total, *rest),
                lambda i, *j: select(i < m, a[(i, *j)], select(i < n, b[(i - m, *j)], c[(i - n, *j)])),
            )
        self.keep(out, *parts, exact=True)

    def make_gather(self) -> None:
        x = self.any()
        n = x.static[0]
        where = self.operand(str(self.of(("i64", "i32", "u8"))), (self.size(),))
        shape = (*where.static, *x.static[1:])
        safe = self.pick(2)

        def at(i: Expr, *j: Expr) -> Expr:
            k = cast(where[i], "index") % n
            return x[(check(k, n) if safe else check(minimum(maximum(k, index(0)), index(n - 1)), n), *j)]

        self.keep(self.b.compute(shape, at), x, exact=True)

    def make_scatter(self) -> None:
        dtype = str(self.of(("f32", "f32", "i32", "i8", "f64", "f16", "u8", "i64")))
        base, m = self.operand(dtype, self.shape(2, 300)), self.size()
        where, update = self.operand("i64", (m,)), self.operand(dtype, (m, base.static[1]))
        n = base.static[0]
        combiner = self.of((None, "add", "min", "max", "mul"))
        out = self.b.scatter(
            base,
            update.static,
            lambda i, j: (check(cast(where[i], "index") % n, n), j),
            lambda i, j: update[i, j],
            combiner,
        )
        self.keep(out, base, update, exact=combiner in (None, "min", "max"))

    # --- reductions ------------------------------------------------------------------------------

    def make_reduce(self) -> None:
        kind = str(self.of(("sum", "prod", "max", "min", "and", "or", "sum", "max")))
        logical = kind in ("and", "or")
        dtype = str(self.of(("bool", "i32", "u8") if logical else (*INTS, *FLOATS, *FLOATS)))
        shape = self.shape()
        x = self.operand(dtype, shape, True)
        over = [n for n in range(len(shape)) if self.pick(2)] or [len(shape) - 1]
        kept = [n for n in range(len(shape)) if n not in over]

        def at(*i: Expr) -> Expr:
            def value(*k: Expr) -> Expr:
                places = dict(zip(over, k, strict=True)) | dict(zip(kept, i, strict=True))
                e = x[tuple(places[n] for n in range(len(shape)))]
                return e * const(0.5, dtype) if kind == "prod" and is_float(dtype) else e

            return self.b.reduce(kind, [shape[n] for n in over], value)

        out = self.b.compute([shape[n] for n in kept], at)
        self.keep(out, x, exact=kind in ("max", "min"))

    def make_arg(self) -> None:
        kind = str(self.of(("argmax", "argmin", "argmax_last", "argmin_last")))
        dtype, shape = self.dtype(), self.shape()
        x = self.input(dtype, shape, bool(self.pick(2)))
        d = self.pick(len(shape))
        kept = [e for n, e in enumerate(shape) if n != d]
        self.keep(
            self.b.compute(
                kept,
                lambda *i: cast(self.b.reduce(kind, [shape[d]], lambda k: x[(*i[:d], k, *i[d:])]), "i64"),
            )
        )

    def make_softmax(self) -> None:
        dtype, shape = str(self.of(FLOATS)), self.shape(2)
        x, n = self.operand(dtype, shape), shape[1]
        top = self.b.compute(shape[:1], lambda i: self.b.reduce("max", [n], lambda k: x[i, k]))
        e = self.b.compute(shape, lambda i, j: call("exp", x[i, j] - top[i]))
        total = self.b.compute(shape[:1], lambda i: self.b.sum([n], lambda k: e[i, k]))
        self.keep(self.b.compute(shape, lambda i, j: e[i, j] / total[i]))

    def make_matmul(self) -> None:
        dtype = str(self.of(("f32", "f32", "f32", "f64", "i32", "f16")))
        m, k, n = self.size(), self.size(), self.size()
        x = self.operand(dtype, (m, k))
        w = (self.constant if self.pick(3) else self.operand)(dtype, (k, n) if self.pick(2) else (n, k))
        straight, bias = w.shape == (k, n), self.constant(dtype, (n,))
        relu = self.pick(2)

        def at(i: Expr, j: Expr) -> Expr:
            s = self.b.sum((k,), lambda r: x[i, r] * (w[r, j] if straight else w[j, r]))
            return maximum(s + bias[j], const(0, dtype)) if relu else s

        self.keep(self.b.compute((m, n), at))

    def make_quantized(self) -> None:
        m, k, n = self.size(), self.size(), self.size()
        x, w = self.operand(str(self.of(("u8", "i8"))), (m, k)), self.constant("i8", (k, n))
        zero = self.pick(5)

        def at(i: Expr, j: Expr) -> Expr:
            s = self.b.sum((k,), lambda r: (cast(x[i, r], "i32") - zero) * cast(w[r, j], "i32"))
            return cast(cast(s, "f32") * const(0.015625, "f32"), "i8", "round")

        self.keep(self.b.compute((m, n), at))

    def make_conv(self) -> None:
        """Grouped, strided, dilated windows in one or two dimensions, padded by a guard."""
        dtype = str(self.of(("f32", "f32", "f32", "i32")))
        groups, per, out_per = 1 + self.pick(3), 1 + self.pick(3), 1 + self.pick(6)
        rank = 1 + self.pick(2)
        space = [int(self.of((4, 7, 9, 16, 19))) for _ in range(rank)]
        kernel = [1 + self.pick(3) for _ in range(rank)]
        stride, dilation = [1 + self.pick(2) for _ in range(rank)], [1 + self.pick(2) for _ in range(rank)]
        pad = [self.pick(3) for _ in range(rank)]
        result = [
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(space, pad, dilation, kernel, stride, strict=True)
        ]
        if min(result) < 1:
            return
        x = self.operand(dtype, (groups * per, *space))
        w = (self.constant if self.pick(4) else self.operand)(dtype, (groups * out_per, per, *kernel))

        def at(o: Expr, *i: Expr) -> Expr:
            def tap(c: Expr, *k: Expr) -> Expr:
                places = [a * s + t * d - p for a, s, t, d, p in zip(i, stride, k, dilation, pad, strict=True)]
                inside = const(True, "bool")
                for a, n in zip(places, space, strict=True):
                    inside = inside & (index(0) <= a) & (a < n)
                value = x[((o // out_per) * per + c, *places)]
                return select(inside, value, const(0, dtype)) * w[(o, c, *k)]

            return self.b.sum((per, *kernel), tap)

        self.keep(self.b.compute((groups * out_per, *result), at))

    def make_pool(self) -> None:
        n, c, k = self.size(), self.size(), 2 + self.pick(3)
        if n + 2 < k:
            return
        x = self.operand("f32", (c, n))
        low = -np.inf if self.pick(2) else 0.0

        def at(i: Expr, t: Expr) -> Expr:
            def tap(r: Expr) -> Expr:
                p = t + r - 1
                return select((index(0) <= p) & (p < n), x[i, p], const(low, "f32"))

            return self.b.reduce("max", [k], tap)

        self.keep(self.b.compute((c, n + 3 - k), at), x, exact=True)

    # --- control ---------------------------------------------------------------------------------

    def make_recurrent(self) -> None:
        t, n = 1 + self.pick(6), self.size()
        x, h = self.operand("f32", (t, n)), self.operand("f32", (n,))
        w = self.constant("f32", (n, n))

        def step(i: Expr, carried: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
            (old,) = carried
            s = self.b.compute((n,), lambda j: call("tanh", x[i, j] + self.b.sum((n,), lambda k: old[k] * w[k, j])))
            return [s], [s]

        finals, stacks = self.b.scan(t, [h], step, reverse=bool(self.pick(2)))
        for y in (*finals, *stacks):
            self.keep(y)

    def make_swap(self) -> None:
        """Carried values that change places, and a shift register."""
        dtype, n = str(self.of(("f32", "i32", "i8", "i64"))), 2 + self.pick(12)
        first, second = self.operand(dtype, (n,)), self.operand(dtype, (n,))

        def step(t: Expr, carried: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
            a, b = carried
            moved = self.b.compute(
                (n,), lambda i: select(i < n - 1, b[minimum(i + 1, index(n - 1))], a[0] + cast(t, dtype))
            )
            return ([b, a] if n % 2 else [moved, a]), [moved]

        finals, stacks = self.b.scan(1 + self.pick(4), [first, second], step)
        for y in (*finals, *stacks):
            self.keep(y)

    def make_branch(self) -> None:
        x = self.any()
        tested = self.operand("i32", (3,))
        k = self.pick(3)

        def one() -> list[Tensor]:
            return [self.b.compute(x.shape, lambda *i: x[i])]

        def other() -> list[Tensor]:
            y = self.b.compute(x.shape, lambda *i: select(i[0] < 2, x[i], const(1, x.dtype)))
            return [self.b.compute(x.shape, lambda *i: y[tuple(e - 1 - k for e, k in zip(x.static, i, strict=True))])]

        for t in self.b.branch(tested[k] < 5, one, other):
            self.keep(t, x, exact=True)

    def make_loop_branch(self) -> None:
        """Branches in a loop on a value that the loop changes."""
        n = 1 + self.pick(5)
        x = self.operand("i32", (n,))

        def step(t: Expr, carried: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
            (a,) = carried
            plus = lambda k: lambda: [self.b.compute((n,), lambda i: (a[i] * 3 + k) % 97)]  # noqa: E731
            (y,) = self.b.branch(a[0] % 2 < 1, plus(1), plus(2))
            (z,) = self.b.branch(y[0] % 3 < 1, lambda: [self.b.compute((n,), lambda i: y[i] + 1)], plus(5))
            return [z], [y]

        finals, stacks = self.b.scan(4, [x], step)
        for t in (*finals, *stacks):
            self.keep(t)


def random_tensors(seed: int, count: int = 12, kinds: Sequence[str] = (), every: bool = True) -> Module:
    """`count` random definitions; every: all results are outputs (less fuses), else some."""
    maker = Maker(seeded(seed), kinds)
    while len(maker.made) < count:
        maker.add(str(maker.of(maker.kinds)))
    return maker.finish(every)


__all__ = ["Maker", "feeds_of", "random_tensors", "seeded"]
