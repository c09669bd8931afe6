"""Times of short calls, fairly: all contestants take turns in one process, round after round."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Call = Callable[[], object]

ROUNDS = 31
MIN_ROUNDS = 7
BATCH_US = 500.0
WARM_UP_US = 20_000.0
EVICT_BYTES = 4 << 20


@dataclass(frozen=True)
class Timing:
    """samples: microseconds per call, one for each round in their order; batch: calls per sample."""

    samples: tuple[float, ...]
    batch: int

    @property
    def median_us(self) -> float:
        return statistics.median(self.samples)

    @property
    def best_us(self) -> float:
        return min(self.samples)

    @property
    def quartiles_us(self) -> tuple[float, float]:
        """First and third quartile."""
        return quartiles(self.samples)


@dataclass(frozen=True)
class Ratio:
    """One contestant's time divided by another's, round by round."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}–{self.high:.2f})"


def ratio(slower: Timing, faster: Timing) -> Ratio:
    """Median and quartiles of slower / faster over the rounds that both ran."""
    values = [a / b for a, b in zip(slower.samples, faster.samples, strict=True)]
    return Ratio(statistics.median(values), *quartiles(values))


def quartiles(values: tuple[float, ...] | list[float]) -> tuple[float, float]:
    """First and third quartile; of fewer than two values, that value twice."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def interleave(
    calls: Mapping[str, Call],
    rounds: int = ROUNDS,
    batch_us: float = BATCH_US,
    evict: bool = False,
    warm_up_us: float = WARM_UP_US,
    seconds: float | None = None,
) -> dict[str, Timing]:
    """Time every call in every round; the one that begins changes from round to round.

    A sample is the mean over a batch of calls that takes at least batch_us. evict: write 4 MB before
    every call, as on a device that does other things between two steps; the writing is not counted,
    reading the clock (about 0.05 µs) is. seconds: no further rounds after that long, but MIN_ROUNDS.
    Collection of garbage waits until the end.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: at least one is needed")
    once = _evicted(np.zeros(EVICT_BYTES, np.uint8)) if evict else _repeated
    enabled = gc.isenabled()
    gc.disable()
    try:
        batches = {name: _batch(call, batch_us, warm_up_us) for name, call in calls.items()}
        samples: dict[str, list[float]] = {name: [] for name in calls}
        order = list(calls)
        begun = time.perf_counter()
        for number in range(rounds):
            if seconds is not None and number >= MIN_ROUNDS and time.perf_counter() - begun > seconds:
                break
            first = number % max(len(order), 1)
            for name in order[first:] + order[:first]:
                samples[name].append(once(calls[name], batches[name]) / batches[name] / 1000)
    finally:
        if enabled:
            gc.enable()
    return {name: Timing(tuple(samples[name]), batches[name]) for name in calls}


def _batch(call: Call, batch_us: float, warm_up_us: float) -> int:
    """Calls that fill a batch, found while warming up."""
    count, spent = 1, 0.0
    while True:
        elapsed = _repeated(call, count) / 1000
        spent += elapsed
        if elapsed < batch_us:
            count = max(count + 1, min(count * 8, int(count * 1.2 * batch_us / max(elapsed, 0.01))))
        elif spent >= warm_up_us:
            return count


def _repeated(call: Call, count: int) -> int:
    """Nanoseconds of `count` calls, one after the other."""
    counter = range(count)
    start = time.perf_counter_ns()
    for _ in counter:
        call()
    return time.perf_counter_ns() - start


def _evicted(memory: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Callable[[Call, int], int]:
    def measure(call: Call, count: int) -> int:
        """Nanoseconds of `count` calls, each after the caches were filled with something else."""
        total = 0
        for _ in range(count):
            np.add(memory, 1, out=memory)
            start = time.perf_counter_ns()
            call()
            total += time.perf_counter_ns() - start
        return total

    return measure
