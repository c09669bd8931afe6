"""Time: what is known of it for a value, and what a `stream` facet sees and returns.

A facet says which frames of its inputs one output frame reads. Delay, history, edges and readiness
follow from that, in `headrace.streaming`. docs/design/streaming.md has the definitions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol, Union

import numpy as np
import onnx_ir as ir

from headrace.errors import NotStreamable
from headrace.graph.facts import Facts, label
from headrace.graph.rewrite import attribute
from headrace.graph.symbolic import Dim, FloorDiv, SymDim, exact_div

if TYPE_CHECKING:
    from collections.abc import Iterator

TIME = "T"


@dataclass(frozen=True)
class TimeFact:
    """A value with frames along `axis`.

    rate: frames per input frame; delay: in frames of the value, negative where its first frames depend
    on no input; length: frames in the whole signal, a
    formula in T; fold: how many repeats of the signal the axis holds one after the other (a batch
    merged with time); free: a function of the frame's index alone, so any frame can be made at any time.
    """

    axis: int
    rate: Fraction
    delay: int
    length: Dim
    fold: int = 1
    free: bool = False

    def __str__(self) -> str:
        fold = f", {self.fold} rows" if self.fold != 1 else ""
        late = "any frame" if self.free else f"delay {self.delay}"
        return f"[axis {self.axis}{fold}, {late}, rate {self.rate}]"


@dataclass(frozen=True)
class End:
    """A value without time, known once `length` frames, `delay` late, have passed at this rate."""

    rate: Fraction
    delay: int
    length: Dim


@dataclass(frozen=True)
class FinalFact:
    """A value that is known only when the signal has ended: when all `ends` have passed."""

    ends: frozenset[End]

    def __str__(self) -> str:
        return "[at the end]"


@dataclass(frozen=True)
class LengthFact:
    """A number that depends on the length of the signal."""

    def __str__(self) -> str:
        return "[length]"


@dataclass(frozen=True)
class GridFact:
    """A value made of the length alone, most often with two time axes, such as a causal mask."""

    def __str__(self) -> str:
        return "[mask]"


@dataclass(frozen=True)
class BandFact:
    """Scores of every frame (axis `rows`) against every other (axis `columns`), made for attention."""

    rows: int
    columns: int
    softmax: bool = False

    def __str__(self) -> str:
        return f"[scores, axes {self.rows} and {self.columns}]"


@dataclass(frozen=True)
class RelativeFact:
    """Products of every frame with rows made of the length alone, not yet shifted to frames by frames."""

    product: ir.Node

    def __str__(self) -> str:
        return "[products with positions]"


Fact = Union[TimeFact, FinalFact, LengthFact, GridFact, BandFact, RelativeFact]


@dataclass(frozen=True)
class Edge:
    """What a layer finds outside the signal: "constant" (value), "edge", "reflect"; "any": it replaces that itself."""

    mode: str = "constant"
    value: float | int = 0

    @property
    def moves(self) -> bool:
        """Whether frames of the signal stand in for those outside."""
        return self.mode in ("edge", "reflect")


@dataclass(frozen=True)
class Read:
    """Output frame o reads frames ceil((num·o + lo)/den) … floor((num·o + hi)/den) of a value.

    past: and, through a state of the layer, all frames before these. own: the layer keeps the history
    itself and is given one block. whole: each output frame multiplies all that is read for its block,
    even what it does not use, by zero. edge: what it finds outside the signal, where it reads there. post:
    applied to what was read. phases: (lo, hi) of the frames o = 0, 1, … modulo their number, in place of lo and
    hi; blocks then hold a multiple of that number.
    """

    value: ir.Value
    num: int = 1
    den: int = 1
    lo: int = 0
    hi: int = 0
    edge: Edge | None = None
    past: bool = False
    post: Callable[[Emit, ir.Value], ir.Value] | None = None
    own: bool = False
    whole: bool = False
    phases: tuple[tuple[int, int], ...] = ()

    @property
    def wait(self) -> int:
        """`hi` for readiness: reflection at the start takes frames that lie further on."""
        if self.edge is None or not self.edge.moves or self.first(0) >= 0:
            return self.hi
        wait, o = self.hi, 0
        while self.first(o) < 0:
            mirror = -self.first(o) if self.edge.mode == "reflect" else 0
            wait = max(wait, self.den * mirror - self.num * o)
            o += 1
        return wait

    def first(self, o: int) -> int:
        """First frame that output frame o reads."""
        if self.phases:
            return o + self.phases[o % len(self.phases)][0]
        return -((-(self.num * o + self.lo)) // self.den)

    def last(self, o: int) -> int:
        """Last frame that output frame o reads."""
        if self.phases:
            return o + self.phases[o % len(self.phases)][1]
        return (self.num * o + self.hi) // self.den

    def determined(self, available: int) -> int:
        """Output frames, from the first, that read only among the first `available` frames."""
        if not self.phases:
            return -((self.wait - self.den * available) // self.num)
        frame = available - max(hi for _, hi in self.phases)
        while self.last(frame) < available:
            frame += 1
        return frame

    def span(self, first: int, end: int) -> tuple[int, int]:
        """First frame and end of what output frames first … end - 1 read."""
        if not self.phases:
            return self.first(first), self.last(end - 1) + 1
        block = range(first, end)
        return min(map(self.first, block)), max(map(self.last, block)) + 1


@dataclass(frozen=True)
class Timed:
    """Where time is in an output of a node."""

    axis: int
    fold: int = 1


@dataclass(frozen=True)
class Final:
    """Marks an output that is known only at the end of what the node reads."""


Out = Union[Timed, Final, None]


@dataclass(frozen=True)
class Plan:
    """How a node streams. state: one phrase for people, such as "past 4 frames", or empty.

    needs: (length, least value) that the signal must satisfy for the model to be defined; limits: (length,
    greatest value). late: the outputs hold values known only at run time, also before the first frame.
    """

    reads: tuple[Read, ...]
    outs: tuple[Out, ...]
    emit: Callable[[Emit], Sequence[ir.Value | None]]
    state: str = ""
    needs: tuple[tuple[Dim, int], ...] = ()
    limits: tuple[tuple[Dim, int], ...] = ()
    late: bool = False


class Emit(Protocol):
    """Writes the step graph for one node."""

    @property
    def chunk(self) -> int:
        """Input frames per step."""

    @property
    def plan(self) -> Plan:
        """What the facet returned."""

    def range(self, out: int = 0) -> tuple[int, int]:
        """First frame and end of the block of an output, relative to s·m."""

    def read(self, k: int) -> ir.Value:
        """What `plan.reads[k]` needs for the block of this step."""

    def given(self, index: int) -> ir.Value | None:
        """The node's input that has no time, or None where it is absent."""

    def fixed(self, value: ir.Value | None) -> ir.Value | None:
        """Any value without time, in the step graph."""

    def frames(self, out: int = 0) -> int:
        """Frames in a block of this output."""

    def dims(self, out: int = 0) -> list[int]:
        """Extents of a block of this output."""

    def window(self, k: int) -> tuple[int, int]:
        """First frame and end of what `read(k)` returns, relative to s·m of the value read."""

    def fact(self, out: int = 0) -> TimeFact:
        """Time of this output."""

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """A new node with one output."""

    def ops(self, op_type: str, count: int, *inputs: ir.Value | None, **attributes: Any) -> list[ir.Value]:
        """A new node with several outputs."""

    def const(self, values: Any, dtype: Any = np.int64) -> ir.Value:
        """A constant."""

    def body(self, graph: ir.Graph) -> ir.Graph:
        """A copy of an inner graph, which may use values without time."""

    def clone(
        self,
        inputs: Mapping[int, ir.Value | None],
        drop: Sequence[str] = (),
        count: int | None = None,
        **attributes: Any,
    ) -> list[ir.Value]:
        """The node again: these inputs replaced, the others as given, attributes changed."""

    def state(self, name: str, initial: np.ndarray[Any, Any]) -> ir.Value:
        """A new state input with this initial value."""

    def adopt(self, name: str, value: ir.Value) -> ir.Value | None:
        """An input of the model as the initial value of a state, or None if it is something else."""

    def keep(self, state: ir.Value, following: ir.Value) -> None:
        """What the state is in the next step."""

    def begun(self, fact: TimeFact, frame: int = 0) -> ir.Value:
        """bool [1]: whether frame number `frame` of this step's block is no longer before the signal."""

    def later(self) -> ir.Value:
        """bool [1]: whether this is not the first step."""

    def going(self, fact: TimeFact, frame: int = 0) -> ir.Value:
        """bool [1]: whether frame number `frame` of this step's block is not yet after the signal."""

    def left(self, fact: TimeFact) -> ir.Value:
        """int64 [1]: how many frames of this step's block lie before the end; also more than it has, or negative."""

    def index(self, fact: TimeFact, first: int, end: int) -> ir.Value:
        """int64 [end - first]: the numbers of frames s·m + first … s·m + end - 1."""

    def within(self, k: int) -> ir.Value:
        """bool [window]: which frames of `read(k)` lie in the signal."""

    def beyond(self, k: int, end: bool) -> ir.Value:
        """int64 [window]: 0 for frames of `read(k)` in the signal, -1, -2, … before it, 1, 2, … (if `end`) after it."""

    def overrun(self, fact: TimeFact) -> bool:
        """Whether a step may see frames of this value that lie after the end."""

    def used(self, out: int) -> bool:
        """Whether something needs this output."""


