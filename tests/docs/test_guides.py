"""The guides are true: their Python, shell and C blocks are run in order, and their output is what they show."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace import cli
from headrace.targets.toolchain import find_toolchains

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "guide"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(
    os.name != "posix" or shutil.which("cc") is None, reason="the guides speak to a POSIX shell with cc"
)


def blocks(name: str) -> list[tuple[str, str]]:
    return BLOCK.findall((GUIDE / name).read_text(encoding="utf-8"))


class Reader:
    """Does what a guide says, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {}
        self.printed = ""
        tools = folder.parent / "tools"
        tools.mkdir(exist_ok=True)
        for tool, arguments in (("headrace", "-m headrace "), ("python", "")):
            (tools / tool).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments}"$@"\n')
            (tools / tool).chmod(0o755)
        path = f"{tools}:{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")}

    def read(self, guide: str, *languages: str) -> None:
        for language, text in blocks(guide):
            if not languages or language in languages:
                getattr(self, f"do_{language}")(text)

    def do_python(self, text: str) -> None:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(text, "guide", "exec"), self.names)
        self.printed = out.getvalue()

    def do_sh(self, text: str) -> None:
        done = subprocess.run(
            ["sh", "-e", "-c", text], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        assert "warning" not in done.stderr, done.stderr
        self.printed = done.stdout

    def do_c(self, text: str) -> None:
        found = re.match(r"/\* (\w+\.c):", text)
        assert found, "a C block begins with the name of its file"
        (self.folder / found[1]).write_text(text)

    def do_text(self, text: str) -> None:
        assert self.printed == text

    def do_console(self, text: str) -> None:
        """What a reader does once for a machine; not done again here."""


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return Reader(tmp_path / "work")


def test_getting_started(reader: Reader) -> None:
    reader.read("getting-started.md")


@pytest.mark.skipif(not {t.kind for t in find_toolchains()} & {"gcc", "clang"}, reason="needs cc")
def test_c_integration(reader: Reader) -> None:
    reader.do_python(blocks("getting-started.md")[1][1])
    reader.read("c-integration.md")


@pytest.mark.skipif(not {t.kind for t in find_toolchains()} & {"gcc", "clang"}, reason="needs cc")
def test_live_streams(reader: Reader) -> None:
    reader.read("live-streams.md")


@pytest.mark.skipif(not {t.kind for t in find_toolchains()} & {"gcc", "clang"}, reason="needs cc")
def test_profiling(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(reader.folder.parent))
    reader.environment["XDG_CACHE_HOME"] = str(reader.folder.parent)
    reader.read("profiling.md")


def test_links_of_the_documents_lead_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_error_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    errors = [n for n in hr.__all__ if isinstance(getattr(hr, n), type) and issubclass(getattr(hr, n), hr.Error)]
    assert len(errors) > 6
    for name in errors:
        assert f"`{name}`" in page or f"`headrace.{name}`" in page, name
    for status in (cli.DONE, cli.FAILED, cli.USAGE):
        assert f"\n| {status} | " in page
