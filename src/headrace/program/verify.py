"""The rules of a well-formed module, checked at every seam.

Types: operands agree, indices are indices, conditions are bool. Scope: every variable belongs to an axis
around it, every symbol to the module. Data: buffers are written before they are read, constants and
inputs never, every output is. Memory: indices stay inside their extents, by proof or by `check`; loads
that a select guards only where it takes them. Order: points of an unordered definition are independent.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from headrace.program.access import apart
from headrace.program.dtypes import INTEGERS, is_dtype, is_float, is_int
from headrace.program.expr import (
    BINARY,
    BITS,
    COMPARE,
    MATH,
    REDUCTIONS,
    UNARY,
    Axis,
    Expr,
    Extent,
    extent_bound,
    walk,
)
from headrace.program.index import free_vars
from headrace.program.ir import (
    SPACES,
    Branch,
    Buffer,
    Define,
    Loop,
    Module,
    Statement,
    StatePair,
    Store,
    loads,
)
from headrace.program.ranges import Facts, collision, evaluable, inside
from headrace.program.show import show_expr, show_statement

COMBINERS = (None, "add", "mul", "min", "max")


class Malformed(AssertionError):
    """A module breaks a rule; the text names the statement."""


def verify(module: Module) -> None:
    """Raise Malformed where the module breaks a rule."""
    _Verifier(module).run()


class _Verifier:
    def __init__(self, module: Module) -> None:
        self.module = module
        self.symbols = {*module.symbols, *module.heads}
        self.place: Statement | str = f"module {module.name}"
        self.typed: set[Expr] = set()
        self.buffers: set[Buffer] = set()

    def require(self, condition: bool, rule: str) -> None:
        if not condition:
            place = self.place if isinstance(self.place, str) else "\n".join(show_statement(self.place)[:12])
            raise Malformed(f"{rule}\nin {place}")

    def run(self) -> None:
        m = self.module
        for what, names in (
            ("inputs", [b.name for b in m.inputs]),
            ("outputs", [b.name for b in m.outputs]),
            ("states", [p.name for p in m.states]),
        ):
            self.require(len(set(names)) == len(names), f"{what} share a name: {names}")
        for b in m.inputs:
            self.require(b.space == "input", f"input {b!r} is not in the space input")
        for b in m.outputs:
            self.require(b.space == "output", f"output {b!r} is not in the space output")
        for p in m.states:
            self.require(p.buffer.space == "state", f"state {p.buffer!r} is not in the space state")
            self.require(_state_shape(p) == p.buffer.shape, f"state {p.name!r} starts in another shape")
            self.require(p.ring is None or p.update is None, f"the ring {p.name!r} is replaced as a whole")
        written = set(m.inputs) | {p.buffer for p in m.states}
        written = self.body(m.body, written, frozenset())
        self.place = f"module {m.name}"
        for b in m.outputs:
            self.require(b in written, f"output {b!r} is never written")
        for p in m.states:
            if p.update is not None:
                self.require(p.update in written or p.update.data is not None, f"{p.update!r} is never written")
                same = p.update.shape == p.buffer.shape and p.update.dtype == p.buffer.dtype
                self.require(same, f"state {p.buffer!r} is updated by {p.update!r}")

    # --- statements ------------------------------------------------------------------------------

    def body(self, statements: Iterable[Statement], written: set[Buffer], scope: frozenset[Expr]) -> set[Buffer]:
        """Check statements in order; returns the buffers that are written afterwards."""
        for s in statements:
            self.place = s
            self.require(isinstance(s, Define | Loop | Branch), f"{type(s).__name__} is no statement")
            if isinstance(s, Define):
                self.define(s, written, scope)
                written = written | {st.buffer for st in s.stores}
            elif isinstance(s, Loop):
                written = self.loop(s, written, scope)
            else:
                self.scalar(s.cond, "bool", written, scope)
                then = self.body(s.then, written, scope)
                other = self.body(s.other, written, scope)
                written = then & other
        return written

    def loop(self, s: Loop, written: set[Buffer], scope: frozenset[Expr]) -> set[Buffer]:
        place = self.place
        self.axis(s.axis, scope, written)
        if s.until is not None:
            self.scalar(s.until, "bool", written, scope | {s.axis.var})
        for dst, src in s.carry:
            self.require(dst in written, f"carried {dst!r} has no value before the first pass")
            self.require(dst.shape == src.shape and dst.dtype == src.dtype, f"{dst!r} takes {src!r}")
            self.writable(dst)
        after = self.body(s.body, written, scope | {s.axis.var})
        self.place = place
        for _, src in s.carry:
            self.readable(src, after)
        return after

    def scalar(self, e: Expr, dtype: str, written: set[Buffer], scope: frozenset[Expr]) -> None:
        self.require(e.dtype == dtype, f"{show_expr(e)} is {e.dtype}, not {dtype}")
        self.expression((e,), written, scope)

    def axis(self, a: Axis, scope: frozenset[Expr], written: set[Buffer]) -> None:
        self.require(a.var.op == "var", f"axis variable {a.var} is no variable")
        self.require(a.var not in scope, f"{a.var} is bound twice")
        self.extent(a.extent)
        declared = a.var.arg[1]
        fits = a.extent is declared or extent_bound(a.extent) <= _least(declared)
        self.require(fits or a.extent == declared, f"{a.var} runs to {a.extent}, declared for {declared}")
        if isinstance(a.extent, Expr):
            self.scalar(a.extent, "index", written, scope)

    def extent(self, e: Extent) -> None:
        if isinstance(e, int):
            self.require(e >= 0, f"an extent is {e}")
        else:
            self.require(e.dtype == "index", f"extent {show_expr(e)} is {e.dtype}")

    def define(self, s: Define, written: set[Buffer], scope: frozenset[Expr]) -> None:
        self.require(bool(s.stores), "a definition stores nothing")
        for a in s.axes:
            self.axis(a, scope, written)
        inner = scope | {a.var for a in s.axes}
        self.require(len(inner) == len(scope) + len(s.axes), "two axes have one variable")
        empty = any(a.extent == 0 for a in s.axes)
        for st in s.stores:
            self.store(st, written, inner, empty)
        self.expression(tuple(st.value for st in s.stores), written, inner, empty)
        if not s.ordered:
            self.independent(s)

    def store(self, st: Store, written: set[Buffer], scope: frozenset[Expr], empty: bool) -> None:
        b = st.buffer
        self.buffer(b)
        self.writable(b)
        self.require(len(st.index) == len(b.shape), f"a store to {b!r} has {len(st.index)} indices")
        self.require(st.combiner in COMBINERS, f"combiner {st.combiner!r} is unknown")
        if st.combiner is not None:
            self.readable(b, written)
        fits = st.value.dtype == b.dtype or (st.value.dtype == "index" and b.dtype == "i64")
        self.require(fits, f"a value of {st.value.dtype} is stored to {b!r}")
        for i, extent in zip(st.index, b.shape, strict=True):
            self.require(i.dtype == "index", f"index {show_expr(i)} is {i.dtype}")
            self.expression((i,), written, scope, empty)
            if not empty:
                self.inside(i, extent, (), f"the store to {b!r}")

    def independent(self, s: Define) -> None:
        """No point writes what another writes or reads."""
        targets: dict[Buffer, list[tuple[Expr, ...]]] = {}
        for st in s.stores:
            targets.setdefault(st.buffer, []).append(st.index)
        for b, where in targets.items():
            verdict = collision(s.axes, where)
            self.require(verdict != "outside", f"two points write one element of {b!r}")
            self.require(verdict == "inside", f"unordered stores to {b!r} at an index that depends on data")
        for e in loads(s):
            if e.arg in targets:
                own = len(targets[e.arg]) == 1 and e.args == targets[e.arg][0]
                own = own or all(apart(e.args, where) for where in targets[e.arg])
                self.require(own, f"{show_expr(e)} is read and written in one unordered definition")

    # --- buffers ---------------------------------------------------------------------------------

    def buffer(self, b: Buffer) -> None:
        if b in self.buffers:
            return
        self.buffers.add(b)
        self.require(b.space in SPACES, f"{b!r} is in no known space")
        self.require(is_dtype(b.dtype), f"{b!r} has no known dtype")
        for e in b.shape:
            self.extent(e)
            if isinstance(e, Expr):
                self.expression((e,), set(), frozenset())
        known = b.space == "const"
        self.require((b.data is not None) == known, f"{b!r} must have data exactly if it is constant")
        if b.data is not None:
            self.require(tuple(b.data.shape) == b.shape, f"{b!r} holds data of the shape {b.data.shape}")

    def writable(self, b: Buffer) -> None:
        self.require(b.space not in ("const", "input"), f"{b!r} is written")

    def readable(self, b: Buffer, written: set[Buffer]) -> None:
        self.buffer(b)
        self.require(b.space == "const" or b in written, f"{b!r} is read before it is written")

    # --- expressions -----------------------------------------------------------------------------

    def expression(
        self, roots: tuple[Expr, ...], written: set[Buffer], scope: frozenset[Expr], empty: bool = False
    ) -> None:
        unbound = frozenset().union(*map(free_vars, roots)) - scope
        self.require(not unbound, f"{sorted(map(str, unbound))} stand outside their loops")
        for e in walk(*roots):
            if e.op == "load":
                self.readable(e.arg, written)
            if e in self.typed:
                continue
            self.types(e)
            self.typed.add(e)
        seen: set[tuple[Expr, Facts]] = set()
        for root in () if empty else roots:
            self.memory(root, (), seen)

    def types(self, e: Expr) -> None:
        """The rule of one node."""
        fault = _type_fault(e)
        if fault is not None:
            self.require(False, f"{show_expr(e)}: {fault}")
        if e.op == "sym":
            self.require(e.arg in self.symbols, f"symbol {e.arg.name} is not declared")
        elif e.op == "reduce":
            for a in e.arg[1]:
                self.extent(a.extent)
                declared = a.var.arg[1]
                fits = a.extent is declared or extent_bound(a.extent) <= _least(declared)
                self.require(fits or a.extent == declared, f"{a.var} runs to {a.extent}, declared for {declared}")

    def memory(self, e: Expr, facts: Facts, seen: set[tuple[Expr, Facts]]) -> None:
        """Every load below `e` is inside its buffer wherever it is evaluated."""
        if (e, facts) in seen or not _touches_memory(e):
            return
        seen.add((e, facts))
        if e.op == "select":
            self.memory(e.args[0], facts, seen)
            for side, holds in ((e.args[1], True), (e.args[2], False)):
                self.memory(side, (*facts, (e.args[0], holds)), seen)
            return
        if e.op == "reduce" and any(a.extent == 0 for a in e.arg[1]):
            return
        for a in e.args:
            self.memory(a, facts, seen)
        if e.op == "load":
            for i, extent in zip(e.args, e.arg.shape, strict=True):
                self.inside(i, extent, facts, e)

    def inside(self, i: Expr, extent: Extent, facts: Facts, what: Expr | str) -> None:
        verdict = inside(i, extent, facts)
        if verdict == "inside":
            return
        what = what if isinstance(what, str) else show_expr(what)
        self.require(verdict != "outside", f"{what}: index {show_expr(i)} leaves 0 to {extent}")
        if verdict == "unknown":
            data = not evaluable(i)
            self.require(not data, f"{what}: index {show_expr(i)} depends on data; it needs check()")


def _state_shape(p: StatePair) -> tuple[int, ...]:
    """The shape of the buffer that holds what `initial` holds."""
    if p.ring is None:
        return tuple(p.initial.shape)
    return (p.ring.head.bound, *(p.initial.shape[d] for d in p.ring.order[1:]))


def _least(extent: Extent) -> int:
    from headrace.program.index import bounds

    return extent if isinstance(extent, int) else bounds(extent)[0]


@lru_cache(maxsize=1 << 16)
def _touches_memory(e: Expr) -> bool:
    return e.op == "load" or any(_touches_memory(a) for a in e.args)


def _type_fault(e: Expr) -> str | None:
    """What is wrong with the types of a node, or None."""
    types = [a.dtype for a in e.args]
    if e.op == "const":
        wanted = bool if e.dtype == "bool" else float if is_float(e.dtype) else int
        return None if type(e.arg) is wanted else f"the literal {e.arg!r} is no {e.dtype}"
    if e.op in ("var", "sym"):
        return None if e.dtype == "index" else f"it is {e.dtype}"
    if e.op == "load":
        if len(types) != len(e.arg.shape):
            return f"{len(types)} indices for {e.arg!r}"
        if any(t != "index" for t in types):
            return f"indices are {types}"
        return None if e.dtype == e.arg.dtype else f"it is {e.dtype}"
    if e.op == "check":
        return None if types == ["index"] and e.dtype == "index" else f"it checks {types}"
    if e.op == "cast":
        return None if len(types) == 1 and e.arg in ("trunc", "round", "sat") else f"mode {e.arg!r}"
    if e.op == "select":
        return None if types == ["bool", e.dtype, e.dtype] else f"operands are {types}"
    if e.op == "reduce":
        return _reduce_fault(e, types)
    if e.op == "word":
        most = 2 if types == ["bf16"] * len(types) else 4 if set(types) <= {"u8", "i8"} else 0
        return None if 1 <= len(types) <= most else f"of {types}"
    if e.op in UNARY:
        return _unary_fault(e, types)
    return _binary_fault(e, types) if e.op in BINARY else f"unknown operator {e.op}"


def _reduce_fault(e: Expr, types: list[str]) -> str | None:
    kind, axes = e.arg
    if kind not in REDUCTIONS or not axes or len({a.var for a in axes}) != len(axes):
        return f"a reduction {kind!r} over {len(axes)} axes"
    if kind.startswith("arg"):
        return None if len(types) == len(axes) == 1 and e.dtype == "index" else f"{kind} of {types}"
    if types != [e.dtype]:
        return f"operands are {types}"
    if kind in ("and", "or"):
        return None if e.dtype == "bool" or e.dtype in INTEGERS else f"{kind} of {types}"
    return f"{kind} of bool" if e.dtype == "bool" and kind in ("sum", "prod") else None


def _unary_fault(e: Expr, types: list[str]) -> str | None:
    if len(types) != 1:
        return f"operands are {types}"
    (t,) = types
    if e.op in ("isnan", "isinf"):
        return None if e.dtype == "bool" and is_float(t) else f"of {t}"
    if e.dtype != t:
        return f"it is {e.dtype}, its operand {t}"
    if e.op == "not":
        return f"of {t}" if is_float(t) else None
    if e.op in MATH:
        return None if is_float(t) else f"of {t}"
    return f"of {t}" if t == "bool" else None


def _binary_fault(e: Expr, types: list[str]) -> str | None:
    if len(types) != 2 or types[0] != types[1]:
        return f"operands are {types}"
    t = types[0]
    if e.op in COMPARE:
        return None if e.dtype == "bool" else f"a comparison is {e.dtype}"
    if e.op == "dot2":
        return None if t == "i32" and e.dtype == "f32" else f"of {t}"
    if e.dtype != t:
        return f"it is {e.dtype}, its operands {t}"
    if e.op in BITS:
        logical = t == "bool" and e.op in ("and", "or", "xor")
        return None if is_int(t) or logical else f"of {t}"
    if e.op == "dot4":
        return None if t == "i32" else f"of {t}"
    if e.op == "atan2":
        return None if is_float(t) else f"of {t}"
    return f"of {t}" if t == "bool" and e.op not in ("min", "max") else None
