from __future__ import annotations

import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest

from headrace.errors import ToolchainError
from headrace.targets import toolchain as module
from headrace.targets.link import compile_library, library_flags, library_name
from headrace.targets.toolchain import (
    Toolchain,
    find_toolchain,
    find_toolchains,
    first_diagnostic,
    run_compiler,
)


def script(folder: Path, name: str, text: str) -> Path:
    """An executable shell script on its own PATH."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def is_running(process: int) -> bool:
    """Whether a process is there and is no zombie; waits a little for one that was just killed."""
    for _ in range(500):
        state = Path(f"/proc/{process}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that is all of PATH, on a machine without the ziglang wheel."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    return folder


def test_compilers_here_are_identified() -> None:
    found = find_toolchains()
    assert found, "the tests need a C compiler"
    assert len({t.kind for t in found}) == len(found)
    for toolchain in found:
        text = subprocess.run([*toolchain.command, "--version"], capture_output=True, text=True, check=True).stdout
        assert toolchain.kind == "zig" or toolchain.version in text
        assert find_toolchain(toolchain.kind, toolchain.machine) == toolchain


def test_without_a_compiler_the_error_names_the_command_that_mends_it(only: Path) -> None:
    with pytest.raises(ToolchainError, match=r"no C compiler found .*-m pip install ziglang"):
        find_toolchain(None, "x86_64-linux-gnu")


def test_a_kind_that_is_not_here(only: Path) -> None:
    gcc = shutil.which("cc", path="/usr/bin:/usr/local/bin:/bin")
    if gcc is None:
        pytest.skip("needs a system compiler")
    (only / "cc").symlink_to(gcc)
    kind = find_toolchains()[0].kind
    other = "clang" if kind == "gcc" else "gcc"
    with pytest.raises(ToolchainError, match=f"no {other} found"):
        find_toolchain(other, find_toolchains()[0].machine)
    with pytest.raises(ToolchainError, match=r"no compiler for riscv64-linux-gnu found .*ziglang"):
        find_toolchain(None, "riscv64-linux-gnu")
    with pytest.raises(ToolchainError, match="unknown toolchain 'msvc'; known are gcc, clang, zig"):
        find_toolchain("msvc", "x86_64-linux-gnu")


@pytest.mark.parametrize("text", ["exit 1", "echo hello", "kill -9 $$"])
def test_programs_that_are_no_compilers_are_passed_over(text: str, only: Path) -> None:
    script(only, "cc", text)
    assert find_toolchains() == ()


def test_a_compiler_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    path = script(tmp_path, "cc", f"/bin/sleep 60 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(ToolchainError, match=r"did not finish within 0\.3 s"):
        run_compiler(Toolchain("gcc", "1", (str(path),), "x"), [], tmp_path, timeout_s=0.3)
    assert not is_running(int((tmp_path / "child").read_text()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kill -9 $$", "SIGKILL"),
        (
            "echo 'a.c: note: no' >&2; echo 'a.c:3:1: error: bad' >&2; exit 1",
            r"failed: a\.c:3:1: error: bad$",
        ),
        ("exit 3", "printed nothing"),
    ],
)
def test_a_compiler_that_fails(text: str, message: str, tmp_path: Path) -> None:
    path = script(tmp_path, "cc", text)
    with pytest.raises(ToolchainError, match=message):
        run_compiler(Toolchain("gcc", "1", (str(path),), "x"), [], tmp_path)


def test_a_compiler_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="could not be started"):
        run_compiler(Toolchain("gcc", "1", (str(tmp_path / "cc"),), "x"), [], tmp_path)


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        ("/tmp/x.o: in function `f':\na.c:(.text+0x5): undefined reference to `tanhf'", "tanhf"),
        ("ld.lld: error: undefined symbol: tanhf\n>>> referenced by a.c", "undefined symbol: tanhf"),
        ("a.c:1:10: fatal error: no.h: No such file or directory", "fatal error: no.h"),
        ("one\n\ntwo\n", "two"),
        ("", "printed nothing"),
    ],
)
def test_first_diagnostic(stderr: str, expected: str) -> None:
    assert expected in first_diagnostic(stderr)


def test_triples() -> None:
    gcc = Toolchain("gcc", "12", ("cc",), "x86_64-pc-linux-gnu")
    assert gcc.builds_for("x86_64-linux-gnu") and not gcc.builds_for("aarch64-linux-gnu")
    assert Toolchain("clang", "17", ("cc",), "arm64-apple-darwin23").builds_for("aarch64-macos")
    zig = Toolchain("zig", "0.15", ("zig", "cc"), "x86_64-linux-gnu")
    assert zig.builds_for("riscv64-linux-gnu")
    assert zig.flags_for("riscv64-linux-gnu") == ("-target", "riscv64-linux-gnu")
    assert gcc.flags_for("x86_64-linux-gnu") == ()


def test_libraries_of_other_systems() -> None:
    names = [library_name("m", t) for t in ("x86_64-linux-gnu", "aarch64-macos", "x86_64-windows-gnu")]
    assert names == ["libm.so", "libm.dylib", "m.dll"]
    assert "-fPIC" not in library_flags("x86_64-windows-gnu")


@pytest.mark.parametrize("kind", [t.kind for t in find_toolchains()])
def test_libraries_are_for_any_processor_of_the_family(kind: str, tmp_path: Path) -> None:
    """What only the processor at hand has comes in through function attributes alone."""
    toolchain = next(t for t in find_toolchains() if t.kind == kind)
    (tmp_path / "a.c").write_text(
        "#if defined(__AVX__) || defined(__AVX512F__)\n#error not the baseline\n#endif\n"
        "int f(void);\nint f(void) { return 1; }\n"
    )
    compile_library(toolchain, toolchain.machine, ("a.c",), "liba.so", tmp_path)
    assert (tmp_path / "liba.so").stat().st_size > 0
