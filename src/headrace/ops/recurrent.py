"""LSTM, GRU and RNN.

The input's product with its weights is one definition over all time steps; the loop over time holds
only what depends on the step before. Gates are computed in f32 or f64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.ops.recurrent_activation import activations
from headrace.ops.reduce import accumulator
from headrace.ops.registry import Node, lower
from headrace.ops.shape import out_shape
from headrace.program.build import Builder, Tensor
from headrace.program.dtypes import numpy_dtype
from headrace.program.expr import Expr, Extent, cast, const, index, maximum, minimum, select

Clip = Callable[[Expr], Expr]
Step = Callable[[Expr, "tuple[Tensor, ...]"], "tuple[Tensor, ...]"]


@dataclass(frozen=True)
class Recurrence:
    """What LSTM, GRU and RNN have in common. gates: number of blocks in W and R.

    Sizes are ONNX's: x (T, B, I), w (D, gates*H, I), r (D, gates*H, H), bias (D, 2*gates*H);
    with layout 1, x and y have the batch first, initial and final states too.
    """

    b: Builder
    node: Node
    gates: int
    x: Tensor
    w: Tensor
    r: Tensor
    bias: Tensor | None
    lens: Tensor | None
    directions: tuple[str, ...]
    hidden: int
    batch_first: bool
    acc: str

    @property
    def steps(self) -> Extent:
        return self.x.shape[1 if self.batch_first else 0]

    @property
    def batch(self) -> Extent:
        return self.x.shape[0 if self.batch_first else 1]

    def projected(self, d: int, also: Sequence[int]) -> Tensor:
        """(T, B, gates*H): W x + Wb of every step, plus Rb for the gates in `also` (the first ones)."""
        bias = self.offset(d, len(also) * self.hidden)

        def element(t: Expr, n: Expr, g: Expr) -> Expr:
            at = (n, t) if self.batch_first else (t, n)
            total = self.b.sum(
                (self.x.shape[2],),
                lambda k: cast(self.x[(*at, k)], self.acc) * cast(self.w[d, g, k], self.acc),
            )
            return total if bias is None else total + bias(g)

        return self.b.compute((self.steps, self.batch, self.gates * self.hidden), element, "gates")

    def offset(self, d: int, both: int) -> Callable[[Expr], Expr] | None:
        """Bias of row g: Wb[g], plus Rb[g] for g < both."""
        rows, given = self.gates * self.hidden, self.bias
        if given is None:
            return None
        if given.data is not None:
            total = given.data[d, :rows].astype(numpy_dtype(self.acc))
            total[:both] += given.data[d, rows : rows + both]
            known = self.b.constant(total, "bias")
            return lambda g: known[g]

        def computed(g: Expr) -> Expr:
            first, second = cast(given[d, g], self.acc), cast(given[d, g + rows], self.acc)
            return first + (second if both == rows else select(g < both, second, 0.0))

        return computed

    def recurrent(self, d: int, gate: int, value: Callable[[Expr], Expr], h: Expr) -> Expr:
        """Σ_k value(k) R[d, gate*H + h, k]."""
        row = index(gate * self.hidden) + h
        return self.b.sum((self.hidden,), lambda k: value(k) * cast(self.r[d, row, k], self.acc))

    def initial(self, i: int, d: int) -> Tensor:
        """(B, H): the initial state in input i, or zeros."""
        given = self.node.optional(i)

        def element(n: Expr, h: Expr) -> Expr:
            if given is None:
                return const(0.0, self.acc)
            return cast(given[(n, d, h) if self.batch_first else (d, n, h)], self.acc)

        return self.b.compute((self.batch, self.hidden), element, "initial")

    def blank(self, i: int) -> bool:
        """Whether every state that is read is a zero: one step, without the initial state of input i."""
        return self.steps == 1 and self.node.optional(i) is None

    def running(self, t: Expr, n: Expr) -> Expr | None:
        """Whether step t lies inside sequence n; None if all sequences are whole."""
        return None if self.lens is None else t < cast(self.lens[n], "index")


def recurrence(b: Builder, node: Node, gates: int) -> Recurrence:
    """Read and check what the three operators share."""
    x, w, r = node.input(0), node.input(1), node.input(2)
    kind = node.attr("direction", "forward")
    directions = {"forward": ("forward",), "reverse": ("reverse",), "bidirectional": ("forward", "reverse")}
    if kind not in directions:
        raise node.refuse(f"its direction is {kind!r}", "use forward, reverse or bidirectional")
    hidden = r.shape[2]
    if not isinstance(hidden, int) or w.shape[1] != gates * hidden or node.attr("hidden_size", hidden) != hidden:
        raise node.refuse(f"W {w.shape} and R {r.shape} do not fit {gates} gates of hidden_size", "correct the model")
    lens = node.optional(4)
    if lens is not None and lens.data is not None and (lens.data == x.shape[1 if node.attr("layout", 0) else 0]).all():
        lens = None
    return Recurrence(
        b, node, gates, x, w, r, node.optional(3), lens, directions[kind], hidden,
        bool(node.attr("layout", 0)), accumulator(x.dtype),
    )  # fmt: skip


def clipper(node: Node) -> Clip:
    """The `clip` attribute, applied to what goes into an activation."""
    limit = node.attr("clip")
    if limit is None:
        return lambda x: x
    return lambda x: minimum(maximum(x, -float(limit)), float(limit))


def run(rec: Recurrence, states: Sequence[int], step: Callable[[int], Step]) -> list[Tensor | None]:
    """Run every direction; returns Y and the final value of each state (only those that are used).

    states: the input that holds each initial state. step(d)(t, carried): the states after step t,
    the first of them being the output; it holds a state where the sequence has ended.
    """
    b, node = rec.b, rec.node
    y = b.empty(rec.x.dtype, out_shape(node, 0), "y") if node.wants(0) else None
    finals = [
        b.empty(rec.x.dtype, out_shape(node, 1 + n), "last") if node.wants(1 + n) else None for n in range(len(states))
    ]
    for d, direction in enumerate(rec.directions):
        advance = step(d)

        def body(
            t: Expr, carried: tuple[Tensor, ...], d: int = d, advance: Step = advance
        ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
            following = advance(t, carried)
            if y is not None:
                _emit(rec, y, following[0], d, t)
            return following, ()

        first = [rec.initial(i, d) for i in states]
        if rec.steps == 1:
            ended: Sequence[Tensor] = body(index(0), tuple(first))[0]
        else:
            ended, _ = b.scan(rec.steps, first, body, reverse=direction == "reverse")
        for final, value in zip(finals, ended, strict=True):
            if final is not None:
                _keep(rec, final, value, d)
    return [y, *finals]


def _emit(rec: Recurrence, y: Tensor, h: Tensor, d: int, t: Expr) -> None:
    """Y at step t; zero where the sequence has ended."""

    def value(n: Expr, k: Expr) -> Expr:
        inside = rec.running(t, n)
        out = cast(h[n, k], y.dtype)
        return out if inside is None else select(inside, out, 0.0)

    rec.b.store(y, h.shape, lambda n, k: (n, t, d, k) if rec.batch_first else (t, d, n, k), value)


def _keep(rec: Recurrence, final: Tensor, value: Tensor, d: int) -> None:
    """The state after the last step; zero, as in onnxruntime, for a sequence without steps."""

    def last(n: Expr, k: Expr) -> Expr:
        inside = rec.running(index(0), n)
        out = cast(value[n, k], final.dtype)
        return out if inside is None else select(inside, out, 0.0)

    rec.b.store(final, value.shape, lambda n, k: (n, d, k) if rec.batch_first else (d, n, k), last)


def held(rec: Recurrence, t: Expr, n: Expr, new: Expr, old: Expr) -> Expr:
    """The new state, or the old one where the sequence has ended."""
    inside = rec.running(t, n)
    return new if inside is None else select(inside, new, old)


@lower("LSTM")
def lstm(b: Builder, node: Node) -> list[Tensor | None]:
    """Gates i, o, f, c. Outputs Y, Y_h, Y_c."""
    rec = recurrence(b, node, 4)
    acts = activations(node, rec.directions, ["Sigmoid", "Tanh", "Tanh"])
    clip, peep, coupled = clipper(node), node.optional(7), bool(node.attr("input_forget", 0))
    size = rec.hidden

    def step(d: int) -> Step:
        f, g, h_act = acts[d]
        x = rec.projected(d, range(4))

        def advance(t: Expr, carried: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            h, c = carried

            def gate(n: Expr, k: Expr, which: int, peephole: int | None, cell: Expr) -> Expr:
                total = x[t, n, index(which * size) + k] + rec.recurrent(d, which, lambda j: h[n, j], k)
                if peep is not None and peephole is not None:
                    total = total + cast(peep[d, index(peephole * size) + k], rec.acc) * cell
                return clip(total)

            def element(n: Expr, k: Expr) -> tuple[Expr, ...]:
                old = c[n, k]
                i = f(gate(n, k, 0, 0, old))
                cell = i * g(gate(n, k, 3, None, old))
                if not rec.blank(6):
                    forget = 1.0 - i if coupled else f(gate(n, k, 2, 2, old))
                    cell = forget * old + cell
                out = f(gate(n, k, 1, 1, cell)) * h_act(cell)
                return held(rec, t, n, out, h[n, k]), held(rec, t, n, cell, old)

            return b.compute_many((rec.batch, size), element, "state")

        return advance

    return run(rec, (5, 6), step)


@lower("GRU")
def gru(b: Builder, node: Node) -> list[Tensor | None]:
    """Gates z, r, h. Outputs Y, Y_h."""
    rec = recurrence(b, node, 3)
    acts = activations(node, rec.directions, ["Sigmoid", "Tanh"])
    clip, reset_after = clipper(node), bool(node.attr("linear_before_reset", 0))
    size = rec.hidden

    def step(d: int) -> Step:
        f, g = acts[d]
        x = rec.projected(d, range(2) if reset_after else range(3))

        def gate(t: Expr, n: Expr, k: Expr, which: int, h: Tensor) -> Expr:
            total = x[t, n, index(which * size) + k] + rec.recurrent(d, which, lambda j: h[n, j], k)
            return f(clip(total))

        def after(t: Expr, h: Tensor, n: Expr, k: Expr) -> Expr:
            inner = rec.recurrent(d, 2, lambda j: h[n, j], k)
            if rec.bias is not None:
                inner = inner + cast(rec.bias[d, index(5 * size) + k], rec.acc)
            new = g(clip(x[t, n, index(2 * size) + k] + gate(t, n, k, 1, h) * inner))
            return mix(t, h, n, k, gate(t, n, k, 0, h), new)

        def mix(t: Expr, h: Tensor, n: Expr, k: Expr, z: Expr, new: Expr) -> Expr:
            mixed = (1.0 - z) * new if rec.blank(5) else (1.0 - z) * new + z * h[n, k]
            return held(rec, t, n, mixed, h[n, k])

        def first(t: Expr, h: Tensor, n: Expr, k: Expr) -> Expr:
            """Without a state there is nothing to reset."""
            return mix(t, h, n, k, gate(t, n, k, 0, h), g(clip(x[t, n, index(2 * size) + k])))

        def advance(t: Expr, carried: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            h = carried[0]
            if reset_after:
                return (b.compute((rec.batch, size), lambda n, k: after(t, h, n, k), "state"),)
            if rec.blank(5):
                return (b.compute((rec.batch, size), lambda n, k: first(t, h, n, k), "state"),)
            z, kept = b.compute_many(
                (rec.batch, size), lambda n, k: (gate(t, n, k, 0, h), gate(t, n, k, 1, h) * h[n, k]), "gate"
            )

            def before(n: Expr, k: Expr) -> Expr:
                inner = rec.recurrent(d, 2, lambda j: kept[n, j], k)
                return mix(t, h, n, k, z[n, k], g(clip(x[t, n, index(2 * size) + k] + inner)))

            return (b.compute((rec.batch, size), before, "state"),)

        return advance

    return run(rec, (5,), step)


@lower("RNN")
def rnn(b: Builder, node: Node) -> list[Tensor | None]:
    """h' = f(W x + R h + bias). Outputs Y, Y_h."""
    rec = recurrence(b, node, 1)
    acts = activations(node, rec.directions, ["Tanh"])
    clip = clipper(node)

    def step(d: int) -> Step:
        (f,) = acts[d]
        x = rec.projected(d, range(1))

        def advance(t: Expr, carried: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            h = carried[0]

            def element(n: Expr, k: Expr) -> Expr:
                new = f(clip(x[t, n, k] + rec.recurrent(d, 0, lambda j: h[n, j], k)))
                return held(rec, t, n, new, h[n, k])

            return (b.compute((rec.batch, rec.hidden), element, "state"),)

        return advance

    return run(rec, (5,), step)
