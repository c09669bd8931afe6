"""verify, bench and inspect through the public verbs, on programs of the real compiler."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.cli import main
from headrace.graph.model import Model


def test_layers_of_a_compiled_program(perceptron: Model) -> None:
    report = hr.verify(perceptron, layers=True)
    assert report.ok and [layer.output for layer in report.layers] == ["a", "b", "c", "y"]
    assert report.diverges_at is None and report.relative < 1e-5


def test_a_program_of_another_model_is_found_out(perceptron: Model, make: Callable[..., Any]) -> None:
    """The source is swapped after compiling: the program, and every variant of the source, disagree."""
    program = hr.compile(perceptron)
    weights = {"w1": np.ones((8, 16), np.float32), "w2": np.ones((16, 4), np.float32)}
    nodes = [("MatMul", ["x", "w1"], ["a"], {}), ("MatMul", ["a", "w2"], ["y"], {})]
    other = make(nodes, {"x": ("float32", (2, 8))}, {"y": ("float32", (2, 4))}, weights)
    report = hr.verify(program, other)
    assert not report.ok and report.worst.name == "y"
    assert report.diverges_at is None and any("fusion or planning" in note for note in report.notes)


def test_extents_known_at_run_time(make: Callable[..., Any]) -> None:
    model = make(
        [("MatMul", ["x", "w"], ["y"], {})],
        {"x": ("float32", ("T", 8))},
        {"y": ("float32", ("T", 4))},
        {"w": np.arange(32, dtype=np.float32).reshape(8, 4)},
    )
    program = hr.compile(model, bounds={"T": 64})
    report = hr.verify(program, inputs={"x": np.ones((5, 8), np.float32)}, layers=True)
    assert report.ok and len(report.checks) == 5
    raced = hr.bench(program, peers=[], rounds=2)
    assert raced.median_us > 0


def test_state_and_constants(make: Callable[..., Any]) -> None:
    model = make(
        [
            ("Mul", ["h", "keep"], ["old"], {}),
            ("Add", ["old", "x"], ["h_next"], {}),
            ("Relu", ["h_next"], ["y"], {}),
        ],
        {"x": ("float32", (1, 4)), "h": ("float32", (1, 4)), "keep": ("float32", ())},
        {"y": ("float32", (1, 4)), "h_next": ("float32", (1, 4))},
    )
    program = hr.compile(model, state={"h": "h_next"}, constants={"keep": 0.5})
    assert hr.verify(program, layers=True).ok
    report = hr.bench(program, rounds=2)
    assert report.peers["onnxruntime"].agrees and report.ratio("onnxruntime").median > 1


def test_integers_bit_for_bit(make: Callable[..., Any]) -> None:
    model = make(
        [("Mul", ["x", "three"], ["a"], {}), ("Add", ["a", "x"], ["y"], {})],
        {"x": ("int32", (3, 5))},
        {"y": ("int32", (3, 5))},
        {"three": np.int32(3)},
    )
    report = hr.verify(model)
    assert report.ok and report.max_abs == 0 and report.max_ulp is None


def test_an_artifact_that_has_its_model_elsewhere(perceptron: Model, tmp_path: Path) -> None:
    perceptron.save(tmp_path / "m.onnx")
    hr.compile(tmp_path / "m.onnx", out=tmp_path / "built")
    assert hr.verify(hr.open(tmp_path / "built")).ok
    (tmp_path / "m.onnx").rename(tmp_path / "moved.onnx")
    with pytest.raises(hr.InvalidModel, match="--model"):
        hr.verify(hr.open(tmp_path / "built"))
    assert hr.verify(hr.open(tmp_path / "built"), tmp_path / "moved.onnx").ok
    assert hr.bench(tmp_path / "moved.onnx", rounds=1).peers


def test_command_line(perceptron: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "m.onnx")
    perceptron.save(path)
    assert main(["verify", path]) == 0
    assert "equal" in capsys.readouterr().out
    assert main(["verify", path, "--json", "--layers", "--reference", "onnx"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["ok"] and len(value["layers"]) == 4
    assert main(["bench", path, "--rounds", "2", "--json", "--peers", ""]) == 0
    assert json.loads(capsys.readouterr().out)["ours"]["plain"]["median_us"] > 0
    assert main(["bench", path, "--peers", "nothing"]) == 2
    assert "unknown peer" in capsys.readouterr().err
    assert main(["inspect", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["macs"] == 2 * 8 * 16 + 2 * 16 * 4
