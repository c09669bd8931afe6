"""What algebra on constants did to a graph, for people."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from headrace.graph.facts import Facts, label

SHOWN = 4


@dataclass
class Notes:
    """Collected while a graph is walked. counted: sentence → names of the nodes that it is about."""

    facts: Facts
    counted: dict[str, list[str]] = field(default_factory=dict)

    def count(self, text: str, node: ir.Node) -> None:
        """A change that may happen to many nodes; all that share a sentence make one line."""
        self.counted.setdefault(text, []).append(label(node))

    def say(self, text: str) -> None:
        """A change with a sentence of its own."""
        self.facts.decide(text)

    def finish(self) -> None:
        """Write what was counted to the decisions."""
        for text, names in self.counted.items():
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            listed = ", ".join(repr(name) for name in names[:SHOWN])
            self.say(f"{text}: {listed}{more}")
