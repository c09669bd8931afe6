"""Scalar expressions: one interned node class, so that equal expressions are one object.

Interning makes `is` the equality test and common subexpressions free to find. Nodes are built with
the functions below or with operators; index arithmetic (dtype "index") simplifies itself on
construction through `headrace.program.index`.

Operators (`op`):
  const (arg: value) · var (arg: (name, extent): 0 ≤ value < extent) · sym (arg: Sym) ·
  load (args: index; arg: Buffer) · check (args: index; arg: extent) ·
  reduce (args: values, inits; arg: (kind, axes)) · item (args: reduce; arg: position) ·
  cast (arg: mode) · select (args: condition, a, b; the side not taken is never evaluated) ·
  word (args: up to four values of one byte or two of bf16; as i32, the first in its lowest bits) ·
  every name in UNARY and BINARY.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Union

from headrace.program.dtypes import is_float, is_int

if TYPE_CHECKING:
    from headrace.program.ir import Buffer

ARITHMETIC = ("add", "sub", "mul", "div", "floordiv", "mod", "fmod", "min", "max", "pow")
BITS = ("and", "or", "xor", "shl", "shr")
COMPARE = ("lt", "le", "eq", "ne")
BINARY = ARITHMETIC + BITS + COMPARE + ("atan2", "dot4", "dot2")
MATH = (
    "exp", "expm1", "log", "log1p", "log2", "sqrt", "rsqrt", "tanh", "sigmoid", "erf", "softplus",
    "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh",
    "floor", "ceil", "round", "trunc",
)  # fmt: skip
UNARY = ("neg", "abs", "not", "isnan", "isinf", *MATH)
REDUCTIONS = ("sum", "prod", "max", "min", "and", "or", "argmax", "argmin", "argmax_last", "argmin_last")


@dataclass(frozen=True)
class Sym:
    """A run-time extent: 1 ≤ value ≤ bound and value % divisor == 0."""

    name: str
    bound: int
    divisor: int = 1


@dataclass(frozen=True)
class Axis:
    """A loop: `var` runs over 0 … extent-1."""

    var: Expr
    extent: Extent

    @property
    def bound(self) -> int:
        """Largest extent."""
        return extent_bound(self.extent)


class Expr:
    """One interned node; see the module's docstring for the operators."""

    __slots__ = ("__weakref__", "arg", "args", "dtype", "op")
    op: str
    dtype: str
    args: tuple[Expr, ...]
    arg: Any

    def __repr__(self) -> str:
        from headrace.program.show import show_expr

        return show_expr(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return make, (self.op, self.dtype, self.args, self.arg)

    def __copy__(self) -> Expr:
        return self

    def __deepcopy__(self, memo: object) -> Expr:
        return self

    def __add__(self, other: Scalar) -> Expr:
        return binary("add", self, other)

    def __radd__(self, other: Scalar) -> Expr:
        return binary("add", other, self)

    def __sub__(self, other: Scalar) -> Expr:
        return binary("sub", self, other)

    def __rsub__(self, other: Scalar) -> Expr:
        return binary("sub", other, self)

    def __mul__(self, other: Scalar) -> Expr:
        return binary("mul", self, other)

    def __rmul__(self, other: Scalar) -> Expr:
        return binary("mul", other, self)

    def __truediv__(self, other: Scalar) -> Expr:
        return binary("div", self, other)

    def __rtruediv__(self, other: Scalar) -> Expr:
        return binary("div", other, self)

    def __floordiv__(self, other: Scalar) -> Expr:
        return binary("floordiv", self, other)

    def __mod__(self, other: Scalar) -> Expr:
        return binary("mod", self, other)

    def __neg__(self) -> Expr:
        return unary("neg", self)

    def __lt__(self, other: Scalar) -> Expr:
        return binary("lt", self, other)

    def __le__(self, other: Scalar) -> Expr:
        return binary("le", self, other)

    def __gt__(self, other: Scalar) -> Expr:
        return binary("lt", other, self)

    def __ge__(self, other: Scalar) -> Expr:
        return binary("le", other, self)

    def __and__(self, other: Scalar) -> Expr:
        return binary("and", self, other)

    def __or__(self, other: Scalar) -> Expr:
        return binary("or", self, other)

    def __invert__(self) -> Expr:
        return unary("not", self)

    def eq(self, other: Scalar) -> Expr:
        """Element-wise equality (`==` is identity)."""
        return binary("eq", self, other)

    def ne(self, other: Scalar) -> Expr:
        return binary("ne", self, other)

    def __bool__(self) -> bool:
        raise TypeError(f"the truth of {self!r} is known only at run time; use select()")


Scalar = Union[Expr, int, float, bool]
Extent = Union[int, Expr]

_interned: weakref.WeakValueDictionary[tuple[Any, ...], Expr] = weakref.WeakValueDictionary()


def _arg_key(arg: Any) -> Any:
    """A key that keeps -0.0 apart from 0.0, NaN equal to itself, and 1 apart from True and 1.0."""
    if isinstance(arg, float):
        return (float, "nan" if math.isnan(arg) else arg.hex())
    if isinstance(arg, (bool, int)):
        return (type(arg), arg)
    return arg


def make(op: str, dtype: str, args: tuple[Expr, ...] = (), arg: Any = None) -> Expr:
    """The one node with these parts; no simplification."""
    key = (op, dtype, args, _arg_key(arg))
    found = _interned.get(key)
    if found is None:
        found = Expr.__new__(Expr)
        found.op, found.dtype, found.args, found.arg = op, dtype, args, arg
        _interned[key] = found
    return found


def const(value: float | int | bool, dtype: str) -> Expr:
    """A literal of the given dtype."""
    if dtype == "bool":
        value = bool(value)
    elif is_float(dtype):
        value = float(value)
    else:
        value = int(value)
    return make("const", dtype, (), value)


def index(value: Scalar) -> Expr:
    """An expression of dtype "index"."""
    if isinstance(value, Expr):
        return value if value.dtype == "index" else cast(value, "index")
    return const(int(value), "index")


def var(name: str, extent: Extent) -> Expr:
    """A loop variable with 0 ≤ value < extent."""
    return make("var", "index", (), (name, extent))


def sym(symbol: Sym) -> Expr:
    return make("sym", "index", (), symbol)


_count = iter(range(1 << 62))


def fresh(prefix: str, extent: Extent) -> Axis:
    """A new axis whose variable no other axis has."""
    return Axis(var(f"{prefix}{next(_count)}", extent), extent)


def extent_bound(extent: Extent) -> int:
    """Largest value of an extent."""
    if isinstance(extent, int):
        return extent
    from headrace.program.index import bounds

    return bounds(extent)[1]


def is_const(e: Scalar, value: float | None = None) -> bool:
    if not isinstance(e, Expr):
        return value is None or e == value
    return e.op == "const" and (value is None or e.arg == value)


def _pair(a: Scalar, b: Scalar) -> tuple[Expr, Expr]:
    if isinstance(a, Expr) and isinstance(b, Expr):
        if a.dtype != b.dtype:
            raise TypeError(f"operands differ in dtype: {a.dtype} and {b.dtype}")
        return a, b
    if isinstance(a, Expr):
        return a, const(b, a.dtype)  # type: ignore[arg-type]
    if isinstance(b, Expr):
        return const(a, b.dtype), b
    raise TypeError("one operand must be an expression")


def binary(op: str, a: Scalar, b: Scalar) -> Expr:
    """a OP b; both of one dtype (Python numbers take the other's). Comparisons give bool.

    floordiv and mod round toward minus infinity; div on integers truncates as C does; fmod has the
    sign of the dividend; min and max propagate NaN. dot4 of i32 is the sum over their four bytes of
    unsigned byte of a times signed byte of b; dot2 of i32 is the same of their two bf16, as f32.
    """
    x, y = _pair(a, b)
    if x.dtype == "index":
        from headrace.program.index import index_binary

        return index_binary(op, x, y)
    if op in COMPARE:
        return make(op, "bool", (x, y))
    if op == "dot2":
        return make(op, "f32", (x, y))
    if x.dtype == "bool" and op in BITS:
        return _bool_binary(op, x, y)
    return make(op, x.dtype, (x, y))


def _bool_binary(op: str, x: Expr, y: Expr) -> Expr:
    for p, q in ((x, y), (y, x)):
        if p.op == "const":
            if op == "and":
                return q if p.arg else p
            if op == "or":
                return p if p.arg else q
    if op in ("and", "or") and x is y:
        return x
    return make(op, "bool", (x, y))


def unary(op: str, a: Expr) -> Expr:
    if a.dtype == "index" and op == "neg":
        return binary("sub", const(0, "index"), a)
    if op == "not" and a.op == "const":
        return const(not a.arg, "bool") if a.dtype == "bool" else const(~a.arg, a.dtype)
    return make(op, "bool" if op in ("isnan", "isinf") else a.dtype, (a,))


def call(name: str, *args: Scalar) -> Expr:
    """A named function of one or two arguments: call("exp", x), call("pow", x, 2.0)."""
    if name in UNARY and len(args) == 1 and isinstance(args[0], Expr):
        return unary(name, args[0])
    if name in BINARY and len(args) == 2:
        return binary(name, args[0], args[1])
    raise ValueError(f"no scalar function {name!r} of {len(args)} arguments")


def minimum(a: Scalar, b: Scalar) -> Expr:
    return binary("min", a, b)


def maximum(a: Scalar, b: Scalar) -> Expr:
    return binary("max", a, b)


def cast(a: Expr, dtype: str, mode: str = "trunc") -> Expr:
    """Conversion. Float → integer: mode "trunc" rounds toward zero, "round" half to even; both saturate
    at the integer's range, NaN gives 0. Integer → narrower integer: "trunc" wraps, "sat" saturates.
    To bool: value ≠ 0."""
    if a.dtype == dtype:
        return a
    if a.op == "const" and is_int(a.dtype) and (is_int(dtype) or is_float(dtype)):
        from headrace.program.dtypes import int_range

        if is_float(dtype) or int_range(dtype)[0] <= a.arg <= int_range(dtype)[1]:
            return const(a.arg, dtype)
    return make("cast", dtype, (a,), mode)


def select(cond: Expr, a: Scalar, b: Scalar) -> Expr:
    """a where cond, else b. The side that is not taken is never evaluated, so it may load out of bounds."""
    if cond.op == "const":
        x, y = _pair(a, b) if isinstance(a, Expr) or isinstance(b, Expr) else (a, b)
        chosen = x if cond.arg else y
        if not isinstance(chosen, Expr):
            raise TypeError("select needs an expression on one side")
        return chosen
    x, y = _pair(a, b)
    return x if x is y else make("select", x.dtype, (cond, x, y))


def check(i: Expr, extent: Extent) -> Expr:
    """Index `i` if 0 ≤ i < extent; otherwise the run fails with an error code and the element 0 is read."""
    i = index(i)
    from headrace.program.index import bounds

    lo, hi = bounds(i)
    if isinstance(extent, int) and lo >= 0 and hi < extent:
        return i
    return make("check", "index", (i,), extent)


def word(parts: list[Expr]) -> Expr:
    """One to four u8 or i8, or one or two bf16, side by side in an i32, the first in its lowest bits, the rest 0."""
    return make("word", "i32", tuple(parts))


def all_of(conds: list[Expr]) -> Expr:
    """Conjunction; true for an empty list."""
    out = const(True, "bool")
    for c in conds:
        out = out & c
    return out


def load(buffer: Buffer, idx: tuple[Scalar, ...]) -> Expr:
    """The element of `buffer` at `idx` (one index per dimension)."""
    if len(idx) != len(buffer.shape):
        raise ValueError(f"{buffer.name} has {len(buffer.shape)} dimensions, not {len(idx)}")
    return make("load", buffer.dtype, tuple(index(i) for i in idx), buffer)


_IDENTITY = {"sum": 0, "prod": 1, "and": True, "or": False}


def reduce_identity(kind: str, dtype: str) -> Expr:
    """The neutral element of a reduction."""
    if kind in _IDENTITY:
        return const(_IDENTITY[kind], dtype)
    if is_float(dtype):
        return const(-math.inf if "max" in kind else math.inf, dtype)
    if dtype == "bool":
        return const("max" not in kind, dtype)
    from headrace.program.dtypes import int_range

    lo, hi = int_range(dtype)
    return const(lo if "max" in kind else hi, dtype)


def reduce(kind: str, extents: tuple[Extent, ...], fn: Callable[..., Expr], prefix: str = "r") -> Expr:
    """Reduction of fn(*indices) over a box.

    kind sum, prod, max, min (NaN propagates), and, or: same dtype as fn's value, which is also the
    accumulator's. argmax/argmin(_last): dtype index, the position in the one axis of the first (last)
    extreme element. An empty box gives the neutral element.
    """
    axes = tuple(fresh(prefix, e) for e in extents)
    return reduce_over(kind, axes, fn(*(a.var for a in axes)))


def reduce_over(kind: str, axes: tuple[Axis, ...], value: Expr) -> Expr:
    """Reduction of `value` over given axes; see reduce()."""
    if kind.startswith("arg"):
        if len(axes) != 1:
            raise ValueError(f"{kind} runs over one axis, not {len(axes)}")
        return make("reduce", "index", (value,), (kind, axes))
    if not axes:
        return value
    return make("reduce", value.dtype, (value,), (kind, axes))


def walk(*roots: Expr) -> Iterator[Expr]:
    """Every distinct node below and including the roots, children first."""
    seen: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        node, done = stack.pop()
        if done:
            yield node
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child in children(node))


