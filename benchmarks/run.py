"""Every subject beside other runtimes: `make bench`, or python -m benchmarks.run [--quick] [NAME …].

Each subject is compiled, verified and raced in a process of its own, so that one cannot disturb the
next. The results go to docs/benchmarks.md, the raw samples to build/benchmarks/NAME.json.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.report import write_report
from benchmarks.subjects import subjects
from headrace.measure.peers import PACKAGES

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "benchmarks"
REPORT = ROOT / "docs" / "benchmarks.md"
PEERS = ("onnxruntime", "openvino", "tract")
QUICK = (
    "silero-step", "dtln-1", "dtln-2", "nsnet2[T=1]", "dfn3-enc[S=1]", "dfn3-erb[S=1]", "dfn3-df[S=1]",
    "pulsevad", "pulsevad-int8", "pulsevad-teacher", "magika", "ds-cnn",
)  # fmt: skip
LIMIT_S = 900


def main() -> int:
    """Measure what was asked for; 1 when anything failed or a program is wrong."""
    arguments = _arguments()
    known = subjects()
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        print(f"unknown subject {unknown[0]!r}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    names = arguments.names or (list(QUICK) if arguments.quick else list(known))
    peers = [name for name in arguments.peers.split(",") if name]
    if set(peers) - set(PACKAGES):
        print(f"unknown peer; there are {', '.join(PACKAGES)}", file=sys.stderr)
        return 2
    RESULTS.mkdir(parents=True, exist_ok=True)
    results = _measured(names, peers, arguments.quick)
    if arguments.report or not (arguments.names or arguments.quick):
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(write_report(results), encoding="utf-8")
    Console().print(write_report(results), markup=False, highlight=False, soft_wrap=True)
    return 0 if all("error" not in result and result["verify"]["ok"] for result in results) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="subjects; default: all")
    parser.add_argument("--quick", action="store_true", help="the small ones, fewer rounds")
    parser.add_argument("--peers", default=",".join(PEERS), metavar="A,B")
    parser.add_argument("--report", action="store_true", help="write docs/benchmarks.md even for a part")
    return parser.parse_args()


def _measured(names: list[str], peers: list[str], is_quick: bool) -> list[dict[str, Any]]:
    columns = (TextColumn("{task.description:28}"), MofNCompleteColumn(), TimeElapsedColumn())
    results = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(names))
        for name in names:
            progress.update(task, description=name)
            results.append(_in_process(name, peers, is_quick))
            progress.advance(task)
    return results


def _in_process(name: str, peers: list[str], is_quick: bool) -> dict[str, Any]:
    """Run benchmarks.one for a subject; {"name", "error"} when that fails."""
    path = RESULTS / f"{re.sub(r'[^A-Za-z0-9=_-]+', '_', name)}.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.one", name, str(path), ",".join(peers)]
    command += ["--quick"] if is_quick else []
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"name": name, "error": f"did not finish within {LIMIT_S} s"}
    if done.returncode or not path.is_file():
        lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        return {"name": name, "error": lines[-1]}
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


if __name__ == "__main__":
    sys.exit(main())
