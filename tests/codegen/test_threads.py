"""Kernels in parts: any cut, in any order of the parts, gives the bits of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.codegen import generate
from headrace.program.build import Builder
from headrace.program.expr import Expr, call
from headrace.program.fuse import fuse
from headrace.program.ir import Define, Loop, Module
from headrace.program.optimise import optimise
from headrace.schedule import parallel
from headrace.schedule import steps as st
from headrace.schedule.heuristic import Heuristic
from headrace.targets.registry import get_target
from tests.codegen.native import RUNNABLE, Native, Order
from tests.codegen.random_schedules import random_schedule
from tests.program.random_tensors import feeds_of, random_tensors, seeded


def shuffled(seed: int) -> Order:
    rng = np.random.default_rng(seed)
    return lambda parts: [int(n) for n in rng.permutation(parts)]


ORDERS: tuple[Order, ...] = (range, lambda parts: reversed(range(parts)), shuffled(1))


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(n, marks=pytest.mark.slow) for n in range(4, 120))])
def test_any_cut_in_any_order(seed: int) -> None:
    target = RUNNABLE[seed % len(RUNNABLE)]
    module = optimise(random_tensors(seed, 8, every=seed % 2 == 0), 16)
    feeds, made = feeds_of(module, seed), {}

    def schedule(define: Define) -> st.Schedule:
        if define not in made:
            pick = seeded(seed + len(made))
            plain = tuple(s for s in random_schedule(define, pick) if not isinstance(s, st.Parallel))
            made[define] = plain
        return made[define]

    def cut(define: Define) -> st.Schedule:
        plain, pick = schedule(define), seeded(seed)
        steps = [(*plain, st.Parallel(n, 1 + pick(9))) for n in range(len(define.axes))]
        legal = [s for s in steps if parallel._is_legal(define, s)]
        return legal[pick(len(legal))] if legal else plain

    with np.errstate(all="ignore"):
        wanted = Native(module, target, schedule).run(feeds)
        net = Native(module, target, cut, threads=4, order=ORDERS[seed % 3])
        got = net.run(feeds)
    for name, array in wanted.items():
        assert array.tobytes() == got[name].tobytes(), (seed, name)
    has_parts = "net_share(" in net.generated.source
    assert has_parts == (net.cut > 0) and (has_parts or seed > 3)


def product(rows: int | Expr, k: int, columns: int, b: Builder) -> Module:
    x = b.input("x", "f32", (rows, k))
    w = b.constant(np.random.default_rng(0).standard_normal((k, columns)).astype(np.float32))
    y = b.compute((rows, columns), lambda i, j: call("tanh", b.sum((k,), lambda r: x[i, r] * w[r, j])))
    return b.output("y", y) or b.module()


def net(rows: int = 200, k: int = 256, columns: int = 128) -> Module:
    return product(rows, k, columns, Builder())


@pytest.mark.parametrize("symbolic", [False, True])
def test_the_number_of_threads_does_not_change_a_bit(symbolic: bool) -> None:
    b = Builder()
    module = fuse(product(b.symbol("T", 200), 256, 128, b)) if symbolic else fuse(net())
    whole, cut = Native(module), [Native(module, threads=n, order=ORDERS[n % 3]) for n in (2, 3, 8)]
    for rows in (200, 199, 41, 1) if symbolic else (200,):
        x = np.random.default_rng(rows).standard_normal((rows, 256)).astype(np.float32)
        wanted = whole.run({"x": x})["y"]
        for other in cut:
            assert other.run({"x": x})["y"].tobytes() == wanted.tobytes(), rows
    assert all(other.cut > 0 for other in cut)


def test_without_a_parallel_for_it_runs_on_the_calling_thread() -> None:
    x = np.random.default_rng(0).standard_normal((200, 256)).astype(np.float32)
    module = fuse(net())
    wanted, got = Native(module).run({"x": x})["y"], Native(module, threads=4).run({"x": x})["y"]
    assert got.tobytes() == wanted.tobytes()


def only(module: Module) -> Define:
    (d,) = fuse(module).body
    assert isinstance(d, Define)
    return d


def cut_of(define: Define, threads: int = 4) -> list[st.Parallel]:
    isa = get_target("native").isa
    plain = Heuristic(isa).schedule(define)
    found = parallel.share(define, plain, isa, threads)
    assert found[: len(plain)] == plain
    return [s for s in found if isinstance(s, st.Parallel)]


def test_only_large_kernels_are_cut() -> None:
    assert cut_of(only(net(16, 64, 64))) == []
    assert cut_of(only(net(200, 256, 128)), threads=1) == []
    (large,) = cut_of(only(net(200, 256, 128)))
    assert 4 <= large.parts <= 16
    (row,) = cut_of(only(net(1, 4096, 2048)))
    assert row.axis == 1


def test_one_thread_adds_nothing() -> None:
    module, target = fuse(net()), get_target("native")

    def cut(d: Define) -> st.Schedule:
        return (*Heuristic(target.isa).schedule(d), st.Parallel(0, 4))

    plain, ignored = generate(module, "net", target), generate(module, "net", target, cut)
    assert plain.source == ignored.source and plain.header == ignored.header
    for word in ("threads", "part", "share", "mode"):
        assert word not in plain.source + plain.header
    assert "threads" not in plain.facts


def test_definitions_inside_a_loop_stay_whole() -> None:
    b = Builder()
    x, h = b.input("x", "f32", (3, 64)), b.constant(np.zeros(64, np.float32))
    b.output("y", b.scan(3, [h], lambda t, c: ([b.compute((64,), lambda i: c[0][i] + x[t, i])], []))[0][0])
    module = b.module()
    (loop,) = (s for s in module.body if isinstance(s, Loop))

    def cut(d: Define) -> st.Schedule:
        return (st.Parallel(0, 2),) if d in loop.body else ()

    assert any(cut(s) for s in loop.body if isinstance(s, Define))
    assert "hr_part" not in generate(module, "net", get_target("native"), cut, threads=2).source
