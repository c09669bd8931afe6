"""The page of measurements says what was measured, and does not hide what went wrong."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from benchmarks.report import write_report
from benchmarks.run import QUICK
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
    }
    sizes = ("macs", "state_bytes", "scratch_bytes", "scratch_lower_bound", "weight_bytes", "kernels")
    return {
        "name": "silero-step",
        "compile_s": 1.5,
        "compile_peak_bytes": 100_000_000,
        "code_bytes": None,
        **dict.fromkeys(sizes, 1234),
        "verify": {"ok": True, "relative": 1e-6, "max_ulp": 7},
        "bench": race,
        "evicted": copy.deepcopy(race),
    }


def test_times_ratios_and_refusals(result: dict[str, Any]) -> None:
    page = write_report([result, {"name": "magika", "error": "it failed"}])
    assert "| silero-step | 10.0 | 9.00–11.0 | 80.0 | 8.00 (1.00–2.00) | 20.0 | 2.00 (1.00–2.00) ! |" in page
    assert "Geometric mean of the ratios: onnxruntime 8.00 (1 models)." in page
    assert "magika failed: it failed" in page and "openvino refuses" in page
    assert "| 1,234 | ? |" in page.replace("| 1,234 | 1,234 | ? |", "| 1,234 | ? |")
    assert "3 rounds" in page and "a machine" in page


def test_a_wrong_program_is_called_wrong(result: dict[str, Any]) -> None:
    result["verify"] = {"ok": False, "relative": "inf", "max_ulp": None}
    assert "**WRONG** inf" in write_report([result])


def test_nothing_measured() -> None:
    assert write_report([{"name": "a", "error": "broken"}]).strip() == "a: broken"


def test_quick_subjects_exist() -> None:
    assert set(QUICK) <= set(subjects())
