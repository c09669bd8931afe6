from __future__ import annotations

import gc
import time

import pytest

from headrace.measure.timing import Timing, interleave, quartiles, ratio


def busy(microseconds: float) -> None:
    end = time.perf_counter_ns() + microseconds * 1000
    while time.perf_counter_ns() < end:
        pass


@pytest.mark.parametrize("evict", [False, True])
def test_times_are_those_of_the_calls(evict: bool) -> None:
    calls = {"short": lambda: busy(50), "long": lambda: busy(200)}
    times = interleave(calls, rounds=5, batch_us=400, evict=evict, warm_up_us=500)
    assert times["short"].best_us == pytest.approx(50, rel=0.2)
    assert times["long"].best_us == pytest.approx(200, rel=0.2)
    assert len(times["short"].samples) == 5
    assert times["short"].batch >= 7 and times["long"].batch >= 2


def test_contestants_take_turns_and_change_who_begins() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: (order.append(name), busy(300))) for name in "abc"}
    interleave(calls, rounds=3, batch_us=200, warm_up_us=0)
    assert "".join(order[-9:]) == "abcbcacab"


def test_garbage_is_collected_again_afterwards() -> None:
    states: list[bool] = []

    def fail() -> None:
        states.append(gc.isenabled())
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interleave({"x": fail})
    assert states == [False] and gc.isenabled()


def test_ratio_is_taken_round_by_round() -> None:
    slow, fast = Timing((10, 40, 90), 1), Timing((5, 10, 30), 1)
    assert (slow.median_us, slow.best_us) == (40, 10)
    result = ratio(slow, fast)
    assert (result.median, result.low, result.high) == (3, 2.5, 3.5)
    assert str(result) == "3.00 (2.50–3.50)"
    assert quartiles([7.0]) == (7.0, 7.0)


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        interleave({}, rounds=0)


def test_races_end_in_time_but_not_before_some_rounds() -> None:
    calls = {"x": lambda: busy(2000)}
    assert len(interleave(calls, rounds=40, batch_us=100, warm_up_us=0, seconds=0)["x"].samples) == 7
    assert 7 <= len(interleave(calls, rounds=200, batch_us=100, warm_up_us=0, seconds=0.1)["x"].samples) < 100
    assert len(interleave(calls, rounds=9, batch_us=100, warm_up_us=0, seconds=10)["x"].samples) == 9
