"""The demo runs, proves every step, and prints what it measured, without a terminal too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.models
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_demo(tmp_path: Path, encoding: str) -> None:
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), "-o", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "100"}
    done = subprocess.run(command, capture_output=True, encoding=encoding, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "314 of 314 steps equal to onnxruntime" in done.stdout
    assert "times as long" in done.stdout and "out/*.c" in done.stdout
    assert ("█" if encoding == "utf-8" else "@") in done.stdout
    assert "\x1b" not in done.stdout
    assert (tmp_path / "out" / "manifest.json").is_file()
