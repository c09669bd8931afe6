"""docs/benchmarks.md from the results of all subjects."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.baseline import Change
from benchmarks.goals import GEMM, best_rival, goals

Result = dict[str, Any]
SHOWN = 3  # nodes of a kernel by name

HEAD = """\
# Measurements beside other runtimes

Written by `make bench` (`python -m benchmarks.run`); do not edit. {machine}, one thread, batch 1, float32 unless
a model says otherwise, {date}. Compiled for {target} by {toolchain}, schedules by heuristic. {versions}.

All contestants of a row take turns in one process, up to {rounds} rounds; a time is the median over the rounds,
in µs per call from Python. A ratio is how many times as long the other runtime takes, the median of the ratios
of each round, with their quartiles. *Plain* is a call as a user writes it, arrays in, arrays out; *bound* is
a call on arrays bound beforehand (I/O binding, preset tensors); *evicted* means that 4 MB of other memory were
touched before every call, as on a device that does other things between two steps. `!` marks a runtime whose
outputs differ from ours by more than 1e-3 of the largest element; `—` one that cannot run the model or did not
take part. Medians move by tens of percent from machine to machine, ratios less.
"""


def write_report(results: Sequence[Result], growth: Result | None = None) -> str:
    """The whole page. growth: what benchmarks.growth wrote."""
    good = [result for result in results if "error" not in result]
    if not good:
        return "\n".join(f"{result['name']}: {result['error']}" for result in results)
    peers = list(dict.fromkeys(name for result in good for name in result["bench"]["peers"]))
    parts = [
        _head(good[0], peers, good),
        *_goals(good, growth or {}),
        *_race("Bound calls", good, peers, "bench", "bound", "bound_ratio"),
        *_race("Plain calls", good, peers, "bench", "plain", "ratio"),
        *_race("Evicted, bound calls", good, peers, "evicted", "bound", "bound_ratio"),
        *_race("Evicted, plain calls", good, peers, "evicted", "plain", "ratio"),
        *_limits(good),
        *_slow(good),
        *_startup(good, peers),
        *_sizes(good),
        *_growth(growth or {}),
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
    head = [
        "model",
        "headrace",
        "quartiles",
        "best rival / ours",
        *(cell for name in peers for cell in (name, "ratio")),
    ]
    lines = ["", f"## {title}", "", _row(head), _row(["---", *["--:"] * (len(head) - 1)])]
    for result in results:
        bench = result[run]
        ours = bench["ours"][kind]
        best = best_rival(result, kind, run)
        cells = [result["name"], _us(ours["median_us"]), "–".join(map(_us, ours["quartiles_us"]))]
        cells.append("—" if best is None else f"**{best[1]['median']:.2f}** {best[0]}")
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


def _goals(results: Sequence[Result], growth: Result) -> list[str]:
    """The table of goals, with those that were not reached in bold."""
    lines = ["", "## Goals", "", "The fastest rival's time divided by ours, unless a line says otherwise.", ""]
    lines += [_row(["", "wanted", "found"]), _row(["---", "--:", "--:"])]
    for goal in goals(results, growth):
        found = "not measured" if goal.found is None else f"{goal.found:.2f}"
        lines.append(_row([goal.what, f"{goal.wanted:.2f}", found if goal.reached else f"**{found}**"]))
    return lines


def _limits(results: Sequence[Result]) -> list[str]:
    """How close the whole program comes to what the machine could do in the same race."""
    lines = [
        "",
        "## Share of the limit",
        "",
        "In the race of bound calls the machine itself takes part: reading the weights, inputs and outputs of the "
        "model once, and as many multiply-adds in full vectors as the model has. The larger of both is the limit "
        "(a layer by layer account: `headrace profile`).",
        "",
        _row(["model", "headrace", "reading", "arithmetic", "share of the limit"]),
        _row(["---", "--:", "--:", "--:", "--:"]),
    ]
    for r in results:
        limit = r["limits"]
        times = [_us(limit[k]) if k in limit else "—" for k in ("reading_us", "arithmetic_us")]
        ours = _us(r["bench"]["ours"]["bound"]["median_us"])
        lines.append(_row([r["name"], ours, *times, f"{100 * limit['share']:.0f} %"]))
    return [*lines, *_rates(results)]


def _rates(results: Sequence[Result]) -> list[str]:
    """The matrix product in GFLOP/s."""
    found = next((r for r in results if r["name"] == GEMM), None)
    if found is None:
        return []
    bench, flops = found["bench"], 2e-3 * found["macs"]
    rates = {"headrace": bench["ours"]["bound"]["median_us"]}
    rates |= {name: e["bound"]["median_us"] for name, e in bench["peers"].items() if e["bound"]}
    rates |= {name: e["median_us"] for name, e in bench["extra"].items() if name == "OpenBLAS"}
    rates["the machine's peak"] = found["limits"]["arithmetic_us"]
    return ["", f"{GEMM}, GFLOP/s: {', '.join(f'{name} {flops / us:.0f}' for name, us in rates.items())}."]


def _slow(results: Sequence[Result]) -> list[str]:
    """Kernels far from their limits, with what `headrace profile` knows about why."""
    lines = [
        "",
        "## Kernels below half of their limit",
        "",
        "Those that take more than 5 % of a model's time, each with what the cost model finds beside the limit: the "
        "microseconds that each cause costs.",
        "",
        _row(["model", "kernel", "µs", "of the time", "of the limit", "because of"]),
        _row(["---", "---", "--:", "--:", "--:", "---"]),
    ]
    for r in results:
        for k in r["slow"]:
            nodes = ", ".join(f"`{name}`" for name in k["nodes"][:SHOWN]) + (" …" if len(k["nodes"]) > SHOWN else "")
            shares = [f"{100 * k[key]:.0f} %" for key in ("time", "limit")]
            lines.append(_row([r["name"], nodes, _us(k["us"]), *shares, "; ".join(k["reasons"]) or "—"]))
    return lines


def _startup(results: Sequence[Result], peers: Sequence[str]) -> list[str]:
    """Cold processes."""
    shown = [name for name in peers if any(name in r["startup"]["peers"] for r in results)]
    lines = [
        "",
        "## Start-up and memory",
        "",
        "From opening to the first output in a process that has done nothing else, in µs, and the resident memory "
        "that this adds, in MB. Ours is a C program with dlopen; the others are opened from Python, their packages "
        "imported before.",
        "",
        _row(["model", *(f"{n} {unit}" for unit in ("µs", "MB") for n in ("headrace", *shown))]),
        _row(["---", *["--:"] * (2 * len(shown) + 2)]),
    ]
    for r in results:
        entries = [r["startup"]["own"], *(r["startup"]["peers"].get(name, {}) for name in shown)]
        us = [f"{e['us']:,.0f}" if "us" in e else "—" for e in entries]
        lines.append(_row([r["name"], *us, *(f"{e['bytes'] / 1e6:.1f}" if "us" in e else "—" for e in entries)]))
    return lines


def _growth(growth: Result) -> list[str]:
    """Channels, streams and threads, as far as they were measured."""
    if "error" in growth:
        return ["", "## Cost as the work grows", "", f"Not measured: {growth['error']}."]
    titles = {
        "channels": "Dilated causal convolutions, one frame at a time, µs per bound call; plain C as one writes it.",
        "streams": "silero-step, several streams in turn, each with its own state: µs per step.",
        "threads": "µs by the number of threads.",
    }
    lines: list[str] = []
    for name, title in titles.items():
        rows = growth.get(name, [])
        if not rows:
            continue
        head = list(dict.fromkeys(key for row in rows for key in row))
        lines += ["", title, "", _row(head), _row(["---", *["--:"] * (len(head) - 1)])]
        for row in rows:
            lines.append(_row([_cell(row.get(key)) for key in head]))
    return ["", "## Cost as the work grows", *lines] if lines else []


def _cell(value: Any) -> str:
    return "—" if value is None else _us(value) if isinstance(value, float) else str(value)


def write_changes(changed: Sequence[Change]) -> str:
    """What differs from the baseline, for a terminal."""
    if not changed:
        return "Nothing differs from the baseline by more than the spread."
    lines = ["Beside the baseline:"]
    for c in changed:
        lines.append(f"{'WORSE ' if c.worse else 'better'} {c.model}, {c.figure}: {c.before} -> {c.now}")
    return "\n".join(lines)


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
