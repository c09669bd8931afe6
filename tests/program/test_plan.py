"""The memory plan: values survive (simulated on bytes), sharing is found where it should be, sizes."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.program import interp
from headrace.program.build import Builder, Tensor
from headrace.program.expr import cast
from headrace.program.ir import Buffer, Module, StatePair
from headrace.program.plan import Plan, PlanError, check, plan
from tests.program.arena import Arena
from tests.program.random_modules import random_module


def simulate(module: Module, p: Plan, seed: int, runs: int = 3) -> None:
    """Three runs on the arena against the reference interpreter."""
    rng, state = np.random.default_rng(seed), None
    arena = Arena(module, p, seed)
    for _ in range(runs):
        feeds = {b.name: rng.integers(0, 97, b.bound).astype(np.int32) for b in module.inputs}
        want, got = interp.run(module, feeds, state), arena.run(feeds)
        state = want.pop("state", {})
        for name, value in state.items():
            np.testing.assert_array_equal(got["state"][name], value, err_msg=f"state {name}")
        for name, value in want.items():
            np.testing.assert_array_equal(got[name], value, err_msg=name)


def made(seed: int) -> Module:
    return random_module(random.Random(seed).randrange)


SLOW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOW
@given(st.integers(0, 1 << 32))
def test_values_survive(seed: int) -> None:
    module = made(seed)
    p = plan(module)
    check(module, p)
    assert p.scratch_bytes >= p.lower_bound
    simulate(module, p, seed)


@SLOW
@given(st.integers(0, 1 << 32))
def test_what_the_check_accepts_is_right(seed: int) -> None:
    """Random offsets are mostly wrong; those that pass the check must compute the right values."""
    module, pick = made(seed), random.Random(seed)
    good = plan(module)
    scratch = dict(good.scratch)
    for b in pick.sample(list(scratch), min(len(scratch), pick.choice((1, 1, 2)))):
        scratch[b] = 64 * pick.randrange(good.scratch_bytes // 64)
    bad = replace(good, scratch=scratch, scratch_bytes=good.scratch_bytes + 512)
    try:
        check(module, bad)
    except PlanError:
        return
    simulate(module, bad, seed, 2)


def test_the_check_rejects() -> None:
    """Of plans with one buffer moved over another, a good part is caught (not vacuous)."""
    caught = 0
    for seed in range(60):
        module = made(seed)
        good = plan(module)
        if good.scratch_bytes < 256:
            continue
        moved = next(b for b in good.scratch if good.scratch[b] > 0)
        try:
            check(module, replace(good, scratch=good.scratch | {moved: 0}))
        except PlanError:
            caught += 1
    assert caught > 15


# --- in-place results --------------------------------------------------------------------------------


def vector(dtype: str = "f32", n: int = 32) -> tuple[Builder, Tensor]:
    b = Builder()
    x = b.input("x", dtype, (n,))
    return b, b.compute((n,), lambda i: x[i] + x[n - 1 - i], "a")


def planned(b: Builder) -> Plan:
    module = b.module()
    p = plan(module)
    check(module, p)
    return p


def test_chain_of_maps_needs_one_buffer() -> None:
    b, t = vector()
    for _ in range(5):
        t = b.compute(t.shape, lambda i, t=t: t[i] * 2.0)
    b.output("y", t)
    p = planned(b)
    assert p.scratch_bytes == p.lower_bound == 128
    assert len(p.alias) == 5


def test_reshaped_operand_is_overwritten() -> None:
    b, t = vector()
    u = b.compute((4, 8), lambda i, j: t[i * 8 + j] + 1.0)
    b.output("y", u)
    p = planned(b)
    assert p.alias == {u.buffer: t.buffer}


@pytest.mark.parametrize("dtype, shared", [("i32", True), ("i64", False), ("i16", False)])
def test_operand_of_another_type(dtype: str, shared: bool) -> None:
    b, t = vector()
    u = b.compute(t.shape, lambda i: cast(t[i], dtype))
    b.output("y", u)
    assert bool(planned(b).alias) is shared


@pytest.mark.parametrize(
    "fn",
    [
        lambda b, t: lambda i: t[31 - i],
        lambda b, t: lambda i: t[i] + t[(i + 1) % 32],
        lambda b, t: lambda i: b.sum((32,), lambda k: t[k]) + t[i],
        lambda b, t: lambda i: t[i // 2],
    ],
    ids=["mirrored", "neighbour", "total", "repeated"],
)
def test_operand_read_elsewhere_stays(fn: object) -> None:
    b, t = vector()
    b.output("y", b.compute(t.shape, fn(b, t)))  # type: ignore[operator]
    p = planned(b)
    assert not p.alias
    assert p.scratch_bytes == 256


def test_operand_in_use_later_stays() -> None:
    b, t = vector()
    u = b.compute(t.shape, lambda i: t[i] + 1.0)
    b.output("y", b.compute(t.shape, lambda i: u[i] * t[31 - i]))
    assert u.buffer not in planned(b).alias


def test_skip_connection_is_overwritten_by_the_sum() -> None:
    b, t = vector()
    u = b.compute(t.shape, lambda i: t[31 - i], "u")
    w = b.compute(t.shape, lambda i: b.sum((32,), lambda k: u[k] * 2.0) + t[i], "w")
    b.output("y", w)
    assert planned(b).alias == {w.buffer: t.buffer}


def test_axis_of_one_element_does_not_hide_the_operand() -> None:
    b, t = vector()
    u = b.compute((1, 32), lambda i, j: t[31 - j])
    w = b.compute((1, 32), lambda i, j: u[0, j] + 1.0)
    b.output("y", w)
    assert planned(b).alias == {w.buffer: u.buffer}


def test_scatter_over_a_dying_base_needs_no_second_buffer() -> None:
    b, t = vector()
    out = b.scatter(t, (3,), lambda i: (i * 7,), lambda i: t[0] * 0.0)
    b.output("y", out)
    assert out.buffer not in planned(b).alias  # t[0] is read while elements change
    b, t = vector()
    x = b.input("v", "f32", (3,))
    out = b.scatter(t, (3,), lambda i: (i * 7,), lambda i: x[i], "add")
    b.output("y", out)
    p = planned(b)
    assert p.alias == {out.buffer: t.buffer}
    copy = next(s for s in b.module().body if getattr(s, "stores", None) and s.stores[0].buffer is out.buffer)  # type: ignore[union-attr]
    assert p.moves_nothing(copy)  # type: ignore[arg-type]


def test_symbolic_extents_count_at_the_bound() -> None:
    b = Builder()
    n = b.symbol("T", 100)
    x = b.input("x", "f32", (n, 3))
    t = b.compute((n, 3), lambda i, j: x[i, 2 - j])
    u = b.compute((n, 3), lambda i, j: t[i, j] + 1.0)
    b.output("y", b.compute((n, 3), lambda i, j: u[n - 1 - i, j]))
    b.output("z", b.compute((n, 3), lambda i, j: u[i, j]))
    p = planned(b)
    assert p.alias[u.buffer] is t.buffer
    assert p.scratch_bytes == 2 * 1216  # twice 100 × 3 floats, rounded up


# --- loops -------------------------------------------------------------------------------------------


def recurrence(update: object) -> tuple[Builder, Tensor]:
    """h ← update(h) five times; the initial value and the result are states' of one name."""
    b = Builder()
    h = b.state("h", np.zeros(8, np.float32))
    (final,), _ = b.scan(5, [h], lambda t, c: ([update(b, c[0])], []))  # type: ignore[operator]
    b.update_state(h, final)
    return b, final


