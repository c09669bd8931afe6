"""Padded copies for guarded loads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.program.build import Builder, Tensor
from headrace.program.expr import Expr, const, index, select, walk
from headrace.program.fuse import fuse
from headrace.program.ir import Module
from headrace.program.pad import pad_guarded
from tests.program.passes import defines, preserves, preserves_random


def window(b: Builder, x: Tensor, low: int = 0) -> Tensor:
    """y[t] = Σ x[t+k-1] w[k], x being 0 outside of [low, 8)."""
    w = b.constant(np.arange(1, 4, dtype=np.int32))

    def tap(t: Expr, k: Expr) -> Expr:
        i = t + k - 1
        return select((index(low) <= i) & (i < 8), x[i], const(0, "i32")) * w[k]

    return b.compute((8,), lambda t: b.sum((3,), lambda k: tap(t, k)))


def guards(module: Module) -> int:
    """Selects inside reductions."""
    roots = [s.value for d in defines(module) for s in d.stores]
    inner = [r.args[0] for root in roots for r in walk(root) if r.op == "reduce"]
    return sum(e.op == "select" for value in inner for e in walk(value))


def test_a_window_reads_a_padded_copy() -> None:
    b = Builder()
    b.output("y", window(b, b.input("x", "i32", (8,))))
    after = preserves(pad_guarded, b.module())
    assert guards(after) == 0


def test_a_guard_that_is_narrower_than_the_data() -> None:
    b = Builder()
    b.output("y", window(b, b.input("x", "i32", (8,)), low=2))
    assert guards(preserves(pad_guarded, b.module())) == 0


def test_two_windows_share_one_copy() -> None:
    b = Builder()
    x = b.input("x", "i32", (8,))
    b.output("y", window(b, x))
    b.output("z", window(b, x))
    before = b.module()
    assert len(defines(preserves(pad_guarded, before))) == len(defines(before)) + 1


def test_a_copy_is_not_used_again_after_its_source_changed() -> None:
    b = Builder()
    s = b.state("s", np.arange(8, dtype=np.int32))
    first = window(b, s)
    b.store(s, (8,), lambda i: (i,), lambda i: s[i] * 5 + 1)
    b.output("y", first)
    b.output("z", window(b, s))
    preserves(pad_guarded, b.module())


def test_a_guard_that_covers_another_dimension_too() -> None:
    """Row r - 1 exists wherever column c does: the guard of the column protects the row."""
    b = Builder()
    x = b.input("x", "i32", (2, 8))

    def tap(t: Expr, k: Expr) -> Expr:
        i = t + k - 2
        return select(index(0) <= i, x[(t + k) // 2 - 1, i], const(0, "i32"))

    b.output("y", b.compute((3,), lambda t: b.sum((2,), lambda k: tap(t, k))))
    preserves(pad_guarded, b.module())


def test_one_guard_inside_another() -> None:
    """The inner guard lets -1 pass, which the outer one keeps away: no load may reach it."""
    b = Builder()
    x = b.input("x", "i32", (8,))

    def tap(t: Expr, k: Expr) -> Expr:
        i = t + k - 1
        return select(index(0) <= i, select(i < 8, x[i], const(0, "i32")), const(7, "i32"))

    b.output("y", b.compute((8,), lambda t: b.sum((3,), lambda k: tap(t, k))))
    preserves(pad_guarded, b.module())


@pytest.mark.parametrize("fill", [-np.inf, 0.0, 1.0])
def test_fill_of_a_maximum(fill: float) -> None:
    b = Builder()
    x = b.input("x", "f32", (8,))

    def tap(t: Expr, k: Expr) -> Expr:
        i = t * 2 + k - 1
        return select((index(0) <= i) & (i < 8), x[i], const(fill, "f32"))

    b.output("y", b.compute((5,), lambda t: b.reduce("max", (3,), lambda k: tap(t, k))))
    feeds: dict[str, Any] = {"x": np.array([1, np.nan, 3, -4, 5, np.inf, 7, -8], np.float32)}
    preserves(pad_guarded, b.module(), feeds)


@pytest.mark.parametrize("seed", range(20))
def test_random_modules(seed: int) -> None:
    preserves_random(pad_guarded, seed, [fuse], ("conv", "pool", "pad", "concat", "smooth"))
