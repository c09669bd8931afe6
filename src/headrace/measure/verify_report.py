"""What verify() found, for people and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from headrace.measure.compare import Difference


@dataclass(frozen=True)
class Check:
    """One output, or the state after one run, against the reference.

    trial: "random" or "given"; run: number of the run in it; exact_errors: largest distance of the
    program and of the reference from a float64 evaluation, where that was needed to decide.
    """

    trial: str
    run: int
    name: str
    is_state: bool
    difference: Difference
    exact_errors: tuple[float, float] | None = None

    @property
    def ok(self) -> bool:
        """Equal within the tolerance, or no farther from the exact answer than the reference."""
        return self.difference.ok or self.is_nearer

    @property
    def is_nearer(self) -> bool:
        """Whether float64 says that the program errs no more than the reference."""
        return self.exact_errors is not None and self.exact_errors[0] <= self.exact_errors[1]


@dataclass(frozen=True)
class Layer:
    """One value inside the model. stage: "compiled code", or "graph preparation" where that changed it."""

    node: str
    op: str
    output: str
    difference: Difference
    stage: str = "compiled code"

    @property
    def ok(self) -> bool:
        return self.difference.ok


@dataclass(frozen=True)
class VerifyReport:
    """ok: every output of every run is right. max_abs, max_ulp: largest difference, right or wrong.

    layers: values inside the model in the order of computation, empty unless compared; diverges_at: the
    first of them that is wrong; notes: what was not or could not be compared.
    """

    subject: str
    reference: str
    checks: tuple[Check, ...]
    layers: tuple[Layer, ...] = ()
    diverges_at: Layer | None = None
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(check.ok for check in self.checks)

    @property
    def max_abs(self) -> float:
        return max(check.difference.max_abs for check in self.checks)

    @property
    def max_ulp(self) -> int | None:
        """None when no float was compared."""
        distances = [c.difference.max_ulp for c in self.checks if c.difference.max_ulp is not None]
        return max(distances) if distances else None

    @property
    def relative(self) -> float:
        """Largest difference as a share of the largest element of the same output."""
        return max(check.difference.relative for check in self.checks)

    @property
    def worst(self) -> Check:
        """The check that is wrong by the most; where all are right, the one with the largest difference."""
        return max(self.checks, key=lambda c: (not c.ok, c.difference.relative, c.difference.max_abs))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; numbers that JSON lacks (infinity, NaN) as text."""
        value = {
            "subject": self.subject,
            "reference": self.reference,
            "ok": self.ok,
            "max_abs": self.max_abs,
            "max_ulp": self.max_ulp,
            "relative": self.relative,
            "worst": _row(self.worst),
            "checks": [_row(check) for check in self.checks],
            "layers": [_row(layer) for layer in self.layers],
            "diverges_at": _row(self.diverges_at) if self.diverges_at else None,
            "notes": list(self.notes),
        }
        return _plain(value)  # type: ignore[no-any-return]

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)

    def table(self) -> str:
        """For a terminal: one line per output, then what is wrong and where it begins."""
        verdict = "equal" if self.ok else "DIFFERENT"
        lines = [f"{self.subject} against {self.reference}: {verdict}", *_outputs(self.checks)]
        if not self.ok:
            worst = self.worst
            lines += ["", f"worst: {_place(worst)}: {worst.difference.describe()}"]
        if self.diverges_at:
            first = self.diverges_at
            lines += [
                "",
                f"the first wrong value is of node {first.node!r} ({first.op}, {first.stage}):",
            ]
            lines += [f"  {first.output}: {first.difference.describe()}"]
        lines += _layers(self.layers, self.diverges_at)
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


def _outputs(checks: tuple[Check, ...]) -> list[str]:
    names = list(dict.fromkeys((check.name, check.is_state) for check in checks))
    width = max(len(name) for name, _ in names) + 2
    lines = [f"  {'output':{width}}{'runs':>5}  {'difference':>12}{'of largest':>12}{'ULP':>12}"]
    for name, is_state in names:
        group = [c for c in checks if (c.name, c.is_state) == (name, is_state)]
        worst = max(group, key=lambda c: (not c.ok, c.difference.relative))
        d = worst.difference
        ulp = "" if d.max_ulp is None else f"{max(c.difference.max_ulp or 0 for c in group):,}"
        line = f"  {name:{width}}{len(group):>5}  {d.max_abs:>12.3g}{d.relative:>12.1e}{ulp:>12}"
        lines.append(f"{line}  {_remark(group)}".rstrip())
    return lines


def _remark(group: list[Check]) -> str:
    wrong = sum(not check.ok for check in group)
    if wrong:
        return f"WRONG in {wrong} of {len(group)} runs"
    nearer = [c for c in group if not c.difference.ok]
    if nearer:
        mine, theirs = nearer[0].exact_errors or (math.nan, math.nan)
        return f"nearer to float64 than the reference ({mine:.1e} against {theirs:.1e})"
    return "state" if group[0].is_state else ""


def _place(check: Check) -> str:
    kind = "state" if check.is_state else "output"
    return f"{kind} {check.name!r}, {check.trial} run {check.run}"


def _layers(layers: tuple[Layer, ...], first: Layer | None) -> list[str]:
    """Around the first wrong layer, or the least exact ones where none is wrong."""
    if not layers:
        return []
    if first in layers:
        at = layers.index(first)
        shown = layers[max(at - 3, 0) : at + 6]
        title = f"layers around it ({len(layers)} compared)"
    else:
        shown = tuple(sorted(layers, key=lambda layer: -layer.difference.relative)[:10])
        title = f"least exact of {len(layers)} layers"
    width = min(max(len(layer.node) for layer in shown), 48)
    lines = ["", f"{title}:"]
    for layer in shown:
        d = layer.difference
        mark = " " if layer.ok else "x"
        lines.append(f" {mark} {layer.node[-width:]:{width}}  {layer.op:20} {d.relative:9.1e}  {layer.output}")
    return lines


def _row(value: Check | Layer) -> dict[str, Any]:
    row = asdict(value)
    return {**row, "ok": value.ok, "difference": {**row["difference"], "relative": value.difference.relative}}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
