"""Operands of contractions of data with data."""

from __future__ import annotations

import pytest

from headrace.program.build import Builder
from headrace.program.expr import walk
from headrace.program.fuse import fuse
from headrace.program.ir import Module, loads
from headrace.program.layout import choose_layout
from tests.program.passes import defines, preserves, preserves_random


def scores(rows: int, columns: int, wraps: bool) -> Module:
    """q·pᵀ of inputs, or of scratch buffers that have no other reader."""
    b = Builder()
    q, p = b.input("q", "f32", (rows, 24)), b.input("p", "f32", (columns, 24))
    if wraps:
        v = b.input("v", "f32", (4, 24))
        p = b.compute((columns, 24), lambda j, k: b.sum((4,), lambda n: v[n, k] * p[j, k]))
    b.output("s", b.compute((rows, columns), lambda i, j: b.sum((24,), lambda k: q[i, k] * p[j, k])))
    return fuse(b.module())


def read_shapes(module: Module) -> set[tuple[object, ...]]:
    return {e.arg.shape for e in loads(defines(module)[-1])}


def test_scratch_operand_lies_along_the_columns() -> None:
    after = preserves(lambda m: choose_layout(m, 16), scores(12, 32, wraps=True))
    assert len(defines(after)) == 2
    assert (24, 32) in read_shapes(after)


def test_input_operand_is_copied_where_that_pays() -> None:
    after = preserves(lambda m: choose_layout(m, 16), scores(40, 32, wraps=False))
    assert len(defines(after)) == 2
    assert (24, 32) in read_shapes(after)


@pytest.mark.parametrize(("rows", "columns"), [(1, 32), (31, 32), (40, 8)])
def test_operand_stays_where_it_does_not(rows: int, columns: int) -> None:
    """One query, few uses of each element, or too few columns for a vector."""
    after = preserves(lambda m: choose_layout(m, 16), scores(rows, columns, wraps=False))
    assert len(defines(after)) == 1


def test_operand_inside_a_condition_stays() -> None:
    b = Builder()
    q, p = b.input("q", "f32", (40, 8)), b.input("p", "f32", (32, 8))
    out = b.compute((40, 32), lambda i, j: b.sum((8,), lambda k: (q[i, k] * p[j, k]) * p[j, 0]))
    b.output("s", out)
    module = b.module()
    after = preserves(lambda m: choose_layout(m, 16), module)
    assert len(defines(after)) == len(defines(module))
    assert any(e.op == "reduce" for s in defines(after) for st in s.stores for e in walk(st.value))


@pytest.mark.parametrize("seed", range(20))
def test_random_modules(seed: int) -> None:
    preserves_random(lambda m: choose_layout(m, 2), seed, [fuse])
