"""One subject: compile, verify, race; the result as JSON. benchmarks.run starts this for each."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import headrace as hr
from benchmarks import startup
from benchmarks.goals import GEMM
from benchmarks.limits import limit_calls, shares, slow_kernels
from benchmarks.subjects import Subject, subjects
from headrace.measure.bench import bench
from headrace.measure.profile import profile
from headrace.measure.verify import verify

SECONDS = 2.5  # of a race, but at least some rounds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("path", type=Path)
    parser.add_argument("peers")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    peers = [name for name in arguments.peers.split(",") if name]
    result = measured(subjects()[arguments.name], peers, arguments.quick)
    arguments.path.write_text(json.dumps(result, indent=1), encoding="utf-8")


def measured(subject: Subject, peers: list[str], is_quick: bool) -> dict[str, Any]:
    """Compile time, sizes, difference from onnxruntime on real input, and the races on one real input.

    In the race of bound calls take part: what the machine can do at most, and for the matrix product NumPy.
    """
    start = time.perf_counter()
    program = subject.compile()
    seconds = time.perf_counter() - start
    peak = _peak_bytes()
    model, info, real = subject.load(), program.info, subject.real()
    checked = verify(program, model, real, runs=2, layers=False)
    inputs = {k: np.ascontiguousarray(v) for k, v in real[len(real) // 2].items()}
    calls, times = limit_calls(program, _io_bytes(program))
    budget = {"rounds": 15, "seconds": SECONDS / 2} if is_quick else {"rounds": 41, "seconds": SECONDS}
    raced = bench(program, peers, model, inputs, **budget, extra={**calls, **_blas(subject, inputs)})
    evicted = bench(program, peers, model, inputs, **{**budget, "rounds": 13}, evict=True)
    races = {"bench": raced.to_dict(), "evicted": evicted.to_dict()}
    return {
        "name": subject.name,
        "version": raced.ours.version,
        "compile_s": seconds,
        "compile_peak_bytes": peak,
        "memory_bytes": info.memory_bytes,
        "state_bytes": info.state_bytes,
        "scratch_bytes": info.scratch_bytes,
        "scratch_lower_bound": info.scratch_lower_bound,
        "weight_bytes": info.weight_bytes,
        "code_bytes": info.code_bytes,
        "macs": info.macs,
        "kernels": len(info.kernels),
        "verify": {key: checked.to_dict()[key] for key in ("ok", "relative", "max_ulp", "reference", "notes")},
        "limits": shares(races["bench"], times),
        "slow": slow_kernels(profile(program, inputs)),
        "startup": {"own": startup.own(program), "peers": startup.rivals(subject.name, _openable(peers))},
        **races,
    }


def _io_bytes(program: hr.Program) -> int:
    manifest = program.info.manifest
    return sum(p["nbytes"] for role in ("inputs", "outputs") for p in manifest[role])


def _openable(peers: list[str]) -> list[str]:
    """Those that load a model as it is; the others compile it first, which is no start-up."""
    return [name for name in peers if name in ("onnxruntime", "openvino", "tract")]


def _blas(subject: Subject, inputs: Mapping[str, Any]) -> dict[str, Callable[[], object]]:
    """NumPy's OpenBLAS, on the threads that the environment of this process gives it."""
    if subject.name != GEMM:
        return {}
    from onnx import numpy_helper

    (weight,) = (numpy_helper.to_array(t) for t in subject.load().proto.graph.initializer)
    (x,) = inputs.values()
    y = np.empty((x.shape[0], weight.shape[1]), np.float32)
    return {"OpenBLAS": lambda: np.matmul(x, weight, out=y)}


def _peak_bytes() -> int:
    """Largest memory of this process and of the compilers that it started; Linux counts in kilobytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


if __name__ == "__main__":
    main()
