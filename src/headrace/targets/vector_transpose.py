"""Transposition of a square block of 32-bit elements in x86 registers.

Rows are interleaved by pairs, then by pairs of pairs, within the 128-bit parts of the registers; then the
parts are brought to their places. 4x4 takes 8 shuffles, 8x8 24, 16x16 64.
"""

from __future__ import annotations

from headrace.targets.vector_types import VType

_PREFIX = {4: "_mm", 8: "_mm256", 16: "_mm512"}
_REGISTER = {4: "__m128", 8: "__m256", 16: "__m512"}


def transposed(t: VType) -> str:
    """C statements of hr_load_transposed for vectors of 4, 8 or 16 elements of 32 bits."""
    n, p, r = t.lanes, _PREFIX[t.lanes], _REGISTER[t.lanes]
    lines = [f"const float *q = (const float *)(const void *)p;\nconst {r} {_rows(n, p)};"]
    lines.append(f"const {r} {_pairs(n, p)};")
    lines.append(f"const {r} {_fours(n, p, r)};")
    lines += _parts(n)
    return "\n".join(lines)


def _rows(n: int, p: str) -> str:
    return ", ".join(f"r{i} = {p}_loadu_ps(q + {i} * step)" for i in range(n))


def _pairs(n: int, p: str) -> str:
    """t[2k], t[2k + 1]: the low and high halves of rows 2k and 2k + 1, interleaved."""
    return ", ".join(
        f"t{k + h} = {p}_unpack{'hi' if h else 'lo'}_ps(r{k}, r{k + 1})" for k in range(0, n, 2) for h in (0, 1)
    )


def _fours(n: int, p: str, r: str) -> str:
    """u[4k + c]: in each 128-bit part L, column 4L + c of the rows 4k … 4k + 3."""
    out = []
    for k in range(0, n, 4):
        for c in range(4):
            a, b = (f"({r}d)t{k + row + c // 2}" for row in (0, 2))
            out.append(f"u{k + c} = ({r}){p}_unpack{'hi' if c % 2 else 'lo'}_pd({a}, {b})")
    return ", ".join(out)


def _parts(n: int) -> list[str]:
    """out[4L + c]: part L of u[c], u[4 + c], …"""
    if n == 4:
        return [f"out[{c}] = ($T)u{c};" for c in range(4)]
    if n == 8:
        return [
            f"out[{4 * part + c}] = ($T)_mm256_permute2f128_ps(u{c}, u{4 + c}, {0x20 + 0x11 * part:#x});"
            for part in (0, 1)
            for c in range(4)
        ]
    lines = []
    for c in range(4):
        for half, mask in ((0, "0x44"), (1, "0xee")):
            low, high = f"v{c}{half}", f"w{c}{half}"
            lines.append(f"const __m512 {low} = _mm512_shuffle_f32x4(u{c}, u{4 + c}, {mask});")
            lines.append(f"const __m512 {high} = _mm512_shuffle_f32x4(u{8 + c}, u{12 + c}, {mask});")
            for part, pick in ((0, "0x88"), (1, "0xdd")):
                at = 4 * (2 * half + part) + c
                lines.append(f"out[{at}] = ($T)_mm512_shuffle_f32x4({low}, {high}, {pick});")
    return lines