def children(e: Expr) -> tuple[Expr, ...]:
    """Arguments, and for reductions and checks also the extents that are expressions."""
    if e.op == "reduce":
        return e.args + tuple(a.extent for a in e.arg[1] if isinstance(a.extent, Expr))
    if e.op == "check" and isinstance(e.arg, Expr):
        return (*e.args, e.arg)
    return e.args


def rebuild(e: Expr, args: tuple[Expr, ...], arg: Any = None) -> Expr:
    """The node `e` with other arguments, simplified again."""
    arg = e.arg if arg is None else arg
    if e.op in BINARY:
        return binary(e.op, args[0], args[1])
    if e.op in UNARY:
        return unary(e.op, args[0])
    if e.op == "cast":
        return cast(args[0], e.dtype, arg)
    if e.op == "select":
        return select(args[0], args[1], args[2])
    if e.op == "check":
        return check(args[0], arg)
    return make(e.op, e.dtype, args, arg)


def transform(root: Expr, fn: Callable[[Expr], Expr | None], memo: dict[Expr, Expr] | None = None) -> Expr:
    """Bottom-up rewrite: fn sees each rebuilt node and returns its replacement or None.

    memo: nodes of the original that are already decided; they are not looked into.
    """
    memo = {} if memo is None else memo

    def go(e: Expr) -> Expr:
        found = memo.get(e)
        if found is not None:
            return found
        args = tuple(go(a) for a in e.args)
        arg = e.arg
        if e.op == "reduce":
            arg = (e.arg[0], tuple(_go_axis(a) for a in e.arg[1]))
        elif e.op == "check" and isinstance(e.arg, Expr):
            extent = go(e.arg)
            arg = extent.arg if extent.op == "const" else extent
        same = all(x is y for x, y in zip(args, e.args, strict=True)) and arg is e.arg
        out = e if same or (e.op in ("const", "var", "sym")) else rebuild(e, args, arg)
        new = fn(out)
        out = out if new is None else new
        memo[e] = out
        return out

    def _go_axis(a: Axis) -> Axis:
        if isinstance(a.extent, int):
            return a
        extent = go(a.extent)
        return Axis(a.var, extent.arg if extent.op == "const" else extent)

    return go(root)


