"""Names that hold C, shell or path text, anywhere in a model, change nothing but the names of arrays."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import headrace as hr
from headrace import cli
from headrace.targets.registry import get_target
from headrace.targets.toolchain import find_toolchain
from tests.robust.models import model, save

NAMES = [
    'x"; system("touch pwned"); //',
    "*/ int main(void) { return 1; } /*",
    "\\\n#include </etc/passwd>",
    "$(touch pwned)`touch pwned`; touch pwned",
    "int",
    "a?b??/c%s%n",
    "日本語 \u202e\u0000"[:-1] + "é",
    "../../pwned",
    "-o pwned",
    "x" * 5000,
]
X = np.array([[-1.0, 2.0]], np.float32)


def hostile(name: str, other: str) -> onnx.ModelProto:
    """y = |x| + 2 and the state h_out = h_in + |x|; every name is made of `name`."""
    names = {key: f"{name}{key}" for key in ("x", "a", "y", "h", "g", "w", "n")}
    names["x"] = name
    nodes = [
        helper.make_node("Abs", [names["x"]], [names["a"]], name=names["n"]),
        helper.make_node("Add", [names["a"], names["w"]], [names["y"]], name=other),
        helper.make_node("Add", [names["h"], names["a"]], [names["g"]], name=f"{names['n']}2"),
    ]
    ports = ({names["x"]: (1, 2), names["h"]: (1, 2)}, {names["y"]: (1, 2), names["g"]: (1, 2)})
    proto = model(nodes, *ports, {names["w"]: np.full((1, 2), 2, np.float32)})
    proto.graph.name = name
    proto.graph.doc_string = proto.producer_name = proto.domain = other
    return proto


@pytest.mark.parametrize("number", range(len(NAMES)))
def test_hostile_names_compile(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name, other = NAMES[number], NAMES[(number + 1) % len(NAMES)]
    program = hr.compile(hostile(name, other), state={f"{name}h": f"{name}g"}, out=tmp_path / "out")
    assert list(program.inputs) == [name] and list(program.outputs) == [f"{name}y"]
    instance = program.instance()
    np.testing.assert_array_equal(instance.run({name: X})[f"{name}y"], np.abs(X) + 2)
    np.testing.assert_array_equal(instance.state()[f"{name}h"], np.abs(X))
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert capfd.readouterr() == ("", "")
    for path in program.path.iterdir():
        assert re.fullmatch(r"[A-Za-z0-9_]+\.[A-Za-z]+", path.name)
    check_sources(program.path)
    assert hr.open(program.path).run({name: X})[f"{name}y"].tolist() == (np.abs(X) + 2).tolist()


def check_sources(folder: Path) -> None:
    """Header and source compile without a warning (also of -Wcomment), and no name stands outside a comment."""
    header = next(folder.glob("*.h"))
    use = f'#include "{header.name}"\nint main(void) {{ return 0; }}\n'
    command = find_toolchain(None, get_target("native").triple).command
    for language in ("c", "c++"):
        strict = [*command, "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-x", language, "-"]
        done = subprocess.run(strict, cwd=folder, input=use, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    strict = [*command, "-std=c11", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run([*strict, f"{header.stem}.c"], cwd=folder, check=True)
    for path in folder.glob("*.[chS]"):
        code = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.search(r"touch pwned|system\(|\bmain\b|/passwd", code)


@pytest.mark.parametrize("stem", ["a;touch pwned", "$(touch pwned)", "-o", "*", "con", 'q"uote', "sp ace", "é"])
def test_hostile_file_names(stem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's file name is what the C names are made of."""
    monkeypatch.chdir(tmp_path)
    path = save(hostile("x", "n"), tmp_path / f"{stem}.onnx")
    assert cli.main(["compile", str(path), "-o", "out", "--json"]) == 0
    (library,) = (tmp_path / "out").glob("lib*")
    assert re.fullmatch(r"lib[A-Za-z][A-Za-z0-9_]*\.\w+", library.name)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["out", path.name])
