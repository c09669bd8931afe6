"""docs/benchmarks.md from the results of all subjects."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Sequence
from typing import Any

Result = dict[str, Any]

HEAD = """\
# Measurements beside other runtimes

Written by `make bench` (`python -m benchmarks.run`); do not edit. {machine}, one thread, batch 1, {date}.
Compiled for {target} by {toolchain}. {versions}.

All contestants of a row take turns in one process, {rounds} rounds; a time is the median over the rounds, in
µs per call from Python. A ratio is how many times as long the other runtime takes, the median of the ratios
of each round, with their quartiles. *Plain* is a call as a user writes it, arrays in, arrays out; *bound* is
a call on arrays bound beforehand; *evicted* is a plain call after 4 MB of other memory were touched, as on a
device that does other things between two steps. `!` marks a runtime whose outputs differ from ours by more
than 1e-3 of the largest element; `—` one that cannot run the model. Medians move by tens of percent from
machine to machine, ratios less.
"""


def write_report(results: Sequence[Result]) -> str:
    """The whole page."""
    good = [result for result in results if "error" not in result]
    if not good:
        return "\n".join(f"{result['name']}: {result['error']}" for result in results)
    peers = list(dict.fromkeys(name for result in good for name in result["bench"]["peers"]))
    parts = [
        _head(good[0], peers, good),
        *_race("Plain calls", good, peers, "bench", "plain", "ratio"),
        *_race("Bound calls", good, peers, "bench", "bound", "bound_ratio"),
        *_race("Evicted", good, peers, "evicted", "plain", "ratio"),
        *_sizes(good),
        *_absent(results, good),
    ]
    return "\n".join(parts) + "\n"


def _head(first: Result, peers: Sequence[str], good: Sequence[Result]) -> str:
    bench = first["bench"]
    found = {n: e["version"] for r in good for n, e in r["bench"]["peers"].items()}
    return HEAD.format(
        machine=bench["machine"],
        date=datetime.date.today().isoformat(),
        target=bench["target"],
        toolchain=bench["toolchain"],
        versions=", ".join(f"{name} {found[name]}" for name in peers) or "No peers",
        rounds=len(bench["ours"]["plain"]["samples_us"]),
    )


def _race(title: str, results: Sequence[Result], peers: Sequence[str], run: str, kind: str, ratio: str) -> list[str]:
    head = ["model", "headrace", "quartiles", *(cell for name in peers for cell in (name, "ratio"))]
    lines = ["", f"## {title}", "", _row(head), _row(["---", *["--:"] * (len(head) - 1)])]
    for result in results:
        bench = result[run]
        ours = bench["ours"][kind]
        cells = [result["name"], _us(ours["median_us"]), "–".join(map(_us, ours["quartiles_us"]))]
        for name in peers:
            cells += _against(bench["peers"].get(name), kind, ratio)
        lines.append(_row(cells))
    return [*lines, *_means(results, peers, run, ratio)]


def _against(entry: Any, kind: str, ratio: str) -> list[str]:
    """Time and ratio of one peer."""
    if entry is None or entry[kind] is None:
        return ["—", "—"]
    r = entry[ratio]
    mark = "" if entry["agrees"] else " !"
    return [_us(entry[kind]["median_us"]), f"{r['median']:.2f} ({r['low']:.2f}–{r['high']:.2f}){mark}"]


def _means(results: Sequence[Result], peers: Sequence[str], run: str, ratio: str) -> list[str]:
    """Geometric mean of the ratios to each peer, over the models that it computes rightly."""
    texts = []
    for name in peers:
        entries = [e for r in results if (e := r[run]["peers"].get(name)) and e["agrees"] and e[ratio]]
        if entries:
            mean = statistics.geometric_mean(entry[ratio]["median"] for entry in entries)
            texts.append(f"{name} {mean:.2f} ({len(entries)} models)")
    return ["", f"Geometric mean of the ratios: {', '.join(texts)}."] if texts else []


def _sizes(results: Sequence[Result]) -> list[str]:
    """Memory, code, compile time and accuracy."""
    head = [
        "model", "MAC", "state", "scratch", "least scratch", "weights", "code", "kernels", "compile s",
        "compile MB", "difference", "ULP",
    ]  # fmt: skip
    lines = [
        "",
        "## Size, compile time, accuracy",
        "",
        "Bytes. *Least scratch* is what any memory plan for these kernels needs. *Difference* is the largest "
        "difference of any output or state from onnxruntime's, graph optimisations off, as a share of the "
        "largest element of that output, over consecutive real and random inputs; *ULP* counts elements of "
        "at least a thousandth of the largest.",
        "",
        _row(head),
        _row(["---", *["--:"] * (len(head) - 1)]),
    ]
    for r in results:
        numbers = [r[k] for k in ("macs", "state_bytes", "scratch_bytes", "scratch_lower_bound", "weight_bytes")]
        cells = [r["name"], *(f"{n:,}" for n in numbers)]
        cells += ["?" if r["code_bytes"] is None else f"{r['code_bytes']:,}", str(r["kernels"])]
        cells += [f"{r['compile_s']:.1f}", f"{r['compile_peak_bytes'] / 1e6:,.0f}", _accuracy(r["verify"])]
        cells += ["" if r["verify"]["max_ulp"] is None else f"{r['verify']['max_ulp']:,}"]
        lines.append(_row(cells))
    return lines


def _accuracy(verify: Any) -> str:
    text = f"{float(verify['relative']):.1e}"
    return text if verify["ok"] else f"**WRONG** {text}"


def _absent(results: Sequence[Result], good: Sequence[Result]) -> list[str]:
    """Models that failed, and runtimes that refused one, with the reason."""
    lines = [f"- {r['name']} failed: {r['error']}" for r in results if "error" in r]
    for result in good:
        lines += [f"- {result['name']}: {why}" for why in result["bench"]["refused"].values()]
    return ["", "## Not measured", "", *lines] if lines else []


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _us(value: float) -> str:
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"
