"""Order of dimensions in memory."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.program.build import Builder
from headrace.program.expr import minimum, select
from headrace.program.forward import forward_copies
from headrace.program.fuse import fuse
from headrace.program.layout import choose_layout
from headrace.program.split import split_guards
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


def test_lines_of_states_lie_as_the_states() -> None:
    """A line that takes 20 frames from a state and one from a contraction stays [channel, time]."""
    b = Builder()
    s = b.state("s", np.zeros((16, 20), np.float32))
    x, w = b.input("x", "f32", (8, 1)), b.constant(np.ones((16, 8), np.float32))
    y = b.compute((16, 1), lambda o, t: b.sum((8,), lambda k: w[o, k] * x[k, t]))
    line = b.compute((16, 21), lambda c, t: select(t < 20, s[c, minimum(t, 19)], y[c, 0]))
    b.update_state(s, b.compute((16, 20), lambda c, t: line[c, t + 1]))
    b.output("z", b.compute((16,), lambda o: b.sum((16,), lambda c: line[c, 0] * line[o, 20])))
    after = preserves(lambda m: choose_layout(forward_copies(split_guards(m)), 16), fuse(b.module()))
    shapes = {st.buffer.shape for d in defines(after) for st in d.stores}
    assert (16, 21) in shapes and (21, 16) not in shapes
