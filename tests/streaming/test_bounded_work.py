"""Every step of the steady state does the same work, whatever the signal and however long the stream has run.

Counted, not timed: the generated C is compiled with a call in every basic block, so equal numbers of blocks
mean the same entry and the same turns of every loop. One hour and ten minutes at a hundred frames per second.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.targets.host import host_triple
from headrace.targets.toolchain import find_toolchain, run_compiler
from tests.artifact import stepmodels
from tests.artifact.test_stream_c import pieces_of
from tests.streaming.architectures import ARCHITECTURES
from tests.streaming.test_architectures import step_of

HARNESS = Path(__file__).with_name("steady.c")


def counted(step: hr.StepModel, folder: Path) -> dict[str, tuple[int, ...]]:
    """Least blocks, most blocks and allocations of a push, for each stretch of the stream."""
    toolchain = find_toolchain(None, host_triple())
    program = hr.compile(step, out=folder)
    manifest = program.info.manifest
    name, pieces = manifest["name"], pieces_of(manifest)
    (x,) = [p for p in manifest["inputs"] if p["name"] in step.spec.inputs]
    (y,) = manifest["outputs"]
    defines = {
        "NAME": name, "HEADER": f'"{name}.h"', "WEIGHTS_FILE": f'"{name}.weights"',
        "FRAME": x["nbytes"] // 4, "OUT": y["nbytes"] // 4 + 1, "WEIGHTS": manifest["weight_bytes"],
        "PORTABLE": max(p.offset + p.nbytes for p in pieces), "POSITION": pieces[-1].offset,
        "CHUNK": step.chunk, "X": x["c_field"], "Y": y["c_field"],
    }  # fmt: skip
    (folder / "steady.c").write_text(HARNESS.read_text())
    run_compiler(toolchain, ("-O1", "-fsanitize-coverage=trace-pc", "-c", f"{name}.c"), folder)
    flags = [f"-D{key}={value}" for key, value in defines.items()]
    run_compiler(toolchain, ("-O1", *flags, "steady.c", f"{name}.o", "-o", "steady", "-lm"), folder)
    done = subprocess.run(["./steady"], cwd=folder, capture_output=True, text=True, timeout=300, check=True)
    rows = (line.rsplit(maxsplit=3) for line in done.stdout.splitlines())
    return {title: tuple(map(int, numbers)) for title, *numbers in rows}


def check(found: dict[str, tuple[int, ...]]) -> None:
    """A tone repeats exactly, so its steps must, too; on other signals a select such as ReLU may be a branch."""
    usual = found["minute 1"][0]
    assert usual > 0
    for title in ("minute 1", "later", "past 2^31", "past 2^40"):
        assert found[title] == (usual, usual, 0), (title, found)
    for title in ("speech", "silence", "fading", "nan", "rounding"):
        least, most, allocations = found[title]
        assert most - least <= max(4, usual // 20) and abs(least - usual) <= max(4, usual // 20), (title, found)
        assert allocations == 0
    assert found["start"][2] == 0
    assert found["mode"] == (1, 1, 0), "the caller's rounding or denormals have changed"


def deep(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", ["same", deep("causal")])
def test_layer(name: str, tmp_path: Path) -> None:
    """The first steps may run the entry with masks: more work than later ones, but by a constant."""
    found = counted(getattr(stepmodels, name)().step(), tmp_path / "p")
    check(found)
    assert found["start"][1] <= 20 * found["minute 1"][0]


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if n != "transformer"])
def test_architecture(name: str, tmp_path: Path) -> None:
    check(counted(step_of(name), tmp_path / "p"))


@pytest.mark.parametrize("name", ["enhancer", deep("unet")])
def test_position_passes_two_to_the_31_at_every_rate(name: str) -> None:
    """Frame numbers beyond 32 bits, in programs whose masks count them at other rates."""
    step, net = step_of(name), ARCHITECTURES[name]
    program = hr.compile(step)
    x = np.random.default_rng(0).standard_normal((1, net.channels, 40 * step.chunk)).astype(np.float32)
    here, far = program.stream(), program.stream()
    here.push({"x": x})
    state = here.state()
    for start in (2**31 // step.chunk * step.chunk - step.chunk, 2**40 // step.chunk * step.chunk):
        here.restore(state)
        far.restore({**state, "position": np.array([start])})
        for a, b in ((far.push({"x": x}), here.push({"x": x})), (far.flush(), here.flush())):
            assert all(a[key].tobytes() == b[key].tobytes() for key in a)