@lru_cache(maxsize=1 << 18)
def mentioned(e: Expr) -> frozenset[Expr]:
    """Every variable that occurs in `e`, those of its reductions included."""
    if e.op == "var":
        return frozenset((e,))
    return frozenset().union(*(mentioned(c) for c in children(e)))


def substitute(root: Expr, mapping: dict[Expr, Expr]) -> Expr:
    """Replace variables (or any nodes) by expressions, all at once: what is put in is not replaced again."""
    if not mapping:
        return root
    if all(k.op == "var" for k in mapping):
        return substitution(mapping)(root)
    return transform(root, lambda e: None, dict(mapping))


def substitution(mapping: dict[Expr, Expr]) -> Callable[[Expr], Expr]:
    """The substitution of variables as a function, for several expressions that share parts."""
    keys = mapping.keys()
    memo = dict(mapping)

    def axis(a: Axis) -> Axis:
        extent = a.extent if isinstance(a.extent, int) else go(a.extent)
        return Axis(a.var, extent.arg if isinstance(extent, Expr) and extent.op == "const" else extent)

    def go(e: Expr) -> Expr:
        found = memo.get(e)
        if found is not None:
            return found
        if keys.isdisjoint(mentioned(e)):
            return e
        arg = e.arg
        if e.op == "reduce":
            arg = (arg[0], tuple(axis(a) for a in arg[1]))
        elif e.op == "check" and isinstance(arg, Expr):
            extent = go(arg)
            arg = extent.arg if extent.op == "const" else extent
        out = memo[e] = rebuild(e, tuple([go(a) for a in e.args]), arg)
        return out

    return go


def rename_reductions(root: Expr) -> Expr:
    """A copy whose reductions have axes of their own, so that it may stand beside the original."""
    fresh_axes: dict[Expr, Expr] = {}

    def go(e: Expr, env: dict[Expr, Expr]) -> Expr:
        if e.op == "var":
            return env.get(e, e)
        if e.op == "reduce":
            axes = tuple(fresh("r", a.extent) for a in e.arg[1])
            inner = {**env, **{a.var: b.var for a, b in zip(e.arg[1], axes, strict=True)}}
            return make("reduce", e.dtype, tuple(go(x, inner) for x in e.args), (e.arg[0], axes))
        if not e.args:
            return e
        return rebuild(e, tuple(go(a, env) for a in e.args))

    return go(root, fresh_axes)
