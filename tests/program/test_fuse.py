"""Fusion: what moves, what must stay, and that nothing changes its value."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.program.build import Builder
from headrace.program.expr import call, const, select
from headrace.program.fuse import fuse
from headrace.program.ir import Loop
from tests.program.passes import defines, preserves, preserves_random


def test_a_chain_becomes_one_definition() -> None:
    b = Builder()
    x = b.input("x", "f32", (8,))
    t = b.compute((8,), lambda i: x[i] + 1.0)
    b.output("y", b.compute((8,), lambda i: call("exp", t[i])))
    assert len(defines(preserves(fuse, b.module()))) == 1


def test_a_reduction_takes_its_epilogue() -> None:
    b = Builder()
    a, w = b.input("a", "f32", (4, 8)), b.input("w", "f32", (8, 5))
    s = b.compute((4, 5), lambda i, j: b.sum((8,), lambda k: a[i, k] * w[k, j]))
    b.output("y", b.compute((4, 5), lambda i, j: call("max", s[i, j], 0.0)))
    assert len(defines(preserves(fuse, b.module()))) == 1


def test_arithmetic_is_not_repeated() -> None:
    """exp(x) is read for every element of a product, so it stays where it is."""
    b = Builder()
    x = b.input("x", "f32", (8,))
    e = b.compute((8,), lambda i: call("exp", x[i]))
    b.output("y", b.compute((6,), lambda i: b.sum((8,), lambda k: e[k])))
    assert len(defines(preserves(fuse, b.module()))) == 2


def test_two_readers_share_one_definition_with_two_stores() -> None:
    b = Builder()
    x = b.input("x", "f32", (8,))
    t = b.compute((8,), lambda i: call("exp", x[i]))
    b.output("y", b.compute((8,), lambda i: t[i] * 2.0))
    b.output("z", b.compute((8,), lambda i: b.sum((8,), lambda k: t[k] + t[i])))
    after = preserves(fuse, b.module())
    assert len(defines(after)[0].stores) == 2


def test_a_view_passes_a_reduction_only_without_division() -> None:
    b = Builder()
    x = b.input("x", "f32", (4, 6))
    flat = b.compute((24,), lambda i: x[i // 6, i % 6])
    b.output("y", b.compute((2,), lambda i: b.sum((12,), lambda k: flat[i * 12 + k])))
    b.output("z", b.compute((24,), lambda i: flat[23 - i]))
    preserves(fuse, b.module())


def test_nothing_moves_over_a_change_of_what_it_reads() -> None:
    b = Builder()
    s = b.state("s", np.arange(4, dtype=np.int32))
    old = b.compute((4,), lambda i: s[3 - i])
    b.store(s, (4,), lambda i: (i,), lambda i: s[i] + 10)
    b.output("y", b.compute((4,), lambda i: old[i] * 2))
    preserves(fuse, b.module())


def test_a_view_does_not_enter_a_loop_that_changes_its_source() -> None:
    b = Builder()
    s = b.state("s", np.arange(4, dtype=np.int32))
    old = b.compute((4,), lambda i: s[i])

    def step(t, carried):  # type: ignore[no-untyped-def]
        (c,) = carried
        new = b.compute((4,), lambda i: c[i] + old[i])
        b.store(s, (4,), lambda i: (i,), lambda i: s[i] * 2)
        return [new], []

    (final,), _ = b.scan(3, [b.constant(np.zeros(4, np.int32))], step)
    b.output("y", final)
    assert any(isinstance(s, Loop) for s in preserves(fuse, b.module()).body)


def test_a_guard_goes_with_its_load() -> None:
    b = Builder()
    x = b.input("x", "f32", (5,))
    t = b.compute((5,), lambda i: x[4 - i] * 2.0)
    b.output("y", b.compute((9,), lambda i: select(i < 5, t[select(i < 5, i, const(0, "index"))], const(0, "f32"))))
    preserves(fuse, b.module())


def test_carried_values_keep_their_buffers() -> None:
    b = Builder()
    x, y = b.input("x", "i32", (4,)), b.input("y", "i32", (4,))
    finals, _ = b.scan(3, [x, y], lambda t, c: ([c[1], b.compute((4,), lambda i: c[0][i] + 1)], []))
    for n, f in enumerate(finals):
        b.output(f"z{n}", f)
    preserves(fuse, b.module())


@pytest.mark.parametrize("seed", range(25))
def test_random_modules(seed: int) -> None:
    preserves_random(fuse, seed)
