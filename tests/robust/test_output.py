"""Where the artifact cannot be written, or not to its end: one error, no rest, the earlier artifact as it was."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import headrace as hr
from headrace.targets.registry import get_target
from headrace.targets.toolchain import find_toolchain
from tests.robust.commands import NO_ZIG, check_refusal, command, content, environment, headrace
from tests.robust.models import one, relu, save

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, limits and permissions of POSIX")
X = np.ones((2, 4), np.float32)
COMPILER = find_toolchain(None, get_target("native").triple)
WITH_CC = pytest.mark.skipif(COMPILER.kind == "zig", reason="needs a system compiler")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, and an artifact of another model in the place where the tests write."""
    save(one("Add", (2, 4), (2, 4), w=np.ones((2, 4), np.float32)), tmp_path / "m.onnx")
    hr.compile(relu(), out=tmp_path / "out")
    (tmp_path / "tmp").mkdir()
    return tmp_path


def compile_there(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Compile over the earlier artifact, with temporary files in sight."""
    return headrace("compile", folder / "m.onnx", "-o", folder / "out", **{"TMPDIR": f"{folder}/tmp", **settings})


def check_untouched(folder: Path, before: dict[str, str]) -> None:
    assert content(folder) == before
    np.testing.assert_array_equal(hr.open(folder / "out").run({"x": -X})["y"], 0 * X)


@pytest.mark.parametrize(
    ("out", "names"),
    [
        ("m.onnx", "is a file"),
        ("m.onnx/deep/out", "is a file"),
        ("precious", "holds 'thesis.txt'"),
        ("mixed", "holds 'thesis.txt'"),
        ("/proc/headrace", "cannot write|No such file|read-only"),
    ],
)
def test_occupied_paths(out: str, names: str, folder: Path) -> None:
    (folder / "precious").mkdir()
    shutil.copytree(folder / "out", folder / "mixed")
    for place in ("precious", "mixed"):
        (folder / place / "thesis.txt").write_text("years of work")
    before = content(folder)
    message = check_refusal(headrace("compile", folder / "m.onnx", "-o", folder / out), (2,))
    assert any(name in message for name in names.split("|"))
    check_untouched(folder, before)
    with pytest.raises(hr.OutputError):
        hr.compile(folder / "m.onnx", out=folder / out)
    check_untouched(folder, before)


# Root may write everywhere; without its capabilities (capset of all zeros) permissions hold for it too.
POWERLESS = """
import ctypes, os
if os.getuid() == 0:
    assert ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()) == 0
"""


@pytest.mark.skipif(os.getuid() == 0 and sys.platform != "linux", reason="root may write everywhere")
def test_read_only_folders(folder: Path) -> None:
    (folder / "locked").mkdir()
    for path in (folder / "locked", folder / "out", folder):
        path.chmod(0o555)
    before = content(folder)
    for out in ("locked", "locked/new", "out", "new/deep"):
        done = headrace("compile", folder / "m.onnx", "-o", folder / out, before=POWERLESS)
        assert "read-only" in check_refusal(done, (2,))
        assert content(folder) == before
    folder.chmod(0o755)


@pytest.mark.parametrize("limit", [100, 3000, 9000])
def test_a_disk_that_is_full(limit: int, folder: Path) -> None:
    """A limit on the size of files, at the weights, at the sources, at the library: as a full disk is met."""
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    weights = np.ones((32, 32), np.float32) if limit == 3000 else np.ones((4, 4), np.float32)
    save(one("MatMul", (2, len(weights)), (2, len(weights)), w=weights), folder / "m.onnx")
    before = content(folder)
    done = headrace(
        "compile", folder / "m.onnx", "-o", folder / "out", before=limited, TMPDIR=str(folder / "tmp"),
        PYTHONDONTWRITEBYTECODE="1",
    )  # fmt: skip
    check_refusal(done)
    check_untouched(folder, before)


def test_no_compiler(folder: Path) -> None:
    before = content(folder)
    (folder / "empty").mkdir()
    done = headrace("compile", folder / "m.onnx", "-o", folder / "out", before=NO_ZIG, PATH=str(folder / "empty"))
    message = check_refusal(done, (1,))
    assert "no C compiler found" in message and "-m pip install ziglang" in message
    done = headrace("doctor", before=NO_ZIG, PATH=str(folder / "empty"))
    assert done.returncode == 1 and "-m pip install ziglang" in done.stdout
    (folder / "empty").rmdir()
    check_untouched(folder, before)


def wrapper(folder: Path, action: str) -> str:
    """A PATH with a cc that says who it is, but does `action` (shell) when it is to compile."""
    place = folder / "bin"
    place.mkdir()
    script = f'#!/bin/sh\ncase " $* " in *\' -E \'*|*dumpmachine*) exec {COMPILER.command[0]} "$@";; esac\n{action}\n'
    for name in ("cc", "gcc", "clang"):
        (place / name).write_text(script)
        (place / name).chmod(0o755)
    return f"{place}:{os.environ['PATH']}"


@WITH_CC
@pytest.mark.parametrize(
    ("action", "names"),
    [
        ("echo 'm.c:3:1: error: no space left' >&2; exit 1", "m.c:3:1: error: no space left"),
        ("kill -9 $$", "SIGKILL"),
        ("exit 0", ""),
        ("echo garbage > libm.so", ""),
    ],
)
def test_a_compiler_that_fails(action: str, names: str, folder: Path) -> None:
    path = wrapper(folder, action)
    before = content(folder)
    message = check_refusal(compile_there(folder, PATH=path), (1, 2))
    assert names in message
    check_untouched(folder, before)


@WITH_CC
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("temporary", [False, True])
def test_interrupted(number: int, temporary: bool, folder: Path) -> None:
    """While the compiler runs; it is ended too. With temporary, of a model that `verify` compiles."""
    path = wrapper(folder, f"echo $$ > {folder}/started; exec sleep 60")
    before = content(folder)
    words = ("verify", folder / "m.onnx") if temporary else ("compile", folder / "m.onnx", "-o", folder / "out")
    process = subprocess.Popen(
        command(words), env=environment(PATH=path, TMPDIR=str(folder / "tmp")),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    started = folder / "started"
    try:
        while not (started.exists() and started.read_text().strip()):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    compiler = int(started.read_text())
    started.unlink()
    assert (process.returncode, out, err) == (128 + number, "", "interrupted\n")
    assert not is_running(compiler)
    check_untouched(folder, before)


def is_running(pid: int) -> bool:
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        status = Path(f"/proc/{pid}/stat")
        if status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return False
        time.sleep(0.02)
    return True


def test_a_new_artifact_takes_the_place_of_the_earlier_one(folder: Path) -> None:
    old = hr.open(folder / "out")
    assert compile_there(folder).returncode == 0
    np.testing.assert_array_equal(hr.open(folder / "out").run({"x": X})["y"], 2 * X)
    np.testing.assert_array_equal(old.run({"x": -X})["y"], 0 * X)
    assert sorted(p.name for p in folder.iterdir()) == ["m.onnx", "out", "tmp"]
    assert not list((folder / "tmp").iterdir())
