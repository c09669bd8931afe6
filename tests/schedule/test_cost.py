"""The cost model: work in closed form, loads against a count by hand, traffic against a simulated cache."""

from __future__ import annotations

import random
from collections import OrderedDict
from itertools import product as grid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from headrace.program.build import Builder
from headrace.program.expr import fresh, unary
from headrace.program.fuse import fuse
from headrace.program.index import free_vars
from headrace.program.ir import Define, Loop
from headrace.program.rewrite import substitute_axes
from headrace.schedule import steps as st
from headrace.schedule.access import Facts
from headrace.schedule.cost import CAUSES, estimate, rank
from headrace.schedule.heuristic import Heuristic
from headrace.schedule.traffic import Traffic
from headrace.schedule.turns import Nest
from headrace.schedule.work import Work, work
from headrace.targets.machine import typical
from headrace.targets.simd import ISAS
from tests.codegen.random_schedules import random_schedule
from tests.program.random_modules import random_module

SIZES = hs.integers(1, 40)
AVX512 = ISAS["avx512"]


def only(b: Builder) -> Define:
    (d,) = fuse(b.module()).body
    assert isinstance(d, Define)
    return d


def gemm(m: int, k: int, n: int, tanh: bool = False, const: bool = True) -> Define:
    b = Builder()
    x = b.input("x", "f32", (m, k))
    w = b.constant(np.random.default_rng(0).standard_normal((k, n)).astype(np.float32)) if const else None
    w = b.input("w", "f32", (k, n)) if w is None else w
    y = b.compute((m, n), lambda i, j: b.sum((k,), lambda r: x[i, r] * w[r, j]))
    b.output("y", b.compute((m, n), lambda i, j: unary("tanh", y[i, j])) if tanh else y)
    return only(b)


@given(SIZES.filter(lambda n: n > 1), SIZES.filter(lambda n: n > 1), SIZES.filter(lambda n: n > 1))
def test_work_of_a_product(m: int, k: int, n: int) -> None:
    assert work(gemm(m, k, n)) == Work(m * k * n, m * k * n, 0, 4 * k * n, 4 * m * k, 4 * m * n)
    found = work(gemm(m, k, n, tanh=True))
    assert (found.operations, found.functions) == (m * k * n + m * n, m * n)


@given(hs.integers(8, 60), hs.integers(2, 8), hs.integers(1, 3))
def test_a_convolution_touches_each_frame_once(length: int, kernel: int, stride: int) -> None:
    out = (length - kernel) // stride + 1
    b = Builder()
    x = b.input("x", "f32", (length,))
    w = b.constant(np.arange(1, kernel + 1, dtype=np.float32))
    b.output("y", b.compute((out,), lambda i: b.sum((kernel,), lambda r: x[i * stride + r] * w[r])))
    found = work(only(b))
    assert found.macs == found.operations == out * kernel
    assert found.reads == 4 * min((out - 1) * stride + kernel, out * kernel)
    assert found.constants == 4 * kernel


def test_only_the_rows_that_are_taken_count() -> None:
    b = Builder()
    table, rows = b.constant(np.ones((1000, 8), np.float32)), b.input("rows", "i32", (3,))
    b.output("y", b.compute((3, 8), lambda i, j: table[rows[i], j]))
    found = work(only(b))
    assert (found.constants, found.reads, found.writes) == (3 * 8 * 4, 12, 3 * 8 * 4)


def test_a_product_in_a_sum_is_one_operation() -> None:
    b = Builder()
    x = b.input("x", "f32", (10,))
    b.output("y", b.compute((10,), lambda i: x[i] * 2.0 + 1.0))
    assert work(only(b)).operations == 10


