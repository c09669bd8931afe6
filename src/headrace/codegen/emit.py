"""C text of expressions, scalar and vector, with every common subexpression computed once.

A vector is an expression in which a *lane* variable occurs: lane runs over 0 … L-1 (or fewer, in the
last vector of a row). Whatever has no vector form is computed lane by lane.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from headrace.codegen import scalar
from headrace.codegen.half import in_single
from headrace.codegen.quantise import near_text
from headrace.codegen.scalar import CTYPES, HALF
from headrace.codegen.scope import Operand, Scope
from headrace.program.access import flat, harmless
from headrace.program.dtypes import is_float, size_of
from headrace.program.expr import BINARY, COMPARE, MATH, UNARY, Expr, Extent, index, substitute, walk
from headrace.program.index import bounds, coefficient, free_vars
from headrace.program.ir import Buffer
from headrace.program.requantise import as_near

ReduceFn = Callable[["Emitter", Expr, Scope], Operand]
_LEVELS = {"add": 1, "sub": 1, "mul": 2}  # operators whose operands need no parentheses if they bind as tightly
_FLOAT = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_BITS = {"and": "&", "or": "|", "xor": "^"}
_VECTOR_DTYPES = ("f32", "i32", "i8", "u8", "i16", "u16", "f64", *HALF)


@dataclass
class Emitter:
    """State of one generated function.

    lanes: vector length. lane_vars: lane variables in use. names: C names of variables. buffers: C names of
    buffers, in order of first use. needs_error: whether an index check was emitted. reduce: emits a
    reduction that is met inside an expression. volatile: buffers that an ordered Define reads and writes.
    """

    lanes: int
    buffer_name: Callable[[Buffer], str]
    reduce: ReduceFn
    variables: dict[Expr, str] = field(default_factory=dict)
    lane_vars: set[Expr] = field(default_factory=set)
    packed: Mapping[Expr, tuple[Buffer, Expr]] = field(default_factory=dict)
    volatile: frozenset[Buffer] = frozenset()  # loads of these must stay where they are
    padded: AbstractSet[Buffer] = frozenset()  # whole vectors may be read to the end of these
    needs_error: bool = False

    # --- index arithmetic ------------------------------------------------------------------------

    def index(self, e: Expr, scope: Scope) -> str:
        """C text of an index expression without lane variables."""
        if e.op == "const":
            return str(e.arg)
        if e.op == "var":
            return self.variables[e]
        if e.op == "sym":
            return scalar.symbol_name(e.arg)
        if e.op in ("load", "check", "reduce", "cast", "select"):
            return self.scalar(e, scope).text
        if e.op in BINARY:
            level = _LEVELS.get(e.op, 9)
            a, b = (
                bare(self.index(x, scope), x) if _LEVELS.get(x.op, 0) >= level + n else self.index(x, scope)
                for n, x in enumerate(e.args)
            )
            return scalar.index_op(e.op, a, b, e.args[0], e.args[1])
        raise ValueError(f"index expression {e!r}")

    def extent(self, e: Extent, scope: Scope) -> str:
        return str(e) if isinstance(e, int) else self.index(e, scope)

    def address(self, e: Expr) -> Expr:
        """The flat element offset of a load."""
        return flat(e.arg, e.args)

    # --- values ----------------------------------------------------------------------------------

    def value(self, e: Expr, scope: Scope) -> Operand:
        """Scalar or vector operand of an expression."""
        lane = self.lane_of(e)
        if lane is None:
            return self.scalar(e, scope)
        return self.vector(e, scope, lane)

    def lane_of(self, e: Expr) -> Expr | None:
        found = [v for v in free_vars(e) if v in self.lane_vars]
        return found[0] if found else None

    def scalar(self, e: Expr, scope: Scope) -> Operand:
        """A scalar; named when it is worth it."""
        if e.op == "const":
            return Operand(scalar.literal(e.arg, e.dtype), e.dtype)
        if e.op in ("var", "sym") or (e.dtype == "index" and e.op in BINARY):
            return Operand(self.index(e, scope), "index")
        found = scope.find((e, 1))
        if found is not None:
            return found
        home = self.home(e, scope)
        text = self._scalar_text(e, home)
        if isinstance(text, Operand):
            home.values[(e, 1)] = text
            return text
        name = home.names.fresh("s")
        home.line(f"const {CTYPES[e.dtype]} {name} = {text};")
        out = Operand(name, e.dtype)
        home.values[(e, 1)] = out
        return out

    def home(self, e: Expr, scope: Scope) -> Scope:
        """The outermost block in which `e` may be computed for use in `scope`."""
        moves = e.op != "check" and not (
            self.volatile and any(n.op == "load" and n.arg in self.volatile for n in walk(e))
        )
        return scope.home(free_vars(e)) if moves else scope

    def settle(self, idx: tuple[Expr, ...], scope: Scope) -> None:
        """Evaluate what indices load, before a store may change it."""
        for i in idx:
            for n in walk(i):
                if n.op == "load" and n.arg in self.volatile:
                    self.scalar(n, scope)

    def _scalar_text(self, e: Expr, scope: Scope) -> str | Operand:
        if e.op == "load":
            buffer, offset = self._place(e)
            return f"{self.buffer_name(buffer)}[{bare(self.index(offset, scope), offset)}]"
        if e.op == "reduce":
            return self.reduce(self, e, scope)
        if e.op == "select":
            return self._scalar_select(e, scope)
        if e.op == "check":
            return self._check(e, scope)
        near = as_near(e)
        if near is not None:
            return near_text(self, near, scope, 1)
        fused = self._fma(e, scope, 1)
        if fused is not None:
            return fused.text
        if e.op == "word":
            return self._word(e, scope)
        args = [self.scalar(a, scope).text for a in e.args]
        if e.op == "cast":
            return scalar.cast_op(args[0], e.dtype, e.args[0].dtype, e.arg or "trunc")
        if e.op in BINARY:
            if e.args[0].dtype == "index":
                return scalar.index_op(e.op, args[0], args[1], e.args[0], e.args[1])
            return scalar.binary_op(e.op, args[0], args[1], e.args[0].dtype)
        if e.op in UNARY:
            return scalar.unary_op(e.op, args[0], e.args[0].dtype)
        raise ValueError(f"expression {e.op}")

    def _word(self, e: Expr, scope: Scope) -> str:
        """Elements that lie side by side are read at once."""
        size = size_of(e.args[0].dtype)
        places = [self._place(a) for a in e.args if a.op == "load" and a.arg not in self.volatile]
        if len(places) == len(e.args) and all(
            b is places[0][0] and o is places[0][1] + n for n, (b, o) in enumerate(places)
        ):
            buffer, offset = places[0]
            at = bare(self.index(offset, scope), offset)
            return f"load_word((const uint8_t *)({self.buffer_name(buffer)} + {at}), {size * len(places)})"
        parts = [self.scalar(a, scope).text for a in e.args]
        texts = [f"(uint32_t)(uint{8 * size}_t){p}{f' << {8 * size * n}' if n else ''}" for n, p in enumerate(parts)]
        return f"(int32_t)({' | '.join(texts)})"

    def _place(self, e: Expr) -> tuple[Buffer, Expr]:
        return self.packed[e] if e in self.packed else (e.arg, self.address(e))

    def _check(self, e: Expr, scope: Scope) -> Operand:
        self.needs_error = True
        raw, name = self.index(e.args[0], scope), scope.names.fresh("at")
        limit = self.extent(e.arg, scope)
        scope.line(f"ptrdiff_t {name} = {raw};")
        scope.line(f"if ({name} < 0 || {name} >= {limit}) {{ *hr_error = 1; {name} = 0; }}")
        return Operand(name, "index")

    def _scalar_select(self, e: Expr, scope: Scope) -> str | Operand:
        cond = self.scalar(e.args[0], scope).text
        if all(harmless(a) for a in e.args[1:]):
            a, b = (self.scalar(x, scope).text for x in e.args[1:])
            return f"{cond} ? {a} : {b}"
        return self._branches(e, cond, scope, 1)

    def _branches(self, e: Expr, cond: str, scope: Scope, lanes: int) -> Operand:
        """A variable that either side of an `if` assigns."""
        name = scope.names.fresh("c")
        scope.line(f"{self.ctype(e.dtype, lanes)} {name};")
        sides = []
        for a in e.args[1:]:
            side = scope.child(fenced=True)
            operand = self.value(a, side)
            side.line(f"{name} = {self.widened(operand, e.dtype, lanes) if lanes > 1 else operand.text};")
            sides.append(side)
        scope.close(f"if ({cond})", sides[0], " else {")
        for text in sides[1].lines:
            scope.line(text)
        scope.line("}")
        return Operand(name, e.dtype, lanes)

    # --- vectors ---------------------------------------------------------------------------------

    def ctype(self, dtype: str, lanes: int) -> str:
        if lanes == 1:
            return CTYPES[dtype]
        return f"{vector_elem(dtype)}x{lanes}"

    def widened(self, o: Operand, dtype: str, lanes: int) -> str:
        """Text of an operand as a vector."""
        if o.lanes > 1:
            return o.text
        if dtype == "bool":
            return f"hr_splat_i32x{lanes}(-(int32_t)({o.text} != 0))"
        return f"hr_splat_{vector_elem(dtype)}x{lanes}({o.text})"

    def vector(self, e: Expr, scope: Scope, lane: Expr) -> Operand:
        found = scope.find((e, self.lanes))
        if found is not None:
            return found
        home = self.home(e, scope)
        out = self._vector_text(e, home, lane)
        if isinstance(out, str):
            name = home.names.fresh("v")
            home.line(f"const {self.ctype(e.dtype, self.lanes)} {name} = {out};")
            out = Operand(name, e.dtype, self.lanes)
        home.values[(e, self.lanes)] = out
        return out

    def _vector_text(self, e: Expr, scope: Scope, lane: Expr) -> str | Operand:
        if e.op == "reduce":
            return self.reduce(self, e, scope)
        if e.op == "load":
            return self._vector_load(e, scope, lane)
        if e.op == "select" and self.lane_of(e.args[0]) is None and not all(harmless(a) for a in e.args[1:]):
            return self._branches(e, self.scalar(e.args[0], scope).text, scope, self.lanes)
        near = as_near(e)
        if near is not None:
            return near_text(self, near, scope, self.lanes)
        wide = in_single(e)
        if e.dtype == "f16" and e.op in _FLOAT:
            fused = self._fma(e, scope, self.lanes)
            args = [self.widened(self.value(a, scope), "f16", self.lanes) for a in ([] if fused else e.args)]
            return fused.text if fused else f"hr_{e.op}_f16x{self.lanes}({', '.join(args)})"
        if wide is not e:
            return self.vector(wide, scope, lane)
        if not self._has_vector_form(e):
            return self._lane_by_lane(e, scope, lane)
        if e.op == "cast":
            return self._vector_cast(e, scope, lane)
        fused = self._fma(e, scope, self.lanes)
        if fused is not None:
            return fused.text
        args = [self.widened(self.value(a, scope), a.dtype, self.lanes) for a in e.args]
        return self._vector_op(e, args)

    def _vector_op(self, e: Expr, args: list[str]) -> str:
        kind = f"{vector_elem(e.args[-1].dtype)}x{self.lanes}"
        if e.op == "select":
            mask = args[0]
            return f"hr_select_{kind}({self._mask(mask, e.dtype)}, {args[1]}, {args[2]})"
        if e.op in COMPARE:
            return f"hr_{e.op}_{kind}({args[0]}, {args[1]})"
        if e.op == "isnan":
            return f"hr_ne_{kind}({args[0]}, {args[0]})"
        if is_float(e.dtype) and e.op in ("add", "sub", "mul", "div"):
            return f"{args[0]} {_FLOAT[e.op]} {args[1]}"
        if e.op in ("min", "max") and e.dtype == "bool":
            return f"{args[0]} {'&' if e.op == 'min' else '|'} {args[1]}"
        if e.op == "not":
            return f"~{args[0]}"
        if e.op in ("dot4", "dot2"):
            kind = f"{e.dtype}x{self.lanes}"
            return f"hr_{e.op}_{kind}({args[0]}, {args[1]}, hr_splat_{kind}(0))"
        if e.dtype == "bool" and e.op in ("and", "or", "xor"):
            return f"{args[0]} {_BITS[e.op]} {args[1]}"
        return f"hr_{e.op}_{kind}({', '.join(args)})"

    def _mask(self, mask: str, dtype: str) -> str:
        """A mask of i32 in the width of what it selects from."""
        bits = 32 if dtype == "f32" else int(dtype[1:])
        return mask if bits == 32 else f"hr_cvt_i{bits}x{self.lanes}_i32x{self.lanes}({mask})"

    def _has_vector_form(self, e: Expr) -> bool:
        kinds = {e.dtype, *(a.dtype for a in e.args)}
        if e.op == "cast":
            source = e.args[0]
            if e.dtype == "f32" and source.dtype == "index":
                return _affine_in(source, self.lane_vars) and max(map(abs, bounds(source))) < 1 << 24
            if e.dtype == "index" or source.dtype == "index":
                return False
            if kinds & set(HALF):
                return "f32" in kinds
            if is_float(e.dtype) or not is_float(source.dtype):
                return kinds <= {"f32", "i32", "i8", "u8", "i16", "u16"}
            return source.dtype == "f32" and e.dtype in ("i32", "i8", "u8", "i16", "u16")
        if e.op in COMPARE:
            return e.args[0].dtype in ("f32", "i32")
        if e.op == "select":
            return e.dtype in ("f32", "i32", "i8", "u8", "i16", "u16") and all(harmless(a) for a in e.args[1:])
        if not kinds <= {"f32", "i32", "bool"} or e.op in (
            "check",
            "fmod",
            "mod",
            "floordiv",
            "isinf",
            "word",
            "shl",
            "shr",
        ):
            return False
        return not (e.dtype == "i32" and e.op in ("div", "pow", *MATH))

    def _vector_cast(self, e: Expr, scope: Scope, lane: Expr) -> str:
        source, n = e.args[0], self.lanes
        if source.dtype == "index":
            step = coefficient(source, lane) or 0
            base = self.index(substitute(source, {lane: index(0)}), scope)
            return f"hr_iota_f32x{n}() * (float){step} + (float)({base})"
        text = self.widened(self.value(source, scope), source.dtype, n)
        if source.dtype == "bool":
            one = scalar.literal(1, e.dtype)
            return f"hr_select_{e.dtype}x{n}({text}, hr_splat_{e.dtype}x{n}({one}), hr_splat_{e.dtype}x{n}(0))"
        if e.dtype == "bool":
            return f"hr_ne_{source.dtype}x{n}({text}, hr_splat_{source.dtype}x{n}(0))"
        if e.arg == "sat" and not is_float(e.dtype) and not is_float(source.dtype):
            return f"hr_sat_{e.dtype}x{n}_{source.dtype}x{n}({text})"
        if is_float(source.dtype) and not is_float(e.dtype):
            inner = f"hr_round_f32x{n}({text})" if e.arg == "round" else text
            return f"hr_sat_{e.dtype}x{n}_f32x{n}({inner})"
        return f"hr_cvt_{e.dtype}x{n}_{source.dtype}x{n}({text})"

    def _vector_load(self, e: Expr, scope: Scope, lane: Expr) -> str | Operand:
        buffer, offset = self._place(e)
        step = coefficient(offset, lane)
        if step is None or e.dtype not in _VECTOR_DTYPES:
            return self._lane_by_lane(e, scope, lane)
        start = substitute(offset, {lane: index(0)})
        base = bare(self.index(start, scope), start)
        pointer = f"{self.buffer_name(buffer)} + {base}" if base != "0" else self.buffer_name(buffer)
        kind = f"{vector_elem(e.dtype)}x{self.lanes}"
        count = None if step == 1 and buffer in self.padded else self.active(lane, scope)
        if step == 0:
            return f"hr_splat_{kind}(*({pointer}))"
        if step == 1 and count is None:
            return f"hr_load_{kind}({pointer})"
        if step == 1:
            return f"hr_load_n_{kind}({pointer}, {count})"
        if count is None:
            return f"hr_load_strided_{kind}({pointer}, {step})"
        return self._lane_by_lane(e, scope, lane)

    def active(self, lane: Expr, scope: Scope) -> str | None:
        """C text of the number of lanes in use; None for all."""
        extent: Extent = lane.arg[1]
        return None if extent == self.lanes else self.extent(extent, scope)

    def _lane_by_lane(self, e: Expr, scope: Scope, lane: Expr) -> Operand:
        """An array filled by a loop over the lanes, then loaded."""
        elem = vector_elem(e.dtype)
        name, i = scope.names.fresh("a"), scope.names.fresh("l")
        scope.line(f"{CTYPES[elem]} {name}[{self.lanes}] = {{0}};")
        body = scope.child(binds=(lane,), fenced=True)
        self.lane_vars.discard(lane)
        self.variables[lane] = i
        operand = self.scalar(e, body)
        self.lane_vars.add(lane)
        del self.variables[lane]
        body.line(f"{name}[{i}] = {f'-({operand.text} != 0)' if e.dtype == 'bool' else operand.text};")
        scope.close(f"for (int {i} = 0; {i} < {self.active(lane, scope) or self.lanes}; ++{i})", body)
        out = scope.names.fresh("v")
        kind = f"{elem}x{self.lanes}"
        scope.line(f"const {kind} {out} = hr_load_{kind}({name});")
        return Operand(out, e.dtype, self.lanes)

    def _fma(self, e: Expr, scope: Scope, lanes: int) -> Operand | None:
        """a*b + c and c - a*b in one operation."""
        if not (e.dtype == "f32" or (e.dtype == "f16" and lanes > 1)) or e.op not in ("add", "sub"):
            return None
        x, y = e.args
        if e.op == "add" and y.op != "mul":
            x, y = y, x
        if y.op != "mul":
            return None
        operands = [self.value(a, scope) for a in (*y.args, x)]
        texts = [self.widened(o, e.dtype, lanes) if lanes > 1 else o.text for o in operands]
        name = "fma" if e.op == "add" else "fnma"
        suffix = f"{e.dtype}x{lanes}" if lanes > 1 else "f32"
        return Operand(f"hr_{name}_{suffix}({', '.join(texts)})", e.dtype, lanes)

    # --- stores ----------------------------------------------------------------------------------

    def store(self, buffer: Buffer, idx: tuple[Expr, ...], value: Expr, combiner: str | None, scope: Scope) -> None:
        """buffer[idx] = value for one point, or for all lanes of one vector."""
        offset = flat(buffer, idx)
        lane = self.lane_of(offset)
        operand = self.value(value, scope)
        target = self.buffer_name(buffer)
        if lane is None:
            place = f"{target}[{bare(self.index(offset, scope), offset)}]"
            scope.line(f"{place} = {_combine(combiner, place, operand.text, buffer.dtype)};")
            return
        text = self.widened(operand, buffer.dtype, self.lanes)
        step = coefficient(offset, lane)
        count = self.active(lane, scope)
        if combiner is None and step is not None and buffer.dtype in _VECTOR_DTYPES and (step == 1 or count is None):
            start = substitute(offset, {lane: index(0)})
            base = bare(self.index(start, scope), start)
            pointer = f"{target} + {base}" if base != "0" else target
            kind = f"{vector_elem(buffer.dtype)}x{self.lanes}"
            if step == 1:
                call = (
                    f"hr_store_{kind}({pointer}, {text})"
                    if count is None
                    else f"hr_store_n_{kind}({pointer}, {count}, {text})"
                )
            else:
                call = f"hr_store_strided_{kind}({pointer}, {step}, {text})"
            scope.line(call + ";")
            return
        self._store_lanes(buffer, offset, text, combiner, scope, lane)

    def _store_lanes(
        self, buffer: Buffer, offset: Expr, text: str, combiner: str | None, scope: Scope, lane: Expr
    ) -> None:
        name, i = scope.names.fresh("a"), scope.names.fresh("l")
        elem = vector_elem(buffer.dtype)
        scope.line(f"{CTYPES[elem]} {name}[{self.lanes}];")
        scope.line(f"hr_store_{elem}x{self.lanes}({name}, {text});")
        body = scope.child(binds=(lane,), fenced=True)
        self.lane_vars.discard(lane)
        self.variables[lane] = i
        place = f"{self.buffer_name(buffer)}[{bare(self.index(offset, body), offset)}]"
        item = f"({name}[{i}] != 0)" if buffer.dtype == "bool" else f"{name}[{i}]"
        body.line(f"{place} = {_combine(combiner, place, item, buffer.dtype)};")
        self.lane_vars.add(lane)
        del self.variables[lane]
        scope.close(f"for (int {i} = 0; {i} < {self.active(lane, scope) or self.lanes}; ++{i})", body)


def bare(text: str, e: Expr) -> str:
    """The text of an index expression without the parentheses around it."""
    return text[1:-1] if e.op in _LEVELS and text[0] == "(" else text


def vector_elem(dtype: str) -> str:
    """Element type of the vector that holds `dtype`."""
    if dtype in ("bool", "index"):
        return "i32" if dtype == "bool" else "i64"
    return "u16" if dtype in HALF else dtype


def _affine_in(e: Expr, lanes: set[Expr]) -> bool:
    return all(coefficient(e, v) is not None for v in free_vars(e) if v in lanes)


def _combine(combiner: str | None, old: str, new: str, dtype: str) -> str:
    return new if combiner is None else scalar.binary_op(combiner, old, new, dtype)