@dataclass
class Pending:
    """A Pad along time that readers may do themselves. cuts: it takes frames away at an end."""

    base: ir.Value
    left: int
    cuts: bool
    edge: Edge
    post: Callable[[Emit, ir.Value], ir.Value] | None


@dataclass
class Site:
    """One node, as its stream facet sees it."""

    node: ir.Node
    facts: Facts
    time: Mapping[ir.Value, Fact]
    pending: dict[ir.Value, Pending] = field(default_factory=dict)
    evaluate: Callable[[ir.Value, int], np.ndarray[Any, Any] | None] | None = None

    @property
    def op(self) -> str:
        return self.node.op_type

    def value(self, i: int) -> ir.Value | None:
        return self.node.inputs[i] if i < len(self.node.inputs) else None

    def attr(self, name: str, default: Any = None) -> Any:
        return attribute(self.node, name, default)

    def fact(self, i: int) -> TimeFact | None:
        """Time of input i, or None for an absent or timeless one."""
        value = self.value(i)
        found = self.time.get(value) if value is not None else None
        return found if isinstance(found, TimeFact) else None

    def timed(self) -> list[int]:
        """Indexes of the inputs that have time."""
        return [i for i in range(len(self.node.inputs)) if self.fact(i) is not None]

    def dims(self, i: int) -> tuple[Dim, ...]:
        """Extents of input i in the offline model."""
        value = self.value(i)
        assert value is not None
        return self.facts.dims[value]

    def out_dims(self, k: int = 0) -> tuple[Dim, ...]:
        return self.facts.dims[self.node.outputs[k]]

    def const(self, i: int) -> np.ndarray[Any, Any] | None:
        """Content of a constant input."""
        return self.facts.constant(self.value(i))

    def content(self, i: int) -> list[Dim] | None:
        """Content of a small integer input, elements possibly formulas in T."""
        known = self.facts.content(self.value(i))
        if known is None or any(isinstance(item, float) for item in known.reshape(-1)):
            return None
        return [item if isinstance(item, SymDim) else int(item) for item in known.reshape(-1)]

    def sample(self, i: int, frames: int) -> np.ndarray[Any, Any] | None:
        """Input i for T = frames where it depends on no input, else None."""
        value = self.value(i)
        return None if value is None or self.evaluate is None else self.evaluate(value, frames)

    def refuse(self, reason: str, hint: str) -> NotStreamable:
        """The typed refusal; raise it."""
        return NotStreamable(label(self.node), f"{self.op} {reason}", hint)

    def read(
        self,
        i: int,
        num: int = 1,
        den: int = 1,
        lo: int = 0,
        hi: int = 0,
        edge: Edge | None = None,
        past: bool = False,
    ) -> Read:
        """A Read of input i. A Pad before it becomes part of the read where the two paddings agree."""
        value = self.value(i)
        assert value is not None
        pend = self.pending.get(value)
        if pend is None or (edge is not None and (pend.cuts or edge != pend.edge)) or past:
            return Read(value, num, den, lo, hi, edge, past)
        shift = pend.left * den
        return Read(pend.base, num, den, lo - shift, hi - shift, pend.edge, past, pend.post)

    def only(self, *allowed: int) -> None:
        """Refuse time on any other input than these."""
        for i in self.timed():
            if i not in allowed:
                raise self.refuse(f"has input {i} changing over time", "only its first input may be a signal")


