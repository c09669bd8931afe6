"""Square blocks of memory that a register tile reads across: read along instead, and turned in registers.

A tile of L rows of L lanes whose vector loads have stride S, each one element after the one before, needs
L*L elements that lie in L contiguous pieces: L loads and the shuffles of a transposition replace L*L
single loads.
"""

from __future__ import annotations

from headrace.codegen.emit import Emitter, bare
from headrace.codegen.scope import Operand, Scope
from headrace.program.access import flat
from headrace.program.expr import Expr, index, substitute, walk
from headrace.program.index import ONE, coefficient, terms
from headrace.program.ir import Buffer

TURNED = frozenset(("f32", "i32"))
Run = dict[int, Expr]  # constant part of the offset → load


def emit_transposed(emitter: Emitter, scope: Scope, values: list[Expr]) -> None:
    """Emit the square blocks that the values of a tile load; they are found by name afterwards."""
    for (buffer, step, rest), run in _runs(emitter, scope, values).items():
        for start in _starts(run, emitter.lanes):
            kind = f"{buffer.dtype}x{emitter.lanes}"
            name = scope.names.fresh("t")
            base = emitter.index(rest + start, scope)
            scope.line(f"{kind} {name}[{emitter.lanes}];")
            pointer = f"{emitter.buffer_name(buffer)} + {bare(base, rest + start)}"
            scope.line(f"hr_load_transposed_{kind}({pointer}, {step}, {name});")
            for j in range(emitter.lanes):
                scope.values[(run[start + j], emitter.lanes)] = Operand(f"{name}[{j}]", buffer.dtype, emitter.lanes)


def _runs(emitter: Emitter, scope: Scope, values: list[Expr]) -> dict[tuple[Buffer, int, Expr], Run]:
    """Strided loads of full vectors by what they have in common: buffer, stride, offset but for a constant."""
    out: dict[tuple[Buffer, int, Expr], Run] = {}
    for e in dict.fromkeys(n for v in values for n in walk(v)):
        if e.op != "load" or e.dtype not in TURNED or scope.find((e, emitter.lanes)) is not None:
            continue
        lane = emitter.lane_of(e)
        if lane is None or emitter.active(lane, scope) is not None:
            continue
        offset = flat(e.arg, e.args)
        step = coefficient(offset, lane)
        if step is None or abs(step) < 2 or any(n.op == "load" for n in walk(offset)):
            continue
        start = substitute(offset, {lane: index(0)})
        constant = terms(start).get(ONE, 0)
        out.setdefault((e.arg, step, start - constant), {})[constant] = e
    return out


def _starts(run: Run, lanes: int) -> list[int]:
    """Where `lanes` loads in a row begin, each load used once."""
    out: list[int] = []
    free = sorted(run)
    while free:
        first = free[0]
        if all(first + j in run for j in range(lanes)):
            out.append(first)
            free = [n for n in free if n >= first + lanes]
        else:
            free = free[1:]
    return out
