"""What a Define touches, as seen by a schedule: loads and stores with their strides."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from headrace.program.access import flat, harmless
from headrace.program.expr import MATH, Axis, Expr, index, walk
from headrace.program.index import coefficient, free_vars
from headrace.program.ir import Buffer, Define
from headrace.program.rewrite import substitute_axes
from headrace.schedule.steps import reduce_axes, reductions

VECTOR_DTYPES = frozenset(("f32", "i32", "i8", "u8", "i16", "u16", "f16", "bf16", "bool", "index"))
_FUNCTIONS = frozenset(MATH) - {"sqrt", "floor", "ceil", "round", "trunc"}
_LONG = 20  # instructions of a function
_WORDS = {"min": 3, "max": 3, "pow": 60, "atan2": 30, "dot4": 7, "word": 2}
_SLOW_OPS = ("fmod", "mod", "floordiv", "shl", "shr", "pow")


def _cost(n: Expr) -> int:
    if n.dtype == "index" or n.op in ("const", "reduce"):
        return 0
    return _LONG if n.op in _FUNCTIONS else _WORDS.get(n.op, 1)


@dataclass(frozen=True)
class Access:
    """One load or store. offset: flat element index. inside: whether a reduction surrounds it."""

    buffer: Buffer
    offset: Expr
    inside: bool

    def step(self, v: Expr) -> int | None:
        """Elements from one value of `v` to the next; None where that varies."""
        return coefficient(self.offset, v)

    def uses(self, v: Expr) -> bool:
        return v in free_vars(self.offset)

    @property
    def packable(self) -> bool:
        """Whether code generation may lay it out as the loops want it."""
        return self.inside and self.buffer.space == "const"


class Facts:
    """Loads, stores, axes and reductions of one Define; of one inside Loops, those of the first pass."""

    def __init__(self, define: Define) -> None:
        define = _first_pass(define)
        self.define = define
        self.axes: tuple[Axis, ...] = define.axes
        self.reduced: tuple[Axis, ...] = reduce_axes(define)
        self.reductions = reductions(define)

    @cached_property
    def loads(self) -> list[Access]:
        out: dict[Access, None] = {}

        def go(e: Expr, inside: bool, seen: set[tuple[Expr, bool]]) -> None:
            if (e, inside) in seen:
                return
            seen.add((e, inside))
            if e.op == "load":
                out[Access(e.arg, flat(e.arg, e.args), inside)] = None
            for a in e.args[:1] if e.op == "word" else e.args:  # bytes that are read at once
                go(a, inside or e.op == "reduce", seen)

        seen: set[tuple[Expr, bool]] = set()
        for s in self.define.stores:
            for root in (s.value, *s.index):
                go(root, False, seen)
        return list(out)

    @cached_property
    def stores(self) -> list[Access]:
        return [Access(s.buffer, flat(s.buffer, s.index), False) for s in self.define.stores]

    @cached_property
    def nodes(self) -> list[Expr]:
        """Distinct nodes of all values."""
        return list(walk(*(s.value for s in self.define.stores)))

    @cached_property
    def around(self) -> int:
        """Instructions of one point beside those inside reductions, roughly."""
        seen: set[Expr] = set()
        stack = [s.value for s in self.define.stores]
        total = len(self.define.stores)
        while stack:
            n = stack.pop()
            if n in seen or n.dtype == "index" or n.op in ("const", "reduce"):
                continue
            seen.add(n)
            total += _cost(n)
            stack.extend(n.args)
        return total

    @cached_property
    def within(self) -> int:
        """Instructions of one step of the largest reduction, loads aside, roughly."""
        return max((sum(_cost(n) for n in walk(r.args[0]) if n.op != "load") for r in self.reductions), default=0)

    @cached_property
    def vector_types(self) -> bool:
        """Whether every value has a vector form worth using."""
        if self.define.ordered or any(r.arg[0].startswith("arg") for r in self.reductions):
            return False
        if any(n.op == "check" or (n.op == "reduce" and n.dtype in ("f16", "bf16")) for n in self.nodes):
            return False
        if any(s.combiner is not None for s in self.define.stores):
            return False
        return all(n.dtype in VECTOR_DTYPES for n in self.nodes)

    @cached_property
    def points(self) -> int:
        n = 1
        for a in self.axes:
            n *= a.bound
        return n

    @cached_property
    def box(self) -> int:
        """Points of the largest reduction."""
        n = 1
        for a in self.reduced:
            n *= a.bound
        return n

    def guarded(self, v: Expr) -> bool:
        """Whether some condition changes along `v` and its sides may not both be evaluated."""
        return any(
            n.op == "select" and v in free_vars(n.args[0]) and not all(harmless(x) for x in n.args[1:])
            for n in self.nodes
        )


def _first_pass(define: Define) -> Define:
    """The Define with 0 for the variables of the loops around it."""
    outer = around(define)
    return substitute_axes(define, define.axes, dict.fromkeys(outer, index(0))) if outer else define


def around(define: Define) -> frozenset[Expr]:
    """Variables of the loops around a Define."""
    used = frozenset().union(*(free_vars(e) for s in define.stores for e in (s.value, *s.index)))
    return used - {a.var for a in define.axes}
