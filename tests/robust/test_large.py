"""Hundreds of megabytes of weights: compiled in bounded time and memory, without a word of them in the C."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import headrace as hr
from tests.robust.commands import environment
from tests.robust.models import model

WIDTH, LAYERS = 4096, 5  # 5 * 64 MiB
CODE = """
import json, resource, sys, time
import headrace as hr
begin = time.perf_counter()
hr.compile(sys.argv[1], out=sys.argv[2])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({"seconds": time.perf_counter() - begin, "bytes": 1024 * max(peak)}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux")
def test_weights_of_320_megabytes(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((WIDTH, WIDTH), np.float32) / np.float32(WIDTH**0.5) for _ in range(LAYERS)]
    nodes = [helper.make_node("MatMul", [f"v{n}", f"w{n}"], [f"v{n + 1}"]) for n in range(LAYERS)]
    proto = model(nodes, {"v0": (1, WIDTH)}, {f"v{LAYERS}": (1, WIDTH)}, [
        numpy_helper.from_array(w, f"w{n}") for n, w in enumerate(weights)
    ])  # fmt: skip
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data")
    command = [sys.executable, "-c", CODE, str(tmp_path / "m.onnx"), str(tmp_path / "out")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True, timeout=300)
    cost = json.loads(done.stdout)
    request.node.user_properties.append(("cost", cost))
    assert cost["bytes"] < 3 * 2**30 and cost["seconds"] < 120, cost
    program = hr.open(tmp_path / "out")
    assert program.info.weight_bytes >= 4 * LAYERS * WIDTH**2
    assert sum(p.stat().st_size for p in program.path.iterdir() if p.suffix in (".c", ".h", ".S")) < 200_000
    x = rng.standard_normal((1, WIDTH), np.float32)
    expected = x.astype(np.float64)
    for w in weights:
        expected = expected @ w
    got = program.run({"v0": x})[f"v{LAYERS}"]
    assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()
