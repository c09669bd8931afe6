"""The same C under every compiler and for every instruction set: what it links to, and that results agree."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.artifact.elf import undefined_symbols
from headrace.measure.compare import compare
from headrace.targets.registry import TARGETS, get_target
from headrace.targets.toolchain import find_toolchain, find_toolchains
from tests.models.compiled import SUBJECTS, program
from tests.models.small import split_cases

TRIPLE = get_target("native").triple
KINDS = [t.kind for t in find_toolchains() if t.builds_for(TRIPLE)]
ISAS = [name for name, t in TARGETS.items() if t.triple == TRIPLE and not t.missing_here()]
ALLOWED = {"memcpy", "memset", "memmove", "memcmp"}
FEW = ("silero-step", "pulsevad")
EXACT = ("pulsevad-int8",)  # quantised: all that rounds is in operations that C defines exactly
ROUNDING = 2e-5  # of the largest output
STEPS = 3


@pytest.mark.parametrize("kind", ["gcc", "clang", "zig"])
@pytest.mark.parametrize("level", ["-O3", pytest.param("-Os", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", split_cases(FEW))
def test_plain_objects_need_memory_functions_only(name: str, level: str, kind: str, tmp_path: Path) -> None:
    """`cc -std=c11 -O3 -c NAME.c`, without any flag of ours."""
    command = toolchain(kind).command
    (source,) = (p for p in program(name).path.glob("*.c") if not p.stem.endswith("_bridge"))
    line = [*command, "-std=c11", level, "-c", str(source), "-o", "model.o"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    needed = undefined_symbols((tmp_path / "model.o").read_bytes())
    assert needed is not None and needed <= ALLOWED


def toolchain(kind: str) -> Any:
    if kind not in KINDS:
        pytest.skip(f"{kind} is not installed")
    return find_toolchain(kind, TRIPLE)


def outputs(compiled: hr.Program, name: str) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Of consecutive steps on random input."""
    instance = compiled.instance()
    feeds = [SUBJECTS[name].random(seed) for seed in range(STEPS)]
    return [instance.run({k: v for k, v in step.items() if k in compiled.inputs}) for step in feeds]


def check_agreement(name: str, other: hr.Program, record: pytest.FixtureRequest, exact: bool = False) -> None:
    """Bit for bit where the model or the test is exact, else within rounding; keeps the measured figure."""
    worst = 0.0
    for mine, theirs in zip(outputs(program(name), name), outputs(other, name), strict=True):
        for key, expected in mine.items():
            assert np.isfinite(expected).all(), key
            if exact or name in EXACT:
                assert expected.tobytes() == theirs[key].tobytes(), key
            scale = float(np.abs(expected).max()) or 1.0
            worst = max(worst, float(np.abs(theirs[key] - expected).max()) / scale)
            assert compare(theirs[key], expected, ROUNDING).ok, (key, worst)
    record.node.user_properties.append(("difference", worst))


@pytest.mark.parametrize("kind", ["gcc", "clang", "zig"])
@pytest.mark.parametrize("name", split_cases(FEW))
def test_compilers_agree(name: str, kind: str, request: pytest.FixtureRequest) -> None:
    """With our flags, which leave no compiler a choice of rounding: bit for bit."""
    toolchain(kind)
    check_agreement(name, SUBJECTS[name].compile(toolchain=kind), request, exact=True)


@pytest.mark.parametrize("isa", [name for name in ISAS if name != "native" and not name.endswith("amx")])
@pytest.mark.parametrize("name", split_cases(("silero-step",)))
def test_instruction_sets_agree(name: str, isa: str, request: pytest.FixtureRequest) -> None:
    """SSE2 has neither a fused multiply-add nor a rounding instruction; nothing may come from libm instead."""
    other = SUBJECTS[name].compile(target=isa)
    assert other.info.target == isa
    check_agreement(name, other, request)


@pytest.mark.parametrize("name", split_cases(("pulsevad",)))
def test_value_preserving_flags_are_not_needed(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A user's own build: a plain -O3, where the compiler may contract a·b + c, agrees within rounding."""
    from headrace.artifact.program import open_program

    compiled = program(name)
    folder = compiled.path
    library = tmp_path / compiled.info.manifest["library"]
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    sources = sorted(p.name for p in folder.glob("*.c"))
    for kind in KINDS:
        line = [*toolchain(kind).command, "-std=gnu11", "-O3", "-shared", "-fPIC", "-o", library.name, *sources]
        subprocess.run(line, cwd=tmp_path, check=True)
        check_agreement(name, open_program(tmp_path, check=False), request)
