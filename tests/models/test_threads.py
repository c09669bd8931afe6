"""Many instances of one program: in threads, interleaved, on shared scratch, on any alignment: the same bits."""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from typing import Any

import numpy as np
import pytest

from tests.models.compiled import SUBJECTS, program
from tests.models.small import SMALL_CASES

STEPS = 3
Outputs = list[bytes]


@functools.cache
def steps(name: str, seed: int = 0) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Inputs of consecutive runs, without states."""
    known = program(name).inputs
    feeds = [SUBJECTS[name].random(seed + n) for n in range(STEPS)]
    return [{k: np.ascontiguousarray(v) for k, v in step.items() if k in known} for step in feeds]


@functools.cache
def alone(name: str, seed: int = 0) -> Outputs:
    instance = program(name).instance()
    return [value.tobytes() for step in steps(name, seed) for value in instance.run(step).values()]


@pytest.mark.parametrize("name", SMALL_CASES)
def test_threads_with_different_inputs(name: str) -> None:
    """Every thread has an instance, and all switch as often as Python lets them."""
    expected = {seed: alone(name, seed) for seed in range(3)}
    results: dict[int, Outputs] = {}
    threads = [
        threading.Thread(target=lambda s=seed: results.update({s: alone.__wrapped__(name, s)})) for seed in expected
    ]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert results == expected


@pytest.mark.parametrize("name", SMALL_CASES)
def test_instances_taking_turns(name: str) -> None:
    """Three instances, one step each in turn, each with inputs of its own."""
    expected = [alone(name, seed) for seed in range(3)]
    instances = [program(name).instance() for _ in expected]
    inputs = [steps(name, seed) for seed in range(3)]
    results: list[Outputs] = [[] for _ in expected]
    for n in range(STEPS):
        for instance, given, result in zip(instances, inputs, results, strict=True):
            result.extend(value.tobytes() for value in instance.run(given[n]).values())
    assert results == expected


@pytest.mark.parametrize("name", SMALL_CASES)
def test_scratch_is_shared_by_turns_and_may_hold_anything(name: str) -> None:
    """Two states, one scratch block; between runs it is filled with bytes that are NaN as floats."""
    compiled = program(name)
    expected = [alone(name, seed) for seed in (0, 1)]
    first, second = compiled.instance(), compiled.instance()
    scratch = first._blocks[1]
    results: list[Outputs] = [[], []]
    for n in range(STEPS):
        for which, instance in enumerate((first, second)):
            given = steps(name, which)[n]
            out = {k: np.empty_like(v) for k, v in compiled.run(given).items()}
            instance._blocks = (instance._blocks[0], scratch)
            ctypes.memset(scratch, 0xFF, compiled.info.scratch_bytes)
            instance.bind(given, out)()
            results[which].extend(value.tobytes() for value in out.values())
    assert results == expected


@pytest.mark.parametrize("name", SMALL_CASES)
def test_arrays_need_the_alignment_of_their_elements_only(name: str) -> None:
    """Inputs and outputs one element beyond a boundary of 64 bytes, with guards on both sides."""
    compiled, given = program(name), steps(name)[0]
    expected = compiled.run(given)
    inputs = {k: shifted(v) for k, v in given.items()}
    outputs = {k: shifted(np.zeros_like(v)) for k, v in expected.items()}
    compiled.instance().bind(inputs, outputs)()
    for key, value in expected.items():
        assert value.tobytes() == outputs[key].tobytes()
        around = outputs[key].base
        assert around is not None
        size = value.nbytes
        start = outputs[key].ctypes.data - around.ctypes.data
        whole = np.asarray(around)
        assert (whole[:start] == 0xEE).all() and (whole[start + size :] == 0xEE).all(), "written outside"
    for key, value in given.items():
        assert value.tobytes() == inputs[key].tobytes()


def shifted(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy that begins one element after a multiple of 64 bytes, in the midst of 0xEE bytes."""
    memory = np.full(array.nbytes + 256, 0xEE, np.uint8)
    start = -memory.ctypes.data % 64 + 64 + array.itemsize
    place = np.ndarray(array.shape, array.dtype, memory, start)
    place[...] = array
    return place
