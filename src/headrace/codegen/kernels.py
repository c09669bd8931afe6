"""Statements → C functions that see only the buffers they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from headrace.codegen.emit import Emitter
from headrace.codegen.nest import NestEmitter
from headrace.codegen.pack import Packer
from headrace.codegen.reduction import ReductionEmitter
from headrace.codegen.scalar import CTYPES, symbol_name
from headrace.codegen.scope import Names, Scope
from headrace.codegen.threads import part_function
from headrace.program.dtypes import size_of
from headrace.program.expr import Expr, Sym, extent_bound, walk
from headrace.program.ir import Branch, Buffer, Define, Loop, Statement, expressions, loads, nested, reads, writes
from headrace.program.plan import Plan
from headrace.schedule import legal
from headrace.schedule import steps as st

ScheduleFn = Callable[[Define], st.Schedule]


@dataclass(frozen=True)
class Argument:
    """A parameter of a kernel: a buffer (or a run-time extent) and its C name inside."""

    name: str
    ctype: str
    buffer: Buffer | None = None
    symbol: Sym | None = None


@dataclass
class Kernel:
    """One generated function, for one statement; parts: how many calls compute it, 0 where it is not cut."""

    name: str
    text: str
    arguments: list[Argument]
    statement: Statement
    can_fail: bool
    schedules: list[str] = field(default_factory=list)
    parts: int = 0


@dataclass
class KernelWriter:
    """Writes the functions of one module; equal bodies are written once. threads: 1 leaves no loop cut."""

    prefix: str
    attribute: str
    lanes: int
    schedule: ScheduleFn
    plan: Plan
    threads: int = 1
    tiles: bool = False  # whether the instruction set has tile registers
    packer: Packer = field(init=False)
    by_body: dict[str, str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.packer = Packer(self.lanes)
        own = {b.dtype for b in (*self.plan.scratch, *self.plan.state)}
        self.punned = len(own) > 1

    def ctype(self, b: Buffer) -> str:
        """Element type of a parameter; one that may alias where memory serves several types in turn."""
        plain = CTYPES[b.dtype]
        return f"hr_shared_{b.dtype}" if self.punned and b.space in ("scratch", "state") else plain

    def typedefs(self) -> str:
        """C text of the types that `ctype` names, and of what stands before kernels."""
        kernel = f"#define HR_KERNEL static {self.attribute}".rstrip() + "\n"
        if not self.punned:
            return kernel
        names = sorted({b.dtype for b in (*self.plan.scratch, *self.plan.state)})
        return kernel + "".join(f"typedef {CTYPES[d]} __attribute__((may_alias)) hr_shared_{d};\n" for d in names)

    def shared(self, a: Buffer, b: Buffer) -> bool:
        """Whether two buffers share memory at any time."""
        planned = ("scratch", "state")
        return a.space in planned and b.space in planned and self.plan.overlap(a, b)

    def kernel(self, s: Statement) -> Kernel:
        """The function of one top-level statement."""
        body = _Body(self, s)
        scope = Scope(None, Names())
        body.statement(s, scope)
        arguments = body.arguments(s)
        params = ", ".join(f"{a.ctype}{a.name}" for a in arguments)
        if body.emitter.needs_error:
            params += ", int *hr_error"
        if body.parts:
            params += ", const ptrdiff_t hr_part"
        lines = scope.lines if not isinstance(s, Define) or not scope.lines else [x[4:] for x in scope.lines[1:-1]]
        text = f"({params or 'void'})\n{{\n" + "\n".join(lines) + "\n}\n"
        name = self.by_body.get(text)
        if name is None:
            name = f"{self.prefix}_k{len(self.by_body)}"
            self.by_body[text] = name
            self.texts.append(f"{_comment(s, body.schedules, arguments)}\nHR_KERNEL void {name}{text}")
            if body.parts:
                self.texts.append(part_function(name, arguments))
        return Kernel(name, text, arguments, s, body.emitter.needs_error, body.schedules, body.parts)


class _Body:
    """State while one function is written."""

    def __init__(self, writer: KernelWriter, whole: Statement) -> None:
        self.writer, self.whole = writer, whole
        self.parts = 0
        self.names: dict[Buffer, str] = {}
        self.schedules: list[str] = []
        self.emitter = Emitter(writer.lanes, self._buffer, ReductionEmitter((), 0).single)

    def _buffer(self, b: Buffer) -> str:
        return self.names.setdefault(b, f"b{len(self.names)}")

    def arguments(self, s: Statement) -> list[Argument]:
        written = set(writes(s)) | {d for d, _ in self._carried(s)}
        names = self.names
        out = []
        for b, name in names.items():
            shared = any(o is not b and self.writer.shared(o, b) for o in names)
            qualifier = "" if b in written else "const "
            restrict = "" if shared else "__restrict "
            out.append(Argument(name, f"{qualifier}{self.writer.ctype(b)} *{restrict}", b))
        extents = [x for b in names for x in b.shape if isinstance(x, Expr)]
        found = {e.arg for e in walk(*_all_expressions(s), *extents) if e.op == "sym"}
        symbols = sorted(found, key=lambda x: x.name)
        return out + [Argument(symbol_name(x), "const ptrdiff_t ", None, x) for x in symbols]

    def _carried(self, s: Statement) -> Iterable[tuple[Buffer, Buffer]]:
        if isinstance(s, Loop):
            yield from self.writer.plan.carries[s.carry]
        for x in nested(s):
            yield from self._carried(x)

    # --- statements ------------------------------------------------------------------------------

    def statement(self, s: Statement, scope: Scope) -> None:
        if isinstance(s, Define):
            self._define(s, scope)
        elif isinstance(s, Loop):
            self._loop(s, scope)
        else:
            self._branch(s, scope)

    def _define(self, s: Define, scope: Scope) -> None:
        if self.writer.plan.moves_nothing(s) or is_empty(s):
            return
        schedule = self.writer.schedule(s)
        legal.check(s, schedule, self.writer.tiles)
        cut = [x for x in schedule if isinstance(x, st.Parallel)]
        if cut and (self.writer.threads == 1 or s is not self.whole):
            schedule = tuple(x for x in schedule if x not in cut)
        elif cut:
            self.parts = cut[0].parts
        self.schedules.append(st.show(schedule))
        lanes = next((x.lanes for x in schedule if isinstance(x, st.Vectorize)), 1)
        self.emitter.lanes = lanes
        self.emitter.lane_vars = set()
        self.emitter.volatile = frozenset(writes(s)) & frozenset(reads(s)) if s.ordered else frozenset()
        inner = scope.child(fenced=True)
        self.writer.packer.lanes = lanes
        NestEmitter(self.emitter, s, schedule, self.writer.packer).emit(inner)
        scope.block(inner)

    def _loop(self, s: Loop, scope: Scope) -> None:
        e = self.emitter
        v = s.axis.var
        name = scope.names.fresh("t")
        e.variables[v] = name
        inner = scope.child(binds=(v,), fenced=True)
        if s.until is not None:
            asked = inner.child(fenced=True)
            asked.line(f"if (!({e.scalar(s.until, asked).text})) break;")
            inner.block(asked)
        for x in s.body:
            self.statement(x, inner)
        for dst, src in self.writer.plan.carries[s.carry]:
            inner.line(f"memcpy({self._buffer(dst)}, {self._buffer(src)}, {self._bytes(dst, inner)});")
        outer = scope.child(fenced=True)  # values found here are not those that later statements would find
        limit = e.extent(s.axis.extent, outer)
        outer.close(f"for (ptrdiff_t {name} = 0; {name} < {limit}; ++{name})", inner)
        scope.block(outer)

    def _bytes(self, b: Buffer, scope: Scope) -> str:
        if all(isinstance(x, int) for x in b.shape):
            return str(b.nbytes)
        parts = [self.emitter.extent(x, scope) for x in b.shape]
        return f"(size_t)({' * '.join(parts)}) * {size_of(b.dtype)}"

    def _branch(self, s: Branch, scope: Scope) -> None:
        asked = scope.child(fenced=True)
        cond = self.emitter.scalar(s.cond, asked).text
        sides = []
        for body in (s.then, s.other):
            side = scope.child(fenced=True)
            for x in body:
                self.statement(x, side)
            sides.append(side)
        asked.close(f"if ({cond})", sides[0], " else {")
        for text in sides[1].lines:
            asked.line(text)
        asked.line("}")
        scope.block(asked)


def _all_expressions(s: Statement) -> Iterable[Expr]:
    yield from expressions(s)
    for x in nested(s):
        yield from _all_expressions(x)
    if isinstance(s, Loop):
        yield s.axis.var if not isinstance(s.axis.extent, Expr) else s.axis.extent


def _comment(s: Statement, schedules: list[str], arguments: list[Argument]) -> str:
    """Nodes, schedule, and the arrays with their types and shapes."""
    plan = "; ".join(x for x in dict.fromkeys(schedules) if x)
    lines = [f"/* {_plain(', '.join(s.nodes))[:300]}{': ' + plan[:300] if plan else ''}"]
    for verb, const in (("reads", True), ("writes", False)):
        found = [a for a in arguments if a.buffer is not None and a.ctype.startswith("const ") == const]
        texts = [f"{a.name} {_shape(a.buffer)}" for a in found if a.buffer is not None]
        if texts:
            lines.append(f" * {verb} {', '.join(texts)}")
    return "\n".join([*lines, " */"]) if len(lines) > 1 else f"{lines[0]} */"


def _shape(b: Buffer) -> str:
    dims = "x".join(str(e) if isinstance(e, int) else _plain(f"({e})") for e in b.shape)
    return f"{b.dtype} {dims or 'scalar'}"


def _plain(text: str) -> str:
    """Text that may stand in a comment."""
    text = text.replace("*/", "* /").replace("/*", "/ *")
    return "".join(c if c.isprintable() and c.isascii() and c not in "\\?" else "_" for c in text)


def total_macs(s: Statement) -> int:
    """Multiply-accumulates of a statement at its bounds."""
    if isinstance(s, Define):
        return st.macs(s)
    times = extent_bound(s.axis.extent) if isinstance(s, Loop) else 1
    return times * sum(total_macs(x) for x in nested(s))


def const_buffers(s: Statement) -> list[Buffer]:
    """Constants that a statement loads."""
    own = {e.arg: None for e in loads(s) if e.arg.space == "const"}
    for x in nested(s):
        own.update(dict.fromkeys(const_buffers(x)))
    return list(own)


def is_empty(s: Statement) -> bool:
    """Whether a statement has no points at all."""
    return isinstance(s, Define) and any(a.extent == 0 for a in s.axes)
