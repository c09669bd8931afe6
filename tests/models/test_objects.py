"""The generated C of real models: what it links to, what sanitizers say, what other compilers make of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from headrace import verbs
from headrace.artifact.harness import run_sanitized
from headrace.artifact.naming import c_identifier
from headrace.codegen.generated import Generated
from headrace.measure.compare import compare
from headrace.targets.registry import get_target
from headrace.targets.toolchain import find_toolchain, find_toolchains
from tests.models.compiled import CASES, LIGHT_CASES, SUBJECTS, program

TARGET = get_target("native")
KINDS = [t.kind for t in find_toolchains() if t.builds_for(TARGET.triple)]
ALLOWED = {"memcpy", "memset"}
STEPS = 3


def generated(name: str) -> Generated:
    """The C of a subject, as compile() makes it."""
    subject = SUBJECTS[name]
    settings = {"shapes": {}, "bounds": {}, "constants": {}, "state": {}, **subject.options}
    return verbs.generate(subject.load(), c_identifier(name), TARGET, **settings)


@pytest.mark.parametrize("name", CASES)
def test_objects_need_nothing_but_memcpy_and_memset(name: str, tmp_path: Path) -> None:
    compiled = program(name)
    source = next(p for p in compiled.path.glob("*.c") if not p.name.endswith("_bridge.c"))
    command = [*find_toolchain(None, TARGET.triple).command, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
    target = tmp_path / "model.o"
    subprocess.run([*command, "-c", source.name, "-o", str(target)], cwd=compiled.path, check=True)
    listed = subprocess.run(["nm", "-u", str(target)], capture_output=True, text=True, check=True).stdout
    undefined = {line.split()[-1] for line in listed.splitlines() if line.strip()}
    stem = source.stem
    assert {s for s in undefined if not s.startswith(f"{stem}_weights")} <= ALLOWED


@pytest.mark.slow
@pytest.mark.skipif("gcc" not in KINDS and "clang" not in KINDS, reason="needs a compiler with sanitizers")
@pytest.mark.parametrize("name", LIGHT_CASES)
def test_sanitizers_find_nothing(name: str) -> None:
    compiled = program(name)
    kind = "gcc" if "gcc" in KINDS else "clang"
    steps = [
        {k: v for k, v in SUBJECTS[name].random(seed).items() if k in compiled.inputs}
        for seed in range(STEPS)
    ]
    results = run_sanitized(generated(name), find_toolchain(kind, TARGET.triple), steps)
    instance = compiled.instance()
    for step, result in zip(steps, results, strict=True):
        for key, expected in instance.run(step).items():
            difference = compare(result[key], expected)
            assert difference.ok, f"{key}: {difference.describe()}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LIGHT_CASES)
def test_compilers_agree(name: str, kind: str) -> None:
    """Within rounding: compilers may contract multiplications and additions differently."""
    compiled = program(name)
    other = SUBJECTS[name].compile(toolchain=kind)
    a, b = compiled.instance(), other.instance()
    for seed in range(STEPS):
        step = {k: v for k, v in SUBJECTS[name].random(seed).items() if k in compiled.inputs}
        mine, theirs = a.run(step), b.run(step)
        for key, expected in mine.items():
            assert np.isfinite(expected).all()
            assert compare(theirs[key], expected, 2e-5).ok, key
