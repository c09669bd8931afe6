"""The command line in a process of its own, under the conditions a test asks for."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"

# `before` is what the process does before the command: limits on itself, modules it shall not find.
PROGRAM = """
import sys
{before}
from headrace.cli import main
sys.exit(main(sys.argv[1:]))
"""
NO_ZIG = "sys.modules['ziglang'] = None"


def command(words: Sequence[object], before: str = "") -> list[str]:
    """`headrace …` as an argument list."""
    return [sys.executable, "-c", PROGRAM.format(before=before), *map(str, words)]


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE), **changes}


def headrace(
    *words: object, before: str = "", cwd: Path | None = None, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run it to its end; `changes` are environment variables."""
    return subprocess.run(
        command(words, before),
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def content(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder, by its path; links and folders by name."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else ""
        for p in sorted(folder.rglob("*"))
    }


def check_refusal(done: subprocess.CompletedProcess[str], statuses: tuple[int, ...] = (1, 2)) -> str:
    """One message on stderr, nothing else; returns it."""
    assert done.returncode in statuses, (done.returncode, done.stderr)
    assert done.stdout == "" and done.stderr.startswith("headrace: "), done.stderr
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 3, done.stderr
    return done.stderr
