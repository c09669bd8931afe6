"""Ratios of an earlier run, in the repository, and what has become worse since by more than the spread."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.goals import best_rival

PATH = Path(__file__).with_name("baseline.json")
RUNS = (("bench", "bound"), ("bench", "plain"), ("evicted", "bound"))
SLACK = 0.98  # quartiles that miss each other by less are no news
SIZES = {"code_bytes": 1.05, "memory_bytes": 1.0, "weight_bytes": 1.0}  # how much each may grow
Entry = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """One figure of one model, then and now; worse: beyond the spread in the wrong direction."""

    model: str
    figure: str
    before: str
    now: str
    worse: bool


def entry(result: Mapping[str, Any]) -> Entry:
    """What is kept of a result: [median, low, high] of rival / ours by runtime, share of the limit, sizes."""
    ratios = {}
    for run, kind in RUNS:
        best = best_rival(result, kind, run)
        if best is not None:
            name, r = best
            ratios[f"{run}.{kind}"] = {"rival": name, "ratio": [round(r[k], 4) for k in ("median", "low", "high")]}
    return {
        "ratios": ratios,
        "share": round(result["limits"]["share"], 4),
        **{key: result[key] for key in SIZES},
    }


def read(path: Path = PATH) -> dict[str, Entry]:
    """The stored baseline by model; empty where there is none."""
    if not path.is_file():
        return {}
    value: dict[str, Entry] = json.loads(path.read_text(encoding="utf-8"))
    return value


def update(results: Sequence[Mapping[str, Any]], path: Path = PATH) -> None:
    """Store these results; models that were not run keep what is stored of them."""
    new = {r["name"]: entry(r) for r in results if "error" not in r}
    merged = dict(sorted({**read(path), **new}.items()))
    path.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")


def changes(results: Sequence[Mapping[str, Any]], before: Mapping[str, Entry]) -> list[Change]:
    """Every difference beyond the spread, the worse ones first; also models that no longer run."""
    out = []
    for result in results:
        old = before.get(result["name"])
        if old is None:
            continue
        if "error" in result:
            out.append(Change(result["name"], "runs", "yes", result["error"], True))
            continue
        out += [*_ratios(result["name"], old, entry(result)), *_sizes(result, old)]
    return sorted(out, key=lambda c: (not c.worse, c.model))


def _ratios(name: str, old: Entry, new: Entry) -> list[Change]:
    out = []
    for figure, then in old["ratios"].items():
        now = new["ratios"].get(figure)
        if now is None:
            out.append(Change(name, figure, _text(then), "no rival", True))
            continue
        (_, low, high), (_, low_now, high_now) = then["ratio"], now["ratio"]
        if high_now < SLACK * low or low_now > high / SLACK:
            out.append(Change(name, figure, _text(then), _text(now), high_now < low))
    return out


def _sizes(result: Mapping[str, Any], old: Entry) -> list[Change]:
    out = []
    for key, growth in SIZES.items():
        then, now = old[key], result[key]
        if then and now and (now > growth * then or then > growth * now):
            out.append(Change(result["name"], key, f"{then:,}", f"{now:,}", now > then))
    return out


def _text(value: Mapping[str, Any]) -> str:
    median, low, high = value["ratio"]
    return f"{median:.2f} ({low:.2f}–{high:.2f}) of {value['rival']}"
