"""Index arithmetic: what is simplified on construction has the value of what was written, everywhere."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.program.expr import Expr, Sym, binary, const, index, load, reduce, select, substitute, sym, var
from headrace.program.index import bounds, coefficient, free_vars, from_terms, terms
from headrace.program.ir import Buffer

Array = np.ndarray[Any, Any]
Env = dict[Expr, Array]  # leaf → its value in every assignment
Tree = Any  # an int, a leaf Expr, or (operator, left, right)

T = sym(Sym("T", 6, 2))
S = sym(Sym("S", 4))
LEAVES = (var("i", 5), var("j", 3), var("k", 8), var("t", T), var("one", 1), T, S)
OPERATORS = ("add", "sub", "mul", "floordiv", "mod", "min", "max")
COMPARISONS = ("lt", "le", "eq", "ne")


MEANING: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "floordiv": np.floor_divide,
    "mod": np.mod,
    "min": np.minimum,
    "max": np.maximum,
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}


def direct(tree: Tree, env: Env) -> Array:
    """The value of a tree as written."""
    if isinstance(tree, int):
        return np.array(tree)
    if isinstance(tree, Expr):
        return env[tree]
    return MEANING[tree[0]](direct(tree[1], env), direct(tree[2], env))


def built(tree: Tree) -> Expr:
    """The tree as a simplified expression."""
    if isinstance(tree, int | Expr):
        return index(tree)
    return binary(tree[0], built(tree[1]), built(tree[2]))


def value(e: Expr, env: Env) -> Array:
    """The value of an expression."""
    if e.op == "const":
        return np.array(e.arg)
    if e.op in ("var", "sym"):
        return env[e]
    return MEANING[e.op](value(e.args[0], env), value(e.args[1], env))


def environment(*trees: Tree) -> Env:
    """Every assignment of the leaves of some trees."""
    names = sorted(frozenset[Expr]().union(*(leaves(t) for t in trees)), key=repr)
    symbols = sorted({x for n in names for x in (n, n.arg[1] if n.op == "var" else n) if _is_sym(x)}, key=repr)
    variables = [n for n in names if n.op == "var"]
    rows = []
    for values in itertools.product(*(range(s.arg.divisor, s.arg.bound + 1, s.arg.divisor) for s in symbols)):
        known = dict(zip(symbols, values, strict=True))
        ranges = (range(known[v.arg[1]] if _is_sym(v.arg[1]) else v.arg[1]) for v in variables)
        rows += [(*values, *point) for point in itertools.product(*ranges)]
    columns = np.array(rows, np.int64).reshape(len(rows), len(symbols) + len(variables))
    return dict(zip([*symbols, *variables], columns.T, strict=True))


def _is_sym(x: object) -> bool:
    return isinstance(x, Expr) and x.op == "sym"


def leaves(tree: Tree) -> frozenset[Expr]:
    if isinstance(tree, Expr):
        return frozenset((tree,))
    return frozenset() if isinstance(tree, int) else leaves(tree[1]) | leaves(tree[2])


divisors = st.one_of(
    st.integers(1, 12),
    st.sampled_from((T, S)),
    st.sampled_from((T, S)).map(lambda s: ("mul", s, 2)),
    st.just(("add", LEAVES[1], 1)),
    st.just(("mul", T, S)),
    st.integers(-4, -1),
)


def _extend(smaller: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    plain = st.tuples(st.sampled_from(("add", "sub", "add", "mul", "min", "max")), smaller, smaller)
    scaled = st.tuples(st.just("mul"), smaller, st.integers(-6, 12))
    divided = st.tuples(st.sampled_from(("floordiv", "mod")), smaller, divisors)
    return st.one_of(plain, scaled, divided, divided)


trees = st.recursive(st.one_of(st.sampled_from(LEAVES), st.integers(-20, 20)), _extend, max_leaves=9)


@settings(max_examples=500, deadline=None)
@given(trees)
def test_a_simplified_expression_keeps_its_value(tree: Tree) -> None:
    e, env = built(tree), environment(tree)
    wanted = direct(tree, env)
    assert np.array_equal(*np.broadcast_arrays(value(e, env), wanted)), e
    lo, hi = bounds(e)
    assert ((lo <= wanted) & (wanted <= hi)).all(), (e, lo, hi)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(COMPARISONS), trees, trees)
def test_a_comparison_that_is_decided_is_decided_rightly(op: str, a: Tree, b: Tree) -> None:
    e, env = binary(op, built(a), built(b)), environment(a, b)
    assert np.array_equal(*np.broadcast_arrays(value(e, env), direct((op, a, b), env))), e


@settings(max_examples=150, deadline=None)
@given(trees)
def test_terms_add_up_to_the_expression(tree: Tree) -> None:
    e, env = built(tree), environment(tree)
    parts = terms(e)
    total = sum((k * value(atom, env) for atom, k in parts.items()), np.array(0))
    assert np.array_equal(*np.broadcast_arrays(total, value(e, env)))
    assert np.array_equal(*np.broadcast_arrays(value(from_terms(dict(parts)), env), value(e, env)))


@settings(max_examples=200, deadline=None)
@given(trees, trees)
def test_substitution_keeps_the_value(tree: Tree, other: Tree) -> None:
    """i // 3 with i := 6*j + k is what would have been written with 6*j + k."""
    i = LEAVES[0]
    lo, hi = bounds(built(other))
    if lo < 0 or hi >= 5:
        other = ("mod", other, 5)
    e = substitute(built(tree), {i: built(other)})
    env = environment(tree, other)
    wanted = direct(tree, {**env, i: direct(other, env)})
    assert np.array_equal(*np.broadcast_arrays(value(e, env), wanted)), e


