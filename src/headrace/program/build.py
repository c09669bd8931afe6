"""The builder with which operators write their definitions.

b = Builder("model")
x = b.input("x", "f32", (4, 8))
w = b.constant(weights)                                   # (8, 16)
y = b.compute((4, 16), lambda i, j: b.sum((8,), lambda k: x[i, k] * w[k, j]))
b.output("y", y)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.program.dtypes import numpy_dtype, short_name
from headrace.program.expr import Axis, Expr, Extent, Scalar, Sym, const, fresh, index, load, reduce, sym
from headrace.program.ir import Branch, Buffer, Define, Loop, Module, Statement, StatePair, Store

Shape = tuple[Extent, ...]


@dataclass(frozen=True, eq=False)
class Tensor:
    """A buffer as an operator sees it: t[i, j] is the element expression."""

    buffer: Buffer

    @property
    def shape(self) -> Shape:
        return self.buffer.shape

    @property
    def dtype(self) -> str:
        return self.buffer.dtype

    @property
    def rank(self) -> int:
        return len(self.buffer.shape)

    @property
    def data(self) -> np.ndarray | None:
        """The value when it is known at compile time."""
        return self.buffer.data

    def __getitem__(self, i: Scalar | tuple[Scalar, ...]) -> Expr:
        """Element; a scalar tensor is t[()]. A rank-0 or size-1 constant becomes a literal."""
        idx = i if isinstance(i, tuple) else (i,)
        data = self.buffer.data
        if data is not None and data.size == 1 and len(idx) == len(self.shape):
            return const(data.reshape(()).item(), self.dtype)
        return load(self.buffer, idx)

    @property
    def static(self) -> tuple[int, ...]:
        """The shape as ints; TypeError if an extent is symbolic."""
        if not all(isinstance(e, int) for e in self.shape):
            raise TypeError(f"{self.buffer.name} has a symbolic shape {self.shape}")
        return tuple(e for e in self.shape if isinstance(e, int))


@dataclass
class Builder:
    """Collects buffers and statements of one module."""

    name: str = "model"
    inputs: list[Buffer] = field(default_factory=list)
    outputs: list[Buffer] = field(default_factory=list)
    states: list[StatePair] = field(default_factory=list)
    symbols: dict[str, Sym] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()  # stamped on every statement made
    body: list[Statement] = field(default_factory=list)
    _names: dict[str, int] = field(default_factory=dict)
    _reserved: set[str] = field(default_factory=set)

    # --- buffers ---------------------------------------------------------------------------------

    def _name(self, name: str) -> str:
        n = self._names.get(name, 0)
        self._names[name] = n + 1
        return name if n == 0 else self._name(f"{name}.{n}")

    def reserve(self, names: Sequence[str]) -> None:
        """Keep names for outputs to come, so that no scratch buffer takes them."""
        for name in names:
            if self._names.setdefault(name, 1) == 1 and not any(b.name == name for b in self.inputs):
                self._reserved.add(name)

    def symbol(self, name: str, bound: int, divisor: int = 1) -> Expr:
        """A run-time extent."""
        self.symbols[name] = Sym(name, bound, divisor)
        return sym(self.symbols[name])

    def input(self, name: str, dtype: str, shape: Shape) -> Tensor:
        self.inputs.append(Buffer(self._name(name), dtype, shape, "input"))
        return Tensor(self.inputs[-1])

    def constant(self, array: np.ndarray | Any, name: str = "c", dtype: str | None = None) -> Tensor:
        """A compile-time array; its dtype is the array's."""
        data = np.asarray(array)
        dtype = short_name(data.dtype) if dtype is None else dtype
        data = np.ascontiguousarray(data, dtype=numpy_dtype(dtype)).reshape(np.shape(array))
        return Tensor(Buffer(self._name(name), dtype, tuple(data.shape), "const", data))

    def empty(self, dtype: str, shape: Sequence[Extent], name: str = "t") -> Tensor:
        """A scratch buffer that statements will fill."""
        return Tensor(Buffer(self._name(name), dtype, tuple(shape)))

    def output(self, name: str, t: Tensor) -> None:
        """Declare the output `name`; its elements are copied from `t` (the copy fuses away)."""
        out = Buffer(name if name in self._reserved else self._name(name), t.dtype, t.shape, "output")
        self._reserved.discard(name)
        self.outputs.append(out)
        self._define_into(out, t.shape, lambda *i: t[i])

    def state(self, name: str, initial: np.ndarray) -> Tensor:
        """A buffer that survives from run to run; call update_state once with its next value."""
        data = np.asarray(initial)
        buffer = Buffer(self._name(name), short_name(data.dtype), tuple(data.shape), "state")
        self.states.append(StatePair(name, buffer, data))
        return Tensor(buffer)

    def update_state(self, state: Tensor, update: Tensor) -> None:
        for n, pair in enumerate(self.states):
            if pair.buffer is state.buffer:
                self.states[n] = StatePair(pair.name, pair.buffer, pair.initial, update.buffer)
                return
        raise ValueError(f"{state.buffer.name} is not a state")

    # --- definitions -----------------------------------------------------------------------------

    def _define_into(self, out: Buffer, shape: Shape, fn: Callable[..., Expr]) -> None:
        axes = tuple(fresh("i", e) for e in shape)
        idx = tuple(a.var for a in axes)
        self.body.append(Define(axes, (Store(out, idx, fn(*idx)),), self.nodes))

    def compute(self, shape: Sequence[Extent], fn: Callable[..., Expr], name: str = "t") -> Tensor:
        """A new tensor with element fn(*indices); dtype is the expression's."""
        return self.compute_many(shape, lambda *i: (fn(*i),), name)[0]

    def compute_many(
        self, shape: Sequence[Extent], fn: Callable[..., tuple[Expr, ...]], name: str = "t"
    ) -> tuple[Tensor, ...]:
        """Several tensors of one shape, computed together."""
        axes = tuple(fresh("i", e) for e in shape)
        idx = tuple(a.var for a in axes)
        outs, stores = [], []
        for value in fn(*idx):
            dtype = "i64" if value.dtype == "index" else value.dtype
            out = Buffer(self._name(name), dtype, tuple(shape))
            outs.append(Tensor(out))
            stores.append(Store(out, idx, value))
        self.body.append(Define(axes, tuple(stores), self.nodes))
        return tuple(outs)

    def sum(self, extents: Sequence[Extent], fn: Callable[..., Expr]) -> Expr:
        """Σ fn(*indices), accumulated in fn's dtype."""
        return reduce("sum", tuple(extents), fn)

    def reduce(self, kind: str, extents: Sequence[Extent], fn: Callable[..., Expr]) -> Expr:
        """See headrace.program.expr.reduce."""
        return reduce(kind, tuple(extents), fn)

    def scatter(
        self,
        base: Tensor,
        domain: Sequence[Extent],
        where: Callable[..., tuple[Scalar, ...]],
        value: Callable[..., Expr],
        combiner: str | None = None,
    ) -> Tensor:
        """A copy of `base` in which, for all points of `domain` in row-major order,
        element where(*i) becomes value(*i) or combiner(old, value(*i)) (add, mul, min, max)."""
        out = Buffer(self._name("scatter"), base.dtype, base.shape)
        self._define_into(out, base.shape, lambda *i: base[i])
        axes = tuple(fresh("i", e) for e in domain)
        idx = tuple(a.var for a in axes)
        target = tuple(index(t) for t in where(*idx))
        self.body.append(Define(axes, (Store(out, target, value(*idx), combiner),), self.nodes, ordered=True))
        return Tensor(out)

    # --- control flow ----------------------------------------------------------------------------

    def _nested(self, fn: Callable[[], Any]) -> tuple[tuple[Statement, ...], Any]:
        outer, self.body = self.body, []
        try:
            result = fn()
            return tuple(self.body), result
        finally:
            self.body = outer

    def copy(self, source: Tensor, name: str = "t") -> Tensor:
        """A buffer of its own with the same elements."""
        out = Buffer(self._name(name), source.dtype, source.shape)
        self._define_into(out, source.shape, lambda *i: source[i])
        return Tensor(out)

    def assign(self, target: Tensor, index: Callable[..., tuple[Scalar, ...]], source: Tensor) -> None:
        """target[index(*i)] = source[i] for all i; index must not hit an element twice."""
        self.store(target, source.shape, index, lambda *i: source[i])

    def store(
        self,
        target: Tensor,
        domain: Sequence[Extent],
        where: Callable[..., tuple[Scalar, ...]],
        value: Callable[..., Expr],
    ) -> None:
        """target[where(*i)] = value(*i) for all i of `domain`; no element may be hit twice."""
        axes = tuple(fresh("i", e) for e in domain)
        idx = tuple(a.var for a in axes)
        target_index = tuple(_index(t) for t in where(*idx))
        self.body.append(Define(axes, (Store(target.buffer, target_index, value(*idx)),), self.nodes))

    def scan(
        self,
        extent: Extent,
        initial: Sequence[Tensor],
        step: Callable[[Expr, tuple[Tensor, ...]], tuple[Sequence[Tensor], Sequence[Tensor]]],
        reverse: bool = False,
        until: Callable[[tuple[Tensor, ...]], Expr | None] | None = None,
        emitted: Sequence[tuple[str, Shape]] | None = None,
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """A loop with carried values.

        step(t, carried) returns (next carried, emitted); t counts 0 … extent-1, or down with reverse.
        Returns the final carried values and each emitted tensor stacked along a new axis 0 at index t.
        until(carried) ends the loop when false, None never does (stacked outputs then hold only the passes that ran).
        """
        carried = tuple(self.copy(t, "carry") for t in initial)
        axis = fresh("t", extent)
        t = index(extent) - 1 - axis.var if reverse else axis.var

        def body() -> tuple[tuple[Tensor, ...], list[Tensor]]:
            following, outs = step(t, carried)
            stacks = []
            for o in outs:
                stack = Tensor(Buffer(self._name("stack"), o.dtype, (extent, *o.shape)))
                self.assign(stack, lambda *i: (t, *i), o)
                stacks.append(stack)
            return tuple(following), stacks

        statements, (following, stacks) = self._nested(body)
        carry = tuple((c.buffer, n.buffer) for c, n in zip(carried, following, strict=True))
        stop = until(carried) if until is not None else None
        self.body.append(Loop(axis, statements, carry, stop, self.nodes))
        return carried, tuple(stacks)

    def branch(
        self, cond: Expr, then: Callable[[], Sequence[Tensor]], other: Callable[[], Sequence[Tensor]]
    ) -> tuple[Tensor, ...]:
        """Tensors of `then()` where the scalar condition holds, of `other()` elsewhere; equal shapes and dtypes."""
        outs: list[Tensor] = []

        def side(fn: Callable[[], Sequence[Tensor]], first: bool) -> None:
            for n, t in enumerate(fn()):
                if first:
                    outs.append(self.empty(t.dtype, t.shape, "branch"))
                if outs[n].shape != t.shape or outs[n].dtype != t.dtype:
                    raise ValueError(f"branches differ: {outs[n].buffer!r} and {t.buffer!r}")
                self.assign(outs[n], lambda *i: i, t)

        then_body, _ = self._nested(lambda: side(then, True))
        other_body, _ = self._nested(lambda: side(other, False))
        self.body.append(Branch(cond, then_body, other_body, self.nodes))
        return tuple(outs)

    def module(self) -> Module:
        """The finished module."""
        return Module(self.name, self.inputs, self.outputs, self.body, self.states, list(self.symbols.values()))


def _index(i: Scalar) -> Expr:
    return index(i)


def axes_of(shape: Sequence[Extent], prefix: str = "i") -> tuple[Axis, ...]:
    """Fresh axes over a shape."""
    return tuple(fresh(prefix, e) for e in shape)
