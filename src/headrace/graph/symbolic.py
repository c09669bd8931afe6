"""Extents that are not known yet: integer expressions in bounded symbols.

An expression is a sum of monomials with rational coefficients; the atoms of a monomial are symbol
names and floor divisions by an integer. `2*T + 1`, `(T + 2)//3` and `B*T` are such expressions. A
rational coefficient (`T/4`) appears only where the divisor of the symbol makes it an integer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Union

UNBOUNDED = 2**40


@dataclass(frozen=True)
class Symbol:
    """What is known about a symbol: least <= value <= bound (None: no bound), divisor divides value."""

    bound: int | None
    divisor: int = 1
    least: int = 1


Symbols = Mapping[str, Symbol]


@dataclass(frozen=True)
class FloorDiv:
    """floor(numerator / denominator), denominator > 0."""

    numerator: SymDim
    denominator: int

    def __str__(self) -> str:
        return f"({self.numerator})//{self.denominator}"


Atom = Union[str, FloorDiv]
Monomial = tuple[Atom, ...]


@dataclass(frozen=True)
class SymDim:
    """An integer expression in symbols. Built by arithmetic from `symbol(name)`; never a plain integer."""

    terms: tuple[tuple[Monomial, Fraction], ...]

    def __add__(self, other: Dim) -> Dim:
        return combine([(self, Fraction(1)), (other, Fraction(1))])

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return combine([(self, Fraction(1)), (other, Fraction(-1))])

    def __rsub__(self, other: Dim) -> Dim:
        return combine([(other, Fraction(1)), (self, Fraction(-1))])

    def __neg__(self) -> Dim:
        return combine([(self, Fraction(-1))])

    def __mul__(self, other: Dim) -> Dim:
        return product(self, other)

    __rmul__ = __mul__

    @property
    def symbols(self) -> frozenset[str]:
        """Names of all symbols in the expression."""
        found: set[str] = set()
        for monomial, _ in self.terms:
            for atom in monomial:
                found |= {atom} if isinstance(atom, str) else atom.numerator.symbols
        return frozenset(found)

    @property
    def name(self) -> str | None:
        """The symbol's name if the expression is a bare symbol."""
        if len(self.terms) == 1:
            monomial, coefficient = self.terms[0]
            if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], str):
                return monomial[0]
        return None

    def affine(self) -> tuple[dict[Atom, Fraction], int] | None:
        """({atom: coefficient}, constant), or None when atoms are multiplied with each other."""
        parts: dict[Atom, Fraction] = {}
        constant = 0
        for monomial, coefficient in self.terms:
            if len(monomial) > 1:
                return None
            if monomial:
                parts[monomial[0]] = coefficient
            else:
                constant = int(coefficient)
        return parts, constant

    def evaluate(self, bindings: Mapping[str, int]) -> int:
        """Value for the given symbol values. KeyError names a missing symbol."""
        total = Fraction(0)
        for monomial, coefficient in self.terms:
            value = coefficient
            for atom in monomial:
                if isinstance(atom, str):
                    value *= bindings[atom]
                else:
                    value *= atom.numerator.evaluate(bindings) // atom.denominator
            total += value
        if total.denominator != 1:
            raise ValueError(f"{self} is not an integer for {dict(bindings)}")
        return int(total)

    def __str__(self) -> str:
        text = ""
        for monomial, coefficient in self.terms:
            sign, size = ("-" if coefficient < 0 else "+"), abs(coefficient)
            body = "*".join(str(atom) for atom in monomial)
            if not body:
                body = str(size)
            elif size.numerator != 1:
                body = f"{size.numerator}*{body}"
            if monomial and size.denominator != 1:
                body = f"{body}/{size.denominator}"
            text += (("-" if sign == "-" else "") if not text else f" {sign} ") + body
        return text

    __repr__ = __str__


Dim = Union[int, SymDim]


def symbol(name: str) -> SymDim:
    """The expression that is just this symbol."""
    return SymDim((((name,), Fraction(1)),))


def _order(monomial: Monomial) -> tuple[int, str]:
    return -len(monomial), "*".join(map(str, monomial))


def _build(sums: Mapping[Monomial, Fraction]) -> Dim:
    terms = tuple(sorted(((m, c) for m, c in sums.items() if c), key=lambda term: _order(term[0])))
    if not terms:
        return 0
    if len(terms) == 1 and not terms[0][0] and terms[0][1].denominator == 1:
        return int(terms[0][1])
    return SymDim(terms)


def _terms(value: Dim) -> tuple[tuple[Monomial, Fraction], ...]:
    return value.terms if isinstance(value, SymDim) else (((), Fraction(int(value))),)


def combine(parts: Iterable[tuple[Dim, Fraction]]) -> Dim:
    """Sum of value * factor."""
    sums: dict[Monomial, Fraction] = {}
    for value, factor in parts:
        for monomial, coefficient in _terms(value):
            sums[monomial] = sums.get(monomial, Fraction(0)) + coefficient * factor
    return _build(sums)


