"""Where artifacts go: nothing half-written, nothing foreign overwritten, the earlier one kept."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.artifact import package
from headrace.artifact.package import OutputError, check_output, written_folder
from headrace.artifact.program import open_program
from headrace.errors import Error, ToolchainError
from tests.artifact import handmade
from tests.artifact.conftest import Build
from tests.artifact.test_build import files


@pytest.fixture
def earlier(demo_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_path, tmp_path / "earlier"))


def test_an_earlier_artifact_is_replaced(earlier: Path, build_native: Build) -> None:
    build_native(handmade.running_sum(scale=3), earlier)
    assert "3.0f" in (earlier / "demo.c").read_text()
    open_program(earlier)
    assert [p.name for p in earlier.parent.iterdir()] == ["earlier"]


def test_without_a_swapping_system_call_it_is_replaced_too(
    earlier: Path, build_native: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "_exchange", lambda a, b: False)
    build_native(handmade.running_sum(scale=3), earlier)
    open_program(earlier)
    assert [p.name for p in earlier.parent.iterdir()] == ["earlier"]


def test_a_failed_build_leaves_the_earlier_artifact(earlier: Path, build_native: Build) -> None:
    before = files(earlier)
    with pytest.raises(ToolchainError):
        build_native(replace(handmade.running_sum(), source="#error no\n"), earlier)
    assert files(earlier) == before
    assert [p.name for p in earlier.parent.iterdir()] == ["earlier"]


def test_a_failed_move_puts_the_earlier_artifact_back(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(earlier)
    monkeypatch.setattr(package, "_exchange", lambda a, b: False)
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == earlier and not (self / "manifest.json").exists():
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match="No space left"), written_folder(earlier) as folder:
        (folder / "new").write_text("")
    assert files(earlier) == before
    assert [p.name for p in earlier.parent.iterdir()] == ["earlier"]


def test_foreign_files_are_never_overwritten(earlier: Path, tmp_path: Path, build_native: Build) -> None:
    (earlier / "my_results.npy").write_text("precious")
    with pytest.raises(OutputError, match=r"my_results\.npy.*not overwritten"):
        build_native(handmade.running_sum(), earlier)
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match=r"thesis\.tex"):
        build_native(handmade.running_sum(), tmp_path / "papers")


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OutputError, match="is a file"):
        check_output(tmp_path / "file")
    with pytest.raises(OutputError, match="is a file"):
        check_output(tmp_path / "file" / "below")
    assert issubclass(OutputError, Error)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place that not even root can write")
def test_read_only_places() -> None:
    with pytest.raises(OutputError), written_folder(Path("/proc/headrace/demo")):
        pytest.fail("the folder must not be entered")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OutputError, match="read-only"):
            check_output(tmp_path / "demo")
    finally:
        tmp_path.chmod(0o755)


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a" / "b"):
        with written_folder(out) as folder:
            (folder / "f").write_text("x")
        assert (out / "f").read_text() == "x"


def test_parents_made_for_nothing_are_removed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), written_folder(tmp_path / "a" / "b" / "c"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
