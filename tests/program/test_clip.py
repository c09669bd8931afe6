"""Windows over padded data without the padding: what is left out is exactly what is zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from headrace.codegen import generate
from headrace.program import interp
from headrace.program.build import Builder
from headrace.program.clip import MAX_TERMS, clip_windows, clipped, may_be_clipped
from headrace.program.expr import Expr, const, index, select
from headrace.program.ir import Module
from headrace.program.optimise import optimise
from headrace.schedule import steps as st
from headrace.schedule.heuristic import Heuristic
from headrace.schedule.work import work
from headrace.targets.registry import get_target
from tests.codegen.native import HERE, Native
from tests.codegen.random_schedules import random_schedule
from tests.program.compare import assert_close
from tests.program.passes import defines, preserves
from tests.program.random_tensors import feeds_of, seeded


def window(
    length: int = 9, taps: int = 5, channels: int = 8, stride: int = 1, dilation: int = 1, pad: int = 2,
    weight: float = 1.0, dtype: str = "f32", before: bool = True, bias: float = 0.25,
) -> Module:  # fmt: skip
    """y[t, c] = sum(k: x[stride * t + dilation * k - pad, c] * w[k, c]) + bias; x is 0 outside."""
    b = Builder()
    x = b.input("x", dtype, (length, channels))
    if before:
        x = b.compute((length, channels), lambda t, c: x[t, c] + 1)
    values = weight * np.random.default_rng(0).standard_normal((taps, channels))
    w = b.constant(values.astype(np.float32) if dtype == "f32" else (9 * values).astype(np.int32))
    points = (length + 2 * pad - dilation * (taps - 1) - 1) // stride + 1

    def tap(t: Expr, c: Expr, k: Expr) -> Expr:
        i = t * stride + k * dilation - pad
        return select((index(0) <= i) & (i < length), x[i, c], const(0, dtype)) * w[k, c]

    y = b.compute((points, channels), lambda t, c: b.sum((taps,), lambda k: tap(t, c, k)))
    more = const(bias if dtype == "f32" else 1, dtype)
    b.output("y", b.compute((points, channels), lambda t, c: y[t, c] + more))
    return b.module()


def schedules(module: Module, target: str) -> list[st.Schedule]:
    heuristic = Heuristic(get_target(target).isa)
    return [heuristic.schedule(d) for d in defines(module) if clipped(d)]


SIZES = hs.fixed_dictionaries({
    "length": hs.integers(2, 24), "taps": hs.integers(2, 9), "channels": hs.integers(4, 19),
    "stride": hs.integers(1, 3), "dilation": hs.integers(1, 4), "pad": hs.integers(1, 20),
    "dtype": hs.sampled_from(["f32", "i32"]),
    "before": hs.booleans(),
})  # fmt: skip


@settings(max_examples=40)
@given(SIZES)
def test_every_size(size: dict[str, object]) -> None:
    if size["length"] + 2 * size["pad"] <= size["dilation"] * (size["taps"] - 1):  # type: ignore[operator]
        return
    module = window(**size)  # type: ignore[arg-type]
    preserves(lambda m: clip_windows(m, 8), module)
    preserves(lambda m: optimise(m, 8), module)
    preserves(lambda m: optimise(m, 1), module)


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize(("length", "dilation", "stride"), [(21, 1, 1), (21, 2, 1), (7, 3, 2)])
def test_native_code(target: str, length: int, dilation: int, stride: int) -> None:
    module = window(length, 7, 13, stride, dilation, pad=3 * dilation)
    feeds = feeds_of(module, 1)
    lowered = optimise(module, get_target(target).isa.lanes)
    assert_close(Native(lowered, target).run(feeds), interp.run(module, feeds), 64)
    if get_target(target).isa.lanes >= 4:
        (schedule,) = schedules(lowered, target)
        assert any(isinstance(step, st.UnrollTiles) for step in schedule)


@pytest.mark.parametrize("seed", range(8))
def test_other_schedules(seed: int) -> None:
    module = window(11, 5, 9, pad=4, dilation=2)
    feeds, pick = feeds_of(module, seed), seeded(seed)
    got = Native(optimise(module, 8), "native", lambda d: random_schedule(d, pick)).run(feeds)
    assert_close(got, interp.run(module, feeds), 64)


def products(text: str) -> int:
    """Multiply-adds in the text of a C program."""
    return sum(line.count("fma_f32x8(") for line in text.splitlines() if line.strip().startswith("acc"))


def test_products_of_padding_are_not_computed() -> None:
    module = optimise(window(10, 9, 8, pad=8, dilation=2), 8)
    valid = sum(0 <= t + 2 * k - 8 < 10 for t in range(10) for k in range(9))
    text = generate(module, "net", get_target("x86-64-avx2")).source
    assert products(text) == valid < 90
    (define,) = filter(clipped, defines(module))
    assert st.macs(define) == 8 * valid == work(define).macs
    assert work(define).operations == 8 * (valid + 10)  # and the bias
    assert ".pad" not in text and "?" not in text


@pytest.mark.parametrize("weight", [np.inf, np.nan])
def test_weights_that_are_no_numbers_meet_their_zeros(weight: float) -> None:
    """0 * inf is NaN, in the padding as well."""
    module = window(weight=weight)
    assert not any(map(may_be_clipped, defines(module)))
    with np.errstate(all="ignore"):
        preserves(lambda m: optimise(m, 8), module)


def test_long_windows_are_padded() -> None:
    module = optimise(window(MAX_TERMS // 5 + 1), 8)
    assert not any(map(clipped, defines(module)))
    assert any(map(clipped, defines(optimise(window(MAX_TERMS // 5), 8))))
    assert not any(map(clipped, defines(optimise(window(), 1))))  # no vectors, so short loops are as good


def test_data_that_lies_across_is_padded_and_turned() -> None:
    """h[c, t] is an output, so it stays as it is: the copy with the padding lies as vectors want it."""
    b, rng = Builder(), np.random.default_rng(0)
    u = b.input("u", "f32", (8, 9))
    mixed, w, last = (b.constant(rng.standard_normal(n).astype(np.float32)) for n in ((8, 8), (8, 3), (8, 8)))
    h = b.compute((8, 9), lambda c, t: b.sum((8,), lambda k: u[k, t] * mixed[k, c]))

    def tap(t: Expr, c: Expr, k: Expr) -> Expr:
        return select((index(0) <= t + k - 1) & (t + k - 1 < 9), h[c, t + k - 1], const(0, "f32")) * w[c, k]

    y = b.compute((8, 9), lambda c, t: b.sum((3,), lambda k: tap(t, c, k)))
    b.output("h", h)
    b.output("z", b.compute((8, 9), lambda o, t: b.sum((8,), lambda c: y[c, t] * last[c, o])))
    module = preserves(lambda m: optimise(m, 8), b.module())
    assert not any(map(clipped, defines(module)))
    (copy,) = {b for b in module.buffers() if b.name.endswith(".pad")}
    assert copy.bound == (11, 8)
    feeds = feeds_of(module, 1)
    assert_close(Native(module, "native").run(feeds), interp.run(module, feeds), 64)