def product(*values: Dim) -> Dim:
    """Product of any number of extents; 1 for none."""
    result: dict[Monomial, Fraction] = {(): Fraction(1)}
    for value in values:
        following: dict[Monomial, Fraction] = {}
        for left, a in result.items():
            for right, b in _terms(value):
                key = tuple(sorted(left + right, key=str))
                following[key] = following.get(key, Fraction(0)) + a * b
        result = following
    return _build(result)


def _step(monomial: Monomial, symbols: Symbols) -> int:
    """An integer that divides every value of the monomial."""
    return math.prod(symbols[a].divisor for a in monomial if isinstance(a, str) and a in symbols)


def floor_div(value: Dim, denominator: int, symbols: Symbols) -> Dim:
    """value // denominator for a positive denominator, taken apart as far as divisors allow."""
    if isinstance(value, int):
        return value // denominator
    whole: dict[Monomial, Fraction] = {}
    rest: dict[Monomial, Fraction] = {}
    for monomial, coefficient in value.terms:
        quotient = coefficient / denominator
        if not monomial:
            whole[()] = Fraction(int(coefficient) // denominator)
            rest[()] = Fraction(int(coefficient) % denominator)
        elif (quotient * _step(monomial, symbols)).denominator == 1:
            whole[monomial] = quotient
        else:
            rest[monomial] = coefficient
    remainder = _build(rest)
    if isinstance(remainder, SymDim):
        whole[(FloorDiv(remainder, denominator),)] = Fraction(1)
    return _build(whole)


def exact_div(value: Dim, divisor: Dim, symbols: Symbols) -> Dim | None:
    """value / divisor when that is an integer expression for every value of the symbols, else None."""
    if value == divisor:
        return 1
    factors = _terms(divisor)
    if len(factors) != 1 or not factors[0][1]:
        return None
    monomial, coefficient = factors[0]
    quotient: dict[Monomial, Fraction] = {}
    for atoms, factor in _terms(value):
        left = list(atoms)
        for atom in monomial:
            if atom not in left:
                return None
            left.remove(atom)
        ratio = factor / coefficient
        if (ratio * _step(tuple(left), symbols)).denominator != 1:
            return None
        quotient[tuple(left)] = ratio
    return _build(quotient)


def interval(value: Dim, symbols: Symbols) -> tuple[int, int]:
    """Least and greatest value, conservatively. An unbounded symbol counts as UNBOUNDED."""
    if isinstance(value, int):
        return value, value
    low, high = _term_interval(value, symbols)
    relaxed, slack_low, slack_high = _without_floors(value)
    if relaxed != value:
        a, b = (relaxed, relaxed) if isinstance(relaxed, int) else _term_interval(relaxed, symbols)
        low, high = max(low, a + slack_low), min(high, b + slack_high)
    return math.ceil(low), math.floor(high)


def _without_floors(value: SymDim) -> tuple[Dim, Fraction, Fraction]:
    """floor(n/d) lies in n/d - [0, (d-1)/d]: an expression, and what to add to its least and greatest."""
    parts: list[tuple[Dim, Fraction]] = []
    low = high = Fraction(0)
    for monomial, coefficient in value.terms:
        atom = monomial[0] if len(monomial) == 1 else None
        if not isinstance(atom, FloorDiv):
            parts.append((SymDim(((monomial, coefficient),)), Fraction(1)))
            continue
        parts.append((atom.numerator, coefficient / atom.denominator))
        slack = coefficient * Fraction(atom.denominator - 1, atom.denominator)
        low, high = low - max(slack, Fraction(0)), high - min(slack, Fraction(0))
    return combine(parts), low, high


def _term_interval(value: SymDim, symbols: Symbols) -> tuple[Fraction, Fraction]:
    low = high = Fraction(0)
    for monomial, coefficient in value.terms:
        least = greatest = Fraction(1)
        for atom in monomial:
            a, b = _atom_interval(atom, symbols)
            corners = [least * a, least * b, greatest * a, greatest * b]
            least, greatest = min(corners), max(corners)
        ends = sorted((least * coefficient, greatest * coefficient))
        low, high = low + ends[0], high + ends[1]
    return low, high


def _atom_interval(atom: Atom, symbols: Symbols) -> tuple[int, int]:
    if isinstance(atom, FloorDiv):
        low, high = interval(atom.numerator, symbols)
        return low // atom.denominator, high // atom.denominator
    fact = symbols.get(atom, Symbol(None, 1, 0))
    return max(fact.least, fact.divisor if fact.least > 0 else 0), fact.bound or UNBOUNDED


def provably(left: Dim, relation: str, right: Dim, symbols: Symbols) -> bool | None:
    """Truth of `left relation right` ("<", "<=", "==") for all values of the symbols, or None."""
    low, high = interval(combine([(left, Fraction(1)), (right, Fraction(-1))]), symbols)
    if relation == "==":
        return True if low == high == 0 else False if low > 0 or high < 0 else None
    limit = 0 if relation == "<=" else -1
    return True if high <= limit else False if low > limit else None
