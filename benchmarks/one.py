"""One subject: compile, verify, race; the result as JSON. benchmarks.run starts this for each."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import headrace as hr
from benchmarks.subjects import Subject, subjects
from headrace.measure.bench import bench
from headrace.measure.verify import verify


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("path", type=Path)
    parser.add_argument("peers")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    peers = [name for name in arguments.peers.split(",") if name]
    result = measured(subjects()[arguments.name], peers, 15 if arguments.quick else 41)
    arguments.path.write_text(json.dumps(result, indent=1), encoding="utf-8")


def measured(subject: Subject, peers: list[str], rounds: int) -> dict[str, Any]:
    """Compile time, sizes, difference from onnxruntime on real input, and the race on one real input."""
    start = time.perf_counter()
    program = subject.compile()
    seconds = time.perf_counter() - start
    peak = _peak_bytes()
    model, info, real = subject.load(), program.info, subject.real()
    checked = verify(program, model, real, runs=2, layers=False)
    inputs = {k: np.ascontiguousarray(v) for k, v in real[len(real) // 2].items()}
    raced = bench(program, peers, model, inputs, rounds=rounds)
    evicted = bench(program, peers, model, inputs, rounds=max(rounds // 3, 5), evict=True)
    return {
        "name": subject.name,
        "version": hr.__version__ if hasattr(hr, "__version__") else "",
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
        "bench": raced.to_dict(),
        "evicted": evicted.to_dict(),
    }


def _peak_bytes() -> int:
    """Largest memory of this process and of the compilers that it started; Linux counts in kilobytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


if __name__ == "__main__":
    main()
