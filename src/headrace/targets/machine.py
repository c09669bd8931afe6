"""What one core of a processor can do at most: arithmetic, reading by size of what is read, clock.

`typical` has round numbers for ranking schedules, the same on every machine; `headrace profile` measures
its own (`measure/machine.py`).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from headrace.targets.simd import Isa


@dataclass(frozen=True)
class Machine:
    """Limits of one core.

    ghz: clock while it computes; fma: float32 multiply-adds per ns in the widest vectors; int8: 8-bit
    multiply-adds per ns, None where there is no instruction for them (or it was not measured);
    read: (bytes, bytes per ns) of reading that many bytes again and again, by ascending size;
    caches: (name, bytes), the innermost first.
    """

    name: str
    ghz: float
    fma: float
    int8: float | None
    read: tuple[tuple[int, float], ...]
    caches: tuple[tuple[str, int], ...]

    def bandwidth(self, nbytes: float) -> float:
        """Bytes per ns (GB/s) of reading a working set of `nbytes` that was last touched a pass ago."""
        points = self.read
        if nbytes <= points[0][0]:
            return points[0][1]
        for (low, near), (high, far) in itertools.pairwise(points):
            if nbytes <= high:
                share = math.log(nbytes / low) / math.log(high / low)
                return near + share * (far - near)
        return points[-1][1]

    def level(self, nbytes: float) -> str:
        """The innermost cache that holds `nbytes`, or "memory"."""
        return next((name for name, size in self.caches if nbytes <= size), "memory")

    def limit_ns(self, operations: float, nbytes: float, working_set: float) -> float:
        """No program can do `operations` multiply-adds and read `nbytes` of a working set in less time."""
        return max(operations / self.fma, nbytes / self.bandwidth(working_set))


def typical(isa: Isa) -> Machine:
    """A server core of about 2020 with this instruction set; only ratios matter."""
    ghz, lanes = 2.5, isa.lanes
    full = 2 * 4 * lanes * ghz  # two loads per cycle
    near = ((32 << 10, full), (64 << 10, full / 2), (1 << 20, full / 2), (2 << 20, full / 5))
    far = ((5 << 19, min(38.0, full / 6)), (4 << 20, min(30.0, full / 7)), (64 << 20, min(20.0, full / 8)))
    caches = (("L1", 32 << 10), ("L2", 2 << 20), ("L3", 32 << 20))
    return Machine(f"typical {isa.name}", ghz, 2 * lanes * ghz, None, near + far, caches)
