"""Instructions as data: the C that calls one, and its meaning as a loop nest over small buffers.

    d[i] = c[i] + sum(r < 4: i32(a[4*i + r]) * i32(b[4*i + r]))        _mm512_dpbusd_epi32(c, a, b)

Passes of the program (`program/byte_dot.py`, `program/pair_dot.py`) bring sums into the form that an operator
of expressions has; the vector prelude defines that operator by the intrinsic where the instruction set has it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.targets.vector_types import VType

if TYPE_CHECKING:
    from headrace.program.expr import Expr
    from headrace.program.ir import Module

_PREFIX = {16: "_mm", 32: "_mm256", 64: "_mm512"}


@dataclass(frozen=True)
class Intrinsic:
    """A sum of `terms` products to every lane of an accumulator: d = c + Σ a·b.

    op: the primitive it defines, on vectors of `sums`; feature: as compilers name it; call: C text with {p} for
    the prefix and {r} for the plainest register type (_mm512, __m512); left, right: element types of a and b;
    widths: bytes of the registers it exists for. exact: the loop nest gives the same bits. Otherwise `rounding`
    says how the instruction rounds.
    """

    op: str
    feature: str
    call: str
    sums: str
    left: str
    right: str
    terms: int
    widths: tuple[int, ...] = (16, 32, 64)
    exact: bool = True
    rounding: str = ""

    def text(self, width: int) -> str:
        """C expression of d for registers a, b and c of so many bytes."""
        return self.call.format(p=_PREFIX[width], r=f"__m{8 * width}")

    def meaning(self, lanes: int) -> Module:
        """The loop nest: inputs a, b of lanes * terms elements and c of `lanes`, output d."""
        from headrace.program.build import Builder
        from headrace.program.expr import cast

        build, n = Builder(), self.terms
        a, b = build.input("a", self.left, (lanes * n,)), build.input("b", self.right, (lanes * n,))
        c = build.input("c", self.sums, (lanes,))

        def product(x: Expr) -> Expr:
            return cast(a[x], self.sums) * cast(b[x], self.sums)

        def lane(i: Expr) -> Expr:
            return c[i] + (build.sum((n,), lambda r: product(i * n + r)) if n > 1 else product(i))

        build.output("d", build.compute((lanes,), lane))
        return build.module()


_BYTES = {"op": "dot4", "sums": "i32", "left": "u8", "right": "i8", "terms": 4}
INTRINSICS = (
    Intrinsic(feature="avxvnni", call="{p}_dpbusd_avx_epi32(({r}i)c, ({r}i)a, ({r}i)b)", widths=(16, 32), **_BYTES),  # type: ignore[arg-type]
    Intrinsic(feature="avx512vnni", call="{p}_dpbusd_epi32(({r}i)c, ({r}i)a, ({r}i)b)", **_BYTES),  # type: ignore[arg-type]
    Intrinsic(
        "dot2", "avx512bf16", "{p}_dpbf16_ps(({r})c, ({r}bh)a, ({r}bh)b)", "f32", "bf16", "bf16", 2, exact=False,
        rounding="the upper product is added first; each addition rounds once, to nearest even, whatever the mode; "
        "operands and results below 2**-126 are zero",
    ),
    Intrinsic(
        "fma", "avx512fp16", "{p}_fmadd_ph(({r}h)a, ({r}h)b, ({r}h)c)", "f16", "f16", "f16", 1, exact=False,
        rounding="once, where the loop nest rounds the product too",
    ),
)  # fmt: skip


def find(op: str, t: VType, features: Collection[str]) -> Intrinsic | None:
    """The intrinsic that is `op` on vectors of type t where a processor has these features."""
    fitting = (i for i in INTRINSICS if i.op == op and i.sums == t.elem.name and t.bytes in i.widths)
    return next((i for i in fitting if t.lanes > 1 and i.feature in features), None)
