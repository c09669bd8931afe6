"""What profile() measured: for people, as JSON, and as a trace that ui.perfetto.dev and Chrome show."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.codegen.generated import KernelInfo
from headrace.targets.machine import Machine

WORTH = 0.01  # share of the time below which the table gives no reasons


@dataclass(frozen=True)
class KernelTime:
    """One kernel call of a run, µs. limit_us: the least that arithmetic and reading can take; bound: which of
    them that is; reasons: what explains the rest, the largest first."""

    kernel: KernelInfo
    us: float
    quartiles_us: tuple[float, float]
    limit_us: float
    bound: str
    reasons: tuple[str, ...]

    @property
    def share(self) -> float:
        """Limit / time."""
        return self.limit_us / self.us if self.us else 1.0


@dataclass(frozen=True)
class ProfileReport:
    """Microseconds. us: a whole call of the program as it is; rest_us: what a call takes beside its kernels
    (copies of state); mark_us: taken off for each clock read; working_set: bytes between two calls;
    trace[call]: when it began, when each kernel ended, when it ended, of some consecutive calls.
    """

    subject: str
    target: str
    toolchain: str
    machine: Machine
    evict: bool
    calls: int
    us: float
    quartiles_us: tuple[float, float]
    rest_us: float
    mark_us: float
    working_set: int
    kernels: tuple[KernelTime, ...]
    trace: tuple[tuple[float, ...], ...]

    @property
    def limit_us(self) -> float:
        """Sum over the kernels."""
        return sum(k.limit_us for k in self.kernels)

    @property
    def share(self) -> float:
        """Limit / time of a whole call."""
        return self.limit_us / self.us if self.us else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "subject": self.subject,
            "target": self.target,
            "toolchain": self.toolchain,
            "machine": _machine(self.machine),
            "evict": self.evict,
            "calls": self.calls,
            "us": self.us,
            "quartiles_us": list(self.quartiles_us),
            "kernels_us": sum(k.us for k in self.kernels),
            "rest_us": self.rest_us,
            "mark_us": self.mark_us,
            "limit_us": self.limit_us,
            "share": self.share,
            "working_set": self.working_set,
            "kernels": [self._kernel(k) for k in self.kernels],
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)

    def _kernel(self, k: KernelTime) -> dict[str, Any]:
        info = k.kernel
        return {
            "name": info.name,
            "nodes": list(info.nodes),
            "schedule": list(info.schedule),
            "us": k.us,
            "quartiles_us": list(k.quartiles_us),
            "macs": info.macs,
            "operations": info.operations,
            "functions": info.functions,
            "constant_bytes": info.constant_bytes,
            "read_bytes": info.read_bytes,
            "written_bytes": info.written_bytes,
            "limit_us": k.limit_us,
            "bound": k.bound,
            "share": k.share,
            "expected_us": sum(info.cycles.values()) / self.machine.ghz / 1000,
            "reasons": list(k.reasons),
        }

    def table(self, sort: str = "time") -> str:
        """For a terminal. sort: "time", the longest first, or "order", as they run. ValueError for others."""
        if sort not in ("time", "order"):
            raise ValueError(f"sort={sort!r}: 'time' or 'order'")
        rows = list(enumerate(self.kernels))
        if sort == "time":
            rows.sort(key=lambda row: -row[1].us)
        total = sum(k.us for k in self.kernels)
        lines = [
            f"{self.subject} for {self.target} by {self.toolchain}; {self.calls:,} calls"
            + (", 4 MB touched between calls" if self.evict else ""),
            _machine_line(self.machine, self.working_set),
            "",
            f"{'':>4} {'µs':>9} {'time':>5} {'work':>12} {'bytes':>12} {'limit':>9} {'share':>6}  kernel",
        ]
        for n, k in rows:
            lines += self._rows(n, k, total)
        operations = sum(k.kernel.operations for k in self.kernels)
        nbytes = sum(_bytes(k.kernel) for k in self.kernels)
        lines += [
            f"{'':>4} {_us(total):>9} {'100 %':>5} {operations:>12,} {nbytes:>12,} {_us(self.limit_us):>9} "
            f"{_percent(self.limit_us / total if total else 1):>6}  all kernels, {_us(self.rest_us)} µs beside them",
            f"a whole call takes {_us(self.us)} µs ({_us(self.quartiles_us[0])}–{_us(self.quartiles_us[1])}), "
            f"{_percent(self.share).strip()} of its limit",
        ]
        return "\n".join(lines)

    def _rows(self, n: int, k: KernelTime, total: float) -> list[str]:
        info = k.kernel
        nodes = ", ".join(map(_short, info.nodes[:2])) + (", …" if len(info.nodes) > 2 else "")
        head = (
            f"{n:>4} {_us(k.us):>9} {_percent(k.us / total if total else 0):>5} {info.operations:>12,} "
            f"{_bytes(info):>12,} {_us(k.limit_us):>9} {_percent(k.share):>6}  "
        )
        lines = [f"{head}{nodes or info.name}: {k.bound}"]
        worth = k.reasons and k.us >= WORTH * total
        return [*lines, f"{'':>18}{'; '.join(k.reasons)}"] if worth else lines

    # --- traces ----------------------------------------------------------------------------------

    def trace_events(self) -> dict[str, Any]:
        """Some consecutive calls in the format of Chrome's trace viewer: complete events, times in µs."""
        names: list[dict[str, Any]] = [
            {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": f"{self.subject} ({self.target})"}},
            {"ph": "M", "pid": 1, "tid": 1, "name": "thread_name", "args": {"name": "NAME_run, one thread"}},
        ]
        events = []
        for number, marks in enumerate(self.trace):
            events.append(_event(f"call {number}", "call", marks[0], marks[-1], {}))
            for n, k in enumerate(self.kernels):
                label = _short(k.kernel.nodes[0]) if k.kernel.nodes else k.kernel.name
                events.append(_event(label, "kernel", marks[n], marks[n + 1], self._kernel(k)))
        return {"traceEvents": [*names, *events], "displayTimeUnit": "ns", "otherData": self._facts()}

    def _facts(self) -> dict[str, Any]:
        return {"toolchain": self.toolchain, "processor": self.machine.name, "share of the limit": self.share}

    def write_trace(self, path: str | Path) -> None:
        """Write trace_events() as JSON."""
        Path(path).write_text(json.dumps(self.trace_events()), encoding="utf-8")


def _event(name: str, category: str, start: float, end: float, args: dict[str, Any]) -> dict[str, Any]:
    about = {"name": name, "cat": category, "ph": "X", "pid": 1, "tid": 1}
    return {**about, "ts": start, "dur": max(end - start, 0.0), "args": args}


def _machine(machine: Machine) -> dict[str, Any]:
    return {
        "name": machine.name,
        "ghz": machine.ghz,
        "fma_per_ns": machine.fma,
        "int8_per_ns": machine.int8,
        "read": [list(point) for point in machine.read],
        "caches": [list(cache) for cache in machine.caches],
    }


def _machine_line(machine: Machine, working_set: int) -> str:
    levels, low = [], 0
    for name, size in (*machine.caches, ("memory", machine.read[-1][0])):
        if low < size <= machine.read[-1][0] or name == "memory":
            middle = size if name == "memory" else max(min(size, 32 << 20) * 0.6, low * 1.5)
            levels.append(f"{name} {machine.bandwidth(middle):.0f}")
        low = size
    int8 = f", {machine.int8:.0f} int8" if machine.int8 else ""
    return (
        f"{machine.name}: {machine.fma:.0f} G multiply-adds/s float32{int8}; reads {', '.join(levels)} GB/s, "
        f"{machine.bandwidth(working_set):.0f} for the {working_set / 1e6:.2g} MB of this program"
    )


def _bytes(info: KernelInfo) -> int:
    return info.constant_bytes + info.read_bytes + info.written_bytes


def _short(node: str) -> str:
    """The last words of a node's name, which tell most."""
    return node if len(node) <= 28 else f"…{node[-27:]}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _us(value: float) -> str:
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 1000 else 0
    return f"{value:,.{digits}f}"