@settings(max_examples=150, deadline=None)
@given(trees)
def test_a_coefficient_is_the_slope(tree: Tree) -> None:
    e, i = built(tree), LEAVES[0]
    slope = coefficient(e, i)
    if slope is None:
        return
    env = {**environment(tree), i: np.array(0)}
    here, there = value(e, env), value(e, {**env, i: np.array(1)})
    assert (there - here == slope).all()


def test_reshapes_of_reshapes_cancel() -> None:
    i, j = var("i", 32), var("j", 64)
    flat = i * 64 + j
    assert flat // 64 is i
    assert flat % 64 is j
    assert (flat // 8) // 8 is i
    assert (flat // 16) * 16 + flat % 16 is flat
    assert flat // 8 % 8 is j // 8


def test_symbolic_reshapes_cancel() -> None:
    n = sym(Sym("N", 512))
    i, j = var("i", 4), var("j", n)
    assert (i * n + j) // n is i
    assert (i * n + j) % n is j
    assert (j * 4 + i) // 4 is j


def test_a_load_is_an_atom_without_a_range() -> None:
    table = Buffer("table", "index", (4,))
    x = load(table, (var("i", 4),))
    assert x % 5 is not x
    assert bounds(x % 5) == (0, 4)
    assert (x * 5 + 3) // 5 is x


def test_bounds_of_a_select_cover_both_sides() -> None:
    i = var("i", 4)
    assert bounds(select(i < 2, i + 10, index(-3))) == (-3, 13)


def test_a_sum_of_indices_has_no_sign() -> None:
    total = reduce("sum", (3,), lambda k: k - 5)
    assert bounds(total)[0] < 0 < bounds(total)[1]


def test_free_variables_do_not_hold_those_of_a_reduction() -> None:
    x = Buffer("x", "f32", (4, 3))
    i = var("i", 4)
    assert free_vars(reduce("sum", (3,), lambda k: load(x, (i, k)))) == {i}


def test_division_by_zero_stays_for_the_run() -> None:
    i = var("i", 4)
    for op in ("floordiv", "mod"):
        assert binary(op, i, const(0, "index")).op == op


def test_equal_sums_are_one_object() -> None:
    i, j = var("i", 4), var("j", 4)
    assert i + j is j + i
    assert (i + 1) * 3 is i * 3 + 3
    assert i - i is const(0, "index")


@pytest.mark.parametrize("extent", [1, 7])
def test_numpy_agrees_on_negative_numbers(extent: int) -> None:
    """Floor division and mod round toward minus infinity, as NumPy's do."""
    i = var("i", extent)
    values = np.arange(extent) - 4
    for c in (-3, -1, 2, 5):
        assert (value((i - 4) // c, {i: np.arange(extent)}) == values // c).all()
        assert (value((i - 4) % c, {i: np.arange(extent)}) == values % c).all()
