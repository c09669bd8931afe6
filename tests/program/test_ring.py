"""States of frames as rings: the same outputs and the same states as with copies, wherever the ring begins."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from headrace.ops.join import concatenated
from headrace.program.build import Builder
from headrace.program.expr import Expr, const
from headrace.program.interp import run
from headrace.program.ir import Module
from headrace.program.optimise import optimise, simplify, specialise
from headrace.program.ring import laid_out, taken_out, use_rings
from headrace.program.verify import verify
from tests.codegen.native import Native


@dataclass(frozen=True)
class Net:
    """A dilated convolution over frames of `shape`, `step` new ones a run along `axis`, and the oldest as they are."""

    shape: tuple[int, ...]
    axis: int
    taps: int
    dilation: int
    step: int
    start: float = 0.0
    more: int = 0  # frames that the state keeps beyond the convolution's

    @property
    def kept(self) -> int:
        return (self.taps - 1) * self.dilation + self.more

    def frames(self, count: int) -> tuple[int, ...]:
        return (*self.shape[: self.axis], count, *self.shape[self.axis :])

    def feeds(self, seed: int) -> dict[str, Any]:
        return {"x": np.random.default_rng(seed).standard_normal(self.frames(self.step)).astype(np.float32)}

    def module(self, cut: int = 0) -> Module:
        """cut: by how many frames too few the state moves on, which is no ring."""
        b, rng = Builder("net"), np.random.default_rng(0)
        x = b.input("x", "f32", self.frames(self.step))
        initial = self.start * rng.standard_normal(self.frames(self.kept)).astype(np.float32)
        past = b.state("past", initial)
        line = concatenated(b, [past, x], self.axis, self.frames(self.kept + self.step))
        b.update_state(past, b.compute(past.shape, lambda *i: line[self._later(i, self.step - cut)]))
        w = b.constant(rng.standard_normal((16, *self.shape, self.taps)).astype(np.float32))

        def convolved(t: Expr, o: Expr) -> Expr:
            def term(*k: Expr) -> Expr:
                at = (*k[: self.axis], t + k[-1] * self.dilation, *k[self.axis : -1])
                return line[at] * w[(o, *k)]

            return b.sum((*self.shape, self.taps), term)

        b.output("y", b.compute((self.step, 16), convolved))
        b.output("late", b.compute(self.frames(self.step), lambda *i: line[i] + const(1.0, "f32")))
        return b.module()

    def _later(self, i: tuple[Expr, ...], by: int) -> tuple[Any, ...]:
        return tuple(e + by if d == self.axis else e for d, e in enumerate(i))


nets = hs.builds(
    Net,
    hs.sampled_from([(8,), (1, 16), (3, 9), (16, 3), (1, 2, 8)]),
    hs.integers(0, 3),
    hs.integers(2, 4),
    hs.integers(1, 5),
    hs.integers(1, 3),
    hs.sampled_from([0.0, 1.5]),
    hs.integers(0, 2),
).map(lambda n: replace(n, axis=min(n.axis, len(n.shape))))


def rings(module: Module) -> list[str]:
    return [p.name for p in module.states if p.ring is not None]


def assert_same(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name in ("y", "late"):
        np.testing.assert_allclose(got[name], wanted[name], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got["state"]["past"], wanted["state"]["past"])


@given(nets, hs.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_a_ring_computes_what_copies_do_wherever_it_begins(net: Net, turns: int) -> None:
    plain = net.module()
    ringed = optimise(net.module(), 8)
    assert rings(ringed) == (["past"] if net.kept >= 2 * net.step else [])
    verify(ringed)
    state = None
    for k in range(3):
        wanted = run(plain, net.feeds(k), state)
        assert_same(run(ringed, net.feeds(k), state, turns + k), wanted)
        state = wanted["state"]


@given(nets)
@settings(max_examples=4, deadline=None)
def test_the_c_of_a_ring_computes_what_copies_do_and_its_state_goes_everywhere(net: Net) -> None:
    plain = net.module()
    native, fresh = (Native(optimise(net.module(), 8)) for _ in range(2))
    state = None
    for k in range(2 * net.kept // net.step + 3):
        wanted = run(plain, net.feeds(k), state)
        got = native.run(net.feeds(k))
        assert_same({**got, "state": {"past": portable(native, net)}}, wanted)
        if k % 3 == 1:  # goes on in another instance, whose ring begins elsewhere
            restore(fresh, portable(native, net))
            native, fresh = fresh, native
        state = wanted["state"]


def portable(native: Native, net: Net) -> Any:
    out = np.full(net.frames(net.kept), np.nan, np.float32)
    native.check(native.library.net_get_state(native.state.pointer, ctypes.c_void_p(out.ctypes.data)))
    return out


def restore(native: Native, value: Any) -> None:
    held = np.ascontiguousarray(value)
    native.check(native.library.net_set_state(native.state.pointer, ctypes.c_void_p(held.ctypes.data)))


@given(hs.permutations([0, 1, 2]), hs.integers(1, 4), hs.integers(1, 6), hs.integers(0, 30))
def test_what_is_laid_out_is_taken_out_again(order: list[int], step: int, kept: int, turns: int) -> None:
    net = Net((8, 3), 1, 2, 4 * step + kept, step)
    (pair,) = optimise(net.module(), 8).states
    assert pair.ring is not None
    head = turns * step % pair.ring.head.bound or pair.ring.head.bound
    value = np.random.default_rng(turns).standard_normal(pair.initial.shape)
    assert (taken_out(laid_out(value, pair.ring, head), pair.ring, head, net.kept) == value).all()


def test_new_frames_are_all_that_is_copied() -> None:
    net = Net((1, 64), 2, 9, 4, 1)
    before, after = (sum(_copied(m)) for m in (specialise(simplify(net.module()), 8), optimise(net.module(), 8)))
    assert after == 64
    assert before == 64 * (2 * 32 + 1)


def _copied(module: Module) -> list[int]:
    defines = [s for s in module.body if all(st.value.op == "load" for st in s.stores)]
    return [int(np.prod([a.extent for a in s.axes])) for s in defines]


@pytest.mark.parametrize(
    ("why", "module"),
    [
        ("the state moves on by less than what is new", Net((8,), 0, 3, 4, 2).module(cut=1)),
        ("frames are too short for vectors", Net((3,), 0, 3, 4, 1).module()),
        ("as many frames come as stay", Net((16,), 0, 2, 4, 4).module()),
    ],
)
def test_what_is_no_ring_stays_as_it_is(why: str, module: Module) -> None:
    assert rings(optimise(module, 8)) == [], why


def test_modules_of_one_program_have_the_same_rings() -> None:
    with_ring, without = Net((16,), 0, 3, 4, 1), Net((16,), 0, 3, 4, 1).module(cut=1)
    one, other = use_rings([simplify(with_ring.module()), simplify(without)])
    assert rings(one) == rings(other) == []
    one, other = use_rings([simplify(with_ring.module()), simplify(with_ring.module())])
    assert rings(one) == rings(other) == ["past"]
    assert one.states[0].ring == other.states[0].ring
