"""Element and vector types of generated C: `f32`, `i8`, `f32x16`, … and their C spellings."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Elem:
    """A scalar type. kind: "f" float, "i" signed, "u" unsigned, "h" 16-bit float held as bits."""

    name: str
    c: str
    bits: int
    kind: str


ELEMS = {
    e.name: e
    for e in (
        Elem("f32", "float", 32, "f"),
        Elem("f64", "double", 64, "f"),
        *(Elem(f"i{b}", f"int{b}_t", b, "i") for b in (8, 16, 32, 64)),
        *(Elem(f"u{b}", f"uint{b}_t", b, "u") for b in (8, 16, 32, 64)),
        Elem("f16", "uint16_t", 16, "h"),
        Elem("bf16", "uint16_t", 16, "h"),
    )
}
_NAME = r"(?:bf16|[fiu](?:8|16|32|64))(?:x[0-9]+)?"
TYPE = re.compile(rf"({_NAME.split('(?:x')[0]})(?:x([0-9]+))?$")
FUNCTION = re.compile(rf"hr_([a-z][a-z0-9_]*?)_({_NAME})(?:_({_NAME}))?$")


@dataclass(frozen=True)
class VType:
    """A scalar (lanes 1) or a vector of a power-of-two number of lanes."""

    elem: Elem
    lanes: int = 1

    @property
    def name(self) -> str:
        """Suffix in function names: f32, f32x16, bf16x8."""
        return self.elem.name if self.lanes == 1 else f"{self.elem.name}x{self.lanes}"

    @property
    def c(self) -> str:
        """C type: float, f32x16; 16-bit floats are held as uint16_t, u16x8."""
        if self.lanes == 1:
            return self.elem.c
        return f"u16x{self.lanes}" if self.elem.kind == "h" else self.name

    @property
    def bytes(self) -> int:
        return self.elem.bits // 8 * self.lanes

    def of(self, kind: str) -> VType:
        """The type of the same shape with elements "i" signed or "u" unsigned of the same width."""
        return VType(ELEMS[f"{kind}{self.elem.bits}"], self.lanes)

    def with_lanes(self, lanes: int) -> VType:
        return VType(self.elem, lanes)

    def typedef(self) -> str:
        """`typedef float f32x16 __attribute__((vector_size(64)));`"""
        return f"typedef {self.elem.c} {self.c} __attribute__((vector_size({self.bytes})));"


def parse(name: str) -> VType:
    """VType of "f32", "i8x16", …; ValueError for anything else."""
    match = TYPE.match(name)
    if match is None or match[1] not in ELEMS:
        raise ValueError(f"{name!r} is not a type of generated C, such as f32, i8 or f32x16")
    lanes = int(match[2] or 1)
    if lanes & (lanes - 1) or lanes == 0 or (match[2] and lanes == 1):
        raise ValueError(f"{name!r}: the number of lanes must be a power of two above 1")
    return VType(ELEMS[match[1]], lanes)
