"""Order of dimensions in memory."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.program.build import Builder
from headrace.program.fuse import fuse
from headrace.program.layout import choose_layout
from tests.program.passes import defines, preserves, preserves_random


def test_channels_of_a_contraction_move_innermost() -> None:
    """y[channel, time] with constant weights over the channel lies as [time, channel]."""
    b = Builder()
    x, w = b.input("x", "f32", (8, 5)), b.constant(np.ones((16, 8), np.float32))
    y = b.compute((16, 5), lambda o, t: b.sum((8,), lambda k: w[o, k] * x[k, t]))
    b.output("z", b.compute((16, 5), lambda o, t: b.sum((5,), lambda k: y[o, k]) + y[o, t]))
    after = preserves(lambda m: choose_layout(m, 16), fuse(b.module()))
    assert defines(after)[0].stores[0].buffer.shape == (5, 16)


def test_states_and_outputs_keep_their_order() -> None:
    b = Builder()
    s = b.state("s", np.zeros((16, 5), np.float32))
    x, w = b.input("x", "f32", (8, 5)), b.constant(np.ones((16, 8), np.float32))
    y = b.compute((16, 5), lambda o, t: b.sum((8,), lambda k: w[o, k] * x[k, t]) + s[o, t])
    b.update_state(s, y)
    b.output("y", y)
    after = preserves(lambda m: choose_layout(m, 16), fuse(b.module()))
    assert all(b.shape == (16, 5) for d in defines(after) for b in [d.stores[0].buffer])


@pytest.mark.parametrize("seed", range(20))
def test_random_modules(seed: int) -> None:
    preserves_random(lambda m: choose_layout(m, 4), seed, [fuse])
