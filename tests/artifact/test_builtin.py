"""Short programs are called as built-in functions: same results and errors, and nothing dies too soon or lives on."""

from __future__ import annotations

import gc
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.artifact import code
from headrace.artifact.program import Program, open_program
from headrace.errors import Error
from tests.artifact import handmade
from tests.artifact.conftest import build_here
from tests.artifact.handmade import WEIGHTS

X = np.arange(8, dtype=np.float32).reshape(1, 8)
pytestmark = pytest.mark.skipif(sys.implementation.name != "cpython", reason="built-in functions are CPython's")


@pytest.fixture(scope="module")
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = handmade.running_sum("short")
    made = replace(made, kernels=tuple(replace(k, cycles={"loops": 10.0}) for k in made.kernels))
    return build_here(made, tmp_path_factory.mktemp("artifacts") / "short")


@pytest.fixture
def short(short_path: Path) -> Program:
    return open_program(short_path)


def test_bound_runs_are_built_in(short: Program, demo: Program) -> None:
    x, y = X.copy(), np.empty_like(X)
    call = short.instance().bind({"x:0": x}, {"y:0": y})
    assert type(call) is type(len) and call() is None
    np.testing.assert_array_equal(y, X * WEIGHTS)
    call()
    np.testing.assert_array_equal(y, 2 * X * WEIGHTS)
    other = demo.instance().bind({"x:0": x}, {"y:0": y})  # of unknown length, so it lets go of the lock
    assert type(other) is not type(len)


def test_errors_are_raised_as_ever(short: Program) -> None:
    x, y = X.copy(), np.empty_like(X)
    instance = short.instance()
    call = instance.bind({"x:0": x}, {"y:0": y})
    x[:] = 2e30
    for _ in range(3):
        with pytest.raises(Error, match="error 7: the input is too large"):
            call()
    with pytest.raises(Error, match="error 7"):
        instance.run({"x:0": x})
    with pytest.raises(TypeError):
        call(1)  # type: ignore[call-arg]
    instance.reset()
    x[:] = X
    call()
    np.testing.assert_array_equal(y, X * WEIGHTS)


def test_what_a_call_needs_lives_as_long_as_the_call(short_path: Path) -> None:
    y = np.empty_like(X)
    program = open_program(short_path)
    instance = program.instance()
    call = instance.bind({"x:0": X.copy()}, {"y:0": y})
    gone = weakref.ref(instance)
    del instance, program
    gc.collect()
    for n in range(1, 4):
        call()
        np.testing.assert_array_equal(y, n * X * WEIGHTS)
    assert gone() is not None
    del call
    gc.collect()
    assert gone() is None


def test_calls_leak_nothing(short: Program) -> None:
    instance = short.instance()
    call = instance.bind({"x:0": X}, {"y:0": np.empty_like(X)})
    before = sys.getrefcount(None)
    for _ in range(10_000):
        call()
    assert abs(sys.getrefcount(None) - before) < 100
    assert len({id(instance.bind({"x:0": X}, {"y:0": np.empty_like(X)})) for _ in range(100)}) < 50


def test_without_cpython_ctypes_does_it(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "is_possible", lambda: False)
    y = np.empty_like(X)
    call = open_program(short_path).instance().bind({"x:0": X}, {"y:0": y})
    assert type(call) is not type(len)
    call()
    np.testing.assert_array_equal(y, X * WEIGHTS)


def test_libraries_from_before_it_run_by_ctypes(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Older:
        """A library without the function."""

        def __init__(self, library: object) -> None:
            self._library = library

        def __getattr__(self, name: str) -> object:
            if name.endswith("_bridge_interpreter"):
                raise AttributeError(name)
            return getattr(self._library, name)

    load = code._load
    monkeypatch.setattr(code, "_load", lambda path: Older(load(path)))
    monkeypatch.setattr(code, "_without_release", lambda library: library)
    y = np.empty_like(X)
    call = open_program(short_path).instance().bind({"x:0": X}, {"y:0": y})
    assert type(call) is not type(len)
    call()
    np.testing.assert_array_equal(y, X * WEIGHTS)
