"""Products of tiles (Intel AMX) as data: the C that calls one, and its meaning as a loop nest.

    d[i, j] = c[i, j] + sum(k < words, r < 4: i32(a[i, 4*k + r]) * i32(b[k, 4*j + r]))      _tile_dpbusd(c, a, b)

A tile is up to 16 rows of up to 64 bytes. Rows of A are words of 32 bits along K, row k of B holds word k of up
to 16 columns, C has 16 columns of 32 bits. Source: Intel 64 and IA-32 Architectures Software Developer's Manual,
volume 1 chapter 18 and volume 2, TDPBSSD/TDPBSUD/TDPBUSD/TDPBUUD and TDPBF16PS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.program.expr import Expr
    from headrace.program.ir import Module

ROWS = 16  # of a tile at most; also words of a row, and columns of C
ROW_BYTES = 64
# tile registers of a block: C of 2 x 2 tiles by rows, A of two tiles of rows, B of two tiles of columns
C, A, B = ((0, 1), (2, 3)), (4, 5), (6, 7)


@dataclass(frozen=True)
class TileProduct:
    """d = c + a·b on tiles. op: the operator of words that it sums; left, right: element types of a and b.

    call: the C function; terms: elements of a word. exact: the loop nest gives the same bits; otherwise
    `rounding` says how the instruction rounds.
    """

    call: str
    feature: str
    op: str
    sums: str
    left: str
    right: str
    terms: int
    exact: bool = True
    rounding: str = ""

    def text(self, c: int, a: int, b: int) -> str:
        """C statement on tile registers of these numbers."""
        return f"{self.call}({c}, {a}, {b});"

    def meaning(self, rows: int, words: int, columns: int = ROWS) -> Module:
        """The loop nest: inputs a (rows, words * terms), b (words, columns * terms), c and output d (rows, columns)."""
        from headrace.program.build import Builder
        from headrace.program.expr import cast

        build, n = Builder(), self.terms
        a, b = build.input("a", self.left, (rows, words * n)), build.input("b", self.right, (words, columns * n))
        c = build.input("c", self.sums, (rows, columns))

        def element(i: Expr, j: Expr) -> Expr:
            def term(k: Expr, r: Expr) -> Expr:
                return cast(a[i, k * n + r], self.sums) * cast(b[k, j * n + r], self.sums)

            return c[i, j] + build.sum((words, n), term)

        build.output("d", build.compute((rows, columns), element))
        return build.module()


TILE_PRODUCTS = (
    TileProduct("_tile_dpbssd", "amx-int8", "dot4", "i32", "i8", "i8", 4),
    TileProduct("_tile_dpbsud", "amx-int8", "dot4", "i32", "i8", "u8", 4),
    TileProduct("_tile_dpbusd", "amx-int8", "dot4", "i32", "u8", "i8", 4),
    TileProduct("_tile_dpbuud", "amx-int8", "dot4", "i32", "u8", "u8", 4),
    TileProduct(
        "_tile_dpbf16ps", "amx-bf16", "dot2", "f32", "bf16", "bf16", 2, exact=False,
        rounding="the products of lower and of upper elements are summed apart, from zero, with one rounding for "
        "each product; the two sums are added, and their sum to c; to nearest even, whatever the mode; operands and "
        "results below 2**-126 are zero",
    ),
)  # fmt: skip


def find(op: str, left: str, right: str) -> TileProduct | None:
    """The product of tiles that sums `op` of elements of these types."""
    fitting = (p for p in TILE_PRODUCTS if (p.op, p.left, p.right) == (op, left, right))
    return next(fitting, None)


def configuration(rows: tuple[int, int], words: int) -> bytes:
    """The 64 bytes of LDTILECFG for a block: two tiles of so many rows (the second may be 0), A of `words` words.

    C has rows of 16 sums, B `words` rows of 16 words. Palette 1; a tile that is not there has no size.
    """
    sizes = {n: (rows[i], ROW_BYTES) for i in (0, 1) for n in C[i]}
    sizes |= {A[i]: (rows[i], 4 * words) for i in (0, 1)} | dict.fromkeys(B, (words, ROW_BYTES))
    out = bytearray(64)
    out[0] = 1
    for n, (count, nbytes) in sizes.items():
        if count:
            out[16 + 2 * n : 18 + 2 * n] = nbytes.to_bytes(2, "little")
            out[48 + n] = count
    return bytes(out)
