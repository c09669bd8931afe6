"""What is known of a kernel before it runs: its work, and the time that the cost model expects."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.codegen.generated import KernelInfo
from headrace.codegen.kernels import Kernel, is_empty, total_macs
from headrace.program.ir import Define, Statement, nested
from headrace.program.plan import Plan
from headrace.schedule import steps as st
from headrace.schedule.cost import CALL, NOTHING, Cost, estimate, total
from headrace.schedule.work import work
from headrace.targets.simd import Isa


def info(kernel: Kernel, memory: Plan, isa: Isa, working_set: int) -> KernelInfo:
    """Facts about a kernel; working_set: bytes that the program touches from one run of it to the next."""
    s = kernel.statement
    buffers = [a.buffer for a in kernel.arguments if a.buffer is not None]
    constants = [b for b in buffers if b.space == "const"]
    sizes = (sum(b.nbytes for b in constants), sum(b.nbytes for b in buffers if b.space != "const"))
    schedules = dict(zip(_scheduled(s, memory), map(st.parse, kernel.schedules), strict=True))

    def of(define: Define) -> Cost:
        return estimate(define, schedules[define], isa, working_set=working_set) if define in schedules else NOTHING

    found, cost, macs = work(s, constants), total(s, of), total_macs(s)
    cycles = {name: round(value, 1) for name, value in cost.causes if value >= 0.05}
    cycles["loops"] = round(cycles.get("loops", 0.0) + CALL, 1)
    return KernelInfo(
        kernel.name, s.nodes, macs, 2 * macs, *sizes, tuple(kernel.schedules),
        operations=found.operations, functions=found.functions, constant_bytes=found.constants,
        read_bytes=found.reads, written_bytes=found.writes, cycles=cycles,
    )  # fmt: skip


def _scheduled(s: Statement, memory: Plan) -> Iterator[Define]:
    """The Defines that a kernel computes, in the order in which they were written."""
    if isinstance(s, Define):
        if not (memory.moves_nothing(s) or is_empty(s)):
            yield s
        return
    for x in nested(s):
        yield from _scheduled(x, memory)
