"""Transposed copies: square tiles turned in registers, with rests on every side."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.program.build import Builder
from headrace.program.fuse import fuse
from headrace.schedule.heuristic import Heuristic
from headrace.schedule.steps import RegisterTile
from headrace.targets.registry import get_target
from tests.codegen.native import HERE, Native

SHAPES = [(16, 16), (37, 45), (48, 17), (5, 64), (64, 3)]


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize("dtype", ["f32", "i32", "i16"])
def test_transposes(target: str, dtype: str) -> None:
    """y[j, i] = x[i, j] + z[i, j] + j for several shapes at once, bit for bit."""
    b = Builder()
    rng = np.random.default_rng(0)
    kind = {"f32": np.float32, "i32": np.int32, "i16": np.int16}[dtype]
    feeds, wanted = {}, {}
    for n, (rows, columns) in enumerate(SHAPES):
        x, z = (b.input(f"{name}{n}", dtype, (2, rows, columns)) for name in "xz")
        y = b.compute((2, columns, rows), lambda k, j, i, x=x, z=z: x[k, i, j] + z[1 - k, i, j])
        b.output(f"y{n}", y)
        for name in "xz":
            feeds[f"{name}{n}"] = rng.integers(-99, 99, (2, rows, columns)).astype(kind)
        wanted[f"y{n}"] = (feeds[f"x{n}"] + feeds[f"z{n}"][::-1]).transpose(0, 2, 1)
    got = Native(fuse(b.module()), target).run(feeds)
    for name, array in wanted.items():
        assert np.array_equal(got[name], array), name


def test_the_heuristic_takes_squares() -> None:
    b = Builder()
    x = b.input("x", "f32", (37, 45))
    b.output("y", b.compute((45, 37), lambda j, i: x[i, j] * 2.0))
    (define,) = fuse(b.module()).body
    steps = Heuristic(get_target("x86-64-avx512").isa).schedule(define)
    assert any(isinstance(s, RegisterTile) and s.count == 16 for s in steps)
