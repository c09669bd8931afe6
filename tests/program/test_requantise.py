"""Quantised chains in their least arithmetic: the same bits, for every value, on every target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from headrace.codegen.quantise import fused, inverse, rounds_alike
from headrace.program.build import Builder
from headrace.program.expr import BINARY, Expr, binary, call, cast, const, maximum, minimum, select, walk
from headrace.program.finite import Magnitudes
from headrace.program.fuse import fuse
from headrace.program.interp import run
from headrace.program.ir import Define, Module
from headrace.program.optimise import optimise
from headrace.program.requantise import as_near, near, requantise
from headrace.program.verify import verify
from headrace.targets.registry import get_target
from tests.codegen.native import RUNNABLE, Native
from tests.targets import simd_cases

N = 45
RANGES = {"i8": (-128, 127), "u8": (0, 255), "i16": (-32768, 32767), "u16": (0, 65535)}
SCALES = (0.0371, 0.25, 1.0, 3.3e-4, 0.004115113)
ODD = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30, 1e-42)

Step = tuple[str, str, float, int]
STEPS = hs.lists(
    hs.tuples(
        hs.sampled_from(["quantise", "quantise", "relu", "clip", "above", "scale", "shift", "mean"]),
        hs.sampled_from(list(RANGES)),
        hs.sampled_from(SCALES),
        hs.sampled_from([0, 0, 3, 127, 200, -128]),
    ),
    min_size=1,
    max_size=6,
)


def quantised(x: Expr, dtype: str, scale: float, zero: int) -> Expr:
    return cast(call("round", x / scale) + float(zero), dtype, "round")


def dequantised(q: Expr, scale: float, zero: int) -> Expr:
    return cast(cast(q, "i32") - const(zero, "i32"), "f32") * scale


def step(x: Expr, kind: str, dtype: str, scale: float, zero: int) -> Expr:
    if kind == "quantise":
        low, high = RANGES[dtype]
        zero = min(max(zero, low), high)
        return dequantised(quantised(x, dtype, scale, zero), scale, zero)
    return {
        "relu": lambda: maximum(x, 0.0),
        "clip": lambda: minimum(maximum(x, 0.0), 6.0),
        "above": lambda: maximum(x, 1.7),
        "scale": lambda: x * scale,
        "shift": lambda: x + float(zero),
        "mean": lambda: (x + select(x < 0.0, x * 0.1, x)) * 0.5,
    }[kind]()


def chain(steps: list[Step], last: Step = ("quantise", "i8", 0.0371, 0), n: int = N) -> Module:
    """x → every step; the bytes of the last, and what they stand for."""
    b = Builder()
    x = b.input("x", "f32", (n,))
    _, dtype, scale, zero = last

    def through(e: Expr) -> Expr:
        for s in steps:
            e = step(e, *s)
        return e

    q = b.compute((n,), lambda i: quantised(through(x[i]), dtype, scale, zero))
    b.output("q", q)
    b.output("y", b.compute((n,), lambda i: maximum(dequantised(q[i], scale, zero), 0.0)))
    return b.module()


def values(scale: float, seed: int, n: int = N) -> np.ndarray[Any, Any]:
    """Floats with ties between integers, their neighbours, infinities and NaN among them."""
    rng = np.random.default_rng(seed)
    ties = ((rng.integers(-140, 140, n) + 0.5) * scale).astype(np.float32)
    ties = np.where(rng.random(n) < 0.5, np.nextafter(ties, rng.choice([-np.inf, np.inf], n).astype(np.float32)), ties)
    wide = (rng.standard_normal(n) * 60 * scale).astype(np.float32)
    x = np.where(rng.random(n) < 0.5, ties, wide)
    return np.where(rng.random(n) < 0.15, rng.choice(np.array(ODD, np.float32), n), x).astype(np.float32)


def same(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value, name)


@settings(max_examples=150, deadline=None)
@given(STEPS, hs.sampled_from(list(RANGES)), hs.sampled_from(SCALES), hs.integers(0, 999))
def test_every_bit_is_kept(steps: list[Step], dtype: str, scale: float, seed: int) -> None:
    module = fuse(chain(steps, ("quantise", dtype, scale, RANGES[dtype][0] + 5)))
    new = requantise(module)
    verify(new)
    for first in (scale, steps[0][2]):
        x = values(first, seed)
        same(run(new, {"x": x}), run(module, {"x": x}))


def defines(module: Module) -> list[Define]:
    return [s for s in module.body if isinstance(s, Define)]


def nodes(module: Module) -> list[Expr]:
    return list({n: None for d in defines(module) for s in d.stores for n in walk(s.value)})


def test_one_rounding_is_left_of_a_relu_between_equal_scales() -> None:
    """x → i8 → f32 → max(0) → i8 → f32: rounded once, within 0 … 127."""
    steps: list[Step] = [("quantise", "i8", 0.0371, 0), ("relu", "i8", 0.0, 0)]
    new = requantise(fuse(chain(steps)))
    found = [n for n in map(as_near, nodes(new)) if n is not None]
    assert [(n.low, n.high) for n in found] == [(0, 127)]
    assert not any(n.op == "round" for n in nodes(new))


def test_zero_points_cancel_where_nothing_can_be_nan() -> None:
    """The input's own chain keeps its zero point, since NaN is 0 before it is added; the next one does not."""
    b = Builder()
    x = b.input("x", "f32", (9,))
    first = b.compute((9,), lambda i: step(x[i], "quantise", "u8", 0.25, 7))
    total = b.compute((9,), lambda i: b.sum((9,), lambda k: first[k] * cast(cast(i + k, "i32"), "f32")))
    b.output("y", b.compute((9,), lambda i: step(total[i], "quantise", "u8", 0.5, 9)))
    module = fuse(b.module())
    new = requantise(module)
    assert sorted((n.low, n.high) for n in map(as_near, nodes(new)) if n is not None) == [(-9, 246), (0, 255)]
    given = {"x": values(0.25, 0, 9)}
    same(run(new, given), run(module, given))


