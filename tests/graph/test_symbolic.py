"""Symbolic extents against plain integers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.graph.symbolic import (
    Symbol,
    SymDim,
    exact_div,
    floor_div,
    interval,
    product,
    provably,
    symbol,
)

SYMBOLS = {"T": Symbol(512), "S": Symbol(64, 4, 4), "B": Symbol(8)}
VALUES = st.fixed_dictionaries(
    {"T": st.integers(1, 512), "S": st.integers(1, 16).map(lambda n: 4 * n), "B": st.integers(1, 8)}
)
SMALL = st.integers(-9, 9)


def grow(inner):
    pair = st.tuples(inner, inner)
    return st.one_of(
        pair.map(lambda p: p[0] + p[1]),
        pair.map(lambda p: p[0] - p[1]),
        st.tuples(inner, SMALL).map(lambda p: product(*p)),
        st.tuples(inner, st.integers(1, 6)).map(lambda p: floor_div(p[0], p[1], SYMBOLS)),
    )


EXPRESSIONS = st.recursive(st.one_of(SMALL, st.sampled_from("TSB").map(symbol)), grow, max_leaves=8)


def at(dim, values):
    return dim.evaluate(values) if isinstance(dim, SymDim) else dim


@given(EXPRESSIONS, EXPRESSIONS, st.integers(1, 7), VALUES)
def test_arithmetic(a, b, n, values):
    x, y = at(a, values), at(b, values)
    assert at(a + b, values) == x + y
    assert at(a - b, values) == x - y
    assert at(product(a, b), values) == x * y
    assert at(floor_div(a, n, SYMBOLS), values) == x // n
    assert at(floor_div(product(a, n), n, SYMBOLS), values) == x


@given(EXPRESSIONS, VALUES)
def test_interval_holds(a, values):
    low, high = interval(a, SYMBOLS)
    assert low <= at(a, values) <= high


@given(EXPRESSIONS, EXPRESSIONS, VALUES)
def test_proofs_hold(a, b, values):
    x, y = at(a, values), at(b, values)
    for relation, truth in (("<", x < y), ("<=", x <= y), ("==", x == y)):
        assert provably(a, relation, b, SYMBOLS) in (None, truth)


@given(EXPRESSIONS, EXPRESSIONS, VALUES)
def test_exact_division(a, b, values):
    quotient = exact_div(product(a, b), b, SYMBOLS)
    if quotient is not None and at(b, values):
        assert at(quotient, values) == at(a, values)


def test_printing():
    t, s = symbol("T"), symbol("S")
    assert str(2 * t + 1) == "2*T + 1"
    assert str(floor_div(t + 2, 3, SYMBOLS)) == "(T + 2)//3"
    assert str(floor_div(s, 4, SYMBOLS)) == "S/4"
    assert str(1 - t) == "-T + 1"
    assert str(product(t, s)) == "S*T"
    assert t.name == "T" and (t + 1).name is None


def test_what_divisors_prove():
    assert floor_div(4 * symbol("T") + 7, 4, SYMBOLS) == symbol("T") + 1
    assert exact_div(symbol("T"), 2, SYMBOLS) is None
    assert str(exact_div(3 * symbol("S"), 2, SYMBOLS)) == "3*S/2"
    assert provably(floor_div(symbol("T"), 2, SYMBOLS), "<=", symbol("T"), SYMBOLS) is True
    assert provably(1, "<=", symbol("T"), SYMBOLS) is True
    assert provably(2, "<=", symbol("T"), SYMBOLS) is None


def test_affine_form():
    parts, constant = (2 * symbol("T") + 3).affine()
    assert parts == {"T": 2} and constant == 3
    assert product(symbol("T"), symbol("B")).affine() is None
    with pytest.raises(KeyError):
        symbol("T").evaluate({})
