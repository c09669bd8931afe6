"""What the streaming contract found, for people and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

HOLDS, BROKEN, UNTESTED = "holds", "BROKEN", "not tested"


@dataclass(frozen=True)
class Clause:
    """One clause of the contract. state: HOLDS, BROKEN or UNTESTED; detail: what was tried, and the worst of it."""

    name: str
    state: str
    detail: str

    @property
    def ok(self) -> bool:
        return self.state != BROKEN


@dataclass(frozen=True)
class OutputTime:
    """Time of one output: ratio in its frames per input frame, latency in its frames, the rest in input frames."""

    name: str
    ratio: float
    latency: int
    lookahead: int
    receptive_field: int | None


@dataclass(frozen=True)
class ContractReport:
    """ok: no clause is broken, and something was tested. lengths: of the signals that were tried."""

    subject: str
    reference: str
    chunk: int
    outputs: tuple[OutputTime, ...]
    lengths: tuple[int, ...]
    clauses: tuple[Clause, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return all(c.ok for c in self.clauses) and any(c.state == HOLDS for c in self.clauses)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"ok": self.ok, **asdict(self)}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)

    def table(self) -> str:
        """For a terminal: what the stream promises, then one line per clause."""
        verdict = "the contract holds" if self.ok else "the contract is BROKEN"
        lines = [f"{self.subject} streamed, against {self.reference}: {verdict}"]
        lines.append(f"  {self.chunk} input frame(s) per step; signals of {', '.join(map(str, self.lengths))} frames")
        for out in self.outputs:
            field = "unbounded" if out.receptive_field is None else f"{out.receptive_field} frames"
            lines.append(
                f"  {out.name}: {out.ratio:g} frame(s) per input frame, latency {out.latency}, "
                f"look-ahead {out.lookahead}, receptive field {field}"
            )
        lines.append("")
        width = max(len(c.name) for c in self.clauses)
        lines += [f"  {c.name:{width}}  {c.state:10}  {c.detail}" for c in self.clauses]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)
