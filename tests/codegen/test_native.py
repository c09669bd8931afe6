"""Random modules under random schedules, on every target this machine runs: C and interpreter agree."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.artifact.harness import run_sanitized
from headrace.codegen import generate
from headrace.program import interp
from headrace.program.ir import Define, Module
from headrace.program.optimise import optimise
from headrace.schedule import steps as st
from headrace.targets.registry import get_target
from headrace.targets.toolchain import find_toolchain
from tests.codegen.native import HERE, RUNNABLE, Native
from tests.codegen.random_schedules import random_schedule
from tests.program.compare import assert_close
from tests.program.random_tensors import feeds_of, random_tensors, seeded


def compare(seed: int, target: str, scheduled: bool, count: int = 8) -> None:
    module = random_tensors(seed, count, every=seed % 2 == 0)
    lowered = optimise(module, 16) if seed % 3 else module
    feeds, pick, used = feeds_of(module, seed), seeded(seed), []

    def schedule(define: Define) -> st.Schedule:
        used.append(random_schedule(define, pick))
        return used[-1]

    with np.errstate(all="ignore"):
        wanted = interp.run(module, feeds)
        got = Native(lowered, target, schedule if scheduled else None).run(feeds)
        assert_close(got, wanted, 512, f"seed {seed}: ")


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize("seed", range(3))
def test_random_schedules(seed: int, target: str) -> None:
    compare(seed + 10 * RUNNABLE.index(target), target, scheduled=True)


@pytest.mark.parametrize("target", HERE)
def test_the_heuristic(target: str) -> None:
    compare(100 + RUNNABLE.index(target), target, scheduled=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1150))
def test_many(seed: int) -> None:
    compare(seed, RUNNABLE[seed % len(RUNNABLE)], scheduled=seed % 5 != 0)


@pytest.mark.parametrize("seed", [201, 202])
def test_memory_and_undefined_behaviour(seed: int) -> None:
    module = random_tensors(seed, 6, every=False)
    pick = seeded(seed)
    target = get_target("native")
    made = generate(optimise(module, 16), "net", target, lambda d: random_schedule(d, pick))
    feeds = feeds_of(module, seed)
    with np.errstate(all="ignore"):
        (got,) = run_sanitized(made, find_toolchain("gcc", target.triple), [feeds])
        assert_close(got, interp.run(module, feeds), 512)


def sample() -> Module:
    return random_tensors(7, 16, every=False)


COMPILERS = [
    ("gcc", "c", "c11"),
    ("clang", "c", "c11"),
    ("zig", "c", "c11"),
    ("gcc", "c++", "c++17"),
    ("clang", "c++", "c++17"),
]


@pytest.mark.parametrize(("kind", "language", "standard"), COMPILERS)
def test_no_warnings(kind: str, language: str, standard: str) -> None:
    from headrace.errors import ToolchainError

    try:
        find_toolchain(kind, get_target("native").triple)
    except ToolchainError as e:
        pytest.skip(str(e))
    warn = ("-Wall", "-Wextra", "-Werror", "-O1", "-g0", "-ffp-contract=off", "-fPIC", "-shared", "-fno-math-errno")
    pick = seeded(7)
    Native(
        optimise(sample(), 16),
        "native",
        lambda d: random_schedule(d, pick),
        (f"-std={standard}", "-x", language, *warn),
        kind,
    )