def slope(length: Dim, atom: str = TIME) -> Fraction | None:
    """How much a length grows per frame of T, or None when it is no sum of T and floor divisions."""
    if isinstance(length, int):
        return Fraction(0)
    total = Fraction(0)
    for monomial, factor in length.terms:
        if not monomial:
            continue
        if len(monomial) != 1:
            return None
        item = monomial[0]
        if isinstance(item, FloorDiv):
            inner = slope(item.numerator, atom)
            if inner is None:
                return None
            total += factor * inner / item.denominator
        elif item == atom:
            total += factor
    return total


def has_time(dim: Dim) -> bool:
    """Whether an extent depends on the length of the signal."""
    return isinstance(dim, SymDim) and TIME in dim.symbols


def unfold(dim: Dim, fold: int, facts: Facts) -> Dim:
    """Frames along an axis that holds `fold` repeats."""
    quotient = exact_div(dim, fold, facts.symbols)
    if quotient is None:
        raise ValueError(f"{dim} is no multiple of {fold}")
    return quotient


def least_common(values: Iterator[int]) -> int:
    return math.lcm(*values)


def framewise(
    site: Site,
    axes: Mapping[int, int],
    emit: Callable[[Emit], Sequence[ir.Value | None]] | None = None,
    outs: Mapping[int, int] | None = None,
) -> Plan:
    """The plan of a node whose output frame o reads frame o of every input with time.

    axes: input → axis of the *output* on which its time lies; all must agree. outs: output → axis,
    when outputs differ. The node is cloned, unless `emit` makes something else.
    """
    places = set(axes.values())
    if len(places) > 1:
        raise site.refuse(
            "combines every frame with every other (time lies on two axes of its result)",
            "use windowed or causal attention, or give the two inputs the same time axis",
        )
    (axis,) = places
    facts = [f for i in axes if (f := site.fact(i)) is not None]
    same_clock(site, list(axes))
    fold = facts[0].fold
    if any(f.fold != fold for f in facts):
        raise site.refuse("mixes rows merged with time and rows apart", "reshape both to the same layout")
    reads = tuple(Read(site.node.inputs[i]) for i in axes)  # type: ignore[arg-type]
    where = {**dict.fromkeys(range(len(site.node.outputs)), axis), **(outs or {})}
    timed = tuple(Timed(where[k], fold) for k in range(len(site.node.outputs)))

    def cloned(e: Emit) -> Sequence[ir.Value | None]:
        return e.clone({i: e.read(k) for k, i in enumerate(axes)})

    return Plan(reads, timed, emit or cloned)


