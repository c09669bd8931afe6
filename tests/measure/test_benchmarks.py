"""The page of measurements says what was measured, and does not hide what went wrong."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

import headrace as hr
from benchmarks import baseline, growth, limits, startup
from benchmarks.goals import STREAMING, VISION, best_rival, goals
from benchmarks.report import write_changes, write_report
from benchmarks.run import COMPILED, LEFT_OUT, QUICK
from benchmarks.subjects import subjects


def timing(median: float) -> dict[str, Any]:
    return {"median_us": median, "quartiles_us": [median * 0.9, median * 1.1], "samples_us": [median] * 3}


def entry(median: float, **more: Any) -> dict[str, Any]:
    ratio = {"median": median / 10, "low": 1.0, "high": 2.0}
    return {
        "version": "1.0",
        "agrees": True,
        "plain": timing(median),
        "bound": timing(median / 2),
        "ratio": ratio,
        "bound_ratio": ratio,
        **more,
    }


@pytest.fixture
def result() -> dict[str, Any]:
    race = {
        "machine": "a machine",
        "target": "native",
        "toolchain": "gcc 12",
        "ours": {"plain": timing(10.0), "bound": timing(9.0)},
        "peers": {"onnxruntime": entry(80.0), "tract": entry(20.0, agrees=False)},
        "refused": {"openvino": "openvino refuses the model: no"},
        "extra": {"reading": timing(40.0)},
    }
    sizes = (
        "macs", "state_bytes", "scratch_bytes", "scratch_lower_bound", "weight_bytes", "kernels", "memory_bytes"
    )  # fmt: skip
    return {
        "name": "silero-step",
        "compile_s": 1.5,
        "compile_peak_bytes": 100_000_000,
        "code_bytes": None,
        **dict.fromkeys(sizes, 1234),
        "verify": {"ok": True, "relative": 1e-6, "max_ulp": 7},
        "limits": {"share": 0.5, "reading_us": 4.5, "reading_share": 0.5},
        "slow": [
            {
                "nodes": ["a", "b", "c", "d"],
                "us": 4.0,
                "time": 0.4,
                "limit": 0.3,
                "bound": "arithmetic",
                "reasons": ["x"],
            }
        ],
        "startup": {"own": {"us": 90.0, "bytes": 1_300_000}, "peers": {"onnxruntime": {"error": "no"}}},
        "bench": race,
        "evicted": copy.deepcopy(race),
    }


def test_times_ratios_and_refusals(result: dict[str, Any]) -> None:
    page = write_report([result, {"name": "magika", "error": "it failed"}])
    rivals = "**8.00** onnxruntime | 80.0 | 8.00 (1.00–2.00) | 20.0 | 2.00 (1.00–2.00) !"
    assert f"| silero-step | 10.0 | 9.00–11.0 | {rivals} |" in page
    assert "Geometric mean of the ratios: onnxruntime 8.00 (1 models)." in page
    assert "magika failed: it failed" in page and "openvino refuses" in page
    assert "| 1,234 | ? |" in page.replace("| 1,234 | 1,234 | ? |", "| 1,234 | ? |")
    assert "| silero-step | `a`, `b`, `c` … | 4.00 | 40 % | 30 % | x |" in page
    assert "3 rounds" in page and "a machine" in page


def test_a_wrong_program_is_called_wrong(result: dict[str, Any]) -> None:
    result["verify"] = {"ok": False, "relative": "inf", "max_ulp": None}
    assert "**WRONG** inf" in write_report([result])


def test_nothing_measured() -> None:
    assert write_report([{"name": "a", "error": "broken"}]).strip() == "a: broken"


def test_subjects_that_are_named_exist() -> None:
    assert {*QUICK, *COMPILED, *LEFT_OUT, *STREAMING, *VISION} <= set(subjects())


def test_shares_and_start_up_are_on_the_page(result: dict[str, Any]) -> None:
    page = write_report([result])
    assert "| silero-step | 9.00 | 4.50 | — | 50 % |" in page
    assert "| silero-step | 90 | — | 1.3 | — |" in page


# --- goals -------------------------------------------------------------------------------------------


def test_the_best_rival_computes_the_same(result: dict[str, Any]) -> None:
    name, ratio = best_rival(result, "bound") or ("", {})
    assert name == "onnxruntime" and ratio["median"] == 8.0
    result["bench"]["peers"]["onnxruntime"]["agrees"] = False
    assert best_rival(result, "bound") is None
    result["evicted"]["peers"]["onnxruntime"]["bound"] = None
    assert best_rival(result, "bound", "evicted") is None


def test_goals_that_were_not_measured_are_not_reached(result: dict[str, Any]) -> None:
    found = {goal.what: goal for goal in goals([result])}
    assert found["silero-step, bound"].found == 8.0 and found["silero-step, bound"].reached
    mean = found["geometric mean of these, bound"]
    assert mean.found is None and not mean.reached
    assert found["silero-step: 1 ms / start-up"].found == pytest.approx(1000 / 90)
    every = [{**copy.deepcopy(result), "name": name} for name in STREAMING]
    means = [goal for goal in goals(every) if goal.what == "geometric mean of these, plain"]
    assert means[0].found == pytest.approx(8.0)


def test_growth_beside_plain_c_is_on_the_page(result: dict[str, Any]) -> None:
    rows = [{"size": "16 channels", "us": 2.0, "plain C": 1.0, "tract": None}]
    page = write_report([result], {"channels": rows, "streams": [{"streams": 4, "headrace": 8.0}]})
    assert "| plain C / streamed, 16 channels | 0.77 | **0.50** |" in page
    assert "| 16 channels | 2.00 | 1.00 | — |" in page and "| 4 | 8.00 |" in page
    assert "Not measured: it broke." in write_report([result], {"name": "growth", "error": "it broke"})


# --- the baseline ------------------------------------------------------------------------------------


def test_what_is_worse_than_the_baseline_is_found(result: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    baseline.update([result], path)
    before = baseline.read(path)
    assert baseline.changes([result], before) == []
    slower = copy.deepcopy(result)
    slower["bench"]["peers"]["onnxruntime"]["bound_ratio"] = {"median": 0.7, "low": 0.6, "high": 0.9}
    slower["code_bytes"], slower["memory_bytes"] = 10**6, result["memory_bytes"] + 1
    found = baseline.changes([slower], before)
    assert [(c.figure, c.worse) for c in found] == [("bench.bound", True), ("memory_bytes", True)]
    faster = copy.deepcopy(result)
    faster["bench"]["peers"]["onnxruntime"]["ratio"] = {"median": 9, "low": 8, "high": 10}
    (change,) = baseline.changes([faster], before)
    assert not change.worse and "better silero-step, bench.plain: 8.00" in write_changes([change])
    (change,) = baseline.changes([{"name": "silero-step", "error": "it broke"}], before)
    assert change.worse and "it broke" in write_changes([change])
    within = copy.deepcopy(result)
    within["bench"]["peers"]["onnxruntime"]["bound_ratio"] = {"median": 1.2, "low": 0.9, "high": 1.6}
    assert baseline.changes([within], before) == []


def test_a_baseline_keeps_models_that_were_not_run(result: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    baseline.update([result], path)
    baseline.update([{**result, "name": "other"}, {"name": "third", "error": "no"}], path)
    assert list(json.loads(path.read_text())) == ["other", "silero-step"]
    assert baseline.read(tmp_path / "none.json") == {}


# --- measuring ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program() -> hr.Program:
    w = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    x, y = (helper.make_tensor_value_info(n, 1, [4, 256]) for n in ("x", "y"))
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y],
                              [numpy_helper.from_array(w, "w")])  # fmt: skip
    return hr.compile(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def test_limits_count_what_the_program_needs(program: hr.Program) -> None:
    calls, times = limits.limit_calls(program, 2 * 4 * 256 * 4)
    for call in calls.values():
        call()
    assert set(times) == {"reading", "arithmetic"} and all(t > 0 for t in times.values())
    race = {
        "ours": {"bound": {"samples_us": [10.0, 20.0, 40.0]}},
        "extra": {name: {"samples_us": [t * us for us in (5.0, 5.0, 30.0)]} for name, t in times.items()},
    }
    found = limits.shares(race, times)
    assert found["share"] == found["reading_share"] == 0.5 and found["reading_us"] == pytest.approx(5.0)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs cc")
def test_start_up_of_the_library(program: hr.Program) -> None:
    found = startup.own(program)
    assert 1 < found["us"] < 1e6 and found["bytes"] >= 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs cc")
def test_plain_c_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "SECONDS", 0.0)
    found = growth.channels(16, 4, 3)
    assert found["plain C"] > 0 and found["us"] > 0
