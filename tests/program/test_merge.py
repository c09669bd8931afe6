"""Axes that lie evenly in memory become one."""

from __future__ import annotations

import pytest

from headrace.program.build import Builder
from headrace.program.expr import cast, select
from headrace.program.fuse import fuse
from headrace.program.merge import merge_axes
from tests.program.passes import defines, preserves, preserves_random


def test_a_map_becomes_one_loop() -> None:
    b = Builder()
    x = b.input("x", "f32", (2, 3, 4))
    b.output("y", b.compute((2, 3, 4), lambda *i: x[i] * 2.0))
    (d,) = defines(preserves(lambda m: merge_axes(fuse(m)), b.module()))
    assert [a.extent for a in d.axes] == [24]


def test_a_broadcast_keeps_its_axis() -> None:
    b = Builder()
    x, y = b.input("x", "f32", (3, 4, 5)), b.input("y", "f32", (3,))
    b.output("z", b.compute((3, 4, 5), lambda i, j, k: x[i, j, k] + y[i]))
    (d,) = defines(preserves(lambda m: merge_axes(fuse(m)), b.module()))
    assert [a.extent for a in d.axes] == [3, 20]


def test_a_transpose_stays() -> None:
    b = Builder()
    x = b.input("x", "f32", (3, 4))
    b.output("y", b.compute((4, 3), lambda i, j: x[j, i]))
    (d,) = defines(preserves(lambda m: merge_axes(fuse(m)), b.module()))
    assert len(d.axes) == 2


def test_an_axis_that_values_use_stays() -> None:
    b = Builder()
    x = b.input("x", "f32", (3, 4))
    b.output("y", b.compute((3, 4), lambda i, j: select(i < 2, x[i, j], cast(j, "f32"))))
    (d,) = defines(preserves(lambda m: merge_axes(fuse(m)), b.module()))
    assert len(d.axes) == 2


def test_reductions_merge_too_but_not_positions() -> None:
    b = Builder()
    x = b.input("x", "f32", (5, 3, 4))
    b.output("y", b.compute((5,), lambda i: b.sum((3, 4), lambda j, k: x[i, j, k])))
    b.output("z", b.compute((5, 3), lambda i, j: cast(b.reduce("argmax", (4,), lambda k: x[i, j, k]), "i64")))
    after = defines(preserves(lambda m: merge_axes(fuse(m)), b.module()))
    (r,) = [s.value for s in after[0].stores]
    assert [a.extent for a in r.arg[1]] == [12]


@pytest.mark.parametrize("seed", range(20))
def test_random_modules(seed: int) -> None:
    preserves_random(merge_axes, seed, [fuse])
    preserves_random(merge_axes, seed + 50, every=True)
