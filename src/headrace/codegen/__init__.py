"""Program + schedule → C."""

from __future__ import annotations

from dataclasses import replace

from headrace.codegen import vmath
from headrace.codegen.account import info
from headrace.codegen.driver import (
    ALIGN,
    Layout,
    Weights,
    init_function,
    run_function,
    sizes,
    state_functions,
)
from headrace.codegen.generated import Generated, Port, Symbol
from headrace.codegen.header import errors, header
from headrace.codegen.helpers import helpers
from headrace.codegen.kernels import Kernel, KernelWriter, ScheduleFn, is_empty, total_macs
from headrace.codegen.shapes import extent_text
from headrace.codegen.stream_driver import StreamLayout, init_lines, lay_out, state_lines, stream_functions
from headrace.codegen.stream_plan import StreamFacts
from headrace.codegen.threads import share_function
from headrace.errors import UnsupportedOperator
from headrace.program.dtypes import numpy_dtype
from headrace.program.ir import Buffer, Define, Module, Statement
from headrace.program.plan import Plan, plan
from headrace.schedule.heuristic import Heuristic
from headrace.schedule.parallel import share
from headrace.targets.registry import Target
from headrace.targets.simd import Isa

__all__ = ["Generated", "generate"]


def generate(
    module: Module,
    name: str,
    target: Target,
    schedule: ScheduleFn | None = None,
    stream: StreamFacts | None = None,
    steady: Module | None = None,
    threads: int = 1,
) -> Generated:
    """The C program of a module.

    name: a C identifier that prefixes every exported symbol. schedule: Define → steps; None for the
    heuristic of the target. stream: what a step model says about time, for NAME_push and NAME_flush;
    steady: the module once more with its position and valid fixed to what they are far from both ends.
    threads: above 1, large kernels are made of parts for a parallel_for of the caller.
    Raises UnsupportedOperator for what has no C form yet, ValueError where `stream` does not fit the module.
    """
    memory = plan(module, ALIGN)
    isa = target.isa
    chosen = schedule or Heuristic(isa).schedule
    if threads > 1:
        chosen = _shared(chosen, isa, threads)
    writer = KernelWriter(name, isa.target_attribute, isa.lanes, chosen, memory, threads)
    kernels = [writer.kernel(s) for s in module.body if not _idle(s, memory)]
    layout = _layout(module, name, memory, threads)
    entry, types, more = "", writer.typedefs(), memory.scratch_bytes
    if steady is not None:
        other = replace(writer, plan=plan(steady, ALIGN))
        entry = _steady(layout, steady, other)
        types += "".join(line for line in other.typedefs().splitlines(True) if line not in types)
        more = max(more, other.plan.scratch_bytes)
    body = "\n".join(writer.texts)
    live = _stream(layout, stream, more, bool(entry))
    driver = "\n\n".join(text for text in (entry, _driver(layout, kernels, live)) if text)
    if f"{name}_share(" in driver:
        driver = f"{share_function(name)}\n\n{driver}"
    code = body + driver
    source = "\n".join([f'#include "{name}.h"', "#include <string.h>", "", vmath.support(isa, code),
                        types + helpers(code), body, driver, ""])  # fmt: skip
    weights = layout.weights
    state_bytes = live.state_bytes if live else memory.state_bytes
    scratch_bytes = live.scratch_bytes if live else memory.scratch_bytes
    return Generated(
        name=name,
        source=source,
        header=header(layout, state_bytes, scratch_bytes, ALIGN, live),
        weights=bytes(weights.blob),
        align=ALIGN,
        state_bytes=state_bytes,
        scratch_bytes=scratch_bytes,
        inputs=layout.inputs,
        outputs=layout.outputs,
        states=layout.states,
        symbols=layout.symbols,
        kernels=tuple(info(k, memory, isa, _working_set(layout, state_bytes + scratch_bytes)) for k in kernels),
        macs=sum(total_macs(s) for s in module.body),
        scratch_lower_bound=memory.lower_bound,
        facts={
            "error_codes": {str(c): t for c, t in errors(layout, live).items()},
            "notes": list(module.notes),
            **({"threads": threads} if threads > 1 else {}),
        },
    )


