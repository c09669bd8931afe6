"""How many frames of each time input make one frame of the common clock: found where inputs meet.

x: 4 samples per frame, y: frames.  Conv(x, stride 4) + y  →  x has rate 4, y rate 1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from fractions import Fraction

import onnx_ir as ir

from headrace.graph.rewrite import upstream
from headrace.ops.timed import RatesDiffer
from headrace.streaming.analyse import Analysis

Attempt = Callable[[Mapping[str, int]], Analysis]


def with_rates(attempt: Attempt, names: Collection[str]) -> Analysis:
    """The analysis at the rates under which all time inputs fit together.

    Starts with one frame of each; where operands of a node run at different rates and come from inputs that
    have not met before, the rate of these is corrected. NotStreamable where the same inputs meet at two rates.
    """
    rates = dict.fromkeys(names, Fraction(1))
    groups = {name: frozenset([name]) for name in names}
    while True:
        try:
            return attempt(_whole(rates, groups))
        except RatesDiffer as differ:
            first, second = (_sources(value, names) for value in differ.values)
            if not first or not second:
                raise
            one, other = groups[next(iter(first))], groups[next(iter(second))]
            if one == other:
                raise
            rates.update({name: rates[name] * _scale(rates, one) for name in one})
            rates.update({name: rates[name] * _scale(rates, other) * differ.ratio for name in other})
            groups.update(dict.fromkeys(one | other, one | other))


def _scale(rates: Mapping[str, Fraction], group: Collection[str]) -> Fraction:
    """What the rates of a group, that fit each other, are multiplied by to be whole and coprime."""
    found = [rates[name] for name in group]
    return Fraction(math.lcm(*(r.denominator for r in found)), math.gcd(*(r.numerator for r in found)))


def _whole(rates: Mapping[str, Fraction], groups: Mapping[str, frozenset[str]]) -> dict[str, int]:
    return {name: int(rate * _scale(rates, groups[name])) for name, rate in rates.items()}


def _sources(value: ir.Value, names: Collection[str]) -> set[str]:
    """Time inputs that a value comes from."""
    return {v.name or "" for v in upstream(value) if v.producer() is None and v.name in names}


def common_step(multiple: Mapping[str, int], rates: Mapping[str, int]) -> int:
    """Frames of the clock of which the length must be a multiple, so that every input's is one of its own."""
    return math.lcm(1, *(m // math.gcd(m, rates[name]) for name, m in multiple.items()))