def test_a_loop_does_each_pass_once() -> None:
    """12 rows of a product in a loop of 3 passes: the same work, and in each pass the cost of 4 rows."""
    whole, part = gemm(12, 16, 24), gemm(4, 16, 24)
    i, j = part.axes
    t = fresh("t", 3)
    inside = substitute_axes(part, (i, j), {i.var: t.var * 4 + i.var})
    loop = Loop(t, (inside,))
    assert work(loop).operations == work(whole).operations and work(loop).macs == work(whole).macs
    schedule = Heuristic(AVX512).schedule(part)
    assert Heuristic(AVX512).schedule(inside) == schedule
    assert estimate(inside, schedule, AVX512) == estimate(part, schedule, AVX512)


def test_loads_of_a_tile() -> None:
    """A tile of 6 rows and 2 vectors: rows are read for every tile of columns, columns for every tile of rows."""
    m, k, n = 12, 7, 64
    define = gemm(m, k, n)
    schedule = (st.Order((1, 0)), st.Vectorize(1, 16, 2), st.RegisterTile(0, 6), st.Pack())
    nest = Nest(Facts(define), schedule)
    loads = {e.arg.name: nest.count(free_vars(e), inside) for e, inside in nest.nodes() if e.op == "load"}
    x, w = loads["x"], sum(v for name, v in loads.items() if name != "x")
    assert (x, w) == (m * k * 2, (m // 6) * k * (n // 16))
    assert (nest.tiles, nest.width) == (4, 12)


# --- traffic -----------------------------------------------------------------------------------------


class Cache:
    """Fully associative, least recently used out first."""

    def __init__(self, size: int) -> None:
        self.size, self.held, self.missed = size, OrderedDict[object, None](), 0

    def touch(self, key: object) -> None:
        if key in self.held:
            self.held.move_to_end(key)
            return
        self.missed += 1
        self.held[key] = None
        if len(self.held) > self.size:
            self.held.popitem(last=False)


def simulated(m: int, k: int, n: int, rows: int, columns: int, elements: int) -> int:
    cache = Cache(elements)
    for i, j in grid(range(0, m, rows), range(0, n, columns)):
        for r in range(k):
            for a in range(i, min(i + rows, m)):
                cache.touch(("x", a, r))
            for c in range(j, min(j + columns, n)):
                cache.touch(("w", r, c))
        for a, c in grid(range(i, min(i + rows, m)), range(j, min(j + columns, n))):
            cache.touch(("y", a, c))
    return 4 * cache.missed


@pytest.mark.parametrize("elements", [150, 1200, 4700, 40000])
@pytest.mark.parametrize(("rows", "registers"), [(1, 1), (4, 2), (6, 1)])
def test_traffic_of_a_product_is_that_of_a_cache(rows: int, registers: int, elements: int) -> None:
    m, k, n = 24, 48, 64
    define = gemm(m, k, n)
    schedule = (st.Order((0, 1)), st.Vectorize(1, 8, registers), st.RegisterTile(0, rows), st.Pack())
    nest = Nest(Facts(define), schedule)
    traffic = Traffic(define, nest)
    assert traffic.once == 4 * (m * k + k * n + m * n)
    expected = simulated(m, k, n, rows, 8 * registers, elements)
    assert 0.6 * expected <= traffic.into(4 * elements) <= 1.7 * expected


def test_sums_of_different_lengths_do_not_disturb_each_other() -> None:
    """The weights of one product are not read again for every step of another one beside it."""
    b = Builder()
    x, h = b.input("x", "f32", (512,)), b.input("h", "f32", (128,))
    rng = np.random.default_rng(0)
    w, u = (b.constant(rng.standard_normal((k, 256)).astype(np.float32)) for k in (512, 128))
    b.output("y", b.compute((256,), lambda j: b.sum((512,), lambda r: x[r] * w[r, j])
                            + b.sum((128,), lambda r: h[r] * u[r, j])))  # fmt: skip
    traffic = Traffic(define := only(b), Nest(Facts(define), (st.Vectorize(0, 16, 4), st.Pack())))
    assert traffic.once == 4 * (512 + 128 + 640 * 256 + 256)
    assert traffic.into(8 << 10) < 1.1 * traffic.once


@settings(max_examples=60, deadline=None)
@given(hs.integers(0, 10**6))
def test_larger_caches_bring_in_less(seed: int) -> None:
    rng = random.Random(seed)
    for define in _defines(seed):
        nest = Nest(Facts(define), random_schedule(define, rng.randrange))
        traffic = Traffic(define, nest)
        found = [traffic.into(size) for size in (64, 1024, 1 << 14, 1 << 40)]
        assert found == sorted(found, reverse=True)
        assert found[-1] == traffic.once


# --- estimates ---------------------------------------------------------------------------------------


def _defines(seed: int) -> list[Define]:
    return [s for s in random_module(random.Random(seed).randrange).body if isinstance(s, Define)]


@settings(max_examples=60, deadline=None)
@given(hs.integers(0, 10**6))
def test_any_schedule_has_a_cost(seed: int) -> None:
    rng = random.Random(seed)
    for define in _defines(seed):
        for isa in (AVX512, ISAS["generic"]):
            cost = estimate(define, random_schedule(define, rng.randrange), isa, working_set=1 << 22)
            assert tuple(name for name, _ in cost.causes) == CAUSES
            assert all(value >= 0 for _, value in cost.causes)
            assert cost.cycles < float("inf")


def test_what_is_better_comes_first() -> None:
    define = gemm(64, 64, 64)
    scalar: st.Schedule = (st.Order((0, 1)),)
    vector = (st.Order((0, 1)), st.Vectorize(1, 16, 1), st.Pack())
    tiled = (st.Order((1, 0)), st.Vectorize(1, 16, 2), st.RegisterTile(0, 8), st.Pack())
    spilled = (st.Order((1, 0)), st.Vectorize(1, 16, 4), st.RegisterTile(0, 32), st.Pack())
    assert rank(define, [scalar, vector, tiled, spilled], AVX512)[0] == tiled
    assert rank(define, [scalar, vector], AVX512) == [vector, scalar]
    causes = dict(estimate(define, spilled, AVX512).causes)
    assert causes["registers"] > causes["arithmetic"]


def test_more_accumulators_wait_less() -> None:
    define = gemm(1, 512, 16)
    one = (st.Vectorize(1, 16, 1), st.Pack())
    four = (*one, st.Accumulators(4), st.Unroll(4))
    assert rank(define, [one, four], AVX512) == [four, one]
    assert dict(estimate(define, one, AVX512).causes)["latency"] > 1000


def test_across_the_rows_is_slower_than_along_them() -> None:
    define = gemm(64, 64, 64, const=False)
    along, across = (st.Vectorize(1, 16, 1),), (st.Vectorize(0, 16, 1),)
    assert rank(define, [across, along], AVX512)[0] == along
    assert dict(estimate(define, across, AVX512).causes)["strides"] > 0


def test_a_large_working_set_costs_reading() -> None:
    define = gemm(1, 256, 256)
    schedule = Heuristic(AVX512).schedule(define)
    near, far = (estimate(define, schedule, AVX512, working_set=size) for size in (0, 64 << 20))
    machine = typical(AVX512)
    assert far.cycles > 2 * near.cycles
    assert far.cycles >= 4 * 256 * 256 / machine.bandwidth(64 << 20) * machine.ghz


def test_limits_lie_on_the_measured_curve() -> None:
    machine = typical(AVX512)
    rates = [machine.bandwidth(2.0**n) for n in range(10, 30)]
    assert rates == sorted(rates, reverse=True)
    assert machine.bandwidth(1) == machine.read[0][1] and machine.bandwidth(1e12) == machine.read[-1][1]
    assert [machine.level(n) for n in (1, 1 << 20, 1 << 24, 1 << 30)] == ["L1", "L2", "L3", "memory"]
