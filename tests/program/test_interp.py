"""The interpreter beside plain NumPy."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from headrace.program import grid, interp
from headrace.program.build import Builder, Tensor
from headrace.program.expr import (
    Expr,
    all_of,
    binary,
    call,
    cast,
    check,
    const,
    index,
    maximum,
    minimum,
    select,
)
from headrace.program.interp import Fault
from headrace.program.verify import verify

Array = np.ndarray[Any, Any]


def run(b: Builder, **feeds: Array) -> dict[str, Any]:
    """Outputs of the verified module."""
    module = b.module()
    verify(module)
    return interp.run(module, feeds)


def random(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_a_matrix_product() -> None:
    b = Builder()
    x, w = b.input("x", "f32", (5, 7)), b.input("w", "f32", (7, 3))
    b.output("y", b.compute((5, 3), lambda i, j: b.sum((7,), lambda k: x[i, k] * w[k, j])))
    a, c = random(5, 7), random(7, 3)
    np.testing.assert_allclose(run(b, x=a, w=c)["y"], a @ c, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["i32", "i64"])
@pytest.mark.parametrize("scale", [1, 2**31 - 1])
def test_integer_contractions_are_exact_and_wrap(dtype: str, scale: int) -> None:
    b = Builder()
    x, w = b.input("x", dtype, (4, 6)), b.input("w", dtype, (6, 2))
    b.output("y", b.compute((4, 2), lambda i, j: b.sum((6,), lambda k: x[i, k] * w[k, j])))
    r = np.random.default_rng(1)
    kind = np.int32 if dtype == "i32" else np.int64
    a, c = (r.integers(-scale, scale, s, endpoint=True).astype(kind) for s in ((4, 6), (6, 2)))
    wanted = np.zeros((4, 2), kind)
    with np.errstate(over="ignore"):
        for k in range(6):
            wanted += a[:, k, None] * c[None, k]
    np.testing.assert_array_equal(run(b, x=a, w=c)["y"], wanted)


def test_a_guarded_load_outside_does_no_harm() -> None:
    b = Builder()
    x = b.input("x", "f32", (4,))
    b.output("y", b.compute((6,), lambda i: select(all_of([i >= 1, i < 5]), x[i - 1], -1.0)))
    np.testing.assert_array_equal(run(b, x=np.arange(4, dtype=np.float32))["y"], [-1, 0, 1, 2, 3, -1])


def test_a_load_outside_that_is_taken_is_a_fault() -> None:
    b = Builder()
    x = b.input("x", "f32", (4,))
    b.output("y", b.compute((6,), lambda i: select(i >= 1, x[i - 1], -1.0)))
    with pytest.raises(Fault, match="load x"):
        interp.run(b.module(), {"x": np.zeros(4, np.float32)})


@pytest.mark.parametrize("at", [-1, 4])
def test_checks_fail_outside_only_where_evaluated(at: int) -> None:
    b = Builder()
    x, i = b.input("x", "f32", (4,)), b.input("i", "i64", (3,))
    b.output("y", b.compute((3,), lambda n: x[check(index(i[n]), 4)]))
    table = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(run(b, x=table, i=np.array([3, 0, 1]))["y"], [3, 0, 1])
    with pytest.raises(Fault, match="check"):
        run(b, x=table, i=np.array([3, at, 1]))


@pytest.mark.parametrize("at", [-1, 4])
def test_checks_in_a_side_not_taken_do_nothing(at: int) -> None:
    b = Builder()
    x, i = b.input("x", "f32", (4,)), b.input("i", "i64", (3,))
    b.output("y", b.compute((3,), lambda n: select(n.eq(1), 9.0, x[check(index(i[n]), 4)])))
    table = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(run(b, x=table, i=np.array([3, at, 1]))["y"], [3, 9, 1])


def test_nested_reductions_and_values_between_them() -> None:
    """Softmax in one definition: the maximum and the sum stand inside the element."""
    b = Builder()
    x = b.input("x", "f32", (3, 5))

    def element(i: Expr, j: Expr) -> Expr:
        top = b.reduce("max", (5,), lambda k: x[i, k])
        return call("exp", x[i, j] - top) / b.sum((5,), lambda k: call("exp", x[i, k] - top))

    b.output("y", b.compute((3, 5), element))
    a = random(3, 5)
    e = np.exp(a - a.max(1, keepdims=True))
    np.testing.assert_allclose(run(b, x=a)["y"], e / e.sum(1, keepdims=True), rtol=1e-5)


def test_a_reduction_whose_extent_varies() -> None:
    b = Builder()
    x = b.input("x", "f32", (6,))
    b.output("y", b.compute((6,), lambda i: b.sum((i + 1,), lambda k: x[k])))
    a = random(6)
    np.testing.assert_allclose(run(b, x=a)["y"], a.cumsum(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["argmax", "argmin", "argmax_last", "argmin_last"])
def test_first_and_last_extremes(kind: str) -> None:
    b = Builder()
    x = b.input("x", "i32", (2, 4))
    b.output("y", b.compute((2,), lambda i: b.reduce(kind, (4,), lambda k: x[i, k])))
    a = np.array([[3, 7, 7, 3], [1, 1, 1, 1]], np.int32)
    wanted = {"argmax": [1, 0], "argmin": [0, 0], "argmax_last": [2, 3], "argmin_last": [3, 3]}[kind]
    assert run(b, x=a)["y"].tolist() == wanted


@pytest.mark.parametrize(("kind", "neutral"), [("sum", 0.0), ("prod", 1.0), ("max", -np.inf), ("min", np.inf)])
def test_an_empty_reduction_is_neutral(kind: str, neutral: float) -> None:
    b = Builder()
    x = b.input("x", "f32", (2, 0))
    b.output("y", b.compute((2,), lambda i: b.reduce(kind, (0,), lambda k: x[i, k])))
    assert run(b, x=np.zeros((2, 0), np.float32))["y"].tolist() == [neutral] * 2


def test_large_domains_are_cut_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "POINTS", 64)
    b = Builder()
    x = b.input("x", "f32", (16, 24))
    y = b.compute((16, 24), lambda i, j: maximum(x[i, j], 0.0) + b.reduce("max", (24,), lambda k: x[i, k]))
    b.output("y", y)
    b.output("s", b.compute((), lambda: b.sum((16, 24), lambda i, j: x[i, j])))
    zeros = b.constant(np.zeros(3, np.float32))
    b.output("last", b.scatter(zeros, (16, 24), lambda i, j: ((i * 24 + j) % 3,), lambda i, j: x[i, j]))
    a = random(16, 24)
    out = run(b, x=a)
    np.testing.assert_array_equal(out["y"], np.maximum(a, 0) + a.max(1, keepdims=True))
    np.testing.assert_allclose(out["s"], a.sum(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(out["last"], a.reshape(-1)[-3:])


@pytest.mark.parametrize("combiner", [None, "add", "mul", "min", "max"])
def test_scatter_in_order(combiner: str | None) -> None:
    b = Builder()
    x, i = b.input("x", "f32", (6,)), b.input("i", "i64", (6,))
    base = b.constant(np.full(3, 0.5, np.float32))
    b.output("y", b.scatter(base, (6,), lambda n: (check(index(i[n]), 3),), lambda n: x[n], combiner))
    a, at = random(6), np.array([0, 2, 0, 2, 2, 0])
    wanted = np.full(3, 0.5, np.float32)
    fold = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}
    for n in range(6):
        wanted[at[n]] = a[n] if combiner is None else fold[combiner](wanted[at[n]], a[n])
    np.testing.assert_array_equal(run(b, x=a, i=at)["y"], wanted)


def test_loops_carry_all_values_at_once() -> None:
    """Fibonacci: each pass reads the old pair."""
    b = Builder()
    one = b.constant(np.ones(1, np.int64))

    def step(t: Expr, c: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        following = b.compute((1,), lambda i: c[0][i] + c[1][i])
        return [c[1], following], [following]

    last, stacks = b.scan(6, [one, one], step)
    b.output("y", stacks[0])
    b.output("a", last[0])
    out = interp.run(b.module(), {})
    assert out["y"].reshape(-1).tolist() == [2, 3, 5, 8, 13, 21]
    assert out["a"].tolist() == [13]


def test_loops_backward_and_until() -> None:
    b = Builder()
    x = b.input("x", "f32", (5,))
    zero = b.constant(np.zeros((), np.float32))

    def step(t: Expr, c: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        total = b.compute((), lambda: c[0][()] + x[t])
        return [total], [total]

    _, stacks = b.scan(5, [zero], step, reverse=True)
    b.output("y", stacks[0])
    last, _ = b.scan(5, [zero], step, until=lambda c: c[0][()] < 3.0)
    b.output("z", last[0])
    out = run(b, x=np.ones(5, np.float32))
    assert out["y"].tolist() == [5, 4, 3, 2, 1]
    assert out["z"] == 3


@pytest.mark.parametrize("flag", [True, False])
def test_branches(flag: bool) -> None:
    b = Builder()
    x, c = b.input("x", "f32", (3,)), b.input("c", "bool", ())
    (y,) = b.branch(
        c[()],
        lambda: [b.compute((3,), lambda i: x[i] + 1.0)],
        lambda: [b.compute((3,), lambda i: x[i] * 2.0)],
    )
    b.output("y", y)
    a = random(3)
    np.testing.assert_array_equal(run(b, x=a, c=np.array(flag))["y"], a + 1 if flag else a * 2)


def test_symbolic_extents_come_from_the_inputs() -> None:
    b = Builder()
    t = b.symbol("T", 8, 2)
    x, y = b.input("x", "f32", (t,)), b.input("y", "f32", (t * 2 + 1,))
    b.output("z", b.compute((t,), lambda i: x[t - 1 - i] + y[i * 2]))
    a, c = random(6), random(13)
    np.testing.assert_array_equal(run(b, x=a, y=c)["z"], a[::-1] + c[:12:2])
    for n, m in ((6, 12), (5, 11), (10, 21)):
        with pytest.raises(ValueError, match=r"shape|multiple"):
            run(b, x=random(n), y=random(m))


def test_wrong_feeds_are_refused() -> None:
    b = Builder()
    b.output("y", b.input("x", "f32", (3,)))
    module = b.module()
    for feeds in ({}, {"x": random(4)}, {"x": np.zeros(3)}, {"x": random(3), "z": random(1)}):
        with pytest.raises(ValueError, match="input"):
            interp.run(module, feeds)


def test_states_go_from_run_to_run() -> None:
    b = Builder()
    x = b.input("x", "f32", (2,))
    total = b.state("total", np.zeros(2, np.float32))
    following = b.compute((2,), lambda i: total[i] + x[i])
    b.update_state(total, following)
    b.output("y", following)
    module = b.module()
    verify(module)
    first = interp.run(module, {"x": np.ones(2, np.float32)})
    second = interp.run(module, {"x": np.ones(2, np.float32)}, first["state"])
    assert first["y"].tolist() == [1, 1]
    assert second["state"]["total"].tolist() == [2, 2]
    assert interp.run(module, {"x": np.ones(2, np.float32)})["y"].tolist() == [1, 1]


def test_what_is_not_written_is_poison() -> None:
    b = Builder()
    t = b.empty("f32", (4,))
    b.store(t, (2,), lambda i: (i * 2,), lambda i: const(1.0, "f32"))
    b.output("y", t)
    np.testing.assert_array_equal(interp.run(b.module(), {})["y"], [1, np.nan, 1, np.nan])


def scalar(value: Array, dtype: str, fn: Any) -> Array:
    """fn on one input."""
    b = Builder()
    x = b.input("x", dtype, value.shape)
    b.output("y", b.compute(value.shape, lambda i: fn(x[i])))
    result: Array = run(b, x=value)["y"]
    return result


@pytest.mark.parametrize(("dtype", "kind"), [("f16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_half_precision_is_rounded_after_each_operation(dtype: str, kind: Any) -> None:
    x = np.array([1.0, 3.0, 0.1]).astype(kind)
    got = scalar(x, dtype, lambda v: (v + 0.001) - v)
    step = (x.astype(np.float32) + np.float32(np.array(0.001, kind))).astype(kind)
    wanted = (step.astype(np.float32) - x.astype(np.float32)).astype(kind)
    assert got.dtype == x.dtype
    np.testing.assert_array_equal(got.astype(np.float32), wanted.astype(np.float32))


def test_integer_division_truncates_and_floor_division_floors() -> None:
    x = np.array([7, -7, 8, -8, -128], np.int8)
    assert scalar(x, "i8", lambda v: v / 3).tolist() == [2, -2, 2, -2, -42]
    assert scalar(x, "i8", lambda v: v // 3).tolist() == [2, -3, 2, -3, -43]
    assert scalar(x, "i8", lambda v: v % 3).tolist() == [1, 2, 2, 1, 1]
    assert scalar(x, "i8", lambda v: binary("fmod", v, 3)).tolist() == [1, -1, 2, -2, -2]
    assert scalar(x, "i8", lambda v: v / -1).tolist() == [-7, 7, -8, 8, -128]


def test_division_by_zero_of_integers_is_a_fault_where_it_is_taken() -> None:
    x = np.array([2, 0, 5], np.int32)
    with pytest.raises(Fault, match="division by zero"):
        scalar(x, "i32", lambda v: const(10, "i32") / v)
    assert scalar(x, "i32", lambda v: select(v.eq(0), -1, const(10, "i32") / v)).tolist() == [5, -1, 2]


def test_casts() -> None:
    x = np.array([2.5, 3.5, -2.5, 300, -300, np.nan, np.inf], np.float32)
    assert scalar(x, "f32", lambda v: cast(v, "i8")).tolist() == [2, 3, -2, 127, -128, 0, 127]
    assert scalar(x, "f32", lambda v: cast(v, "i8", "round")).tolist() == [2, 4, -2, 127, -128, 0, 127]
    assert scalar(x, "f32", lambda v: cast(v, "bool")).tolist() == [True] * 7
    y = np.array([300, -1, 2**31], np.int64)
    assert scalar(y, "i64", lambda v: cast(v, "u8")).tolist() == [44, 255, 0]
    assert scalar(y, "i64", lambda v: cast(v, "u8", "sat")).tolist() == [255, 0, 255]
    assert scalar(y, "i64", lambda v: cast(v, "i32", "sat")).tolist() == [300, -1, 2**31 - 1]
    top = np.array([2.0**63, -(2.0**63), 2.0**64], np.float64)
    assert scalar(top, "f64", lambda v: cast(v, "i64")).tolist() == [2**63 - 1, -(2**63), 2**63 - 1]
    assert scalar(top, "f64", lambda v: cast(v, "u64")).tolist() == [2**63, 0, 2**64 - 1]


def test_minimum_and_maximum_propagate_nan() -> None:
    x = np.array([np.nan, 1, 3], np.float32)
    for fn in (minimum, maximum):
        assert np.isnan(scalar(x, "f32", lambda v, fn=fn: fn(v, 2.0))[0])
        assert np.isnan(scalar(x, "f32", lambda v, fn=fn: fn(const(2.0, "f32"), v))[0])


def test_negative_powers_of_integers() -> None:
    x = np.array([2, 1, -1, 0], np.int64)
    assert scalar(x, "i64", lambda v: binary("pow", v, -3)).tolist() == [0, 1, -1, 0]
    assert scalar(x, "i64", lambda v: binary("pow", v, 63)).tolist() == [-(2**63), 1, -1, 0]
