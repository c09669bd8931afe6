"""What a call from Python adds to the native code. Compared with a call of NumPy's, in the same minute."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

import headrace as hr
from tests.robust.models import relu

X = np.ones(4, np.float32)


@pytest.fixture(scope="module")
def instance() -> hr.Instance:
    return hr.compile(relu((4,))).instance()


def microseconds(call: Callable[[], object]) -> float:
    """The least of many rounds of a hundred calls."""
    best = float("inf")
    for _ in range(200):
        begin = time.perf_counter()
        for _ in range(100):
            call()
        best = min(best, time.perf_counter() - begin)
    return best / 100 * 1e6


def test_calls_are_cheap(instance: hr.Instance) -> None:
    out = np.empty_like(X)
    bound, plain = instance.bind({"x": X}, {"y": out}), {"x": X}
    unit = microseconds(lambda: np.add(X, X, out=out))  # about 0.4 us
    assert microseconds(bound) < 5 * unit
    assert microseconds(lambda: instance.run(plain)) < 50 * unit
    assert microseconds(bound) < microseconds(lambda: instance.run(plain))


def test_bound_calls_allocate_nothing(instance: hr.Instance) -> None:
    bound = instance.bind({"x": X}, {"y": np.empty_like(X)})
    bound()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(1000):
            bound()
        assert tracemalloc.get_traced_memory()[0] - before < 1000
    finally:
        tracemalloc.stop()
