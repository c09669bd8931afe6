"""All passes together."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.program.build import Builder
from headrace.program.expr import call
from headrace.program.optimise import optimise
from tests.program.passes import preserves, preserves_random
from tests.program.random_modules import random_module
from tests.program.random_tensors import feeds_of, seeded


@pytest.mark.parametrize("seed", range(60))
def test_random_tensors(seed: int) -> None:
    preserves_random(optimise, seed, every=seed % 3 == 0)


@pytest.mark.parametrize("seed", range(60))
def test_random_control_flow(seed: int) -> None:
    """States, carried values, loops in loops."""
    module = random_module(seeded(seed))
    rng = np.random.default_rng(seed)
    feeds = {b.name: rng.integers(0, 97, b.bound).astype(np.int32) for b in module.inputs}
    preserves(optimise, module, feeds)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1400))
def test_many(seed: int) -> None:
    preserves_random(optimise, seed, every=seed % 3 == 0)


@pytest.mark.parametrize("length", [1, 2, 7, 8])
def test_extents_of_the_run(length: int) -> None:
    b = Builder()
    t = b.symbol("T", 8)
    x, w = b.input("x", "f32", (t, 6)), b.constant(np.ones((6, 5), np.float32))
    y = b.compute((t, 5), lambda i, j: b.sum((6,), lambda k: x[i, k] * w[k, j]))
    b.output("y", b.compute((t * 2, 5), lambda i, j: call("tanh", y[i // 2, j])))
    b.output("z", b.compute((5,), lambda j: b.reduce("max", (t,), lambda k: y[k, j])))
    module = b.module()
    preserves(optimise, module, feeds_of(module, 0, {"T": length}))
