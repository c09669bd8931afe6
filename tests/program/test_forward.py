"""Copies that go away."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.program.build import Builder
from headrace.program.expr import call, cast, check
from headrace.program.forward import forward_copies
from headrace.program.fuse import fuse
from tests.program.passes import defines, preserves, preserves_random


def test_parts_of_a_concatenation_are_written_in_place() -> None:
    b = Builder()
    x = b.input("x", "f32", (4,))
    parts = [b.compute((4,), lambda i, k=k: x[i] * k) for k in (2.0, 3.0)]
    out = b.empty("f32", (8,))
    for n, p in enumerate(parts):
        b.assign(out, lambda i, n=n: (i + 4 * n,), p)
    b.output("y", b.compute((8,), lambda i: b.sum((8,), lambda k: out[k]) + out[i]))
    before = b.module()
    after = preserves(forward_copies, before)
    assert len(defines(after)) == len(defines(before)) - 3


def test_a_target_that_is_filled_in_between() -> None:
    """x is made, p is filled with zeros, x is copied into p: x cannot move into p before the zeros."""
    b = Builder()
    x = b.input("x", "f32", (4,))
    t = b.compute((4,), lambda i: call("exp", x[i]))
    p = b.empty("f32", (6,))
    b.store(p, (6,), lambda i: (i,), lambda i: x[0] * 0.0)
    b.assign(p, lambda i: (i + 1,), t)
    b.output("y", b.compute((6,), lambda i: p[5 - i] * 2.0))
    preserves(forward_copies, b.module())


def test_a_target_that_changes_while_the_source_is_read() -> None:
    b = Builder()
    x = b.input("x", "i32", (4,))
    t = b.compute((4,), lambda i: x[i] * 3)
    p = b.copy(t)
    b.store(p, (2,), lambda i: (i * 2,), lambda i: x[i] + 100)
    b.output("y", b.compute((4,), lambda i: p[i] + t[3 - i]))
    preserves(forward_copies, b.module())


def test_a_scatter_onto_a_copy() -> None:
    b = Builder()
    x, at = b.input("x", "f32", (4,)), b.constant(np.array([1, 1, 3]))
    t = b.compute((4,), lambda i: x[i] + 1.0)
    s = b.scatter(t, (3,), lambda i: (check(cast(at[i], "index"), 4),), lambda i: t[i], "add")
    b.output("y", b.compute((4,), lambda i: s[i] * t[i]))
    preserves(forward_copies, b.module())


def test_a_part_made_from_an_earlier_part() -> None:
    """A dense block: the second half is computed from the first, in the memory of both."""
    b = Builder()
    x = b.input("x", "f32", (4,))
    first = b.compute((4,), lambda i: x[i] * 2.0)
    both = b.empty("f32", (8,))
    b.assign(both, lambda i: (i,), first)
    b.store(both, (4,), lambda i: (i + 4,), lambda i: b.sum((4,), lambda k: first[k] * x[i]))
    b.output("y", b.compute((8,), lambda i: both[7 - i]))
    before = b.module()
    assert len(defines(preserves(forward_copies, before))) < len(defines(before))


def test_a_part_is_no_whole_even_when_sizes_agree() -> None:
    b = Builder()
    x = b.input("x", "i32", (6,))
    t = b.compute((6,), lambda i: x[i] * 3)
    mirrored = b.empty("i32", (6,))
    b.store(mirrored, (3,), lambda i: (i,), lambda i: t[i])
    b.store(mirrored, (3,), lambda i: (5 - i,), lambda i: t[i])
    b.output("y", mirrored)
    preserves(forward_copies, b.module())


def test_stacks_of_a_scan() -> None:
    b = Builder()
    x = b.input("x", "f32", (5, 3))
    finals, stacks = b.scan(
        5,
        [b.constant(np.zeros(3, np.float32))],
        lambda t, c: ((y := [b.compute((3,), lambda i: c[0][i] + x[t, i])]), y),
    )
    b.output("h", finals[0])
    b.output("y", stacks[0])
    preserves(lambda m: forward_copies(fuse(m)), b.module())


@pytest.mark.parametrize("seed", range(25))
def test_random_modules(seed: int) -> None:
    preserves_random(forward_copies, seed, [fuse])
    preserves_random(forward_copies, seed + 100)