def test_functions_of_a_byte_that_are_no_clamp_stay() -> None:
    for steps in ([("scale", "i8", 0.25, 0)], [("mean", "i8", 0.0, 0)]):
        module = fuse(chain([("quantise", "i8", 0.0371, 0), *steps]))
        new = requantise(module)
        assert len([n for n in nodes(new) if as_near(n) is not None]) == 2
        x = values(0.0371, 3)
        same(run(new, {"x": x}), run(module, {"x": x}))


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("dtype", list(RANGES))
def test_native_code_gives_the_same(target: str, dtype: str) -> None:
    """All ties of the last scale, tails of vectors, NaN, infinities: bytes and floats."""
    for zero, scale, n in ((0, 0.0371, 1031), (7, 3.3e-4, 37)):
        module = chain([], ("quantise", dtype, scale, zero), n)
        new = optimise(module, get_target(target).isa.lanes)
        for seed in range(3):
            x = {"x": values(scale, seed, n)}
            same(Native(new, target).run(x), run(module, x)) if not seed else None
            same(run(new, x), run(module, x))


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("dtype", list(RANGES))
def test_arithmetic_of_small_integers(target: str, dtype: str) -> None:
    """Sums and products wrap in their own type, although they are computed in i32."""
    b, rng = Builder(), np.random.default_rng(0)
    low, high = RANGES[dtype]
    x, y = b.input("x", dtype, (77,)), b.input("y", dtype, (77,))
    for op in ("add", "sub", "mul", "min", "max"):
        b.output(op, b.compute((77,), lambda i, op=op: binary(op, x[i], y[i])))
    for op in ("lt", "le", "eq", "ne"):
        assert op in BINARY
        b.output(op, b.compute((77,), lambda i, op=op: select(binary(op, x[i], y[i]), x[i], y[i])))
    b.output("narrow", b.compute((77,), lambda i: cast(cast(x[i], "i32") * cast(y[i], "i32"), dtype, "sat")))
    module = b.module()
    kind = f"{'u' if dtype[0] == 'u' else ''}int{dtype[1:]}"
    given = {n: rng.integers(low, high + 1, 77).astype(kind) for n in ("x", "y")}
    given["y"][:30] = given["x"][:30]
    new = optimise(module, get_target(target).isa.lanes)
    same(run(new, given), run(module, given))
    same(Native(new, target).run(given), run(module, given))