def _shared(schedule: ScheduleFn, isa: Isa, threads: int) -> ScheduleFn:
    """The schedules of `schedule`, cut for threads where that pays."""
    return lambda define: share(define, schedule(define), isa, threads)


def _steady(layout: Layout, steady: Module, writer: KernelWriter) -> str:
    """NAME_steady: the same as NAME_run on the same state, for the module with fixed position and valid."""
    memory, ports = writer.plan, {p.name: p for p in layout.inputs}
    kernels = [writer.kernel(s) for s in steady.body if not _idle(s, memory)]
    inputs = tuple(ports[b.name] for b in steady.inputs)
    places = [
        [(s.name, p.state[s.buffer], s.buffer.nbytes) for s in m.states]
        for m, p in ((layout.module, layout.plan), (steady, memory))
    ]
    assert places[0] == places[1] and len(steady.outputs) == len(layout.outputs), places
    other = replace(layout, module=steady, plan=memory, inputs=inputs)
    return run_function(other, kernels, "steady", "static ")


def _stream(layout: Layout, facts: StreamFacts | None, scratch_bytes: int, has_steady: bool) -> StreamLayout | None:
    if facts is None:
        return None
    if layout.symbols:
        raise ValueError(f"a stream cannot have the run-time extent {layout.symbols[0].name!r}; fix it with shapes=")
    memory = layout.plan
    return lay_out(layout.name, facts, layout.inputs, layout.outputs, layout.states,
                   memory.state_bytes, scratch_bytes, ALIGN, has_steady)  # fmt: skip


def _driver(layout: Layout, kernels: list[Kernel], stream: StreamLayout | None) -> str:
    """The public functions."""
    if stream is None:
        own = [sizes(layout), init_function(layout), run_function(layout, kernels)]
        return "\n\n".join(own + ([state_functions(layout)] if layout.states else []))
    return "\n\n".join([
        sizes(layout), init_function(layout, init_lines(stream)), run_function(layout, kernels),
        state_functions(layout, lambda verb: state_lines(stream, verb)), stream_functions(stream),
    ])  # fmt: skip


def _layout(module: Module, name: str, memory: Plan, threads: int) -> Layout:
    symbols = tuple(Symbol(s.name, f"n{n}", s.bound, s.divisor) for n, s in enumerate(module.symbols))
    known = {s.name for s in symbols}
    inputs = tuple(_port(b, f"x{n}", known) for n, b in enumerate(module.inputs))
    outputs = tuple(_port(b, f"y{n}", known) for n, b in enumerate(module.outputs))
    states, offset = [], 0
    for n, pair in enumerate(module.states):
        b = pair.buffer
        states.append(Port(pair.name, numpy_dtype(b.dtype).name, b.bound, f"s{n}", offset, b.nbytes))
        offset += b.nbytes
    return Layout(name, module, memory, Weights(), inputs, outputs, tuple(states), symbols, threads)


def _port(b: Buffer, field: str, symbols: set[str]) -> Port:
    shape: list[int | str] = []
    for e in b.shape:
        text = e if isinstance(e, int) else extent_text(e)
        if text is None or (b.space == "input" and isinstance(text, str) and text not in symbols):
            hint = "only symbols may stand in the shape of an input, arithmetic on them in that of an output"
            raise UnsupportedOperator(b.space, b.name, "codegen", f"its extent is {e}; {hint}")
        shape.append(text)
    return Port(b.name, numpy_dtype(b.dtype).name, tuple(shape), field, 0, b.nbytes)


def _working_set(layout: Layout, memory_bytes: int) -> int:
    """Bytes that one run touches."""
    return len(layout.weights.blob) + memory_bytes + sum(p.nbytes for p in (*layout.inputs, *layout.outputs))


def _idle(s: Statement, memory: Plan) -> bool:
    """Whether a statement has nothing to do: no points, or a copy of a buffer onto itself."""
    return is_empty(s) or (isinstance(s, Define) and memory.moves_nothing(s))
