"""What the measurements have to show: the fastest rival's time divided by ours, by group of models."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Goal:
    """One line of the table of goals. found: None where it was not measured."""

    what: str
    wanted: float
    found: float | None

    @property
    def reached(self) -> bool:
        return self.found is not None and self.found >= self.wanted


STREAMING = {
    "silero-step": 3.7, "dfn3-enc[S=1]": 7.0, "dfn3-erb[S=1]": 3.0, "dfn3-df[S=1]": 3.0, "dtln-1": 2.8,
    "dtln-2": 1.6, "pulsevad": 10.0, "pulsevad-teacher": 1.8,
}  # fmt: skip
STREAMING_BOUND, STREAMING_PLAIN = 3.7, 4.5
VISION = {
    "ds-cnn": 1.3, "resnet8": 0.95, "mobilenet-v1-025": 1.3, "light-resnet50": 0.95, "light-squeezenet": 0.95,
    "light-shufflenet": 1.3, "mobilenet-v2": 0.95, "transformer-16": 0.95, "transformer-128": 0.95,
    "transformer-512": 0.95,
}  # fmt: skip
VISION_MEAN = 1.12
GEMM, GEMM_RATE = "gemm-960x1024x1024", 0.97
NSNET2, NSNET2_SHARE = "nsnet2[T=1]", 0.95
STARTUP_US, CODE_BYTES = 1000.0, 100_000
PLAIN_C = 1 / 1.3  # streamed convolutions take at most 1.3 times as long as plain C


def best_rival(result: Result, kind: str, run: str = "bench") -> tuple[str, Mapping[str, float]] | None:
    """The fastest runtime that computes the same: its name, and the ratio (median, low, high) of its time to ours.

    kind: "bound" or "plain"; run: "bench" or "evicted".
    """
    key = "bound_ratio" if kind == "bound" else "ratio"
    entries = {
        name: entry[key]
        for name, entry in result[run]["peers"].items()
        if entry["agrees"] and entry[key] and entry[kind]
    }
    if not entries:
        return None
    name = min(entries, key=lambda n: entries[n]["median"])
    return name, entries[name]


def goals(results: Sequence[Result], growth: Result | None = None) -> list[Goal]:
    """All of them; what was not run has found=None. growth: what benchmarks.growth wrote."""
    known = {r["name"]: r for r in results if "error" not in r}

    def ratio(name: str, kind: str) -> float | None:
        best = best_rival(known[name], kind) if name in known else None
        return None if best is None else float(best[1]["median"])

    out = [Goal(f"{name}, bound", wanted, ratio(name, "bound")) for name, wanted in STREAMING.items()]
    for kind, wanted in (("bound", STREAMING_BOUND), ("plain", STREAMING_PLAIN)):
        out.append(Goal(f"geometric mean of these, {kind}", wanted, _mean([ratio(n, kind) for n in STREAMING])))
    out += [Goal(f"{name}, bound", wanted, ratio(name, "bound")) for name, wanted in VISION.items()]
    out.append(Goal("geometric mean of these, bound", VISION_MEAN, _mean([ratio(n, "bound") for n in VISION])))
    out.append(Goal("GEMM: rate / the best library's", GEMM_RATE, _gemm(known.get(GEMM))))
    share = known[NSNET2]["limits"]["reading_share"] if NSNET2 in known else None
    out.append(Goal("nsnet2: share of read bandwidth", NSNET2_SHARE, share))
    for row in (growth or {}).get("channels", []):
        out.append(Goal(f"plain C / streamed, {row['size']}", PLAIN_C, row["plain C"] / row["us"]))
    silero = known.get("silero-step")
    if silero is not None:
        out.append(Goal("silero-step: 1 ms / start-up", 1.0, STARTUP_US / silero["startup"]["own"]["us"]))
    sizes = [r["code_bytes"] for r in known.values() if r["code_bytes"]]
    out.append(Goal("100 kB / largest code", 1.0, CODE_BYTES / max(sizes) if sizes else None))
    return out


def _mean(values: Sequence[float | None]) -> float | None:
    found = [v for v in values if v is not None]
    return statistics.geometric_mean(found) if found and len(found) == len(values) else None


def _gemm(result: Result | None) -> float | None:
    """Our rate by that of the best library, OpenBLAS among them."""
    if result is None:
        return None
    ours = result["bench"]["ours"]["bound"]["samples_us"]
    rivals = [e["bound"]["samples_us"] for e in result["bench"]["peers"].values() if e["bound"] and e["agrees"]]
    rivals += [e["samples_us"] for name, e in result["bench"]["extra"].items() if name == "OpenBLAS"]
    if not rivals:
        return None
    return min(statistics.median(t / o for t, o in zip(times, ours, strict=True)) for times in rivals)