def test_recurrence_of_a_map_runs_in_the_state() -> None:
    b, final = recurrence(lambda b, h: b.compute((8,), lambda i: h[i] * 0.5))
    p = planned(b)
    assert p.scratch_bytes == 0
    assert not p.commit and not any(p.carries.values())
    assert p.place(final.buffer) == ("state", 0)


def test_recurrence_of_a_product_keeps_one_copy() -> None:
    b, _ = recurrence(lambda b, h: b.compute((8,), lambda i: b.sum((8,), lambda k: h[k])))
    p = planned(b)
    assert p.scratch_bytes == 64
    assert not p.commit and [len(c) for c in p.carries.values()] == [1]


def test_temporaries_of_a_pass_share_memory_while_carried_values_stay() -> None:
    b = Builder()
    x = b.input("x", "f32", (64,))

    def step(t: object, c: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        u = c[0]
        for _ in range(5):
            u = b.compute((64,), lambda i, u=u: u[63 - i] * 2.0)
        return [b.compute((64,), lambda i: u[63 - i] + c[1][i]), c[1]], []

    finals, _ = b.scan(3, [b.compute((64,), lambda i: x[i])] * 2, step)
    b.output("y", finals[0])
    p = planned(b)
    assert p.scratch_bytes == p.lower_bound == 3 * 256


def test_shift_register_is_copied_oldest_first() -> None:
    b = Builder()
    x = b.input("x", "f32", (8,))
    zero = b.compute((8,), lambda i: x[i] * 0.0)
    finals, _ = b.scan(
        4, [zero, zero, zero], lambda t, c: ([b.compute((8,), lambda i: x[i] + c[2][i]), c[0], c[1]], [])
    )
    b.output("y", finals[2])
    p = planned(b)
    (order,) = p.carries.values()
    pairs = [(d.name, s.name) for d, s in order]
    assert pairs.index((finals[2].buffer.name, finals[1].buffer.name)) < pairs.index(
        (finals[1].buffer.name, finals[0].buffer.name)
    )


# --- states ------------------------------------------------------------------------------------------


def test_state_is_updated_in_place() -> None:
    b = Builder()
    x = b.input("x", "f32", (8,))
    h = b.state("h", np.zeros(8, np.float32))
    new = b.compute((8,), lambda i: h[i] + x[i])
    b.update_state(h, new)
    b.output("y", new)
    p = planned(b)
    assert p.commit == () and p.scratch_bytes == 0 and p.alias == {new.buffer: h.buffer}


def test_state_read_after_its_update_is_committed_by_copy() -> None:
    b = Builder()
    h = b.state("h", np.zeros(8, np.float32))
    new = b.compute((8,), lambda i: h[i] + 1.0)
    b.update_state(h, new)
    b.output("y", b.compute((8,), lambda i: h[i] - new[i]))
    assert planned(b).commit == ((h.buffer, new.buffer),)


def test_states_that_swap_need_a_temporary() -> None:
    b = Builder()
    one, two = b.state("one", np.zeros(8, np.int32)), b.state("two", np.ones(8, np.int32))
    b.update_state(one, two)
    b.update_state(two, one)
    module = b.module()
    p = plan(module)
    check(module, p)
    assert len(p.commit) == 3 and p.scratch_bytes == 64
    simulate(module, p, 0)
    wrong = replace(p, commit=((one.buffer, two.buffer), (two.buffer, one.buffer)))
    with pytest.raises(PlanError, match="wrong value in two"):
        check(module, wrong)


def test_update_from_input_constant_output_and_unchanged() -> None:
    b = Builder()
    x = b.input("x", "f32", (8,))
    c = b.constant(np.ones(8, np.float32))
    b.output("y", x)
    states = [b.state(f"s{n}", np.zeros(8, np.float32)) for n in range(4)]
    b.update_state(states[0], x)
    b.update_state(states[1], c)
    b.update_state(states[2], Tensor(b.outputs[0]))
    b.update_state(states[3], states[3])
    p = planned(b)
    assert {(d.name, s.name) for d, s in p.commit} == {("s0", "x"), ("s1", c.buffer.name), ("s2", "y")}
    assert [p.state[s.buffer] for s in states] == [0, 64, 128, 192] and p.state_bytes == 256


# --- branches, pieces, sizes ---------------------------------------------------------------------------


def test_sides_of_a_branch_share_memory() -> None:
    b, t = vector()

    def side() -> list[Tensor]:
        u = b.compute((1000,), lambda i: t[i % 32])
        return [b.compute((32,), lambda i: b.sum((1000,), lambda k: u[k]) + t[i])]

    (y,) = b.branch(t[0] < 1.0, side, side)
    b.output("y", y)
    assert planned(b).scratch_bytes < 5000


def test_pieces_of_a_concatenation_start_anew_in_every_pass() -> None:
    b = Builder()
    x = b.input("x", "f32", (64,))

    def step(t: object, c: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        u = b.compute((64,), lambda i: c[0][63 - i])
        v = b.compute((64,), lambda i: u[63 - i])
        joined = b.empty("f32", (128,), "joined")
        b.store(joined, (64,), lambda i: (i,), lambda i: v[i])
        b.store(joined, (64,), lambda i: (i + 64,), lambda i: v[63 - i])
        return [b.compute((64,), lambda i: joined[127 - i])], []

    finals, _ = b.scan(3, [b.compute((64,), lambda i: x[i])], step)
    b.output("y", finals[0])
    p = planned(b)
    assert p.scratch_bytes == p.lower_bound == 3 * 256


def test_empty_buffers_and_empty_modules() -> None:
    b = Builder()
    x = b.input("x", "f32", (0, 4))
    t = b.compute((0, 4), lambda i, j: x[i, j] + 1.0)
    b.output("y", t)
    assert planned(b).scratch == {t.buffer: 0}
    assert planned(Builder()).scratch_bytes == 0


def test_wrong_modules_are_refused() -> None:
    b, t = vector()
    b.output("y", t)
    module = b.module()
    short = Buffer("short", "f32", (4,), "state")
    module.states.append(StatePair("s", short, np.zeros(4, np.float32), t.buffer))
    with pytest.raises(ValueError, match="differs in type or size"):
        plan(module)
    with pytest.raises(ValueError, match="power of two"):
        plan(module, 48)


def large(count: int) -> Module:
    """A deep network with skips of random length and sizes."""
    pick, b = random.Random(7), Builder()
    ts = [b.input("x", "f32", (64, 16))]
    for _ in range(count):
        size, a, c = pick.randint(1, 400), ts[-1], ts[max(0, len(ts) - 1 - pick.randrange(12))]
        na, nc = a.static[0], c.static[0]
        ts.append(b.compute((size, 16), lambda i, j, a=a, c=c, na=na, nc=nc: a[i % na, 15 - j] + c[i % nc, 15 - j]))
    b.output("y", ts[-1])
    return b.module()


def test_many_buffers_fast_tight_and_deterministic() -> None:
    module = large(600)
    start = time.process_time()
    p = plan(module)
    assert time.process_time() - start < 2
    check(module, p)
    assert p.scratch_bytes <= 1.1 * p.lower_bound
    assert list(plan(module).scratch.values()) == list(p.scratch.values())
    assert list(plan(large(600)).scratch.values()) == list(p.scratch.values())
