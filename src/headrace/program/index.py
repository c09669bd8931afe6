"""Index arithmetic: ranges, and a normal form for sums of products with // and %.

An index expression is kept as a sum of atoms with integer coefficients. Atoms are variables, symbols,
loads, checks, and the //, %, min, max and products that do not simplify. The rules for // and %
use ranges, so that reshapes of reshapes and splits of axes cancel:
    (64*i + j) // 64 → i        (64*i + j) % 64 → j        if 0 ≤ j < 64
    c*(x // c) + x % c → x
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from headrace.program.dtypes import is_int
from headrace.program.expr import Expr, Sym, const, make

if TYPE_CHECKING:
    from headrace.program.ir import Buffer

_FAR = 1 << 62


@lru_cache(maxsize=1 << 18)
def bounds(e: Expr) -> tuple[int, int]:
    """Smallest and largest value of an index expression (inclusive)."""
    if e.op == "const":
        return e.arg, e.arg
    if e.op == "var":
        extent = e.arg[1]
        return 0, max((extent if isinstance(extent, int) else bounds(extent)[1]) - 1, 0)
    if e.op == "sym":
        s: Sym = e.arg
        return s.divisor, s.bound
    if e.op == "check":
        extent = e.arg if isinstance(e.arg, int) else bounds(e.arg)[1]
        return 0, max(extent - 1, 0)
    if e.op == "reduce":
        return (0, max(0, e.arg[1][0].bound - 1)) if e.arg[0].startswith("arg") else (-_FAR, _FAR)
    if e.op in ("add", "sub", "mul", "min", "max", "floordiv", "mod"):
        return _binary_bounds(e.op, bounds(e.args[0]), bounds(e.args[1]))
    if e.op == "select":
        (a, b), (c, d) = bounds(e.args[1]), bounds(e.args[2])
        return min(a, c), max(b, d)
    if e.op == "load" and e.arg.data is not None and e.dtype != "bool" and is_int(e.dtype):
        return _contents(e.arg)
    if e.op == "cast" and e.args[0].op == "load" and e.args[0].arg.data is not None and is_int(e.args[0].dtype):
        return bounds(e.args[0])
    if e.op == "cast" and e.args[0].dtype in ("u8", "u16", "i8", "i16", "bool"):
        source = e.args[0].dtype
        bits = 8 if source in ("u8", "i8") else 16
        if source == "bool":
            return 0, 1
        return (0, (1 << bits) - 1) if source[0] == "u" else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    return -_FAR, _FAR


@lru_cache(maxsize=1 << 12)
def _contents(table: Buffer) -> tuple[int, int]:
    """Smallest and largest element of an integer constant."""
    if table.data is None or table.data.size == 0:
        return -_FAR, _FAR
    return int(table.data.min()), int(table.data.max())


def _binary_bounds(op: str, x: tuple[int, int], y: tuple[int, int]) -> tuple[int, int]:
    if op == "add":
        return x[0] + y[0], x[1] + y[1]
    if op == "sub":
        return x[0] - y[1], x[1] - y[0]
    if op == "mul":
        products = [a * b for a in x for b in y]
        return min(products), max(products)
    if op == "min":
        return min(x[0], y[0]), min(x[1], y[1])
    if op == "max":
        return max(x[0], y[0]), max(x[1], y[1])
    if y[0] <= 0:
        return -_FAR, _FAR
    if op == "floordiv":
        quotients = [a // b for a in x for b in y]
        return min(quotients), max(quotients)
    if x[0] >= 0 and x[1] < y[0]:
        return x
    return 0, y[1] - 1


Terms = dict[Expr, int]  # atom → coefficient; the constant under the key ONE
ONE = const(1, "index")


def terms(e: Expr) -> Terms:
    """The sum that an index expression is."""
    if e.op == "const":
        return {ONE: e.arg} if e.arg else {}
    if e.op in ("add", "sub"):
        out = dict(terms(e.args[0]))
        sign = 1 if e.op == "add" else -1
        for atom, k in terms(e.args[1]).items():
            out[atom] = out.get(atom, 0) + sign * k
        return {a: k for a, k in out.items() if k}
    if e.op == "mul" and e.args[1].op == "const":
        return {a: k * e.args[1].arg for a, k in terms(e.args[0]).items()}
    return {e: 1}


def from_terms(parts: Terms) -> Expr:
    """The expression of a sum: atoms in a stable order, the constant last."""
    parts = _merge_divmod({a: k for a, k in parts.items() if k})
    constant = parts.pop(ONE, 0)
    out: Expr | None = None
    for atom, k in sorted(parts.items(), key=_order):
        if out is not None and k < 0:
            out = make("sub", "index", (out, _scaled(atom, -k)))
        else:
            term = _scaled(atom, k)
            out = term if out is None else make("add", "index", (out, term))
    if out is None:
        return const(constant, "index")
    if constant:
        op = "add" if constant > 0 else "sub"
        out = make(op, "index", (out, const(abs(constant), "index")))
    return out


def _scaled(atom: Expr, k: int) -> Expr:
    return atom if k == 1 else make("mul", "index", (atom, const(k, "index")))


def _order(item: tuple[Expr, int]) -> tuple[int, int, str]:
    atom, k = item
    return (k < 0, -abs(k), sort_key(atom))


@lru_cache(maxsize=1 << 16)
def sort_key(e: Expr) -> str:
    """A text that orders expressions the same way in every process."""
    arg = getattr(e.arg, "name", None) or (e.arg[0] if e.op == "var" else str(e.arg) if e.op == "const" else "")
    return f"{e.op}:{arg}({','.join(sort_key(a) for a in e.args)})"


def _merge_divmod(parts: Terms) -> Terms:
    """k*c*(x // c) + k*(x % c) → k*x, until nothing merges."""
    for atom, k in list(parts.items()):
        if atom.op != "mod" or atom.args[1].op != "const" or atom not in parts:
            continue
        x, c = atom.args[0], atom.args[1].arg
        quotient = index_binary("floordiv", x, atom.args[1])
        wanted = {a: f * c * k for a, f in terms(quotient).items()}
        if wanted and all(parts.get(a) == f for a, f in wanted.items()):
            rest = {a: f for a, f in parts.items() if a is not atom and a not in wanted}
            for a, f in terms(x).items():
                rest[a] = rest.get(a, 0) + f * k
            return _merge_divmod({a: f for a, f in rest.items() if f})
    return parts


@lru_cache(maxsize=1 << 18)
def index_binary(op: str, x: Expr, y: Expr) -> Expr:
    """Simplified x OP y on index expressions."""
    if op in ("add", "sub"):
        return _add(x, y, 1 if op == "add" else -1)
    if op == "mul":
        return _mul(x, y)
    if op == "floordiv":
        return _floordiv(x, y)
    if op == "mod":
        return _mod(x, y)
    if op in ("min", "max"):
        return _extreme(op, x, y)
    if op in ("lt", "le", "eq", "ne"):
        return _compare(op, x, y)
    if op == "div":
        if bounds(x)[0] >= 0 and bounds(y)[0] > 0:
            return _floordiv(x, y)
        return make("div", "index", (x, y))
    if op in ("and", "or", "xor", "shl", "shr"):
        return make(op, "index", (x, y))
    raise ValueError(f"{op} is not an operation on indices")


def _add(x: Expr, y: Expr, sign: int) -> Expr:
    out = dict(terms(x))
    for atom, k in terms(y).items():
        out[atom] = out.get(atom, 0) + sign * k
    return from_terms(out)


def _mul(x: Expr, y: Expr) -> Expr:
    if x.op == "const":
        x, y = y, x
    if y.op == "const":
        return from_terms({a: k * y.arg for a, k in terms(x).items()})
    if y.op in ("add", "sub"):
        x, y = y, x
    if x.op in ("add", "sub"):
        out: Terms = {}
        for a, k in terms(x).items():
            for b, m in terms(_mul(a, y)).items():
                out[b] = out.get(b, 0) + k * m
        return from_terms(out)
    if sort_key(x) > sort_key(y):
        x, y = y, x
    return make("mul", "index", (x, y))


def _split_by(x: Expr, c: int) -> tuple[Terms, Terms]:
    """x = c*quotient + rest, the rest's coefficients in [0, c)."""
    quotient: Terms = {}
    rest: Terms = {}
    for atom, k in terms(x).items():
        if k % c == 0:
            quotient[atom] = k // c
        elif atom is ONE:
            quotient[atom], rest[atom] = k // c, k % c
            quotient = {a: f for a, f in quotient.items() if f}
        else:
            rest[atom] = k
    return quotient, rest


def _floordiv(x: Expr, y: Expr) -> Expr:
    if y.op != "const":
        if x is y and bounds(y)[0] > 0:
            return ONE
        (lo, hi), (ylo, _) = bounds(x), bounds(y)
        if lo >= 0 and hi < ylo:
            return const(0, "index")
        factor = _divide_exactly(x, y)
        return factor if factor is not None else make("floordiv", "index", (x, y))
    c = y.arg
    if c == 0:
        return make("floordiv", "index", (x, y))
    if c < 0:
        return make("floordiv", "index", (x, y))
    if c == 1:
        return x
    quotient, rest = _split_by(x, c)
    remainder = from_terms(rest)
    lo, hi = bounds(remainder)
    if lo // c == hi // c:
        return _add(from_terms(quotient), const(lo // c, "index"), 1)
    if remainder.op == "mod" and remainder.args[1].op == "const" and remainder.args[1].arg % c == 0:
        narrowed = const(remainder.args[1].arg // c, "index")
        return _add(from_terms(quotient), _mod(_floordiv(remainder.args[0], y), narrowed), 1)
    if remainder.op == "floordiv" and remainder.args[1].op == "const":
        inner = make("floordiv", "index", (remainder.args[0], const(remainder.args[1].arg * c, "index")))
        return _add(from_terms(quotient), inner, 1)
    reduced = _common_factor(rest, c)
    if reduced is not None:
        return _add(from_terms(quotient), _floordiv(from_terms(reduced[0]), const(reduced[1], "index")), 1)
    inner = make("floordiv", "index", (remainder, y))
    return _add(from_terms(quotient), inner, 1) if quotient else inner


def _divide_exactly(x: Expr, y: Expr) -> Expr | None:
    """x / y where every term of x has y (a symbol or product of symbols) as a factor or is smaller than y."""
    quotient: Terms = {}
    rest: Terms = {}
    for atom, k in terms(x).items():
        factors = _factors(atom)
        if y in factors:
            factors.remove(y)
            q = ONE
            for f in factors:
                q = f if q is ONE else _mul(q, f)
            quotient[q] = quotient.get(q, 0) + k
        else:
            rest[atom] = k
    lo, hi = bounds(from_terms(rest))
    ylo = bounds(y)[0]
    if quotient and ylo > 0 and lo >= 0 and (hi < ylo or _below(rest, y)):
        return from_terms(quotient)
    return None


def _below(rest: Terms, y: Expr) -> bool:
    """Whether the rest is one loop variable whose extent is y."""
    if len(rest) != 1:
        return False
    atom, k = next(iter(rest.items()))
    return k == 1 and atom.op == "var" and atom.arg[1] is y


def _factors(atom: Expr) -> list[Expr]:
    if atom.op == "mul":
        return _factors(atom.args[0]) + _factors(atom.args[1])
    return [atom]


def _common_factor(rest: Terms, c: int) -> tuple[Terms, int] | None:
    """Divide coefficients and c by their common factor; a constant below it may be dropped."""
    g = c
    for atom, k in rest.items():
        if atom is not ONE:
            g = math.gcd(g, k)
    if g <= 1:
        return None
    reduced = {a: k // g for a, k in rest.items()}
    return {a: k for a, k in reduced.items() if k}, c // g


def _mod(x: Expr, y: Expr) -> Expr:
    if y.op != "const":
        (lo, hi), (ylo, _) = bounds(x), bounds(y)
        if lo >= 0 and hi < ylo:
            return x
        q = _divide_exactly(x, y)
        if q is not None:
            return _add(x, _mul(q, y), -1)
        return make("mod", "index", (x, y))
    c = y.arg
    if c == 1:
        return const(0, "index")
    if c <= 0:
        return make("mod", "index", (x, y))
    _, rest = _split_by(x, c)
    remainder = from_terms(rest)
    lo, hi = bounds(remainder)
    if lo // c == hi // c:
        return _add(remainder, const(lo // c * c, "index"), -1)
    if remainder.op == "mod" and remainder.args[1].op == "const" and remainder.args[1].arg % c == 0:
        return _mod(remainder.args[0], y)
    if remainder.op == "floordiv" and remainder.args[1].op == "const" and remainder.args[1].arg > 0:
        d = remainder.args[1].arg
        narrowed = _mod(remainder.args[0], const(c * d, "index"))
        if narrowed is not remainder.args[0] and narrowed.op != "mod":
            return _mod(_floordiv(narrowed, remainder.args[1]), y)
    reduced = _common_factor(rest, c)
    if reduced is not None:
        g = c // reduced[1]
        inner = _mod(from_terms(reduced[0]), const(reduced[1], "index"))
        extra = rest.get(ONE, 0) % g
        return _add(_mul(inner, const(g, "index")), const(extra, "index"), 1)
    return make("mod", "index", (remainder, y))


def _extreme(op: str, x: Expr, y: Expr) -> Expr:
    (a, b), (c, d) = bounds(x), bounds(y)
    if op == "max":
        x, y, a, b, c, d = y, x, c, d, a, b
        if b <= c:
            return y
        if d <= a:
            return x
        return make(op, "index", (y, x))
    if b <= c:
        return x
    if d <= a:
        return y
    return make(op, "index", (x, y))


def _compare(op: str, x: Expr, y: Expr) -> Expr:
    difference = _add(x, y, -1)
    lo, hi = bounds(difference)
    if op == "lt" and (hi < 0 or lo >= 0):
        return const(hi < 0, "bool")
    if op == "le" and (hi <= 0 or lo > 0):
        return const(hi <= 0, "bool")
    if op in ("eq", "ne") and (lo > 0 or hi < 0 or lo == hi == 0):
        return const((lo == hi == 0) == (op == "eq"), "bool")
    return make(op, "bool", (x, y))


def coefficient(e: Expr, v: Expr) -> int | None:
    """d e / d v when `e` is affine in `v`; None when v stands inside //, %, a load or a product."""
    total = 0
    for atom, k in terms(e).items():
        if atom is v:
            total += k
        elif v in _free_vars(atom):
            return None
    return total


@lru_cache(maxsize=1 << 18)
def _free_vars(e: Expr) -> frozenset[Expr]:
    if e.op == "var":
        return frozenset((e,))
    out: frozenset[Expr] = frozenset()
    for a in e.args:
        out |= _free_vars(a)
    if e.op == "reduce":
        out -= {a.var for a in e.arg[1]}
        for a in e.arg[1]:
            if isinstance(a.extent, Expr):
                out |= _free_vars(a.extent)
    return out


def free_vars(e: Expr) -> frozenset[Expr]:
    """Variables that are not bound by a reduction inside `e`."""
    return _free_vars(e)
