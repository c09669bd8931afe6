"""Products with symmetric constant rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.program.build import Builder
from headrace.program.expr import make
from headrace.program.fuse import fuse
from headrace.program.index import index_binary
from headrace.program.ir import Module
from headrace.program.optimise import optimise
from headrace.program.symmetric import fold_symmetric
from headrace.schedule.steps import macs
from tests.program.passes import defines, preserves


def fourier(n: int, window: np.ndarray) -> np.ndarray:
    """Rows of cosines, then of sines, exactly symmetric as a table made from one half is."""
    k, t = np.arange(n // 2 + 1)[:, None], np.arange(n)[None, :]
    angle = 2 * np.pi * (k * np.minimum(t, n - t) % n) / n
    sign = np.where(t <= n - t, 1.0, -1.0) * np.where(2 * t == n, 0.0, 1.0)
    return np.concatenate([np.cos(angle) * window, np.sin(angle) * sign * window]).astype(np.float32)


def transform(table: np.ndarray, frames: int, hop: int, reflects: int) -> Module:
    """Frames of a signal that is reflected at its end, times a table."""
    rows, n = table.shape
    length = (frames - 1) * hop + n - reflects
    b = Builder()
    x, w = b.input("x", "f32", (1, length)), b.constant(table)

    def at(t, k):  # type: ignore[no-untyped-def]
        u = t * hop + k
        return index_binary("min", u, index_binary("sub", make("const", "index", (), 2 * length - 2), u))

    out = b.compute((1, rows, frames), lambda z, o, t: b.sum((n,), lambda k: x[z, at(t, k)] * w[o, k]))
    b.output("y", b.compute((1, rows, frames), lambda z, o, t: out[z, o, t] * 2.0))
    return fuse(b.module())


def work(module: Module) -> int:
    return sum(macs(d) for d in defines(module))


@settings(max_examples=25, deadline=None)
@given(
    half=st.integers(18, 40),
    odd=st.booleans(),
    frames=st.integers(1, 4),
    reflects=st.integers(0, 9),
    edge=st.sampled_from([0.0, 0.5]),
)
def test_fourier_rows_take_half_the_products(half: int, odd: bool, frames: int, reflects: int, edge: float) -> None:
    n = 2 * half + odd
    window = np.minimum(np.arange(n), n - np.arange(n)) / n + edge
    window[0] = edge
    module = transform(fourier(n, window), frames, hop=half, reflects=reflects)
    after = preserves(fold_symmetric, module)
    assert work(after) < 0.58 * work(module)
    assert any("symmetric" in note for note in after.notes)


def test_all_passes_together() -> None:
    module = transform(fourier(64, np.ones(64)), frames=4, hop=32, reflects=20)
    after = preserves(lambda m: optimise(m, 16), module)
    assert all("min" not in str(s.stores[0].value) for s in defines(after))


@pytest.mark.parametrize("spoiled", [(3, 9), (40, 60)])
def test_one_weight_off_stays_whole(spoiled: tuple[int, int]) -> None:
    table = fourier(64, np.ones(64))
    table[spoiled] = np.nextafter(table[spoiled], np.float32(9))
    module = transform(table, 2, 32, 0)
    assert work(fold_symmetric(module)) == work(module)


def test_rows_without_symmetry_stay() -> None:
    table = np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32)
    module = transform(table, 2, 32, 0)
    assert fold_symmetric(module).body == module.body


def test_zero_table_stays() -> None:
    module = transform(np.zeros((32, 64), np.float32), 2, 32, 0)
    assert fold_symmetric(module).body == module.body
