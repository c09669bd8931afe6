"""The generated C of real models: what it links to, what sanitizers say, what other compilers make of it."""

from __future__ import annotations

import shutil
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
from tests.models.small import HEAVY_CASES, split_cases

TARGET = get_target("native")
KINDS = [t.kind for t in find_toolchains() if t.builds_for(TARGET.triple)]
FEW = [*split_cases(("silero-step", "dfn3-enc[S=1]", "pulsevad", "pulsevad-int8", "resnet8")), *HEAVY_CASES]
ALLOWED = {"memcpy", "memset"}
STRICT = ("-fsyntax-only", "-O2", "-Wall", "-Wextra", "-Werror")
STEPS = 3


def generated(name: str) -> Generated:
    """The C of a subject, as compile() makes it."""
    subject = SUBJECTS[name]
    settings = {"shapes": {}, "bounds": {}, "constants": {}, "state": {}, **subject.options}
    return verbs.generate(subject.load(), c_identifier(name), TARGET, **settings)


def source_of(name: str) -> Path:
    """NAME.c of the compiled subject."""
    return next(p for p in program(name).path.glob("*.c") if not p.name.endswith("_bridge.c"))


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
@pytest.mark.parametrize("name", CASES)
def test_objects_need_nothing_but_memcpy_and_memset(name: str) -> None:
    library = next(program(name).path.glob("*.so"))
    command = ["nm", "-D", "--undefined-only", str(library)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    strong = {line.split()[-1].split("@")[0] for line in listed.splitlines() if line.split()[-2] == "U"}
    assert strong <= ALLOWED


@pytest.mark.parametrize("name", FEW)
def test_the_source_compiles_without_a_warning(name: str) -> None:
    source = source_of(name)
    command = [*find_toolchain(None, TARGET.triple).command, "-std=c11", *STRICT, source.name]
    done = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("name", FEW)
def test_the_source_is_cpp_too(name: str) -> None:
    source = source_of(name)
    command = ["g++", "-x", "c++", "-std=c++17", *STRICT, source.name]
    done = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.skipif("gcc" not in KINDS and "clang" not in KINDS, reason="needs a compiler with sanitizers")
@pytest.mark.parametrize("name", LIGHT_CASES)
def test_sanitizers_find_nothing(name: str) -> None:
    compiled = program(name)
    kind = "gcc" if "gcc" in KINDS else "clang"
    steps = [{k: v for k, v in SUBJECTS[name].random(seed).items() if k in compiled.inputs} for seed in range(STEPS)]
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
