"""Random modules of small integer tensors, with every kind of statement, for tests of passes on programs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headrace.program.build import Builder, Tensor
from headrace.program.expr import Expr, cast, const
from headrace.program.ir import Module

Pick = Callable[[int], int]  # n → a number below n
SHAPES = ((4,), (6,), (2, 3), (3, 2))


def random_module(pick: Pick) -> Module:
    """A module whose values stay below 97. `pick` makes all the choices."""
    return _Maker(pick).module()


class _Maker:
    def __init__(self, pick: Pick) -> None:
        self.pick, self.b = pick, Builder("random")

    def one(self, pool: list[Tensor]) -> Tensor:
        """One of the pool, rather a late one."""
        recent = pool[-4:] if self.pick(3) else pool
        return recent[self.pick(len(recent))]

    def module(self) -> Module:
        b = self.b
        pool = [b.input(f"x{n}", "i32", s) for n, s in enumerate(SHAPES)]
        states = [b.state(f"s{n}", np.full(SHAPES[self.pick(2)], n + 1, np.int32)) for n in range(self.pick(4))]
        pool += states
        self.statements(pool, states, 3 + self.pick(8), 0)
        for s in states:
            alike = [t for t in pool if t.shape == s.shape and t.dtype == s.dtype]
            if self.pick(5):
                b.update_state(s, self.one(alike))
        for n in range(1 + self.pick(2)):
            b.output(f"y{n}", self.one(pool))
        return b.module()

    def statements(self, pool: list[Tensor], states: list[Tensor], count: int, depth: int) -> None:
        kinds = [
            self.map,
            self.map,
            self.mirror,
            self.reshape,
            self.total,
            self.concat,
            self.scatter,
            self.both,
        ]
        for _ in range(count):
            kind = self.pick(len(kinds) + (3 if depth < 2 else 0))
            if kind < len(kinds):
                kinds[kind](pool)
            elif kind == len(kinds):
                self.loop(pool, depth)
            elif kind == len(kinds) + 1:
                self.branch(pool, depth)
            elif states:
                self.assign(pool, states)

    def alike(self, pool: list[Tensor], t: Tensor) -> Tensor:
        return self.one([u for u in pool if u.shape == t.shape and u.dtype == t.dtype])

    def map(self, pool: list[Tensor]) -> None:
        x = self.one(pool)
        y, k = self.alike(pool, x), 1 + self.pick(5)
        dtype = ("i32", "i64")[self.pick(4) == 0]
        pool.append(self.b.compute(x.shape, lambda *i: cast((x[i] * k + y[i]) % 97, dtype)))

    def mirror(self, pool: list[Tensor]) -> None:
        x = self.one(pool)
        y = self.alike(pool, x)
        n = x.static[0]
        pool.append(self.b.compute(x.shape, lambda i, *j: (x[(n - 1 - i, *j)] + y[(i, *j)]) % 97))

    def reshape(self, pool: list[Tensor]) -> None:
        x = self.one([t for t in pool if t.static != (4,)])
        shape = SHAPES[1 + self.pick(3)]

        def at(*i: Expr) -> Expr:
            flat = i[0] * shape[1] + i[1] if len(shape) == 2 else i[0]
            return x[flat] if x.rank == 1 else x[flat // x.static[1], flat % x.static[1]]

        pool.append(self.b.compute(shape, lambda *i: (at(*i) + 1) % 97))

    def total(self, pool: list[Tensor]) -> None:
        x = self.one(pool)
        y = self.alike(pool, x)
        n = x.static[0]
        pool.append(self.b.compute(x.shape, lambda i, *j: (self.b.sum((n,), lambda k: x[(k, *j)]) + y[(i, *j)]) % 97))

    def concat(self, pool: list[Tensor]) -> None:
        x = self.one([t for t in pool if t.rank == 1])
        y = self.one([t for t in pool if t.rank == 1 and t.dtype == x.dtype])
        out, cut = self.b.empty(x.dtype, (6,)), 2 + self.pick(3)
        self.b.store(out, (cut,), lambda i: (i,), lambda i: x[i])
        if self.pick(2):
            self.map(pool)
        self.b.store(out, (6 - cut,), lambda i: (5 - i,), lambda i: y[i])
        pool.append(out)

    def scatter(self, pool: list[Tensor]) -> None:
        x = self.one(pool)
        y, n = self.alike(pool, x), x.static[0]
        combiner = (None, "add")[self.pick(2)]
        out = self.b.scatter(x, x.shape, lambda i, *j: ((i * 2) % n, *j), lambda *i: y[i] % 7, combiner)
        pool.append(self.b.compute(x.shape, lambda *i: out[i] % 97))

    def both(self, pool: list[Tensor]) -> None:
        x = self.one(pool)
        y, n = self.alike(pool, x), x.static[0]
        mirrored = self.pick(3) == 0
        pool.extend(
            self.b.compute_many(
                x.shape,
                lambda i, *j: (
                    (x[(i, *j)] + y[(i, *j)]) % 97,
                    y[((n - 1 - i) if mirrored else i, *j)] * 3 % 97,
                ),
            )
        )

    def assign(self, pool: list[Tensor], states: list[Tensor]) -> None:
        s = states[self.pick(len(states))]
        x = self.alike(pool, s)
        count = s.static[0] - self.pick(2)
        self.b.store(s, (count,), lambda i: (i,), lambda i: (x[i] + s[i] + 1) % 97)

    def loop(self, pool: list[Tensor], depth: int) -> None:
        initial = [self.one(pool)]
        initial += [self.alike(pool, initial[0]) for _ in range(self.pick(3))]

        def step(t: Expr, carried: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
            inner = pool + list(carried)
            inner.append(self.b.compute(carried[0].shape, lambda *i: (cast(t, carried[0].dtype) + carried[0][i]) % 97))
            self.statements(inner, [], 1 + self.pick(4), depth + 1)
            return [self.alike(inner, c) for c in carried], [self.one(inner)] if self.pick(2) else []

        zero = (0,) * initial[0].rank
        until = (lambda c: c[0][zero] < const(60, c[0].dtype)) if self.pick(3) == 0 else None
        passes = (1, 3, 4)[self.pick(3)]
        finals, stacks = self.b.scan(passes, initial, step, bool(self.pick(2)), until)
        pool.extend(finals)
        for t in stacks if until is None else ():
            pool.append(self.b.compute(t.shape[1:], lambda *i, t=t: self.b.sum((passes,), lambda k: t[(k, *i)]) % 97))

    def branch(self, pool: list[Tensor], depth: int) -> None:
        like = self.one(pool)
        tested = self.one(pool)

        def side() -> list[Tensor]:
            inner = list(pool)
            self.statements(inner, [], self.pick(4), depth + 1)
            return [self.alike(inner, like)]

        zero = (0,) * tested.rank
        pool.extend(self.b.branch(tested[zero] % 2 < const(1, tested.dtype), side, side))
