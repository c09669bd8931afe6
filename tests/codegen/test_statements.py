"""Loops, branches, ordered definitions and shared memory in C, where the order of loads and stores matters."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.program import interp
from headrace.program.build import Builder
from headrace.program.expr import Axis, cast, check, const, fresh, index, load, make, select
from headrace.program.ir import Define, Module, Store
from headrace.program.optimise import optimise
from tests.codegen.native import Fault, Native
from tests.program.compare import assert_close
from tests.program.random_tensors import feeds_of


def agrees(module: Module, feeds: dict[str, Any] | None = None) -> None:
    given = feeds_of(module, 0) if feeds is None else feeds
    wanted = interp.run(module, given)
    wanted.pop("state", None)
    for m in (module, optimise(module, 16)):
        assert_close(Native(m).run(given), wanted)


def test_a_condition_is_asked_again_after_its_buffer_changed() -> None:
    b = Builder()
    x, s = b.input("x", "i32", (4,)), b.state("s", np.array([1, 2, 3, 4], np.int32))

    def step(t: Any, carried: Any) -> Any:
        c = carried[0]
        (y,) = b.branch(
            s[0] < 10, lambda: [b.compute((4,), lambda i: c[i] + 1)], lambda: [b.compute((4,), lambda i: c[i] * 2)]
        )
        b.store(s, (4,), lambda i: (i,), lambda i: s[i] * 7 + 5)
        (z,) = b.branch(
            s[0] < 10, lambda: [b.compute((4,), lambda i: y[i] + 100)], lambda: [b.compute((4,), lambda i: y[i] - x[i])]
        )
        return [z], []

    finals, _ = b.scan(3, [x], step)
    b.output("y", finals[0])
    agrees(b.module())


def test_the_condition_of_a_loop_is_asked_before_every_pass() -> None:
    b = Builder()
    x = b.input("x", "i32", (1,))

    def step(t: Any, carried: Any) -> Any:
        (c,) = carried
        (d,) = b.branch(c[0] < 3, lambda: [b.compute((1,), lambda i: c[i] + 1)], lambda: [b.copy(c)])
        return [b.compute((1,), lambda i: d[i] * 2)], []

    finals, _ = b.scan(9, [x], step, until=lambda c: c[0][0] < 3)
    b.output("y", finals[0])
    agrees(b.module(), {"x": np.array([1], np.int32)})


def ordered(b: Builder, axes: tuple[Axis, ...], *stores: Store) -> None:
    b.body.append(Define(axes, stores, (), ordered=True))


def test_an_ordered_definition_reads_what_it_wrote() -> None:
    """A running sum, and a value that every point changes."""
    b = Builder()
    x = b.input("x", "i32", (3, 5))
    total, trace = b.copy(b.compute((1,), lambda i: x[0, 0] * 0)), b.copy(b.compute((3, 5), lambda i, j: x[i, j] * 0))
    i, j = fresh("i", 3), fresh("i", 5)
    zero = (index(0),)
    ordered(b, (i, j), Store(total.buffer, zero, load(total.buffer, zero) * 3 + x[i.var, j.var]))
    b.output("total", total)
    i, j = fresh("i", 3), fresh("i", 5)
    before = select(j.var < 1, const(1, "i32"), trace[i.var, select(j.var < 1, index(0), j.var - 1)])
    ordered(b, (i, j), Store(trace.buffer, (i.var, j.var), before + x[i.var, j.var]))
    b.output("trace", trace)
    agrees(b.module())


def test_the_second_store_sees_the_index_from_before_the_first() -> None:
    b = Builder()
    x = b.input("x", "i32", (4,))
    at, out = b.copy(b.compute((4,), lambda i: x[i] * 0 + cast(i, "i32"))), b.copy(x)
    i = fresh("i", 4)
    where = check(cast(at[i.var], "index"), 4)
    ordered(
        b,
        (i,),
        Store(at.buffer, (i.var,), const(3, "i32") - at[i.var]),
        Store(out.buffer, (where,), x[i.var] * 10),
    )
    b.output("y", out)
    b.output("at", at)
    agrees(b.module())


def test_scatter_in_row_major_order() -> None:
    b = Builder()
    x, at = b.input("x", "f32", (3, 4)), b.input("at", "i64", (3, 4))
    y = b.scatter(
        b.constant(np.zeros(5, np.float32)),
        (3, 4),
        lambda i, j: (check(cast(at[i, j], "index"), 5),),
        lambda i, j: x[i, j],
    )
    b.output("y", y)
    feeds = {"x": np.arange(12, dtype=np.float32).reshape(3, 4), "at": np.arange(12).reshape(4, 3).T.copy() % 5}
    agrees(b.module(), feeds)


def test_an_index_out_of_range_is_an_error() -> None:
    import pytest

    b = Builder()
    x, at = b.input("x", "f32", (4,)), b.input("at", "i64", (40,))
    b.output("y", b.compute((40,), lambda i: x[check(cast(at[i], "index"), 4)]))
    program = Native(b.module())
    good = np.arange(40) % 4
    np.testing.assert_array_equal(program.run({"x": np.arange(4, dtype=np.float32), "at": good})["y"], good)
    for bad in (4, -1, 1 << 40, -(1 << 62)):
        with pytest.raises(Fault):
            program.run({"x": np.zeros(4, np.float32), "at": np.where(good == 3, bad, good)})


def test_square_products_when_names_of_axes_meet() -> None:
    """Variables of the C code are never taken for axes of the same name and extent."""
    b = Builder()
    x, w = b.input("x", "f32", (16, 16)), b.constant(np.eye(16, dtype=np.float32)[::-1].copy())
    from headrace.program.expr import reduce_over, var

    for n in range(3):
        i, j = Axis(var(f"i{n}", 16), 16), Axis(var(f"i{1 - n}", 16), 16)
        k = fresh("k", 16)
        out = b.empty("f32", (16, 16))
        value = reduce_over("sum", (k,), x[i.var, k.var] * w[k.var, j.var])
        b.body.append(Define((i, j), (Store(out.buffer, (i.var, j.var), value),)))
        b.output(f"y{n}", out)
    agrees(b.module())


def test_indices_divided_by_zeros_of_data() -> None:
    """As integers of any other type: x / 0 is 0, x % 0 is x; no divisor stops the process."""
    b = Builder()
    x, y = b.input("x", "i64", (6,)), b.input("y", "i64", (6,))
    for op in ("div", "floordiv", "mod"):

        def quotient(i: Any, op: str = op) -> Any:
            return cast(make(op, "index", (cast(x[i], "index"), cast(y[i], "index"))), "i64")

        b.output(op, b.compute((6,), quotient))
    least = np.iinfo(np.int64).min
    feeds = {"x": np.array([7, -7, 7, -7, least, 5]), "y": np.array([0, 0, 2, 2, -1, -3])}
    got = Native(b.module()).run(feeds)
    assert got["div"].tolist() == [0, 0, 3, -3, least, -1]
    assert got["floordiv"].tolist() == [0, 0, 3, -4, least, -2]
    assert got["mod"].tolist() == [7, -7, 1, 1, 0, -1]
