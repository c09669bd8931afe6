"""What bench() measured, for people and as JSON. Raw samples are kept."""

from __future__ import annotations

import json
import math
import platform
from dataclasses import dataclass, field
from typing import Any

from headrace.measure.timing import Ratio, Timing, ratio


def machine() -> str:
    """The processor's own name where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@dataclass(frozen=True)
class Entry:
    """One contestant. difference: of its outputs from ours, as a share of the largest element.

    agrees: whether it computes the same thing, so that its time means something.
    """

    name: str
    version: str
    plain: Timing
    bound: Timing | None
    difference: float
    agrees: bool

    @property
    def median_us(self) -> float:
        """Of plain calls."""
        return self.plain.median_us

    @property
    def bound_us(self) -> float | None:
        """Median of bound calls."""
        return None if self.bound is None else self.bound.median_us

    @property
    def samples(self) -> tuple[float, ...]:
        """Of plain calls, µs, one per round."""
        return self.plain.samples


@dataclass(frozen=True)
class BenchReport:
    """Times in microseconds. ours: this program; peers: other runtimes by name; refused: name -> reason;
    extra: other calls that took their turns with the bound ones."""

    subject: str
    target: str
    toolchain: str
    evict: bool
    ours: Entry
    peers: dict[str, Entry]
    refused: dict[str, str]
    machine: str = field(default_factory=machine)
    extra: dict[str, Timing] = field(default_factory=dict)

    @property
    def median_us(self) -> float:
        """Of plain calls."""
        return self.ours.median_us

    @property
    def bound_us(self) -> float | None:
        return self.ours.bound_us

    @property
    def samples(self) -> tuple[float, ...]:
        return self.ours.samples

    def ratio(self, peer: str) -> Ratio:
        """How many times as long a plain call of the peer takes; quartiles over the rounds."""
        return ratio(self.peers[peer].plain, self.ours.plain)

    def bound_ratio(self, peer: str) -> Ratio | None:
        """The same for bound calls; None where either has none."""
        theirs, mine = self.peers[peer].bound, self.ours.bound
        return None if theirs is None or mine is None else ratio(theirs, mine)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with every sample."""
        return {
            "subject": self.subject,
            "machine": self.machine,
            "target": self.target,
            "toolchain": self.toolchain,
            "evict": self.evict,
            "ours": _entry(self.ours),
            "peers": {name: {**_entry(e), **self._ratios(name)} for name, e in self.peers.items()},
            "refused": dict(self.refused),
            "extra": {name: _timing(timing) for name, timing in self.extra.items()},
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)

    def table(self) -> str:
        """For a terminal."""
        rounds = len(self.samples)
        caches = ", 4 MB touched between calls" if self.evict else ""
        lines = [
            f"{self.subject} for {self.target} by {self.toolchain}, on {self.machine}",
            f"one thread, {rounds} interleaved rounds{caches}",
            f"{'µs per call':26}{'plain':>10}  {'quartiles':<19}{'bound':>10}  {'quartiles':<19}",
            _line(self.ours),
            *(_line(entry) for entry in self.peers.values()),
        ]
        for name, entry in self.peers.items():
            bound = self.bound_ratio(name)
            text = f"{name} takes {self.ratio(name)} times as long"
            text += f", bound {bound}" if bound else ""
            lines.append(text if entry.agrees else f"{text}, BUT ITS OUTPUTS DIFFER by {entry.difference:.1e}")
        lines += [f"{name} did not take part: {why}" for name, why in self.refused.items()]
        return "\n".join(lines)

    def _ratios(self, name: str) -> dict[str, Any]:
        plain, bound = self.ratio(name), self.bound_ratio(name)
        return {"ratio": vars(plain), "bound_ratio": vars(bound) if bound else None}


def _entry(entry: Entry) -> dict[str, Any]:
    finite = math.isfinite(entry.difference)
    return {
        "name": entry.name,
        "version": entry.version,
        "difference": entry.difference if finite else str(entry.difference),
        "agrees": entry.agrees,
        "plain": _timing(entry.plain),
        "bound": _timing(entry.bound) if entry.bound else None,
    }


def _timing(timing: Timing) -> dict[str, Any]:
    return {
        "median_us": timing.median_us,
        "quartiles_us": list(timing.quartiles_us),
        "best_us": timing.best_us,
        "batch": timing.batch,
        "samples_us": list(timing.samples),
    }


def _line(entry: Entry) -> str:
    name = f"{entry.name} {entry.version}"
    bound = _cells(entry.bound) if entry.bound else f"{'—':>10}"
    return f"{name:26}{_cells(entry.plain)}{bound}".rstrip()


def _cells(timing: Timing) -> str:
    low, high = timing.quartiles_us
    return f"{_us(timing.median_us):>10}  {_us(low) + '–' + _us(high):<19}"


def _us(value: float) -> str:
    """Three significant digits, no exponent."""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"
