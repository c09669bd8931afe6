"""bench() on a program whose C is written by hand, beside the runtimes that are installed here."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.artifact.build import Source, build
from headrace.artifact.program import Program, open_program
from headrace.graph.model import Model
from headrace.measure import peers
from headrace.measure.bench import bench
from headrace.measure.verify import verify
from headrace.targets.registry import get_target
from headrace.targets.toolchain import find_toolchain
from tests.artifact import handmade

INSTALLED = [n for n in peers.PACKAGES if peers.is_installed(n)]
ONNX_PEERS = [n for n in INSTALLED if n in ("onnxruntime", "openvino", "tract")]
COMPILERS = [n for n in INSTALLED if n in ("iree", "emx-onnx-cgen")]
PAIR = {"sum": "sum_next"}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """sum' = sum + x; y = [1…8] * sum'."""
    target = get_target("native")
    path = build(
        handmade.running_sum(),
        target,
        find_toolchain(None, target.triple),
        tmp_path_factory.mktemp("bench") / "demo",
        source=Source("demo", "0" * 64),
        options={"state": PAIR},
    )
    return open_program(path)


@pytest.fixture
def model(make: Callable[..., Any]) -> Model:
    """The model of which running_sum is the program."""
    return make(
        [("Add", ["sum", "x:0"], ["sum_next"], {}), ("Mul", ["sum_next", "w"], ["y:0"], {})],
        {"x:0": ("float32", (1, "n")), "sum": ("float32", (1, "n"))},
        {"y:0": ("float32", (1, "n")), "sum_next": ("float32", (1, "n"))},
        {"w": handmade.WEIGHTS},
    )


def test_the_hand_written_program_is_right(program: Program, model: Model) -> None:
    report = verify(program, model, {"x:0": np.ones((1, 8), np.float32)})
    assert report.ok and report.relative < 1e-6
    assert {c.name for c in report.checks} == {"y:0", "sum_next"}
    assert verify(program, reference=program).max_abs == 0


@pytest.mark.parametrize("peer", ONNX_PEERS)
def test_peers_run_and_agree(program: Program, model: Model, peer: str) -> None:
    report = bench(program, [peer], model, rounds=3, batch_us=50)
    assert report.refused == {}
    entry = report.peers[peer]
    assert entry.agrees and entry.difference < 1e-6
    assert entry.median_us > report.median_us > 0.1
    assert entry.bound is not None and report.bound_us is not None and report.bound_us < report.median_us
    assert len(report.samples) == len(entry.samples) == 3
    assert report.ratio(peer).median > 1
    assert peer in report.table() and "times as long" in report.table()
    value = json.loads(report.to_json())
    assert value["peers"][peer]["plain"]["samples_us"] == list(entry.samples)


@pytest.mark.slow
@pytest.mark.parametrize("peer", COMPILERS)
def test_compilers_run_and_agree(program: Program, model: Model, peer: str) -> None:
    report = bench(program, [peer], model, rounds=3, batch_us=50)
    assert report.refused == {}
    entry = report.peers[peer]
    assert entry.agrees and entry.difference < 1e-6
    assert entry.bound is not None and entry.median_us > 0


@pytest.mark.parametrize("evict", [False, True])
def test_without_peers(program: Program, evict: bool) -> None:
    report = bench(program, [], rounds=2, batch_us=50, evict=evict)
    assert report.peers == {} and report.median_us > 0
    assert ("4 MB" in report.table()) == evict


@pytest.mark.skipif("onnxruntime" not in INSTALLED, reason="needs onnxruntime")
def test_a_rival_that_computes_something_else_is_marked(program: Program, make: Callable[..., Any]) -> None:
    other = make(
        [
            ("Add", ["sum", "x:0"], ["sum_next"], {}),
            ("Mul", ["x:0", "w"], ["y:0"], {}),
        ],
        {"x:0": ("float32", (1, 8)), "sum": ("float32", (1, 8))},
        {"y:0": ("float32", (1, 8)), "sum_next": ("float32", (1, 8))},
        {"w": handmade.WEIGHTS + 1},
    )
    report = bench(program, ["onnxruntime"], other, rounds=2, batch_us=50)
    assert not report.peers["onnxruntime"].agrees
    assert "OUTPUTS DIFFER" in report.table()


def test_peers_that_are_missing_unknown_or_unable(
    program: Program, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"unknown peer 'torch'.*onnxruntime"):
        bench(program, ["torch"], model)
    with pytest.raises(ValueError, match="does not know its model"):
        bench(program, ONNX_PEERS[:1])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(peers.PeerMissing, match="pip install openvino"):
        bench(program, ["openvino"], model)


@pytest.mark.skipif("ai-edge-litert" not in INSTALLED, reason="needs LiteRT")
def test_litert_asks_for_a_tflite_file(program: Program, model: Model) -> None:
    report = bench(program, ["ai-edge-litert"], model, rounds=1, batch_us=50)
    assert ".tflite" in report.refused["ai-edge-litert"] and report.peers == {}
    assert "did not take part" in report.table()


@pytest.mark.models
@pytest.mark.skipif("ai-edge-litert" not in INSTALLED, reason="needs LiteRT")
def test_litert_runs_a_twin(tmp_path: Path) -> None:
    from headrace.measure.peers import ai_edge_litert
    from headrace.measure.peers.contestant import Case
    from zoo import catalog

    (tmp_path / "selfie.tflite").write_bytes(catalog.path("mp-selfie").read_bytes())
    source = Model.__new__(Model)
    object.__setattr__(source, "source", tmp_path / "selfie.onnx")
    image = np.ones((1, 256, 256, 3), np.float32)
    case = Case(source, {"input_1": image}, {})
    opened = ai_edge_litert.open(case)
    assert opened.bound is not None
    opened.bound()
    (mask,) = opened.outputs().values()
    assert mask.shape[1:3] == (256, 256) and np.ptp(mask) > 0


@pytest.mark.parametrize("peer", ONNX_PEERS)
def test_constants_are_weights_and_shapes_are_static(peer: str, make: Callable[..., Any]) -> None:
    from headrace.measure.peers.contestant import Case

    scaled = make(
        [("Mul", ["x", "gain"], ["y"], {})],
        {"x": ("float32", ("n", 2)), "gain": ("float32", (1,))},
        {"y": ("float32", ("n", 2))},
    )
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    case = Case(scaled, {"x": x}, {"gain": np.float32([3])})
    assert [port.name for port in case.proto.graph.input] == ["x"]
    np.testing.assert_array_equal(peers.open_peer(peer, case).outputs()["y"], 3 * x)
