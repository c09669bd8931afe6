"""Boxes cut at conditions, axes split by the divisors of their indices."""

from __future__ import annotations

import pytest

from headrace.program.build import Builder
from headrace.program.expr import const, index, select, walk
from headrace.program.fuse import fuse
from headrace.program.ir import Module
from headrace.program.pad import pad_guarded
from headrace.program.split import split_axes, split_guards
from tests.program.passes import defines, preserves, preserves_random


def ops(module: Module, *names: str) -> int:
    roots = [e for d in defines(module) for s in d.stores for e in (s.value, *s.index)]
    return sum(e.op in names for root in roots for e in walk(root))


@pytest.mark.parametrize("cut", [1, 3, 7])
def test_a_choice_becomes_two_boxes(cut: int) -> None:
    b = Builder()
    x, y = b.input("x", "f32", (8,)), b.input("y", "f32", (8,))
    b.output("z", b.compute((8,), lambda i: select(i < cut, x[i], y[i - cut])))
    after = preserves(split_guards, b.module())
    assert ops(after, "select") == 0 and len(defines(after)) == 3


def test_conditions_in_every_form() -> None:
    b = Builder()
    x = b.input("x", "i32", (12,))
    for n, cond in enumerate((lambda i: i * 3 < 10, lambda i: index(7) - i * 2 <= 0, lambda i: ~(i <= 4),
                              lambda i: (i >= 2) & (i * 5 < 41), lambda i: index(3) < i)):  # fmt: skip
        b.output(f"y{n}", b.compute((12,), lambda i, cond=cond: select(cond(i), x[i] * 2, const(-1, "i32"))))
    assert ops(preserves(split_guards, b.module()), "select") == 0


def test_a_condition_on_data_is_left_alone() -> None:
    b = Builder()
    x = b.input("x", "f32", (8,))
    b.output("y", b.compute((8,), lambda i: select(x[i] < 0.5, x[i], x[7 - i])))
    assert ops(preserves(split_guards, b.module()), "select") == 1


def test_division_goes_away() -> None:
    b = Builder()
    x = b.input("x", "f32", (3, 4))
    b.output("y", b.compute((12,), lambda i: x[i // 4, i % 4]))
    b.output("z", b.compute((2,), lambda i: b.sum((6,), lambda k: x[(i * 6 + k) // 4, (i * 6 + k) % 4])))
    assert ops(preserves(split_axes, fuse(b.module())), "floordiv", "mod") <= 2  # 6 and 4 do not divide each other


def test_an_ordered_definition_keeps_its_order() -> None:
    b = Builder()
    x, base = b.input("x", "f32", (12,)), b.input("base", "f32", (3,))
    b.output("y", b.scatter(base, (12,), lambda i: (i // 4,), lambda i: x[(i % 4) * 3 + i // 4]))
    preserves(split_axes, b.module())


@pytest.mark.parametrize("seed", range(20))
def test_random_modules(seed: int) -> None:
    preserves_random(split_axes, seed, [fuse])
    preserves_random(split_guards, seed, [fuse, split_axes, pad_guarded])
