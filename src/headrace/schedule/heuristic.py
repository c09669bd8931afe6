"""The schedule of a Define by rules and a small cost estimate, without measuring."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.program.ir import Define
from headrace.schedule import steps as st
from headrace.targets.simd import Isa


@dataclass(frozen=True)
class Heuristic:
    isa: Isa

    def schedule(self, define: Define) -> st.Schedule:
        return ()
