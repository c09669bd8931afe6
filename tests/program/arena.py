"""Runs a module one point at a time in two byte blocks laid out by a memory plan, as generated code would.

The scratch block holds garbage before every run. Points of a statement without order are taken in a
random order, and a random number of them is evaluated before any is stored.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from headrace.program.dtypes import numpy_dtype
from headrace.program.expr import Axis, Expr
from headrace.program.ir import Branch, Buffer, Define, Loop, Module, Statement
from headrace.program.lifetime import planned
from headrace.program.plan import Plan

Env = dict[Expr, int]


class Arena:
    """A module with its memory; extents must be static."""

    def __init__(self, module: Module, plan: Plan, seed: int) -> None:
        self.module, self.plan, self.random = module, plan, random.Random(seed)
        self.blocks = {
            "scratch": np.zeros(plan.scratch_bytes, np.uint8),
            "state": np.zeros(plan.state_bytes, np.uint8),
        }
        self.own: dict[Buffer, Any] = {}
        for pair in module.states:
            self.view(pair.buffer)[...] = pair.initial

    def view(self, b: Buffer) -> Any:
        """The buffer's elements in its block."""
        if b.data is not None:
            return b.data
        if not planned(b):
            return self.own[b]
        block, low = self.plan.place(b)
        return self.blocks[block][low : low + b.nbytes].view(numpy_dtype(b.dtype)).reshape(b.bound)

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Outputs and "state" as headrace.program.interp.run gives them."""
        self.blocks["scratch"][...] = [self.random.randrange(256) for _ in self.blocks["scratch"]]
        for b in self.module.inputs:
            self.own[b] = feeds[b.name]
        for b in self.module.outputs:
            self.own[b] = np.zeros(b.bound, numpy_dtype(b.dtype))
        self.body(self.module.body, {})
        self.copy(self.plan.commit)
        out: dict[str, Any] = {b.name: self.own[b] for b in self.module.outputs}
        if self.module.states:
            out["state"] = {p.name: self.view(p.buffer).copy() for p in self.module.states}
        return out

    def copy(self, copies: tuple[tuple[Buffer, Buffer], ...]) -> None:
        for dst, src in copies:
            self.view(dst)[...] = self.view(src)

    def body(self, statements: list[Statement] | tuple[Statement, ...], env: Env) -> None:
        for s in statements:
            if isinstance(s, Define):
                self.define(s, env)
            elif isinstance(s, Loop):
                assert isinstance(s.axis.extent, int)
                for n in range(s.axis.extent):
                    inner = {**env, s.axis.var: n}
                    if s.until is not None and not self.value(s.until, inner):
                        break
                    self.body(s.body, inner)
                    self.copy(self.plan.carries[s.carry])
            else:
                assert isinstance(s, Branch)
                self.body(s.then if self.value(s.cond, env) else s.other, env)

    def define(self, s: Define, env: Env) -> None:
        if self.plan.moves_nothing(s):
            return
        points = [{**env, **p} for p in _points(s.axes)]
        if not s.ordered:
            self.random.shuffle(points)
        while points:
            count = 1 if s.ordered else self.random.randint(1, 5)
            ready = [
                (st, tuple(self.value(i, p) for i in st.index), self.value(st.value, p))
                for p in points[:count]
                for st in s.stores
            ]
            for st, where, value in ready:
                old = self.view(st.buffer)[where]
                self.view(st.buffer)[where] = old + value if st.combiner == "add" else value
            points = points[count:]

    def value(self, e: Expr, env: Env) -> Any:
        """The few scalar operations of the tests, on Python integers."""
        if e.op == "const":
            return e.arg
        if e.op == "var":
            return env[e]
        if e.op == "load":
            return int(self.view(e.arg)[tuple(self.value(i, env) for i in e.args)])
        if e.op == "select":
            return self.value(e.args[1] if self.value(e.args[0], env) else e.args[2], env)
        if e.op == "cast":
            return self.value(e.args[0], env)
        if e.op == "reduce":
            assert e.arg[0] == "sum"
            return sum(self.value(e.args[0], {**env, **p}) for p in _points(e.arg[1]))
        return _BINARY[e.op](*(self.value(a, env) for a in e.args))


_BINARY = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "mod": lambda a, b: a % b,
    "floordiv": lambda a, b: a // b,
    "lt": lambda a, b: a < b,
}


def _points(axes: tuple[Axis, ...]) -> list[Env]:
    out: list[Env] = [{}]
    for a in axes:
        assert isinstance(a.extent, int)
        out = [{**p, a.var: n} for p in out for n in range(a.extent)]
    return out
