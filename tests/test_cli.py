from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

import headrace as hr
from headrace import cli, doctor, verbs
from headrace.cli_options import parse_bound, parse_constant, parse_shape
from tests.artifact import handmade
from tests.artifact.conftest import build_here

Cli = Callable[..., tuple[int, str, str]]
X = np.arange(8, dtype=np.float32).reshape(1, 8)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: object) -> tuple[int, str, str]:
        status = cli.main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A valid ONNX file; what it computes plays no part, for `generated` stands in for the compiler."""
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 8]) for n in ("x:0", "y:0"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x:0"], ["y:0"])], "g", [x], [y])
    path = tmp_path / "demo.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)]), path)
    return path


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Let hand-written C stand in for what the compiler makes; collects the options it is called with."""
    calls: list[dict[str, Any]] = []

    def generate(model: object, name: str, target: object, **options: Any) -> object:
        calls.append({"name": name, **options})
        return handmade.running_sum(name)

    monkeypatch.setattr(verbs, "generate", generate)
    return calls


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return build_here(handmade.running_sum(), tmp_path / "demo")


def test_compile(run: Cli, model: Path, generated: list[dict[str, Any]], tmp_path: Path) -> None:
    status, out, err = run(
        "compile", model, "-o", tmp_path / "out", "--shape", "x:0=1x8", "--const", "sr=16000",
        "--const", "on=true", "--state", "h_in=h_out", "--bound", "T=512/8", "--target", "generic",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "8 MAC in 1 kernels" in out and "x:0: float32 [1, 8]" in out
    assert generated == [
        {
            "name": "demo",
            "shapes": {"x:0": (1, 8)},
            "bounds": {"T": (512, 8)},
            "constants": {"sr": 16000, "on": True},
            "state": {"h_in": "h_out"},
            "axes": {},
            "threads": 1,
        }
    ]
    program = hr.open(tmp_path / "out")
    assert program.origin == model
    assert program.info.manifest["model"] == {"name": "demo", "sha256": hr.load(model).sha256}
    assert program.info.manifest["options"]["constants"] == {"sr": 16000, "on": True}
    assert program.info.target == "generic"


def test_compile_json(run: Cli, model: Path, generated: list[dict[str, Any]], tmp_path: Path) -> None:
    status, out, _ = run("compile", model, "-o", tmp_path / "out", "--json")
    assert status == 0
    assert json.loads(out)["state_bytes"] == 32


def test_compile_to_a_temporary_folder(model: Path, generated: list[dict[str, Any]]) -> None:
    program = hr.compile(model)
    np.testing.assert_array_equal(program.run({"x:0": X})["y:0"], X * handmade.WEIGHTS)
    assert program.model is not None and program.model.source == model


def test_run(run: Cli, artifact: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    arguments = ("run", artifact, "--input", f"x:0={tmp_path / 'x.npy'}")
    status, out, _ = run(*arguments, "--output", f"y:0={tmp_path / 'y.npy'}")
    assert status == 0 and "y:0: float32 [1, 8] -> " in out
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), X * handmade.WEIGHTS)
    status, out, _ = run(*arguments, "--json")
    assert json.loads(out)["y:0"]["values"] == (X * handmade.WEIGHTS).ravel().tolist()


def test_run_with_bfloat16_files(run: Cli, tmp_path: Path) -> None:
    path = build_here(handmade.copied("bfloat16", "uint16_t", 2), tmp_path / "copy")
    np.save(tmp_path / "x.npy", np.arange(4).astype(ml_dtypes.bfloat16))
    status, out, err = run("run", path, "--input", f"x={tmp_path / 'x.npy'}")
    assert (status, err) == (0, "") and "y: bfloat16 [4]\n[0 1 2 3]" in out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["run", "{artifact}"], 2, "missing input 'x:0'"),
        (["run", "{artifact}", "--input", "x:0=nowhere.npy"], 2, "nowhere.npy"),
        (["run", "{artifact}", "--input", "x:0={model}.npy"], 2, "not a .npy file with numbers"),
        (["run", "{artifact}", "--output", "z=z.npy"], 2, "unknown output 'z'; there are 'y:0'"),
        (["run", "{model}"], 1, "is no artifact"),
        (["run", "nowhere"], 1, "is no artifact"),
        (["compile", "nowhere.onnx", "-o", "{tmp}/o"], 2, "nowhere.onnx"),
        (["compile", "{model}", "-o", "{model}"], 2, "is a file"),
        (["compile", "{model}", "-o", "{tmp}/o", "--target", "vax"], 2, "unknown target 'vax'"),
        (["compile", "{model}", "-o", "{tmp}/o", "--threads", "0"], 2, "threads=0"),
        (["compile", "{model}", "-o", "{tmp}/o", "--const", "a=1", "--const", "a=2"], 2, "names 'a' twice"),
        (["compile", "{model}", "-o", "{tmp}/o", "--shape", "x"], 2, "should look like x=1x3x224x224"),
        (["compile", "{model}", "-o", "{tmp}/o", "--bound", "T=x"], 2, "should look like T=512"),
        (["compile", "{model}", "-o", "{tmp}/o", "--const", "a=import os"], 2, "give a number"),
        (["compile", "{model}.npy", "-o", "{tmp}/o"], 1, "demo.onnx.npy"),
        (["verify", "{artifact}", "--shape", "x=1"], 2, "compiled already"),
        (["compile", "{model}"], 2, "required: -o/--out"),
        ([], 2, "required: COMMAND"),
        (["nonsense"], 2, "invalid choice"),
    ],
)
def test_errors_are_one_message_and_a_status(
    arguments: list[str],
    status: int,
    message: str,
    run: Cli,
    artifact: Path,
    model: Path,
    tmp_path: Path,
    generated: list[dict[str, Any]],
) -> None:
    Path(f"{model}.npy").write_bytes(b"junk")
    before = sorted(p.name for p in tmp_path.iterdir())
    words = [a.format(artifact=artifact, model=model, tmp=tmp_path) for a in arguments]
    got, out, err = run(*words)
    assert got == status and out == "" and message in err and "Traceback" not in err
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_debug_shows_the_traceback(run: Cli) -> None:
    assert "Traceback" in run("run", "nowhere", "--debug")[2]


