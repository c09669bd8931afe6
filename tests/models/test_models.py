"""Real models, compiled for this machine, compute what onnxruntime computes: on random and on real input."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import headrace as hr
from headrace.measure.verify_report import VerifyReport
from tests.models.compiled import CASES, LIGHT_CASES, SUBJECTS, program
from tests.models.small import SMALL_CASES


def check(report: VerifyReport, record: pytest.FixtureRequest) -> None:
    """Fail with the whole report; keep the measured figure."""
    record.node.user_properties.append(("difference", report.relative))
    assert report.ok, "\n" + report.table()


@pytest.mark.parametrize("name", CASES)
def test_agrees_on_random_input(name: str, request: pytest.FixtureRequest) -> None:
    """Three seeds; a state starts from random values too."""
    subject = SUBJECTS[name]
    states = program(name).states
    for seed in range(1 if subject.is_heavy else 3):
        first = subject.random(seed)
        follow = {k: v for k, v in subject.random(seed + 100).items() if k not in states}
        steps = [first, follow] if states else [first]
        check(hr.verify(program(name), subject.load(), steps, layers=None), request)


@pytest.mark.parametrize("name", CASES)
def test_agrees_on_real_input(name: str, request: pytest.FixtureRequest) -> None:
    """Consecutive steps of the spoken clip, files, or pictures; a state is carried from step to step."""
    subject = SUBJECTS[name]
    check(hr.verify(program(name), subject.load(), subject.real(), layers=None), request)


@pytest.mark.parametrize("name", LIGHT_CASES)
def test_runs_repeat_to_the_bit(name: str) -> None:
    """run() twice, a new instance, an instance after reset, and bound arrays all give the same bits."""
    subject, compiled = SUBJECTS[name], program(name)
    feeds = {k: v for k, v in subject.random(0).items() if k in compiled.inputs}
    expected = compiled.run(feeds)
    instance = compiled.instance()
    again = [compiled.run(feeds), instance.run(feeds)]
    instance.reset()
    again.append(instance.run(feeds))
    out = {name: np.full_like(value, 1) for name, value in expected.items()}
    instance.reset()
    instance.bind({k: np.ascontiguousarray(v) for k, v in feeds.items()}, out)()
    for results in (*again, out):
        for key, value in expected.items():
            assert value.tobytes() == results[key].tobytes(), key


@pytest.mark.parametrize("name", SMALL_CASES)
def test_two_threads_give_the_bits_of_one(name: str) -> None:
    """Two instances run the same steps at the same time, with state and scratch of their own."""
    compiled = program(name)
    steps = [{k: v for k, v in SUBJECTS[name].random(seed).items() if k in compiled.inputs} for seed in range(6)]

    def run(_: int) -> list[bytes]:
        instance = compiled.instance()
        return [value.tobytes() for step in steps for value in instance.run(step).values()]

    expected = run(0)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, range(4))) == [expected] * 4


@pytest.mark.models
@pytest.mark.xdist_group("pulsevad-int8")
def test_quantised_results_are_those_of_onnxruntime() -> None:
    """The same multiples of the output's scale as its float arithmetic without fusions, on 200 random inputs."""
    subject, compiled = SUBJECTS["pulsevad-int8"], program("pulsevad-int8")
    feeds = [*subject.real(), *(subject.random(seed) for seed in range(200))]
    report = hr.verify(compiled, subject.load(), feeds, layers=False)
    assert report.relative == 0, "\n" + report.table()


TARGETS = ["x86-64-avx2", *(pytest.param(t, marks=pytest.mark.slow) for t in ("x86-64", "x86-64-avx512", "generic"))]


@pytest.mark.models
@pytest.mark.xdist_group("pulsevad-int8")
@pytest.mark.parametrize("target", TARGETS)
def test_quantised_code_is_small(target: str) -> None:
    """Under 60 kB of machine code on every target that this machine can compile for."""
    subject = SUBJECTS["pulsevad-int8"]
    size = hr.compile(subject.load(), target, **subject.options).info.code_bytes
    assert size is None or size < 60_000
