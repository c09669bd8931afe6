"""Every subject beside other runtimes: `make bench`, or python -m benchmarks.run [--quick] [NAME …].

Each subject is compiled, verified and raced in a process of its own, so that one cannot disturb the
next. The results go to docs/benchmarks.md, the raw samples to build/benchmarks/NAME.json. Ratios are
compared with those of benchmarks/baseline.json; --update-baseline stores the new ones.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import baseline
from benchmarks.report import write_changes, write_report
from benchmarks.subjects import subjects
from headrace.measure.peers import PACKAGES, is_installed

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "benchmarks"
REPORT = ROOT / "docs" / "benchmarks.md"
PEERS = ("onnxruntime", "openvino", "tract")
COMPILERS = ("iree", "emx-onnx-cgen")  # minutes for large models, and never near the fastest
COMPILED = ("dtln-1", "dtln-2", "pulsevad", "pulsevad-teacher", "ds-cnn", "resnet8", "auto-encoder")
QUICK = (
    "silero-step", "dtln-1", "dtln-2", "nsnet2[T=1]", "dfn3-enc[S=1]", "dfn3-erb[S=1]", "dfn3-df[S=1]",
    "pulsevad", "pulsevad-int8", "pulsevad-teacher", "magika", "ds-cnn",
)  # fmt: skip
LEFT_OUT = ("light-inception-v1", "light-densenet121")  # tested, but not among the models to measure
LIMIT_S = 600
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "TVM")}


def main() -> int:
    """Measure what was asked for; 1 when anything failed or a program is wrong."""
    arguments = _arguments()
    known = subjects()
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        print(f"unknown subject {unknown[0]!r}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    whole = [name for name in known if name not in LEFT_OUT]
    names = arguments.names or (list(QUICK) if arguments.quick else whole)
    peers = [name for name in arguments.peers.split(",") if name]
    if set(peers) - set(PACKAGES):
        print(f"unknown peer; there are {', '.join(PACKAGES)}", file=sys.stderr)
        return 2
    is_whole = not (arguments.names or arguments.quick)
    RESULTS.mkdir(parents=True, exist_ok=True)
    results, growth = _measured(names, peers, arguments.quick, is_whole or arguments.growth)
    page = write_report(results, growth)
    if arguments.report or is_whole:
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(page, encoding="utf-8")
    console = Console()
    console.print(page, markup=False, highlight=False, soft_wrap=True)
    changed = baseline.changes(results, baseline.read())
    console.print(write_changes(changed), markup=False, highlight=False, soft_wrap=True)
    if arguments.update_baseline:
        baseline.update(results)
    return 0 if all("error" not in result and result["verify"]["ok"] for result in results) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="subjects; default: all")
    parser.add_argument("--quick", action="store_true", help="the small ones, fewer rounds")
    parser.add_argument("--peers", default=",".join((*PEERS, *COMPILERS)), metavar="A,B")
    parser.add_argument("--report", action="store_true", help="write docs/benchmarks.md even for a part")
    parser.add_argument("--growth", action="store_true", help="also the cost as the work grows (part of a whole run)")
    parser.add_argument("--update-baseline", action="store_true", help="store the ratios of this run")
    return parser.parse_args()


def _measured(
    names: list[str], peers: list[str], is_quick: bool, with_growth: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    columns = (TextColumn("{task.description:28}"), MofNCompleteColumn(), TimeElapsedColumn())
    results, growth = [], {}
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(names) + with_growth)
        for name in names:
            progress.update(task, description=name)
            taking_part = [p for p in peers if is_installed(p) and (p not in COMPILERS or name in COMPILED)]
            results.append(_in_process("benchmarks.one", name, [name], [",".join(taking_part)], is_quick))
            progress.advance(task)
        if with_growth:
            progress.update(task, description="growth")
            growth = _in_process("benchmarks.growth", "growth", [], [], False)
            progress.advance(task)
    return results, growth


def _in_process(module: str, name: str, before: list[str], after: list[str], is_quick: bool) -> dict[str, Any]:
    """Run a module that writes JSON to a path; {"name", "error"} when that fails."""
    path = RESULTS / f"{re.sub(r'[^A-Za-z0-9=_-]+', '_', name)}.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", module, *before, str(path), *after]
    command += ["--quick"] if is_quick else []
    environment = {**os.environ, **ONE_THREAD}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"name": name, "error": f"did not finish within {LIMIT_S} s"}
    if done.returncode or not path.is_file():
        lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        return {"name": name, "error": lines[-1]}
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


if __name__ == "__main__":
    sys.exit(main())
