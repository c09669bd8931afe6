"""The generated C under AddressSanitizer and UBSan: on real input, and on numbers no one should feed."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from headrace import verbs
from headrace.artifact.harness import run_sanitized
from headrace.artifact.naming import c_identifier
from headrace.codegen.generated import Generated
from headrace.measure.compare import compare
from headrace.targets.registry import get_target
from headrace.targets.toolchain import find_toolchain, find_toolchains
from tests.models.compiled import SUBJECTS, program
from tests.models.small import split_cases

NATIVE = get_target("native")
KINDS = [t.kind for t in find_toolchains() if t.kind != "zig" and t.builds_for(NATIVE.triple)]
REAL, ANY = split_cases(("silero-step",)), split_cases(("pulsevad",))
Feeds = dict[str, np.ndarray[Any, Any]]

pytestmark = pytest.mark.skipif(not KINDS, reason="needs gcc or clang: zig ships no AddressSanitizer")


def generated(name: str, target: str = "native") -> Generated:
    """The C of a subject, as compile() makes it."""
    subject = SUBJECTS[name]
    settings = {"shapes": {}, "bounds": {}, "constants": {}, "state": {}, **subject.options}
    return verbs.generate(subject.load(), c_identifier(name), get_target(target), **settings)


def runtime(name: str, feeds: Any) -> Feeds:
    return {k: v for k, v in feeds.items() if k in program(name).inputs}


@pytest.mark.parametrize("kind", ["gcc", pytest.param("clang", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", REAL)
def test_real_input(name: str, kind: str) -> None:
    """Consecutive steps; the outputs are those of the program without sanitizers."""
    if kind not in KINDS:
        pytest.skip(f"{kind} is not installed")
    steps = [runtime(name, step) for step in SUBJECTS[name].real()[:4]]
    results = run_sanitized(generated(name), find_toolchain(kind, NATIVE.triple), steps)
    instance = program(name).instance()
    for step, result in zip(steps, results, strict=True):
        for key, expected in instance.run(step).items():
            difference = compare(result[key], expected)
            assert difference.ok, f"{key}: {difference.describe()}"


@pytest.mark.parametrize("name", ANY)
def test_any_number_is_defined_behaviour(name: str) -> None:
    """NaN, infinities, the largest, the smallest and denormal values: whatever comes out, C defines it."""
    values = np.array([np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-38, 1e-45, -0.0, 1e9, -1e9], np.float32)
    rng = np.random.default_rng(0)
    steps = [{k: rng.choice(values, v.shape) for k, v in runtime(name, SUBJECTS[name].random(0)).items()}]
    if name.startswith("magika"):
        info = np.iinfo(np.int32)
        steps = [{"bytes": rng.choice(np.array([info.min, -1, 0, 256], np.int32), (1, 2048))}]
    is_float = all(v.dtype.kind == "f" for v in steps[0].values())
    steps += [{k: np.full_like(v, value) for k, v in steps[0].items()} for value in values[:5] if is_float]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        results = run_sanitized(generated(name), find_toolchain(KINDS[0], NATIVE.triple), steps)
    assert len(results) == len(steps)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["generic", "x86-64", "x86-64-avx2"])
@pytest.mark.parametrize("name", split_cases())
def test_other_instruction_sets(name: str, target: str) -> None:
    """The same for the code of narrower machines, on random input."""
    if get_target(target).missing_here():
        pytest.skip(f"{target} does not run here")
    steps = [runtime(name, SUBJECTS[name].random(seed)) for seed in range(2)]
    results = run_sanitized(generated(name, target), find_toolchain(KINDS[0], NATIVE.triple), steps)
    instance = program(name).instance()
    for step, result in zip(steps, results, strict=True):
        for key, expected in instance.run(step).items():
            assert compare(result[key], expected, 2e-5).ok, key
