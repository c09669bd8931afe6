"""Program + schedule → C."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from headrace.codegen import vmath
from headrace.codegen.account import info
from headrace.codegen.dispatch import entry_function, entry_names, isa_function
from headrace.codegen.driver import (
    ALIGN,
    Layout,
    Weights,
    sizes,
)
from headrace.codegen.generated import Generated, Port, Symbol
from headrace.codegen.header import errors, header
from headrace.codegen.helpers import helpers
from headrace.codegen.kernels import ScheduleFn, total_macs
from headrace.codegen.section import Section, Variant, own_name, section, state_places
from headrace.codegen.shapes import extent_text
from headrace.codegen.state import init_function, state_functions
from headrace.codegen.stream_driver import StreamLayout, init_lines, lay_out, state_lines, stream_functions
from headrace.codegen.stream_plan import StreamFacts
from headrace.codegen.threads import share_function
from headrace.errors import UnsupportedOperator
from headrace.program.dtypes import numpy_dtype
from headrace.program.ir import Buffer, Module
from headrace.program.plan import Plan, plan
from headrace.schedule.heuristic import Heuristic
from headrace.schedule.parallel import share
from headrace.targets.cpuid import tiles_function
from headrace.targets.registry import Target
from headrace.targets.simd import Isa

__all__ = ["Generated", "Variant", "generate"]


def generate(
    module: Module,
    name: str,
    target: Target,
    schedule: ScheduleFn | None = None,
    stream: StreamFacts | None = None,
    steady: Module | None = None,
    threads: int = 1,
    wider: Sequence[Variant] = (),
) -> Generated:
    """The C program of a module.

    name: a C identifier that prefixes every exported symbol. schedule: Define → steps; None for the
    heuristic of the target. stream: what a step model says about time, for NAME_push and NAME_flush;
    steady: the module once more with its position and valid fixed to what they are far from both ends.
    threads: above 1, large kernels are made of parts for a parallel_for of the caller.
    wider: the same program optimised for further instruction sets, which it takes where the processor has them.
    Raises UnsupportedOperator for what has no C form yet, ValueError where `stream` does not fit the module.
    """
    variants, weights = (Variant(target.isa, module, steady), *wider), Weights()
    sections = [_section(v, name, weights, threads, schedule, bool(wider)) for v in variants]
    first, last = sections[0], sections[-1]
    layout, memory = first.layout, first.layout.plan
    live = _stream(layout, stream, max(s.scratch_bytes for s in sections), steady is not None)
    source = _several(sections, live) if wider else _single(first, live)
    state_bytes = live.state_bytes if live else memory.state_bytes
    scratch_bytes = live.scratch_bytes if live else max(s.layout.plan.scratch_bytes for s in sections)
    touched, tiles = _working_set(layout, state_bytes + scratch_bytes), any(s.tiles for s in sections)
    return Generated(
        name=name,
        source=source,
        header=header(layout, state_bytes, scratch_bytes, ALIGN, live, tuple(v.isa for v in variants), tiles),
        weights=bytes(weights.blob),
        align=ALIGN,
        state_bytes=state_bytes,
        scratch_bytes=scratch_bytes,
        inputs=layout.inputs,
        outputs=layout.outputs,
        states=layout.states,
        symbols=layout.symbols,
        kernels=tuple(info(k, last.layout.plan, last.isa, touched) for k in last.kernels),
        macs=sum(total_macs(s) for s in module.body),
        scratch_lower_bound=max(s.layout.plan.lower_bound for s in sections),
        facts={
            "error_codes": {str(c): t for c, t in errors(layout, live, tiles).items()},
            "notes": list(module.notes),
            **({"threads": threads} if threads > 1 else {}),
            **({"entries": [v.isa.name for v in variants]} if wider else {}),
            **_steady_facts(last, touched),
        },
    )


def _section(
    variant: Variant, name: str, weights: Weights, threads: int, schedule: ScheduleFn | None, is_one_of_many: bool
) -> Section:
    isa, memory = variant.isa, plan(variant.module, ALIGN)
    chosen = schedule or Heuristic(isa).schedule
    if threads > 1:
        chosen = _shared(chosen, isa, threads)
    layout = _layout(variant.module, name, memory, weights, threads)
    if not is_one_of_many:
        return section(variant, layout, memory, chosen, name)
    (steady,) = entry_names([isa], "steady")
    return section(variant, layout, memory, chosen, f"{name}_{own_name(isa)}", steady)


def _shared(schedule: ScheduleFn, isa: Isa, threads: int) -> ScheduleFn:
    """The schedules of `schedule`, cut for threads where that pays."""
    return lambda define: share(define, schedule(define), isa, threads)


def _single(only: Section, live: StreamLayout | None) -> str:
    """NAME.c for one instruction set."""
    name = only.layout.name
    own = [tiles_function(name) if only.tiles else "", only.steady, _driver(only.layout, only.run, live, only.tiles)]
    driver = "\n\n".join(text for text in own if text)
    if f"{name}_share(" in driver:
        driver = f"{share_function(name)}\n\n{driver}"
    code = only.body + driver
    return "\n".join([f'#include "{name}.h"', "#include <string.h>", "", vmath.support(only.isa, code),
                      only.types + helpers(code), only.body, driver, ""])  # fmt: skip


def _several(sections: Sequence[Section], live: StreamLayout | None) -> str:
    """NAME.c for several instruction sets, the narrowest first."""
    layout, isas = sections[0].layout, [s.isa for s in sections]
    name = layout.name
    for s in sections[1:]:
        assert state_places(s.layout.module, s.layout.plan) == state_places(layout.module, layout.plan)
        assert (s.layout.inputs, s.layout.outputs) == (layout.inputs, layout.outputs)
    texts = [
        f"/* ---- {s.isa.name} ---- */\n{s.alone(entry)}" for s, entry in zip(sections, entry_names(isas), strict=True)
    ]
    ways = [isa_function(name, isas)]
    if sections[0].steady:
        ways.append(entry_function(name, isas, "steady", "static "))
    driver = "\n\n".join([*ways, _driver(layout, lambda: entry_function(name, isas), live)])
    code = "\n".join([*texts, driver])
    shared = f"{share_function(name)}\n" if f"{name}_share(" in code else ""
    shared += f"{tiles_function(name)}\n" if f"{name}_tiles(" in code else ""
    head = [f'#include "{name}.h"', "#include <stddef.h>", "#include <stdint.h>", "#include <string.h>", ""]
    return "\n".join([*head, helpers(code) + shared, *texts, driver, ""])


def _stream(layout: Layout, facts: StreamFacts | None, scratch_bytes: int, has_steady: bool) -> StreamLayout | None:
    if facts is None:
        return None
    if layout.symbols:
        raise ValueError(f"a stream cannot have the run-time extent {layout.symbols[0].name!r}; fix it with shapes=")
    memory = layout.plan
    return lay_out(layout.name, facts, layout.inputs, layout.outputs, layout.states,
                   memory.state_bytes, scratch_bytes, ALIGN, has_steady)  # fmt: skip


def _driver(layout: Layout, run: Callable[[], str], stream: StreamLayout | None, tiles: bool = False) -> str:
    """The public functions; run: text of NAME_run; tiles: whether all of the program wants tile registers."""
    if stream is None:
        own = [sizes(layout), init_function(layout, (), tiles), run()]
        return "\n\n".join(own + ([state_functions(layout)] if layout.states else []))
    return "\n\n".join([
        sizes(layout), init_function(layout, init_lines(stream), tiles), run(),
        state_functions(layout, lambda verb: state_lines(stream, verb)), stream_functions(stream),
    ])  # fmt: skip


def _layout(module: Module, name: str, memory: Plan, weights: Weights, threads: int) -> Layout:
    symbols = tuple(Symbol(s.name, f"n{n}", s.bound, s.divisor) for n, s in enumerate(module.symbols))
    known = {s.name for s in symbols}
    inputs = tuple(_port(b, f"x{n}", known) for n, b in enumerate(module.inputs))
    outputs = tuple(_port(b, f"y{n}", known) for n, b in enumerate(module.outputs))
    states, offset = [], 0
    for n, pair in enumerate(module.states):
        b = pair.buffer
        states.append(
            Port(pair.name, numpy_dtype(b.dtype).name, pair.initial.shape, f"s{n}", offset, pair.initial.nbytes)
        )
        offset += pair.initial.nbytes
    return Layout(name, module, memory, weights, inputs, outputs, tuple(states), symbols, threads)


def _port(b: Buffer, field: str, symbols: set[str]) -> Port:
    shape: list[int | str] = []
    for e in b.shape:
        text = e if isinstance(e, int) else extent_text(e)
        if text is None or (b.space == "input" and isinstance(text, str) and text not in symbols):
            hint = "only symbols may stand in the shape of an input, arithmetic on them in that of an output"
            raise UnsupportedOperator(b.space, b.name, "codegen", f"its extent is {e}; {hint}")
        shape.append(text)
    return Port(b.name, numpy_dtype(b.dtype).name, tuple(shape), field, 0, b.nbytes)


def _steady_facts(section: Section, touched: int) -> dict[str, object]:
    """The kernels of NAME_steady, as those of NAME_run stand in the manifest."""
    if section.steady_kernels is None:
        return {}
    kernels, memory = section.steady_kernels
    return {"steady": [asdict(info(k, memory, section.isa, touched)) for k in kernels]}


def _working_set(layout: Layout, memory_bytes: int) -> int:
    """Bytes that one run touches."""
    return len(layout.weights.blob) + memory_bytes + sum(p.nbytes for p in (*layout.inputs, *layout.outputs))
