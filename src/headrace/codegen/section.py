"""The kernels and entries of a program for one instruction set."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from headrace.codegen import vmath
from headrace.codegen.driver import ALIGN, Layout, run_function
from headrace.codegen.kernels import Kernel, KernelWriter, ScheduleFn, is_empty
from headrace.program.ir import Define, Module, Statement
from headrace.program.pair_dot import uses_pairs
from headrace.program.plan import Plan, plan
from headrace.schedule.heuristic import Heuristic
from headrace.schedule.tile import uses_tiles
from headrace.targets.simd import Isa

_OWN = re.compile(r"\bhr_(?=\w)")


@dataclass(frozen=True)
class Variant:
    """A module as it was optimised for one instruction set.

    steady: the module once more with its position and valid fixed to what they are far from both ends.
    """

    isa: Isa
    module: Module
    steady: Module | None = None


def changes_something(variant: Variant) -> bool:
    """Whether a wider instruction set has anything in this program to do that narrower ones of a dispatch have not."""
    if variant.isa.tiles:
        modules = [m for m in (variant.module, variant.steady) if m is not None]
        return any(uses_tiles(m, Heuristic(variant.isa).schedule) for m in modules)
    return not variant.isa.pairs or uses_pairs(variant.module)


@dataclass(frozen=True)
class Section:
    """The C of one variant. types: what stands before the kernels; steady: the entry of that name, or "".

    steady_kernels: those that it calls, and the memory plan of its module; None without it.
    """

    isa: Isa
    layout: Layout
    kernels: list[Kernel]
    types: str
    body: str
    steady: str
    scratch_bytes: int
    steady_kernels: tuple[list[Kernel], Plan] | None = None

    @property
    def tiles(self) -> bool:
        """Whether a kernel uses tile registers."""
        return _uses_tiles(self.body)

    def run(self, entry: str = "run") -> str:
        """C text of NAME_<entry>."""
        return run_function(self.layout, self.kernels, entry, tiles=self.tiles)

    def alone(self, entry: str) -> str:
        """Kernels and entries with names that no other instruction set has in the same file."""
        own, code = own_name(self.isa), "\n\n".join(x for x in (self.body, self.steady, self.run(entry)) if x)
        text = "\n".join([vmath.support(self.isa, code), self.types, code, "#undef HR_INLINE", "#undef HR_KERNEL"])
        return _OWN.sub(f"hr_{own}_", text)


def own_name(isa: Isa) -> str:
    """The instruction set as part of a C identifier: x86_64, avx2."""
    return isa.name.replace("-", "_")


def section(
    variant: Variant, layout: Layout, memory: Plan, schedule: ScheduleFn, prefix: str, steady_entry: str = "steady"
) -> Section:
    """Write the kernels of a variant; `prefix` begins their names."""
    isa = variant.isa
    writer = KernelWriter(prefix, isa.target_attribute, isa.lanes, schedule, memory, layout.threads, isa.tiles)
    kernels = [writer.kernel(s) for s in variant.module.body if not _idle(s, memory)]
    steady, types, scratch_bytes = "", writer.typedefs(), memory.scratch_bytes
    steady_kernels = None
    if variant.steady is not None:
        other = replace(writer, plan=plan(variant.steady, ALIGN))
        called = [other.kernel(s) for s in variant.steady.body if not _idle(s, other.plan)]
        steady = _steady(layout, variant.steady, other.plan, called, steady_entry, _uses_tiles("".join(writer.texts)))
        steady_kernels = (called, other.plan)
        types += "".join(line for line in other.typedefs().splitlines(True) if line not in types)
        scratch_bytes = max(scratch_bytes, other.plan.scratch_bytes)
    return Section(isa, layout, kernels, types, "\n".join(writer.texts), steady, scratch_bytes, steady_kernels)


def _uses_tiles(code: str) -> bool:
    return "_tile_loadconfig(" in code


def _steady(layout: Layout, steady: Module, memory: Plan, kernels: list[Kernel], entry: str, tiles: bool) -> str:
    """The same as NAME_run on the same state, for the module with fixed position and valid."""
    ports = {p.name: p for p in layout.inputs}
    inputs = tuple(ports[b.name] for b in steady.inputs)
    assert state_places(layout.module, layout.plan) == state_places(steady, memory)
    assert len(steady.outputs) == len(layout.outputs)
    other = replace(layout, module=steady, plan=memory, inputs=inputs)
    return run_function(other, kernels, entry, "static ", tiles)


def state_places(module: Module, memory: Plan) -> tuple[object, ...]:
    """Where and how every state lies: what entries on one state block must agree on."""
    return (*((s.name, memory.state[s.buffer], s.buffer.shape, s.ring) for s in module.states), memory.heads)


def _idle(s: Statement, memory: Plan) -> bool:
    """Whether a statement has nothing to do: no points, or a copy of a buffer onto itself."""
    return is_empty(s) or (isinstance(s, Define) and memory.moves_nothing(s))
