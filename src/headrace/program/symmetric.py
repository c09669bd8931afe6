"""Products with constant rows that are symmetric or antisymmetric: half the multiplications.

    y[o] = sum(k: w[o, k] * x[k])   with w[o, k] == ±w[o, c - k]
    →  even[m] = x[a + m] + x[c - a - m];  odd[m] = x[a + m] - x[c - a - m]
       y[o] = sum(m: w[o, a + m] * even[m])   for the symmetric rows, and with odd for the others

Rows of a Fourier transform with a symmetric window are of this kind. Columns and rows of zeros are left
out: what they would have multiplied cannot make the result NaN any more. The result differs from the
full sum by rounding only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from headrace.program.expr import Axis, Expr, const, fresh, load, make, substitute, transform, walk
from headrace.program.index import bounds, coefficient, free_vars, index_binary
from headrace.program.ir import Buffer, Define, Module, Statement, Store
from headrace.program.ranges import evaluable, value
from headrace.program.rewrite import each_list, map_expressions, replace_body, substitute_axes

MIN_ROWS = 16
MIN_COLUMNS = 32
MAX_BLOCKS = 6
Array = np.ndarray[tuple[int, int], np.dtype[np.float32]]


@dataclass(frozen=True)
class Product:
    """The only sum of a Define: rows of `matrix` [row extent, k extent] times `data`, a function of `k`."""

    reduce: Expr
    row: Axis
    k: Axis
    matrix: Array
    data: Expr


@dataclass(frozen=True)
class Fold:
    """Columns first + m and last - m meet; the columns `single` have no partner, or weights of zero."""

    first: int
    last: int
    single: tuple[int, ...]

    @property
    def pairs(self) -> int:
        return (self.last - self.first + 1) // 2

    def columns(self, kind: str) -> list[int]:
        """The columns whose weights the rows of a kind keep."""
        return [*range(self.first, self.first + self.pairs), *(self.single if kind == "even" else ())]


@dataclass(frozen=True)
class Block:
    """Rows start … stop - 1 of one kind: "even", "odd" or "zero"."""

    kind: str
    start: int
    stop: int


def fold_symmetric(module: Module) -> Module:
    """Rewrite every product that halves; a note says which."""
    notes = list(module.notes)

    def run(body: list[Statement]) -> list[Statement]:
        out: list[Statement] = []
        for s in body:
            folded = _folded(s, notes) if isinstance(s, Define) and not s.ordered else None
            out += [s] if folded is None else folded
        return out

    body = each_list(module.body, run)
    new = replace_body(module, body)
    new.notes = notes
    return new


def _folded(s: Define, notes: list[str]) -> list[Statement] | None:
    product = _product(s)
    if product is None:
        return None
    found = _fold(product.matrix)
    if found is None:
        return None
    fold, blocks = found
    source = _signal(s, product)
    if source is None:
        return None
    made, data = source
    halves, sums = _halves(s, product, data, fold, {b.kind for b in blocks})
    rows = [_rows(s, product, b, halves, fold) for b in blocks]
    kinds = ", ".join(f"rows {b.start} to {b.stop - 1} {b.kind}" for b in blocks)
    notes.append(f"{', '.join(s.nodes[-1:])}: symmetric weights, half the products ({kinds})")
    return [*made, *sums, *rows]


# --- finding ---------------------------------------------------------------------------------------


def _product(s: Define) -> Product | None:
    sums = {r: None for st in s.stores for r in walk(st.value) if r.op == "reduce"}
    if len(s.stores) != 1 or len(sums) != 1:
        return None
    (r,) = sums
    wide = [a for a in r.arg[1] if a.extent != 1]
    if r.arg[0] != "sum" or r.dtype != "f32" or len(wide) != 1 or not isinstance(wide[0].extent, int):
        return None
    body = substitute(r.args[0], {a.var: const(0, "index") for a in r.arg[1] if a.extent == 1})
    if body.op != "mul":
        return None
    for w, x in (body.args, body.args[::-1]):
        found = _matrix(s, wide[0], w, x)
        if found is not None:
            return Product(r, *found, x)
    return None


def _matrix(s: Define, k: Axis, w: Expr, x: Expr) -> tuple[Axis, Axis, Array] | None:
    """(row, k, matrix) when w is a constant that follows k and one axis that x does not."""
    if w.op != "load" or w.arg.space != "const" or not all(evaluable(i) for i in w.args):
        return None
    rows = [a for a in s.axes if a.var in free_vars(w)]
    if len(rows) != 1 or free_vars(w) != {rows[0].var, k.var} or rows[0].var in free_vars(x):
        return None
    row = rows[0]
    if not isinstance(row.extent, int) or row.extent < MIN_ROWS or k.bound < MIN_COLUMNS:
        return None
    if any(n.op in ("check", "reduce") for n in walk(x)) or not any(n.op == "load" for n in walk(x)):
        return None
    grid = {row.var: np.arange(row.extent)[:, None], k.var: np.arange(k.bound)[None, :]}
    at = tuple(np.broadcast_to(value(i, grid), (row.extent, k.bound)) for i in w.args)
    return row, k, w.arg.data[at]


def _fold(matrix: Array) -> tuple[Fold, list[Block]] | None:
    """How the columns fold, perhaps without the first, which has no partner in a periodic window."""
    used = np.flatnonzero(np.any(matrix != 0, 0))
    if used.size < MIN_COLUMNS:
        return None
    last = int(used[-1])
    for first, lone in ((int(used[0]), ()), (int(used[0]) + 1, (int(used[0]),))):
        middle = ((first + last) // 2,) if (last - first) % 2 == 0 else ()
        fold = Fold(first, last, (*middle, *lone))
        blocks = _blocks(matrix, fold)
        if blocks is not None:
            return fold, blocks
    return None


def _blocks(matrix: Array, fold: Fold) -> list[Block] | None:
    """Runs of rows of one kind, or None when some row is neither symmetric nor antisymmetric."""
    pairs = matrix[:, fold.first : fold.last + 1]
    zero = np.all(matrix == 0, 1)
    even = np.all(pairs == pairs[:, ::-1], 1)
    odd = np.all(pairs == -pairs[:, ::-1], 1) & np.all(matrix[:, list(fold.single)] == 0, 1)
    if not np.all(even | odd):
        return None
    kinds = ["zero" if z else "odd" if o else "even" for z, o in zip(zero, odd, strict=True)]
    out, start = [], 0
    for kind, run in groupby(kinds):
        stop = start + len(list(run))
        out.append(Block(kind, start, stop))
        start = stop
    return out if len(out) <= MAX_BLOCKS else None


# --- the data --------------------------------------------------------------------------------------


def _signal(s: Define, product: Product) -> tuple[list[Statement], Expr] | None:
    """(what to run before, the data with loads that are affine in k): a padded signal is written out once.

    None when a load is not affine and not a function of one sum of axes.
    """
    made: list[Statement] = []
    mapping: dict[Expr, Expr] = {}
    for e in walk(product.data):
        if e.op != "load" or product.k.var not in free_vars(e):
            continue
        if all(coefficient(i, product.k.var) is not None for i in e.args):
            continue
        written = _written_out(e, product.k.var, s)
        if written is None:
            return None
        define, mapping[e] = written
        made.append(define)
    return made, transform(product.data, mapping.get) if mapping else product.data


def _written_out(e: Expr, k: Expr, s: Define) -> tuple[Define, Expr] | None:
    """x[f(u), …] for a sum u of axes: (p[t] = x[f(t + low), …], p[u - low]); other axes stay in front."""
    inside = [i for i in e.args if k in free_vars(i)]
    outside = frozenset().union(*(free_vars(i) for i in e.args if i not in inside))
    if len(inside) != 1 or outside & free_vars(inside[0]):
        return None
    (arg,) = inside
    u = next((a for n in walk(arg) if n.op in ("min", "max") for a in n.args if coefficient(a, k) == 1), None)
    if u is None:
        return None
    low, high = (int(n) for n in bounds(u))
    t = fresh("i", high - low + 1)
    at = index_binary("add", t.var, const(low, "index"))

    def rule(n: Expr) -> Expr | None:
        if n.op not in ("min", "max") or n.dtype != "index":
            return None
        return index_binary(n.op, *(_in_terms_of(a, u, at) for a in n.args))

    new = transform(arg, rule)
    if free_vars(new) - {t.var}:
        return None
    axes = [a for a in s.axes if a.var in outside]
    point = tuple(a.var for a in axes)
    buffer = Buffer(f"{e.arg.name}.signal", e.dtype, (*(a.extent for a in axes), t.extent))
    source = load(e.arg, tuple(new if i is arg else i for i in e.args))
    define = _renamed(Define((*axes, t), (Store(buffer, (*point, t.var), source),), s.nodes))
    return define, load(buffer, (*point, index_binary("sub", u, const(low, "index"))))


def _in_terms_of(a: Expr, u: Expr, at: Expr) -> Expr:
    """`a` with `at` in the place of u, if it is u or a constant away from ±u."""
    for sign in (1, -1):
        rest = index_binary("sub" if sign == 1 else "add", a, u)
        if not free_vars(rest):
            return index_binary("add" if sign == 1 else "sub", rest, at)
    return a


def _halves(
    s: Define, product: Product, data: Expr, fold: Fold, kinds: set[str]
) -> tuple[dict[str, Buffer], list[Statement]]:
    """(the buffers of sums and differences by kind, the Defines that fill them)."""
    axes = [a for a in s.axes if a.var in free_vars(data)]
    shape = tuple(a.extent for a in axes)
    name = next(n.arg.name for n in walk(data) if n.op == "load")
    buffers: dict[str, Buffer] = {
        kind: Buffer(f"{name}.{kind}", "f32", (*shape, len(fold.columns(kind)))) for kind in sorted(kinds - {"zero"})
    }
    pair = fresh("i", fold.pairs)
    k = product.k.var
    low = substitute(data, {k: index_binary("add", pair.var, const(fold.first, "index"))})
    high = substitute(data, {k: index_binary("sub", const(fold.last, "index"), pair.var)})
    point = tuple(a.var for a in axes)
    stores = tuple(
        Store(b, (*point, pair.var), low + high if kind == "even" else low - high) for kind, b in buffers.items()
    )
    out: list[Statement] = [_renamed(Define((*axes, pair), stores, s.nodes))]
    for n, column in enumerate(fold.single if "even" in buffers else ()):
        alone = substitute(data, {k: const(column, "index")})
        at = (*point, const(fold.pairs + n, "index"))
        out.append(_renamed(Define(tuple(axes), (Store(buffers["even"], at, alone),), s.nodes)))
    return buffers, out


def _renamed(s: Define) -> Define:
    """The same Define with axes of its own."""
    axes = tuple(fresh("i", a.extent) for a in s.axes)
    return substitute_axes(s, axes, {a.var: b.var for a, b in zip(s.axes, axes, strict=True)})


# --- the rows --------------------------------------------------------------------------------------


def _rows(s: Define, product: Product, b: Block, halves: dict[str, Buffer], fold: Fold) -> Define:
    """The Define of one block of rows."""
    row = fresh("i", b.stop - b.start)
    here = index_binary("add", row.var, const(b.start, "index"))
    if b.kind == "zero":
        total = const(0.0, "f32")
    else:
        data = halves[b.kind]
        weights = np.ascontiguousarray(product.matrix[b.start : b.stop, fold.columns(b.kind)])
        w = Buffer(f"{data.name}.weights", "f32", weights.shape, "const", weights)
        k = fresh("r", weights.shape[1])
        point = tuple(a.var for a in s.axes if a.var in free_vars(product.data))
        body = load(data, (*point, k.var)) * load(w, (row.var, k.var))
        total = make("reduce", "f32", (body,), ("sum", (k,)))

    def go(e: Expr) -> Expr:
        changed = transform(e, lambda n: total if n is product.reduce else None)
        return substitute(changed, {product.row.var: here})

    changed = map_expressions(s, go)
    assert isinstance(changed, Define)
    axes: Sequence[Axis] = [row if a is product.row or a.var is product.row.var else a for a in s.axes]
    return _renamed(Define(tuple(axes), changed.stores, s.nodes))