def test_faults_of_our_own_are_called_so(run: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(verbs, "generate", broken)
    status, _, err = run("compile", model, "-o", model.parent / "out")
    assert status == 1 and "internal error, KeyError: 'oops' (--debug shows where)" in err


def test_targets_and_doctor(run: Cli) -> None:
    status, out, _ = run("targets")
    assert status == 0 and "x86-64-avx512" in out
    assert all(re.match(r"\S+ +\S.* +(yes|no) +(yes|no)\b", line) for line in out.splitlines()[1:]), out
    assert {"native", "aarch64"} <= {row["name"] for row in json.loads(run("targets", "--json")[1])}
    status, out, _ = run("doctor")
    assert status == 0 and "compiles and loads" in out
    assert json.loads(run("doctor", "--json")[1])[0]["name"] == "python"


def test_a_doctor_without_compiler_fails_and_says_what_to_do(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_toolchains", lambda: ())
    status, out, _ = run("doctor")
    assert status == 1 and "MISS C compiler" in out and "pip install ziglang" in out


@dataclass
class Report:
    ok: bool

    def table(self) -> str:
        return "a table"


@pytest.mark.parametrize("ok", [True, False])
def test_verify_prints_the_report(ok: bool, run: Cli, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "verify", lambda program, **options: Report(ok))
    assert run("verify", artifact) == (0 if ok else 1, "a table\n", "")
    assert json.loads(run("verify", artifact, "--json")[1]) == {"ok": ok}


def test_the_source_of_a_program(model: Path, generated: list[dict[str, Any]], tmp_path: Path) -> None:
    hr.compile(model, out=tmp_path / "out")
    program = hr.open(tmp_path / "out")
    assert verbs.source_model(program, None).source == model
    proto = onnx.load(model)
    proto.doc_string = "changed"
    onnx.save(proto, model)
    with pytest.raises(hr.InvalidModel, match="was changed since"):
        verbs.source_model(program, None)
    model.unlink()
    with pytest.raises(hr.InvalidModel, match="no longer at"):
        verbs.source_model(program, None)
    hr.compile(proto, out=tmp_path / "out")
    with pytest.raises(hr.InvalidModel, match="does not say where its model lies"):
        verbs.source_model(hr.open(tmp_path / "out"), None)


def test_options_are_parsed() -> None:
    assert parse_shape("x=1x3xT") == ("x", (1, 3, "T"))
    assert parse_shape("a=b=2") == ("a=b", (2,))
    assert parse_shape("x=") == ("x", ())
    assert parse_bound("T=512") == ("T", 512)
    assert parse_constant("a=[1, 2.5]") == ("a", [1, 2.5])
    assert parse_constant("a=-1e3") == ("a", -1000.0)
    assert parse_constant("a=False") == ("a", False)


def test_importing_is_quick_and_light() -> None:
    code = (
        "import sys, typing; before = set(sys.modules); import headrace; new = set(sys.modules) - before\n"
        "assert not {'numpy', 'onnx', 'onnxruntime', 'rich'} & set(sys.modules)\n"
        "print(len(new))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40


def test_every_public_name_is_there() -> None:
    assert dir(hr) == sorted(hr.__all__)
    for name in hr.__all__:
        assert getattr(hr, name) is not None
    with pytest.raises(AttributeError, match="'nonsense'"):
        _ = hr.nonsense
