"""Reductions in C: accumulators around the loops of the reduction.

Reductions of equal boxes share their loops, so that four gates, or the points of a register tile, read
each operand once.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from headrace.codegen import scalar
from headrace.codegen.emit import Emitter, vector_elem
from headrace.codegen.scalar import CTYPES
from headrace.codegen.scope import Operand, Scope
from headrace.program.dtypes import is_float, size_of
from headrace.program.expr import Axis, Expr, Extent, index, is_const, reduce_identity, substitute, var, walk
from headrace.program.index import coefficient, free_vars
from headrace.schedule import steps as st

CACHE_LINE = 64  # bytes


@dataclass
class Accumulator:
    """C variables of one reduction: one per independent partial result."""

    expr: Expr
    value: Expr  # in the group's loop variables
    names: list[str]
    lanes: int
    position: str = ""  # argmax/argmin: the variable of the position


@dataclass
class Group:
    """Reductions that share their loops."""

    axes: tuple[Axis, ...]  # with the group's own variables
    accumulators: list[Accumulator]
    vector: int | None = None  # position of the axis that is vectorised


class ReductionEmitter:
    """Emits reductions as the schedule says."""

    def __init__(self, schedule: st.Schedule, spatial: int) -> None:
        self.spatial = spatial
        self.unroll, self.ways = 1, 1
        self.order: tuple[int, ...] = ()
        self.vector: st.Vectorize | None = None
        self.prefetch = st.Prefetch() in schedule
        for step in schedule:
            if isinstance(step, st.Unroll):
                self.unroll = step.count
            elif isinstance(step, st.Accumulators):
                self.ways = step.count
            elif isinstance(step, st.OrderReduce):
                self.order = step.axes
            elif isinstance(step, st.Vectorize) and step.axis >= spatial:
                self.vector = step

    def permutation(self, n: int) -> tuple[int, ...]:
        return self.order if len(self.order) == n else tuple(range(n))

    def ordered(self, axes: tuple[Axis, ...], used: frozenset[Expr]) -> list[Axis]:
        """The axes that occur in `used`, outermost loop first."""
        return [axes[p] for p in self.permutation(len(axes)) if axes[p].var in used]

    def vector_axis(self, axes: tuple[Axis, ...]) -> Axis | None:
        """The axis that this schedule vectorises, if it is one of these."""
        if self.vector is None or self.vector.axis - self.spatial >= len(axes):
            return None
        return axes[self.vector.axis - self.spatial]

    def single(self, emitter: Emitter, e: Expr, scope: Scope) -> Operand:
        """A reduction met inside an expression."""
        found = scope.find((e, self._lanes(emitter, e)))
        if found is None:
            self._emit_groups(emitter, scope, [e])
            found = scope.find((e, self._lanes(emitter, e)))
            assert found is not None
        return found

    def prepare(self, emitter: Emitter, scope: Scope, roots: list[Expr]) -> None:
        """Emit all reductions that the roots are sure to need."""
        sure = st.sure_reductions(roots)
        self._emit_groups(emitter, scope, [e for e in sure if scope.find((e, self._lanes(emitter, e))) is None])

    def _lanes(self, emitter: Emitter, e: Expr) -> int:
        return emitter.lanes if emitter.lane_of(e) is not None else 1

    def _emit_groups(self, emitter: Emitter, scope: Scope, found: list[Expr]) -> None:
        groups: dict[tuple[object, ...], list[Expr]] = {}
        for e in found:
            extents: tuple[Extent, ...] = tuple(a.extent for a in e.arg[1])
            groups.setdefault((extents, e.arg[0].startswith("arg")), []).append(e)
        for members in groups.values():
            home = scope.home(frozenset().union(*(free_vars(e) for e in members)))
            if any(emitter.home(e, scope) is scope for e in members):
                home = scope
            group = self._group(emitter, home, members)
            self._loops(emitter, home, group, 0)
            self._finish(emitter, home, group)

    def _group(self, emitter: Emitter, scope: Scope, members: list[Expr]) -> Group:
        axes = []
        for a in members[0].arg[1]:
            v, name = scope.names.variable("k", a.extent)
            emitter.variables[v] = name
            axes.append(Axis(v, a.extent))
        vector = None
        if self.vector is not None and self.vector.axis - self.spatial < len(axes):
            position = self.vector.axis - self.spatial
            vector = position if axes[position].extent != 1 else None
        group = Group(tuple(axes), [], vector)
        for e in members:
            mapping = {old.var: new.var for old, new in zip(e.arg[1], axes, strict=True)}
            value = substitute(e.args[0], mapping)
            group.accumulators.append(self._accumulator(emitter, scope, e, value, vector is not None))
        return group

    def _accumulator(self, emitter: Emitter, scope: Scope, e: Expr, value: Expr, vector: bool) -> Accumulator:
        kind = e.arg[0]
        lanes = emitter.lanes if vector else self._lanes(emitter, e)
        if vector and emitter.lane_of(e) is not None:
            raise AssertionError("a reduction axis and another axis are vectorised")
        ways = self.ways if kind in ("sum", "prod", "max", "min") else 1
        if vector and self.vector is not None:
            ways = max(ways, self.vector.registers)
        start = scalar.literal(reduce_identity(kind, value.dtype).arg, value.dtype)
        names = [scope.names.fresh("acc") for _ in range(ways)]
        for name in names:
            if lanes == 1:
                scope.line(f"{CTYPES[value.dtype]} {name} = {start};")
            else:
                elem = vector_elem(value.dtype)
                if value.dtype == "bool":
                    start = "-1" if kind in ("and", "min") else "0"
                scope.line(f"{elem}x{lanes} {name} = hr_splat_{elem}x{lanes}({start});")
        position = ""
        if kind.startswith("arg"):
            position = scope.names.fresh("at")
            scope.line(f"ptrdiff_t {position} = -1;")
        return Accumulator(e, value, names, lanes, position)

    # --- loops -----------------------------------------------------------------------------------

    def _loops(
        self, emitter: Emitter, scope: Scope, group: Group, depth: int, env: dict[Expr, Expr] | None = None
    ) -> None:
        env = env or {}
        order = self._nesting(group)
        if depth == len(order):
            self._update(emitter, scope, group, env, 0)
            return
        axis = group.axes[order[depth]]
        innermost = depth == len(order) - 1
        if axis.extent == 1:
            self._loops(emitter, scope, group, depth + 1, {**env, axis.var: index(0)})
        elif group.vector == order[depth]:
            self._vector_loop(emitter, scope, group, depth, env, axis)
        elif innermost and max(self.unroll, self.ways) > 1:
            self._unrolled(emitter, scope, group, depth, env, axis)
        else:
            inner = scope.child(binds=(axis.var,))
            self._loops(emitter, inner, group, depth + 1, env)
            name = emitter.variables[axis.var]
            scope.close(f"for (ptrdiff_t {name} = 0; {name} < {emitter.extent(axis.extent, scope)}; ++{name})", inner)

    def _nesting(self, group: Group) -> list[int]:
        order = list(self.permutation(len(group.axes)))
        if group.vector is not None:  # the vectorised axis is the innermost
            order.remove(group.vector)
            order.append(group.vector)
        return order

    def _unrolled(
        self, emitter: Emitter, scope: Scope, group: Group, depth: int, env: dict[Expr, Expr], axis: Axis
    ) -> None:
        count, name = max(self.unroll, self.ways), emitter.variables[axis.var]
        if isinstance(axis.extent, int) and axis.extent <= count:
            for u in range(axis.extent):
                self._update(emitter, scope, group, {**env, axis.var: index(u)}, u)
            return
        limit = emitter.extent(axis.extent, scope)
        inner = scope.child(binds=(axis.var,))
        for u in range(count):
            self._update(emitter, inner, group, {**env, axis.var: axis.var + u}, u)
        stop = f"{axis.extent // count * count}" if isinstance(axis.extent, int) else f"{limit} / {count} * {count}"
        scope.close(f"for (ptrdiff_t {name} = 0; {name} < {stop}; {name} += {count})", inner)
        if isinstance(axis.extent, int):
            for u in range(axis.extent % count):
                self._update(emitter, scope, group, {**env, axis.var: index(axis.extent // count * count + u)}, u)
            return
        rest = scope.child(binds=(axis.var,))
        self._update(emitter, rest, group, env, 0)
        scope.close(f"for (ptrdiff_t {name} = {stop}; {name} < {limit}; ++{name})", rest)

    def _vector_loop(
        self, emitter: Emitter, scope: Scope, group: Group, depth: int, env: dict[Expr, Expr], axis: Axis
    ) -> None:
        assert self.vector is not None
        lanes, registers = self.vector.lanes, self.vector.registers
        lane = var(f"lane{lanes}", lanes)
        emitter.lane_vars.add(lane)
        name, block = emitter.variables[axis.var], lanes * registers
        extent = axis.extent
        assert isinstance(extent, int)
        inner = scope.child(binds=(axis.var,))
        for j in range(registers):
            self._update(emitter, inner, group, {**env, axis.var: axis.var + j * lanes + lane}, j)
        main = extent // block * block
        if main:
            scope.close(f"for (ptrdiff_t {name} = 0; {name} < {main}; {name} += {block})", inner)
        for j, start in enumerate(range(main, extent, lanes)):
            active = min(lanes, extent - start)
            if active == 1 and lanes > 1:
                last = var("lane1", 1)
            else:
                last = var(f"lane{active}", active)
            emitter.lane_vars.add(last)
            self._update(emitter, scope, group, {**env, axis.var: index(start) + last}, j, active)

    def _update(
        self,
        emitter: Emitter,
        scope: Scope,
        group: Group,
        env: dict[Expr, Expr],
        turn: int,
        active: int | None = None,
    ) -> None:
        """One more point into every accumulator."""
        if self.prefetch and group.vector is None:
            self._fetch_ahead(emitter, scope, group, env)
        for a in group.accumulators:
            kind, value = a.expr.arg[0], substitute(a.value, env)
            if kind == "sum" and is_const(value, 0):
                continue  # a condition that is false here
            name = a.names[turn % len(a.names)]
            if a.position:
                self._update_position(emitter, scope, a, kind, value, group, env)
                continue
            if kind == "sum" and (value.op in ("dot4", "dot2") or (value.op == "mul" and value.dtype == "f32")):
                x, y = (self._text(emitter, scope, v, a.lanes) for v in value.args)
                suffix = value.dtype if a.lanes == 1 else f"{value.dtype}x{a.lanes}"
                if active is None or active == a.lanes:
                    scope.line(f"{name} = hr_{'fma' if value.op == 'mul' else value.op}_{suffix}({x}, {y}, {name});")
                    continue
            text = self._text(emitter, scope, value, a.lanes)
            if active is not None and active < a.lanes:
                text = self._masked(text, kind, value.dtype, a.lanes, active)
            scope.line(f"{name} = {combine(kind, name, text, value.dtype, a.lanes)};")

    def _fetch_ahead(self, emitter: Emitter, scope: Scope, group: Group, env: dict[Expr, Expr]) -> None:
        """Ask for the packed constants that the next tile reads where this one reads its own."""
        values = [substitute(a.value, env) for a in group.accumulators]
        flat = [e for e in walk(*values) if e.op == "load" and e.arg.space == "const" and len(e.args) == 1]
        lanes = {e: emitter.lane_of(e) for e in flat}
        found = [(e, lane) for e, lane in lanes.items() if lane is not None and coefficient(e.args[0], lane) == 1]
        panel = prod(a.bound for a in group.axes) * len(found) * emitter.lanes
        for n, (e, lane) in enumerate(found):
            size = size_of(e.dtype)
            if n * emitter.lanes * size % CACHE_LINE == 0:
                start = emitter.index(substitute(e.args[0], {lane: index(0)}), scope)
                scope.line(f"fetch_ahead({emitter.buffer_name(e.arg)} + {start}, {panel * size});")

    def _masked(self, text: str, kind: str, dtype: str, lanes: int, active: int) -> str:
        """Inactive lanes replaced by the neutral element."""
        elem = vector_elem(dtype)
        t = f"{elem}x{lanes}"
        start = (
            "-1"
            if dtype == "bool" and kind in ("and", "min")
            else scalar.literal(reduce_identity(kind, dtype).arg, dtype)
        )
        mask = f"hr_lt_{t}(hr_iota_{t}(), hr_splat_{t}({active}))"
        return f"hr_select_{t}({mask}, {text}, hr_splat_{t}({start}))"

    def _update_position(
        self,
        emitter: Emitter,
        scope: Scope,
        a: Accumulator,
        kind: str,
        value: Expr,
        group: Group,
        env: dict[Expr, Expr],
    ) -> None:
        x = emitter.scalar(value, scope).text
        best, at = a.names[0], a.position
        v = group.axes[0].var
        here = emitter.index(env.get(v, v), scope)
        better = _better(kind, x, best, value.dtype)
        scope.line(f"if ({at} < 0 || {better}) {{ {best} = {x}; {at} = {here}; }}")

    def _text(self, emitter: Emitter, scope: Scope, value: Expr, lanes: int) -> str:
        operand = emitter.value(value, scope)
        return emitter.widened(operand, value.dtype, lanes) if lanes > 1 else operand.text

    # --- results ---------------------------------------------------------------------------------

    def _finish(self, emitter: Emitter, scope: Scope, group: Group) -> None:
        for a in group.accumulators:
            kind = a.expr.arg[0]
            first = a.names[0]
            if a.position:
                scope.line(f"{a.position} = {a.position} < 0 ? 0 : {a.position};")
                scope.values[(a.expr, 1)] = Operand(a.position, "index")
                continue
            for other in a.names[1:]:
                scope.line(f"{first} = {combine(kind, first, other, a.value.dtype, a.lanes)};")
            lanes = a.lanes
            if group.vector is not None and lanes > 1:
                total = scope.names.fresh("s")
                whole = fold(scope, kind, first, a.value.dtype, lanes)
                scope.line(f"const {CTYPES[a.value.dtype]} {total} = {whole};")
                first, lanes = total, 1
            scope.values[(a.expr, lanes)] = Operand(first, a.expr.dtype, lanes)


def _better(kind: str, x: str, best: str, dtype: str) -> str:
    """C text: whether x takes the place of the best so far. NaN counts as extreme."""
    last = kind.endswith("_last")
    x, best = scalar.widen(x, dtype), scalar.widen(best, dtype)
    text = f"{x} {'>' if 'max' in kind else '<'}{'=' if last else ''} {best}"
    if not is_float(dtype):
        return text
    return f"{text} || {x} != {x}" if last else f"{text} || ({x} != {x} && {best} == {best})"


def combine(kind: str, a: str, b: str, dtype: str, lanes: int) -> str:
    """C text of one reduction step."""
    op = {"sum": "add", "prod": "mul"}.get(kind, kind)
    if lanes == 1:
        return scalar.binary_op(op, a, b, dtype)
    if op in ("and", "or") or dtype == "bool":
        return f"{a} {'&' if op in ('and', 'min') else '|'} {b}"
    if op in ("add", "mul") and dtype == "f32":
        return f"{a} {'+' if op == 'add' else '*'} {b}"
    return f"hr_{op}_{dtype}x{lanes}({a}, {b})"


def fold(scope: Scope, kind: str, a: str, dtype: str, lanes: int) -> str:
    """C text of the reduction of all lanes."""
    if kind in ("and", "or") and dtype != "bool":
        while lanes > 1:  # one half onto the other
            lanes, t = lanes // 2, f"{dtype}x{lanes}"
            half, name = f"{dtype}x{lanes}" if lanes > 1 else CTYPES[dtype], scope.names.fresh("half")
            scope.line(f"const {half} {name} = hr_lo_{t}({a}) {'&' if kind == 'and' else '|'} hr_hi_{t}({a});")
            a = name
        return a
    if dtype == "bool":
        return f"hr_{'all' if kind in ('and', 'min') else 'any'}_i32x{lanes}({a})"
    return f"hr_h{kind}_{dtype}x{lanes}({a})"
