"""The time of a Define under a schedule, without measuring: instructions, latency, traffic between caches.

    cost = estimate(define, schedule, isa)              # cost.cycles, cost.causes
    best = rank(define, candidates, isa)[0]

What comes out is a sum of causes, so that a report can say where the time goes beside the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from headrace.program.access import flat
from headrace.program.clip import computed_share
from headrace.program.expr import Expr
from headrace.program.index import free_vars
from headrace.program.ir import Branch, Define, Loop, Statement, nested
from headrace.schedule import steps as st
from headrace.schedule.access import Access, Facts
from headrace.schedule.tile_cost import tile_cycles
from headrace.schedule.traffic import Traffic
from headrace.schedule.turns import Nest, Turn
from headrace.schedule.work import CONDITIONAL, DIVIDES, FREE, FUNCTIONS, fused_products
from headrace.schedule.work import work as work_of
from headrace.targets.machine import Machine, typical
from headrace.targets.simd import Isa

LATENCY = 4.0  # cycles of a multiply-add
PORTS = 2.0  # multiply-adds, or loads, per cycle
ISSUE = 5.0  # instructions per cycle
WINDOW = 400.0  # instructions that wait for their operands at the same time
FUNCTION = 24.0  # instructions of exp and its like
DIVIDE = 16.0
DEARER = {"min": 3.0, "max": 3.0, "floor": 1.0, "round": 1.0, "sigmoid": 40.0, "tanh": 40.0, "pow": 80.0}
FOLD = 8.0  # cycles to sum the lanes of a vector
START = 3.0  # cycles to begin and end a tile
BESIDE = 0.6  # share of reading from outer caches that arithmetic does not hide, or the other way round
CALL = 30.0  # cycles of a call and of its first misses in the pipeline
CAUSES = ("arithmetic", "lanes", "instructions", "latency", "loads", "strides", "registers", "caches", "loops")


@dataclass(frozen=True)
class Cost:
    """Cycles of one core by cause, in the order of CAUSES.

    arithmetic: every operation in full vectors at the full rate. What comes on top: lanes that are empty;
    operations that take more than one instruction, such as function values; waiting for sums; loads and
    stores beyond the arithmetic beside them; strided and gathered ones; sums that do not fit the
    registers; data from outer caches; beginning loops, tiles and calls. Products of tiles count as lanes that
    are empty where rows, columns or words do not fill a tile, and as loads where loading tiles takes longer.
    """

    causes: tuple[tuple[str, float], ...]

    @property
    def cycles(self) -> float:
        return sum(value for _, value in self.causes)

    def __add__(self, other: Cost) -> Cost:
        return Cost(tuple((name, a + b) for (name, a), (_, b) in zip(self.causes, other.causes, strict=True)))

    def times(self, factor: float) -> Cost:
        return Cost(tuple((name, factor * value) for name, value in self.causes))


NOTHING = Cost(tuple((name, 0.0) for name in CAUSES))


def rank(define: Define, candidates: Iterable[st.Schedule], isa: Isa, working_set: float = 0) -> list[st.Schedule]:
    """The candidates, the one that should be fastest first."""
    facts, machine = Facts(define), typical(isa)
    return sorted(candidates, key=lambda schedule: cost_of(facts, schedule, isa, machine, working_set).cycles)


def estimate(
    define: Define, schedule: st.Schedule, isa: Isa, machine: Machine | None = None, working_set: float = 0
) -> Cost:
    """Cycles of one run of a Define.

    machine: limits to count with, else `typical` ones of the instruction set; working_set: bytes that the
    whole program touches from one run of this Define to the next; 0 takes its data to be near.
    """
    return cost_of(Facts(define), schedule, isa, machine or typical(isa), working_set)


def total(s: Statement, of: Callable[[Define], Cost]) -> Cost:
    """Cycles of a statement: of a Loop all its passes, of a Branch its longer side."""
    if isinstance(s, Define):
        return of(s)
    if isinstance(s, Branch):
        sides = [sum((total(x, of) for x in side), NOTHING) for side in (s.then, s.other)]
        return max(sides, key=lambda c: c.cycles)
    assert isinstance(s, Loop)
    copied = sum(source.nbytes for _, source in s.carry) / 32.0
    body = sum((total(x, of) for x in nested(s)), _named(caches=copied, loops=START))
    return body.times(s.axis.bound)


def _named(**causes: float) -> Cost:
    return Cost(tuple((name, causes.get(name, 0.0)) for name in CAUSES))


@dataclass
class _Instructions:
    """Counts of a whole Define."""

    operations: float = 0.0  # one instruction each
    more: float = 0.0  # of operations that take several
    moves: float = 0.0  # loads and stores
    lanewise: float = 0.0  # cycles of those that go lane by lane


def cost_of(facts: Facts, schedule: st.Schedule, isa: Isa, machine: Machine, working_set: float) -> Cost:
    """estimate() of a Define whose facts are known."""
    nest = Nest(facts, schedule)
    found = _instructions(nest)
    tiles = tile_cycles(nest)
    ideal = (work_of(facts.define).operations - tiles.steps) / (PORTS * isa.lanes)
    arithmetic = found.operations / PORTS
    computing = arithmetic + found.more / PORTS
    spilled = _spilled(nest, isa) / PORTS
    moving = found.moves / PORTS + spilled
    waiting = _waiting(nest)
    issue = (found.operations + found.more + 0.5 * found.moves) / ISSUE
    busy = max(computing, moving, issue, waiting)
    busy += 0.1 * (computing + moving - max(computing, moving))
    computed, read = busy + found.lanewise + tiles.total, _far(nest, machine, working_set)
    far = max(computed, read) + BESIDE * min(computed, read) - computed
    late = max(0.0, waiting - max(computing, moving, issue))
    return _named(
        arithmetic=ideal + tiles.ideal,
        lanes=max(0.0, arithmetic - ideal) + tiles.empty,
        instructions=found.more / PORTS,
        latency=late,
        loads=max(0.0, busy - computing - late - spilled) + tiles.moving,
        strides=found.lanewise,
        registers=spilled,
        caches=far,
        loops=_starting(nest),
    )


def _instructions(nest: Nest) -> _Instructions:
    out = _Instructions()
    fused, share = fused_products(nest.facts.nodes), computed_share(nest.facts.define)
    for e, inside in nest.nodes():
        if e.op == "load":
            access = Access(e.arg, flat(e.arg, e.args), bool(inside))
            _move(out, nest, access, nest.count(free_vars(e), inside))
        elif e.op == "reduce":
            loops = nest.in_vectors.get(e) or nest.loops_of(e)
            uses = free_vars(e) | {t.var for t in loops}
            out.operations += share * nest.count(uses, loops)
        elif e.dtype != "index" and e.op not in FREE and e not in fused and not (share < 1 and e.op in CONDITIONAL):
            count = nest.count(free_vars(e), inside)
            out.operations += count
            out.more += count * (_price(e) - 1.0)
    everywhere = frozenset(t.var for t in nest.outer)
    for access in nest.facts.stores:
        _move(out, nest, access, 2.0 * nest.count(everywhere, []))
    return out


def _price(e: Expr) -> float:
    """Instructions of an operation."""
    if e.op in DEARER:
        return DEARER[e.op]
    return FUNCTION if e.op in FUNCTIONS else DIVIDE if e.op in DIVIDES else 1.0


def _move(out: _Instructions, nest: Nest, access: Access, count: float) -> None:
    v = nest.vector
    if v is None or not access.uses(v) or (nest.packed and access.packable):
        out.moves += count
        return
    step = access.step(v)
    if step == 1:
        out.moves += 1.3 * count  # some straddle cache lines
    else:
        out.lanewise += count * nest.lanes * (0.8 if step is not None else 1.2)


def _starting(nest: Nest) -> float:
    """Cycles to begin and to end all tiles: sums set to zero, their parts added up, lanes folded."""
    sums = nest.tiles * nest.width * nest.ways * len(nest.in_vectors)
    folds = nest.facts.points * len(nest.in_vectors) if nest.along_reduction else 0.0
    return START * nest.tiles + sums / PORTS + FOLD * folds


def _waiting(nest: Nest) -> float:
    """Cycles until all sums are there, if nothing else took time."""
    out = 0.0
    for loops in nest.in_vectors.values():
        steps = 1.0
        for t in loops:
            steps *= t.points
        width = nest.width * len(nest.in_vectors)
        together = max(1.0, WINDOW / (2.0 * width * steps))  # tiles that the processor works on at once
        out = max(out, nest.tiles * steps / nest.ways * LATENCY / together)
    return out


def _spilled(nest: Nest, isa: Isa) -> float:
    """Loads and stores of sums that do not fit the registers."""
    if not nest.in_vectors:
        return 0.0
    columns = 1 if nest.along_reduction else nest.registers
    held = nest.width * nest.ways * len(nest.in_vectors) + columns + 1
    loops: list[Turn] = max(nest.in_vectors.values(), key=len)
    steps = nest.tiles
    for t in loops:
        steps *= t.points
    return max(0.0, held - isa.vectors) * 2.0 * steps / nest.ways


def _far(nest: Nest, machine: Machine, working_set: float) -> float:
    """Cycles of what comes from beyond the first cache: everything once from where the working set lies, and what
    the loops bring in again."""
    traffic = Traffic(nest.facts.define, nest)
    again = sum((traffic.into(size) - traffic.once) / machine.bandwidth(4 * size) for _, size in machine.caches)
    nearest = machine.caches[0][1] if machine.caches else 0
    once = traffic.once / machine.bandwidth(working_set) if working_set > nearest else 0.0
    return (again + once) * machine.ghz
