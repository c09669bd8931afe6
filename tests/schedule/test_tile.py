"""Which sums tiles can compute, what a Tensorize step asks of the others, and what it is thought to cost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from headrace.program.build import Builder
from headrace.program.expr import Expr, cast, select
from headrace.program.fuse import fuse
from headrace.program.ir import Define
from headrace.program.optimise import optimise
from headrace.schedule import legal
from headrace.schedule import steps as st
from headrace.schedule.cost import estimate
from headrace.schedule.heuristic import Heuristic
from headrace.schedule.tensorize import SURE
from headrace.schedule.tile import candidates, sums_of, word_sums
from headrace.targets.simd import ISAS

AMX = ISAS["avx512amx"]
FINE = "Order(1, 0) Vectorize(1, 16, 2) Tensorize(0, 2) Pack()"


def product(rows: int = 64, k: int = 256, columns: int = 64, at: Callable[[Expr], Expr] = lambda i: i) -> Define:
    """sum(r: i32(x[at(i), r]) * i32(w[r, j])) of i8."""
    b, rng = Builder(), np.random.default_rng(0)
    x, w = b.input("x", "i8", (2 * rows, k)), b.constant(rng.integers(-128, 128, (k, columns)).astype(np.int8))

    def element(i: Expr, j: Expr) -> Expr:
        return b.sum((k,), lambda r: cast(x[at(i), r], "i32") * cast(w[r, j], "i32"))

    b.output("y", b.compute((rows, columns), element))
    (define,) = optimise(fuse(b.module()), 16, True, True).body
    assert isinstance(define, Define)
    return define


@pytest.mark.parametrize(
    "text",
    [FINE, "Order(1, 0) Vectorize(1, 16, 1) Tensorize(0, 1) Pack()", f"{FINE} Parallel(0, 2)",
     f"{FINE} Accumulators(2) Unroll(2)"],
)  # fmt: skip
def test_legal(text: str) -> None:
    legal.check(product(), st.parse(text))
    assert st.show(st.parse(text)) == text


ILLEGAL = {
    "innermost": "Vectorize(1, 16, 2) Tensorize(0, 2) Pack()",
    "has 2 axes": "Order(1, 0) Vectorize(1, 16, 2) Tensorize(2, 2) Pack()",
    "one or two tiles": "Order(1, 0) Vectorize(1, 16, 2) Tensorize(0, 3) Pack()",
    "two vectors": "Order(1, 0) Vectorize(1, 16, 3) Tensorize(0, 2) Pack()",
    "of 16 lanes": "Order(1, 0) Vectorize(1, 8, 2) Tensorize(0, 2) Pack()",
    "no other axis": "Order(1, 0) Vectorize(0, 16, 2) Tensorize(0, 2) Pack()",
    "not packed": "Order(1, 0) Vectorize(1, 16, 2) Tensorize(0, 2)",
    "tiled": f"{FINE} RegisterTile(0, 2)",
    "another axis is tiled": f"{FINE} Block(0, 64)",
    "no sum": "Order(0, 1) Vectorize(0, 16, 2) Tensorize(1, 2) Pack()",
    "twice": f"{FINE} Tensorize(0, 2)",
}


@pytest.mark.parametrize("reason", ILLEGAL)
def test_illegal(reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        legal.check(product(), st.parse(ILLEGAL[reason]))


def test_without_tile_registers() -> None:
    with pytest.raises(ValueError, match="no tile registers"):
        legal.check(product(), st.parse(FINE), tiles=False)
    assert not any(isinstance(s, st.Tensorize) for s in Heuristic(ISAS["avx512fp16"]).schedule(product()))


def test_rows_that_lie_evenly() -> None:
    assert candidates(product()) == [(0, 1)]
    assert candidates(product(at=lambda i: 2 * i)) == [(0, 1)]
    for at in (lambda i: i * i % 64, lambda i: 63 - i):
        define = product(at=at)
        assert len(word_sums(define)) == 1 and not candidates(define)


def test_sums_that_not_every_point_needs() -> None:
    b = Builder()
    x, w = b.input("x", "u8", (64, 64)), b.constant(np.ones((64, 64), np.int8))
    flag = b.input("flag", "i32", (1,))

    def element(i: Expr, j: Expr) -> Expr:
        total = b.sum((64,), lambda r: cast(x[i, r], "i32") * cast(w[r, j], "i32"))
        return select(flag[0] < 1, total, 0)

    b.output("y", b.compute((64, 64), element))
    (define,) = optimise(fuse(b.module()), 16, True, True).body
    assert isinstance(define, Define) and not candidates(define)


def test_phases() -> None:
    """Equal steps where the words allow them, else whole tiles and a rest."""
    found = {}
    for words in (1, 16, 17, 20, 24, 36, 40, 48):
        (s,) = word_sums(product(k=4 * words))
        assert sum(steps * size for _, steps, size in s.phases) == words
        found[words] = s.phases
    assert found[24] == ((0, 2, 12),) and found[48] == ((0, 3, 16),) and found[16] == ((0, 1, 16),)
    assert found[17] == ((0, 1, 16), (16, 1, 1)) and found[40] == ((0, 2, 16), (32, 1, 8))


def test_the_cost_counts_whole_tiles() -> None:
    fine = st.parse(FINE)
    full, ragged = (estimate(product(n, 256, n), fine, AMX) for n in (64, 49))
    assert sums_of(product(), fine)
    causes = [dict(c.causes) for c in (full, ragged)]
    assert causes[1]["lanes"] > causes[0]["lanes"] + 4 * 4 * 4 * 16 * 0.3  # 4 x 4 x 4 products of tiles
    vectors = st.parse("Order(1, 0) OrderReduce(0) Vectorize(1, 16, 2) RegisterTile(0, 8) Pack()")
    assert full.cycles < estimate(product(), vectors, AMX).cycles / 3
    assert all(value >= 0 for value in causes[0].values())


@pytest.mark.parametrize("rows", [2, 8, 64])
def test_the_cheaper_one_is_taken(rows: int) -> None:
    define = product(rows)
    chosen, vectors = Heuristic(AMX).schedule(define), Heuristic(ISAS["avx512fp16"]).schedule(define)
    tiles = st.parse(FINE if rows > 16 else FINE.replace("(0, 2)", "(0, 1)"))
    cheaper = estimate(define, tiles, AMX).cycles < SURE * estimate(define, vectors, AMX).cycles
    assert any(isinstance(s, st.Tensorize) for s in chosen) == cheaper
    assert cheaper or rows < 16