class RatesDiffer(NotStreamable):
    """Operands of a node run at different rates. ratio: by how much the second would have to be faster."""

    def __init__(self, refusal: NotStreamable, values: tuple[ir.Value, ir.Value], ratio: Fraction) -> None:
        super().__init__(refusal.node, refusal.reason, refusal.hint)
        self.values, self.ratio = values, ratio


def same_clock(site: Site, inputs: Sequence[int]) -> None:
    """Refuse operands whose numbers of frames are not the same formula."""
    found = [(i, fact) for i in inputs if (fact := site.fact(i)) is not None]
    for i, fact in found[1:]:
        a, b = found[0][1].length, fact.length
        if a == b:
            continue
        fast, slow = slope(a), slope(b)
        if fast != slow:
            refusal = site.refuse(f"joins {a} frames with {b}: they run at different rates", "resample one of them")
            first, second = site.value(found[0][0]), site.value(i)
            if fast is None or not slow or first is None or second is None:
                raise refusal
            raise RatesDiffer(refusal, (first, second), fast / slow)
        step = least_common(d for x in (a, b) for d in divisors(x))
        if step > 1:
            raise site.refuse(
                f"joins {a} frames with {b}, which agree only for some lengths",
                f"say that the length is always a multiple, multiple={{…: {step}}}, or pad the signal to one",
            )
        raise site.refuse(f"joins {a} frames with {b}", "make both the same length")


def divisors(length: Dim) -> Iterator[int]:
    """Denominators of all floor divisions in a length."""
    yield 1
    if isinstance(length, int):
        return
    for monomial, _ in length.terms:
        for item in monomial:
            if isinstance(item, FloorDiv):
                yield from (item.denominator * inner for inner in divisors(item.numerator))
