"""Artifacts with several instruction sets: what they say of themselves, streams, the entries in the library."""

from __future__ import annotations

import numpy as np
import pytest

import headrace as hr
from headrace.targets.registry import TARGETS, get_target
from tests.artifact import stepmodels

NAME = "x86-64-dispatch"
TARGET = get_target(NAME)
pytestmark = pytest.mark.skipif(bool(TARGET.missing_here()), reason=f"{NAME}: needs {TARGET.missing_here()}")


ALONE = [t for t in TARGETS.values() if not t.wider and t.isa in (TARGET.isa, *TARGET.wider)]


def test_what_it_says_of_itself() -> None:
    program = hr.compile(stepmodels.ALL["causal"]().step(), NAME)
    assert program.info.target == NAME
    assert program.info.manifest["target"]["isa"] == "x86-64, avx2, avx512, avx512vnni"
    assert program.info.manifest["facts"]["entries"] == ["x86-64", "avx2", "avx512", "avx512vnni"]
    assert program.info.isa == [t.isa.name for t in ALONE if not t.missing_here()][-1]
    (row,) = (t for t in hr.targets() if t.name == NAME)
    assert row.isa == "x86-64, avx2, avx512, avx512vnni" and row.can_run


@pytest.mark.parametrize(("kind", "threads"), [("same", 1), ("side", 3)])
def test_a_stream_gives_the_bits_of_its_instruction_set(kind: str, threads: int) -> None:
    offline = stepmodels.ALL[kind]()
    step = offline.step()
    program = hr.compile(step, NAME, threads=threads)
    alone = hr.compile(step, next(t for t in ALONE if t.isa.name == program.info.isa))
    assert alone.info.isa == program.info.isa
    signal, results = offline.signal(37), []
    for p in (program, alone):
        stream = p.stream(offline.given or None)
        first = stream.push({k: v[(slice(None),) * offline.axes[k] + (slice(0, 31),)] for k, v in signal.items()})
        state = stream.state()
        stream.reset()
        stream.restore(state)
        results.append((first, stream.flush()))
    for ours, theirs in zip(*results, strict=True):
        assert ours.keys() == theirs.keys()
        for name, array in theirs.items():
            assert np.asarray(ours[name]).tobytes() == np.asarray(array).tobytes()
