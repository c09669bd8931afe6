"""The command line's options about time: --window, --hop, --align, --length, --multiple, inspect --axis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import headrace as hr
from headrace.cli import main
from tests.streaming.networks import build
from tests.streaming.test_align import early_and_late
from tests.streaming.test_lengths import masked_conv, model
from tests.streaming.test_multiple import same
from tests.streaming.test_windows import classifier


def saved(folder: Path, proto: onnx.ModelProto) -> str:
    onnx.save(proto, folder / "m.onnx")
    return str(folder / "m.onnx")


def facts(capsys: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_inspect_tells_time_or_what_blocks_it(tmp_path: Path, capsys: Any) -> None:
    path = saved(tmp_path, build(classifier, rank=2))
    assert main(["inspect", path, "--axis", "x=2"]) == 1
    assert "over all of time" in capsys.readouterr().out
    assert main(["inspect", path, "--axis", "x=2", "--window", "12", "--hop", "2"]) == 0
    text = capsys.readouterr().out
    assert "MAC instead of" in text and "it pads the window" in text and "windows of 12 frames, every 2" in text
    assert main(["inspect", path, "--axis", "x=2", "--window", "12", "--json"]) == 0
    time = facts(capsys)["time"]
    assert time["blocked"] is None and time["window"]["frames"] == 12 and time["window"]["work"][0]["shared"] > 0
    assert main(["inspect", path, "--window", "12"]) == 2
    assert "axis" in capsys.readouterr().err


def test_stream_of_windows(tmp_path: Path, capsys: Any) -> None:
    path, out = saved(tmp_path, build(classifier, rank=2)), str(tmp_path / "step.onnx")
    assert main(["stream", path, "--axis", "x=2", "--window", "12", "--hop", "3", "-o", out]) == 0
    assert "MAC per window" in capsys.readouterr().out
    step = hr.load(out)
    assert json.loads(step.metadata["headrace.stream"])["window"]["hop"] == 3
    assert main(["stream", path, "--axis", "x=2", "--hop", "3", "-o", out]) == 2
    assert "window=" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("proto", "options", "key", "value"),
    [
        (build(early_and_late, 3), ["--align"], "align", True),
        (model(masked_conv), ["--length", "lens=x"], "lengths", {"lens": {"input": "x", "shape": [1]}}),
        (build(same("SAME_UPPER", 3, 2)), ["--multiple", "x=2"], "multiple", 2),
    ],
)
def test_stream_options(tmp_path: Path, capsys: Any, proto: Any, options: list[str], key: str, value: Any) -> None:
    path, out = saved(tmp_path, proto), str(tmp_path / "step.onnx")
    assert main(["stream", path, "--axis", "x=2", *options, "-o", out, "--json"]) == 0
    assert facts(capsys)[key] == value


def test_compile_of_windows(tmp_path: Path, capsys: Any) -> None:
    path, out = saved(tmp_path, build(classifier, rank=2)), str(tmp_path / "p")
    assert main(["compile", path, "--axis", "x=2", "--window", "12", "-o", out]) == 0
    (got,) = hr.open(out).stream().push({"x": np.zeros((1, 3, 13), np.float32)}).values()
    assert got.shape == (2, 1, 4)
    capsys.readouterr()
    assert main(["compile", path, "--window", "12", "-o", out]) == 2
    assert "--axis" in capsys.readouterr().err