@settings(max_examples=60, deadline=None)
@given(STEPS, hs.integers(0, 99))
def test_bounds_hold(steps: list[Step], seed: int) -> None:
    """No value that is said to be finite is larger than its bound."""
    module = chain([("quantise", "i8", 0.25, 0), *steps])
    found = Magnitudes(module)
    x = {"x": values(0.25, seed)}
    for d in defines(module):
        for s in d.stores:
            if s.buffer.dtype != "f32":
                continue
            shown = replace(s.buffer, space="output")
            one = Module("one", module.inputs, [shown], [replace(d, stores=(replace(s, buffer=shown),))])
            bound = found.of(s.value)
            if bound is not None and {b.name for b in module.inputs} >= {
                n.arg.name for n in walk(s.value) if n.op == "load"
            }:
                assert np.abs(run(one, x)[shown.name]).max() <= bound


def test_what_may_be_infinite_is_not_called_finite() -> None:
    b = Builder()
    x = b.input("x", "f32", (4,))
    half = b.constant(np.array([1, 2, np.inf, 4], np.float32))
    q = b.compute((4,), lambda i: cast(near(x[i], -8, 7), "f32"))
    cases = {
        "input": b.compute((4,), lambda i: x[i] * 0.5),
        "infinite": b.compute((4,), lambda i: q[i] * half[i]),
        "quotient": b.compute((4,), lambda i: q[i] / q[3 - i]),
        "exp": b.compute((4,), lambda i: call("exp", q[i] * 100.0)),
        "large": b.compute((4,), lambda i: q[i] * 3e37 * 2.0),
        "fine": b.compute((4,), lambda i: call("tanh", q[i] * 100.0) + q[i]),
    }
    for name, t in cases.items():
        b.output(name, t)
    module = b.module()
    known = {b.name for b in Magnitudes(module).known}
    assert known & set(cases) == {"fine"}


@pytest.mark.parametrize("seed", range(20))
def test_the_inverse_of_a_scale_rounds_like_the_division(seed: int) -> None:
    """Against random floats, most of them close to ties; and the emulated multiply-add against exact fractions."""
    rng = np.random.default_rng(seed)
    scale = np.float32(np.exp(rng.uniform(-12, 6)))
    found = inverse(float(scale), -128, 127)
    if found is None:
        pytest.skip("this scale is divided by")
    high, low = (np.float32(v) for v in found)
    x = ((rng.integers(-130, 130, 20000) + 0.5) * np.float64(scale)).astype(np.float32)
    x = (x.view(np.int32) + rng.integers(-9, 10, x.size, dtype=np.int32)).view(np.float32)
    got = np.rint(fused(x, high, x * low))
    assert (np.clip(got, -128, 127) == np.clip(np.rint(x / scale), -128, 127)).all()
    few = x[:200]
    exact = np.array([simd_cases.fused(float(v), float(high), float(v * low), np.float32) for v in few], np.float32)
    assert (fused(few, high, few * low) == exact).all()


def test_inverses_are_found_and_refused() -> None:
    """Most scales have one; powers of two and scales near the ends of the range are divided by."""
    rng = np.random.default_rng(0)
    scales = np.exp(rng.uniform(-12, 6, 100)).astype(np.float32)
    assert sum(inverse(float(s), -128, 127) is not None for s in scales) > 90
    for s in scales[:9]:  # one product alone does not do
        high = np.float32(1 / np.float64(s))
        assert not rounds_alike(s, high, np.float32(0), -128, 127)
    for scale in (0.25, 0.0, -0.3, 1e-30, 1e30, float("nan"), float("inf")):
        assert inverse(scale, -128, 127) is None
