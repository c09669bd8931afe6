"""Gaps between the rows of large buffers."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.program.build import Builder
from headrace.program.ir import Module
from headrace.program.pitch import GAP, MIN_BYTES, ROW, space_rows
from tests.program.passes import preserves, preserves_random


def two_layers(rows: int, width: int) -> Module:
    """h = x + 1;  y[i] = sum(k: h[i, k] * w[k])"""
    b = Builder()
    x = b.input("x", "f32", (rows, width))
    h = b.compute((rows, width), lambda i, j: x[i, j] + 1)
    w = b.constant(np.arange(width, dtype=np.float32) % 3 - 1)
    b.output("y", b.compute((rows,), lambda i: b.sum((width,), lambda k: h[i, k] * w[k])))
    return b.module()


def widths(module: Module) -> list[int]:
    return [b.bound[-1] for b in module.buffers() if b.space == "scratch" and len(b.shape) == 2]


def test_large_crowded_rows_get_a_gap() -> None:
    width = ROW // 4
    rows = MIN_BYTES // ROW
    assert widths(preserves(space_rows, two_layers(rows, width))) == [width + GAP // 4]
    assert widths(space_rows(two_layers(rows - 1, width))) == [width]
    assert widths(space_rows(two_layers(rows, width + 8))) == [width + 8]
    assert widths(space_rows(two_layers(1, width * rows))) == [width * rows]


@pytest.mark.parametrize("seed", range(20))
def test_any_module(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.program.pitch.MIN_BYTES", 1)
    monkeypatch.setattr("headrace.program.pitch.ROW", 4)
    preserves_random(space_rows, seed, every=seed % 2 == 0)
