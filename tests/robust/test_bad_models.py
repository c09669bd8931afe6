"""Damaged, contradictory, absurd and unknown models: one typed error within seconds, nothing written."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import headrace as hr
from headrace import cli
from tests.robust.models import HUGE, doubled, external, model, one, relu, save

SECONDS = 10.0  # of this process's own work; a hundred times what any of them takes
node = helper.make_node
WEIGHTS = np.ones((64, 64), np.float32)
KERNEL = np.ones((1, 1, 2), np.float32)
WHOLE = one("MatMul", (8, 64), (8, 64), w=WEIGHTS).SerializeToString()


@dataclass(frozen=True)
class Bad:
    """A model that is refused: with which error, and what its message has to name.

    options: of compile(), with the command line's form of them.
    """

    source: onnx.ModelProto | bytes
    error: type[Exception]
    names: str
    options: Mapping[str, object] = field(default_factory=dict)
    words: tuple[str, ...] = ()


def invalid(source: onnx.ModelProto | bytes, names: str) -> Bad:
    return Bad(source, hr.InvalidModel, names)


def dim(size: int) -> dict[str, object]:
    return {"options": {"shapes": {"x": (size,)}}, "words": ("--shape", f"x={size}")}


CYCLE = [node("Add", ["x", "b"], ["a"], name="first"), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])]
SHORT = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 3], raw_data=bytes(20))
HUGE_WEIGHT = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**20, 2**20], raw_data=bytes(24))

BAD = {
    "empty": invalid(b"", "empty"),
    "text": invalid(b"this is not a model, it is a sentence", "not an ONNX protobuf"),
    "cut in the weights": invalid(WHOLE[: len(WHOLE) // 2], "cut off"),
    "cut at the end": invalid(WHOLE[:-1], "cut off"),
    "cycle": invalid(model(CYCLE, {"x": (2,)}, {"y": (2,)}), "cycle.*'first'"),
    "dangling input": invalid(
        model([node("Add", ["x", "ghost"], ["y"], name="adder")], {"x": (2,)}, {"y": (2,)}), "'adder'.*'ghost'"
    ),
    "dangling output": invalid(model([node("Relu", ["x"], ["z"])], {"x": (2,)}, {"y": (2,)}), "'y'"),
    "short initializer": invalid(doubled(SHORT), "'w'.*20 bytes, needs 24"),
    "huge initializer": invalid(doubled(HUGE_WEIGHT), "'w'.*elements"),
    "external data above": invalid(external("../secret.bin"), "'w'.*outside"),
    "external data anywhere": invalid(external("/etc/passwd"), "'w'.*relative path"),
    "external data behind a link": invalid(external("link.bin"), "'w'.*outside"),
    "external data missing": invalid(external("gone.bin"), "'gone.bin' is missing"),
    "opset of the future": invalid(one("Relu", (2,), (2,), opset=99), "opset 99"),
    "types that differ": invalid(one("Add", (2,), (2,), w=np.array([1, 2])), "'culprit'.*inconsistent type"),
    "shapes that differ": invalid(one("MatMul", (2, 4), (2, 3), w=np.ones((5, 3), np.float32)), "'culprit'"),
    "count of outputs": invalid(one("Split", (4,), (4,), opset=18, a_num_outputs=HUGE), "'culprit'.*num_outputs"),
    "indivisible": invalid(one("DepthToSpace", (1, 4, 2, 2), (1, 1, 6, 6), a_blocksize=3), "'culprit'.*blocksize"),
    "huge input": invalid(relu((HUGE,)), "'x'.*1099511627776 elements"),
    "huge shape": Bad(relu(("n",)), hr.InvalidModel, "'x'.*1099511627776 elements", **dim(HUGE)),
    "beyond 64 bits": Bad(relu(("n",)), hr.InvalidModel, "'x'.*elements", **dim(2**70)),
    "huge bound": Bad(
        relu(("n",)),
        hr.InvalidModel,
        "'x'.*elements",
        {"bounds": {"n": HUGE}},
        ("--bound", f"n={HUGE}"),
    ),
    "huge Expand": invalid(one("Expand", (1,), ("n",), s=np.array([HUGE])), "'y'.*elements"),
    "huge product": invalid(one("Expand", (1,), ("n", "m"), s=np.array([2**62, 2**62])), "'y'.*elements"),
    "huge Pad": invalid(one("Conv", (1, 1, 4), (1, 1, "n"), w=KERNEL, a_pads=[HUGE, HUGE]), "'y'.*elements"),
    "huge stride": invalid(one("ConvTranspose", (1, 1, 4), (1, 1, "n"), w=KERNEL, a_strides=[HUGE]), "elements"),
    "huge outer product": invalid(
        model([node("MatMul", ["x", "z"], ["y"])], {"x": (2**20, 1), "z": (1, 2**20)}, {"y": ("n", "m")}),
        "'y'.*elements",
    ),
    "unknown operator": Bad(one("Relux", (2,), (2,)), hr.UnsupportedOperator, "Relux.*'culprit'"),
    "operator of a newer opset": Bad(one("Gelu", (2,), (2,)), hr.UnsupportedOperator, "Gelu.*'culprit'.*opset 17"),
    "strings": Bad(
        model([node("Identity", ["x"], ["y"])], {"x": (2,)}, {"y": (2,)}, dtype=TensorProto.STRING),
        hr.UnsupportedOperator,
        "'x'.*element type",
    ),
    "missing dim": Bad(relu(("batch", 4)), ValueError, r"dim 'batch'.*'x'.*shapes="),
    "dim without name": Bad(relu((None, 4)), ValueError, r"axis 0 of input 'x'.*shapes="),  # type: ignore[arg-type]
    "wrong rank of shape": Bad(relu(), ValueError, "'x'.*2 dims|1 dims", **dim(2)),
    "shape of nothing": Bad(relu(), ValueError, "'q'.*inputs: 'x'", {"shapes": {"q": (1,)}}, ("--shape", "q=1")),
    "state of nothing": Bad(relu(), ValueError, "'q'.*'x'", {"state": {"q": "y"}}, ("--state", "q=y")),
    "constant of nothing": Bad(relu(), ValueError, "'q'.*inputs: 'x'", {"constants": {"q": 1}}, ("--const", "q=1")),
}


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The file of the model; a secret lies above its folder, and a link to it beside the model."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(24))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    return save(BAD[request.getfixturevalue("name")].source, folder / "bad.onnx")


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("name", BAD)
def test_python_raises_one_typed_error(name: str, place: Path, tmp_path: Path) -> None:
    bad, before, begin = BAD[name], listing(tmp_path), time.process_time()
    with pytest.raises(bad.error, match=f"(?s){bad.names}") as caught:
        hr.compile(place, out=tmp_path / "out", **bad.options)  # type: ignore[arg-type]
    assert type(caught.value) is bad.error
    assert listing(tmp_path) == before
    assert time.process_time() - begin < SECONDS


@pytest.mark.parametrize("name", BAD)
def test_command_line_prints_one_message(
    name: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, before = BAD[name], listing(tmp_path)
    status = cli.main(["compile", str(place), "-o", str(tmp_path / "out"), *bad.words])
    out, err = capsys.readouterr()
    assert status == (2 if bad.error is ValueError else 1)
    assert out == "" and err.startswith("headrace: ") and len(err.splitlines()) <= 3
    assert "Traceback" not in err and "internal error" not in err
    assert listing(tmp_path) == before


@pytest.mark.parametrize("name", [n for n, bad in BAD.items() if bad.error is hr.InvalidModel and not bad.options])
@pytest.mark.parametrize("verb", ["verify", "bench"])
def test_other_verbs_refuse_them_too(
    name: str, verb: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = listing(tmp_path)
    assert cli.main([verb, str(place)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("headrace: ") and "internal error" not in err
    assert listing(tmp_path) == before
