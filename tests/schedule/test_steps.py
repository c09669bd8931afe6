"""Schedules as text, keys of a database, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as hs

from headrace.program.build import Builder
from headrace.program.expr import cast, check
from headrace.program.fuse import fuse
from headrace.program.ir import Define
from headrace.schedule import legal
from headrace.schedule import steps as st

_COUNT = hs.integers(0, 64)
_AXES = hs.lists(hs.integers(0, 5), max_size=5).map(tuple)
_STEP = hs.one_of(
    hs.builds(st.Order, _AXES), hs.builds(st.OrderReduce, _AXES), hs.builds(st.Vectorize, _COUNT, _COUNT, _COUNT),
    hs.builds(st.RegisterTile, _COUNT, _COUNT), hs.builds(st.UnrollTiles, _COUNT),
    hs.builds(st.Block, _COUNT, _COUNT), hs.builds(st.Unroll, _COUNT),
    hs.builds(st.Accumulators, _COUNT),
    hs.just(st.Pack()), hs.builds(st.Tensorize, _COUNT, _COUNT), hs.builds(st.Parallel, _COUNT, _COUNT),
)  # fmt: skip


@given(hs.lists(_STEP, max_size=6).map(tuple))
def test_text_and_back(schedule: st.Schedule) -> None:
    assert st.parse(st.show(schedule)) == schedule


@pytest.mark.parametrize(
    "text", ["Order", "Order(0", "Tile(1)", "Unroll(x)", "Unroll()", "Unroll(1, 2)", "Pack() x", "Pack(1)"]
)
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(ValueError, match="schedule"):
        st.parse(text)


def product(name: str = "x", k: int = 8, const: bool = True) -> Define:
    b = Builder()
    x = b.input(name, "f32", (4, k))
    w = b.constant(np.ones((k, 16), np.float32)) if const else b.input("w", "f32", (k, 16))
    b.output(f"{name}y", b.compute((4, 16), lambda i, j: b.sum((k,), lambda r: x[i, r] * w[r, j])))
    (d,) = fuse(b.module()).body
    assert isinstance(d, Define)
    return d


def test_keys_depend_on_structure_not_on_names() -> None:
    assert st.key(product(), "avx2") == st.key(product("other"), "avx2")
    keys = {st.key(d, t) for d in (product(), product(k=9), product(const=False)) for t in ("avx2", "generic")}
    assert len(keys) == 6


def test_keys_tell_casts_extents_and_order_apart() -> None:
    b = Builder()
    x = b.input("x", "f32", (4,))
    t = b.symbol("T", 4)
    z = b.input("z", "f32", (t,))
    for mode in ("trunc", "round"):
        b.compute((4,), lambda i, mode=mode: cast(x[i], "i32", mode))
    b.compute((4,), lambda i: x[i])
    b.compute((t,), lambda i: z[i])
    b.compute((4,), lambda i: x[3 - i])
    b.scatter(x, (4,), lambda i: (i,), lambda i: x[i])
    found = [st.key(s, "") for s in b.body if isinstance(s, Define)]
    copy = found.pop(5)
    assert copy == found[2]
    assert len(set(found)) == len(found)


def test_keys_are_the_same_in_every_process() -> None:
    code = "from tests.schedule.test_steps import product, st; print(st.key(product(), 'avx2'))"
    for seed in ("1", "2"):
        got = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(p or "." for p in sys.path)},
        )  # fmt: skip
        assert got.stdout.strip() == st.key(product(), "avx2")


LEGAL = [
    "", "Order(1, 0)", "OrderReduce(0)", "Vectorize(1, 16, 2)", "Vectorize(2, 4, 1)", "Unroll(4) Accumulators(3)",
    "Order(1, 0) Vectorize(0, 2, 2) RegisterTile(1, 5) Pack()", "RegisterTile(0, 2) RegisterTile(1, 2)",
    "Parallel(0, 4)", "Vectorize(1, 4, 1) Parallel(1, 2)", "Parallel(1, 1)",
]  # fmt: skip
ILLEGAL = [
    "Order(0)", "Order(0, 0)", "Order(0, 1, 2)", "OrderReduce(1)", "OrderReduce(0, 1)", "Vectorize(3, 16, 1)",
    "Vectorize(0, 1, 1)", "Vectorize(0, 12, 1)", "Vectorize(0, 16, 0)", "Vectorize(0, 128, 1)", "Vectorize(-1, 4, 1)",
    "RegisterTile(2, 2)", "RegisterTile(0, 0)", "Vectorize(0, 4, 1) RegisterTile(0, 2)",
    "Unroll(0)", "Accumulators(-1)",
    "RegisterTile(0, 2) RegisterTile(0, 3)", "Vectorize(0, 4, 1) Vectorize(1, 4, 1)", "Pack() Pack()",
    "Parallel(2, 2)", "Parallel(-1, 2)", "Parallel(0, 0)", "Parallel(0, 2) Parallel(1, 2)",
]  # fmt: skip


@pytest.mark.parametrize("text", LEGAL)
def test_legal(text: str) -> None:
    legal.check(product(), st.parse(text))


@pytest.mark.parametrize("text", ILLEGAL)
def test_illegal(text: str) -> None:
    with pytest.raises(ValueError, match="not legal"):
        legal.check(product(), st.parse(text))


def test_what_a_definition_forbids() -> None:
    b = Builder()
    x, h = b.input("x", "f32", (4, 8)), b.input("h", "f16", (4, 8))
    at, t = b.input("at", "i64", (4,)), b.symbol("T", 8)
    z = b.input("z", "f32", (4, t))
    cases = {
        "order": (b.scatter(x, (4, 8), lambda i, j: (check(cast(at[i], "index"), 4), j), lambda i, j: x[i, j]),
                  ["Order(1, 0)", "Vectorize(1, 4, 1)", "RegisterTile(0, 2)", "Parallel(1, 2)"]),
        "checked": (b.compute((4, 8), lambda i, j: x[check(cast(at[i], "index"), 4), j]), ["Parallel(1, 2)"]),
        "one point": (b.compute((1, 8), lambda i, j: x[i, j]), ["Parallel(0, 2)"]),
        "argmax": (b.compute((4,), lambda i: b.reduce("argmax", (8,), lambda k: x[i, k])),
                   ["Vectorize(0, 4, 1)", "Vectorize(1, 4, 1)"]),
        "f16": (b.compute((4,), lambda i: b.sum((8,), lambda k: h[i, k])),
                ["Vectorize(0, 4, 1)", "Vectorize(1, 4, 1)"]),
        "run time": (b.compute((4,), lambda i: b.sum((t,), lambda k: z[i, k])), ["Vectorize(1, 4, 1)"]),
        "inside": (b.compute((4,), lambda i: b.sum((8,), lambda k: x[i, k] * b.sum((8,), lambda r: x[i, r]))),
                   ["Vectorize(1, 4, 1)"]),
    }  # fmt: skip
    for reason, (tensor, texts) in cases.items():
        d = [s for s in b.body if isinstance(s, Define) and s.stores[0].buffer is tensor.buffer][-1]
        for text in texts:
            with pytest.raises(ValueError, match=reason):
                legal.check(d, st.parse(text))
