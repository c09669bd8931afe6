"""The length of a value as integer arithmetic on `valid` in the step graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from headrace.graph.symbolic import Dim
from headrace.ops.timed import TIME

if TYPE_CHECKING:
    from headrace.streaming.emit import Writer

SHIFT = 1 << 31


def offsets(length: Dim, rate: Fraction, chunk: int, multiple: int = 1, above: bool = False) -> list[int]:
    """table[r] = L(s·chunk + r) - s·m, for 0 <= r < chunk; where T must be a multiple, of the one below (or above)."""
    big = math.lcm(chunk, multiple) * 64
    table = []
    for r in range(chunk):
        unit = math.gcd(chunk, multiple)
        frames = big + (r + -r % unit if above else r - r % unit)
        value = length if isinstance(length, int) else length.evaluate({TIME: frames})
        table.append(value - int(rate * big))
    return table


@dataclass(frozen=True)
class LengthCode:
    """L(e) = floor((num·e + add) / den), or by table where no such formula exists."""

    num: int
    den: int
    add: int | None
    table: tuple[int, ...]

    @staticmethod
    def of(length: Dim, rate: Fraction, chunk: int, multiple: int) -> LengthCode:
        """The code for a length; exact for every valid T."""
        table = offsets(length, rate, chunk, multiple)
        num, den = rate.numerator, rate.denominator
        possible = range(0, chunk, math.gcd(chunk, multiple))
        low = max(table[r] * den - num * r for r in possible)
        high = min(table[r] * den - num * r + den - 1 for r in possible)
        return LengthCode(num, den, low if low <= high else None, tuple(table))

    def emit(self, writer: Writer, valid: ir.Value, plus: int) -> ir.Value:
        """L(valid) + plus, int64 [1]; valid may be negative."""
        if self.add is not None and self.den == 1:
            value = valid if self.num == 1 else writer.small("Mul", valid, self.num)
            return writer.small("Add", value, self.add + plus) if self.add + plus else value
        if self.add is not None:
            value = valid if self.num == 1 else writer.small("Mul", valid, self.num)
            value = writer.small("Add", value, self.add + SHIFT * self.den)
            return writer.small("Sub", writer.small("Div", value, self.den), SHIFT - plus)
        chunk = len(self.table)
        rest = writer.small("Mod", valid, chunk)
        table = writer.constant(np.array(self.table, np.int64), "time/length")
        part = writer.add("time", "Gather", [table, rest])[0]
        steps = writer.small("Div", writer.add("time", "Sub", [valid, rest])[0], chunk)
        whole = writer.small("Mul", steps, self.num * chunk // self.den)
        return writer.small("Add", writer.add("time", "Add", [part, whole])[0], plus)
