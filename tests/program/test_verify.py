"""The verifier accepts what is well-formed and names what is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from headrace.program.build import Builder, Tensor
from headrace.program.expr import (
    Expr,
    all_of,
    binary,
    call,
    check,
    const,
    fresh,
    index,
    load,
    make,
    select,
    var,
)
from headrace.program.ir import Branch, Buffer, Define, Loop, Module, Store
from headrace.program.ranges import collision, inside
from headrace.program.verify import Malformed, verify


def module_of(make_body: Callable[[Builder, Tensor], Tensor]) -> Module:
    """input x: f32[4, 6] and table t: i64[3] → output y."""
    b = Builder()
    x = b.input("x", "f32", (4, 6))
    b.input("t", "i64", (3,))
    b.output("y", make_body(b, x))
    return b.module()


def refused(module: Module, rule: str) -> None:
    with pytest.raises(Malformed, match=rule):
        verify(module)


def with_value(value: Callable[[Tensor, Tensor, Expr], Expr], extent: int = 4) -> Module:
    """y[i] = value(x, t, i) for i < extent, put together without the builder's own checks."""
    b = Builder()
    x, t = b.input("x", "f32", (4, 6)), b.input("t", "i64", (3,))
    axis = fresh("i", extent)
    e = value(x, t, axis.var)
    out = Buffer("y", e.dtype, (extent,), "output")
    b.outputs.append(out)
    b.body.append(Define((axis,), (Store(out, (axis.var,), e),), ("the_node",)))
    return b.module()


def test_padding_guards_strides_and_views_are_accepted() -> None:
    def body(b: Builder, x: Tensor) -> Tensor:
        flat = b.compute((24,), lambda i: x[i // 6, i % 6])
        turned = b.compute((6, 4), lambda i, j: flat[(j * 6 + i) % 24])

        def padded(i: Expr, j: Expr, k: Expr) -> Expr:
            at = i * 2 + k - 1
            return select(all_of([at >= 0, at < 6]), turned[at, j], 0.0)

        return b.compute((4, 4), lambda i, j: b.sum((3,), lambda k: padded(i, j, k)))

    verify(module_of(body))


def test_symbolic_extents_are_accepted() -> None:
    b = Builder()
    t = b.symbol("T", 64)
    x = b.input("x", "f32", (t, 4))
    back = b.compute((t, 4), lambda i, j: x[t - 1 - i, j])
    shifted = b.compute((t, 4), lambda i, j: select(i >= 1, back[i - 1, j], 0.0))
    b.output("y", b.compute((t * 4,), lambda i: shifted[i // 4, i % 4]))
    verify(b.module())


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (lambda x, t, i: x[i + 1, 0], "leaves 0 to 4"),
        (lambda x, t, i: x[i - 1, 0], "leaves 0 to 4"),
        (lambda x, t, i: x[0, i * 2], "leaves 0 to 6"),
        (lambda x, t, i: x[index(t[0]), 0], "needs check"),
        (lambda x, t, i: select(i >= 1, x[i, 0], x[i + 3, 0]) + x[4, 0], "leaves 0 to 4"),
        (lambda x, t, i: select(i < 1, x[i - 1, 0], x[i, 0]), "leaves 0 to 4"),
        (lambda x, t, i: select((i >= 1) | (i < 1), x[i - 1, 0], 0.0), "leaves 0 to 4"),
    ],
)
def test_indices_outside_are_found(value: Callable[[Tensor, Tensor, Expr], Expr], rule: str) -> None:
    refused(with_value(value), rule)


@pytest.mark.parametrize(
    "value",
    [
        lambda x, t, i: x[check(index(t[0]), 4), 0],
        lambda x, t, i: select(all_of([t[0] >= 0]), x[i, 0], 0.0),
        lambda x, t, i: select(i < 1, 0.0, x[i - 1, 0]),
        lambda x, t, i: select(~(i < 1), x[i - 1, 0], 0.0),
        lambda x, t, i: select((i < 1) | (i >= 3), 0.0, x[i + 1, 0]),
        lambda x, t, i: select(i.eq(2), x[i * 2 - 1, 0], 0.0),
        lambda x, t, i: x[binary("max", binary("min", index(t[0]), 3), 0), 0],
        lambda x, t, i: select(all_of([index(t[0]) >= 0, index(t[0]) < 4]), x[index(t[0]), 0], 0.0),
    ],
)
def test_indices_inside_are_proved(value: Callable[[Tensor, Tensor, Expr], Expr]) -> None:
    verify(with_value(value))


def test_tables_known_at_compile_time_need_no_check() -> None:
    def body(table: list[int]) -> Module:
        def gather(b: Builder, x: Tensor) -> Tensor:
            t = b.constant(np.array(table))
            return b.compute((3,), lambda i: x[index(t[i]), 0])

        return module_of(gather)

    verify(body([3, 0, 2]))
    refused(body([3, 0, 4]), "needs check")


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (lambda x, t, i: make("add", "f32", (x[i, 0], const(1.0, "f64"))), "operands are"),
        (lambda x, t, i: make("lt", "f32", (x[i, 0], x[i, 1])), "a comparison is f32"),
        (lambda x, t, i: make("select", "f32", (x[i, 0], x[i, 0], x[i, 0])), "operands are"),
        (lambda x, t, i: make("const", "f32", (), 1), "the literal 1"),
        (lambda x, t, i: make("frobnicate", "f32", (x[i, 0],)), "unknown operator"),
        (lambda x, t, i: call("exp", t[0]), "exp.*of i64"),
        (lambda x, t, i: make("cast", "i8", (x[i, 0],), "up"), "mode 'up'"),
        (lambda x, t, i: make("load", "f32", (i,), x.buffer), "1 indices"),
        (lambda x, t, i: make("load", "f64", (i, index(0)), x.buffer), "it is f64"),
        (
            lambda x, t, i: make("reduce", "f32", (x[i, 0],), ("median", (fresh("r", 2),))),
            "a reduction 'median'",
        ),
        (lambda x, t, i: x[var("stranger", 4), 0], "stand outside their loops"),
        (lambda x, t, i: load(Buffer("nowhere", "f32", (4,)), (i,)), "read before it is written"),
    ],
)
def test_types_and_scopes(value: Callable[[Tensor, Tensor, Expr], Expr], rule: str) -> None:
    refused(with_value(value), rule)


def test_the_message_shows_the_statement() -> None:
    refused(with_value(lambda x, t, i: x[i + 1, 0]), r"(?s)x\[.*the_node")


def test_outputs_must_be_written_and_inputs_must_not() -> None:
    b = Builder()
    x = b.input("x", "f32", (4,))
    b.outputs.append(Buffer("y", "f32", (4,), "output"))
    refused(b.module(), "never written")
    b = Builder()
    x = b.input("x", "f32", (4,))
    b.store(x, (4,), lambda i: (i,), lambda i: const(0.0, "f32"))
    refused(b.module(), "is written")
    b = Builder()
    c = b.constant(np.zeros(4, np.float32))
    b.store(c, (4,), lambda i: (i,), lambda i: const(0.0, "f32"))
    refused(b.module(), "is written")


def test_names_of_inputs_are_unique() -> None:
    module = module_of(lambda b, x: b.compute((4,), lambda i: x[i, 0]))
    twin = replace(module.inputs[0])
    refused(replace(module, inputs=[*module.inputs, twin]), "share a name")


@pytest.mark.parametrize(
    ("where", "rule"),
    [
        (lambda i, j: (i, j), None),
        (lambda i, j: (j, i), None),
        (lambda i, j: ((i * 6 + j) // 8, (i * 6 + j) % 8), None),
        (lambda i, j: (i, 0), "two points write"),
        (lambda i, j: (i // 2, j), "two points write"),
        (lambda i, j: ((i + j) % 4, 0), "two points write"),
    ],
)
def test_unordered_stores_hit_every_element_once(where: Callable[[Expr, Expr], tuple[Expr, ...]], rule: str) -> None:
    b = Builder()
    x = b.input("x", "f32", (4, 6))
    out = b.empty("f32", (8, 8))
    b.store(out, (4, 6), where, lambda i, j: x[i, j])
    b.output("y", out)
    if rule is None:
        verify(b.module())
    else:
        refused(b.module(), rule)


def test_scattered_stores_must_be_ordered() -> None:
    b = Builder()
    x, t = b.input("x", "f32", (3,)), b.input("t", "i64", (3,))
    b.output("y", b.scatter(x, (3,), lambda i: (check(index(t[i]), 3),), lambda i: x[i]))
    module = b.module()
    verify(module)
    module.body = [replace(s, ordered=False) if isinstance(s, Define) else s for s in module.body]
    refused(module, "depends on data")


def test_a_shift_by_data_is_still_distinct() -> None:
    b = Builder()
    x, t = b.input("x", "f32", (2, 3)), b.input("t", "i64", (2,))
    cache = b.copy(b.constant(np.zeros((2, 8), np.float32)))
    b.assign(cache, lambda i, j: (i, (index(t[i]) + j) % 8), x)
    b.output("y", cache)
    verify(b.module())


def test_points_do_not_read_what_others_write() -> None:
    b = Builder()
    x = b.input("x", "f32", (4,))
    y = b.copy(x)
    b.store(y, (4,), lambda i: (i,), lambda i: y[i] + 1.0)
    b.output("y", y)
    verify(b.module())
    b.store(y, (4,), lambda i: (i,), lambda i: y[3 - i] + 1.0)
    refused(b.module(), "read and written")


def test_loops_and_branches() -> None:
    b = Builder()
    x = b.input("x", "f32", (4,))
    acc, following, late = b.empty("f32", ()), b.empty("f32", ()), b.empty("f32", ())
    axis = fresh("t", 4)
    body = (Define((), (Store(following.buffer, (), acc[()] + x[axis.var]),)),)
    loop = Loop(axis, body, ((acc.buffer, following.buffer),))
    b.body.append(loop)
    refused(b.module(), "no value before the first pass")
    b.body.clear()
    start = Define((), (Store(acc.buffer, (), const(0.0, "f32")),))
    b.body += [start, loop]
    verify(b.module())
    b.body[1] = replace(loop, carry=((acc.buffer, Buffer("other", "f64", ())),))
    refused(b.module(), "takes")
    b.body[1] = Branch(x[0] < 1.0, (Define((), (Store(late.buffer, (), acc[()]),)),), ())
    b.output("y", late)
    refused(b.module(), "read before it is written")
    b.body[1] = Branch(x[0], (), ())
    refused(b.module(), "not bool")


def test_undeclared_symbols() -> None:
    b = Builder()
    t = b.symbol("T", 8)
    x = b.input("x", "f32", (t,))
    b.output("y", b.compute((t,), lambda i: x[i]))
    module = b.module()
    verify(module)
    module.symbols.clear()
    refused(module, "symbol T is not declared")


def test_axis_and_variable_agree() -> None:
    module = with_value(lambda x, t, i: x[i, 0])
    (define,) = module.body
    assert isinstance(define, Define)
    axis = define.axes[0]
    module.body = [replace(define, axes=(replace(axis, extent=9),))]
    refused(module, "declared for 4")
    module.body = [replace(define, axes=(axis, axis))]
    refused(module, "one variable")


def test_verdicts() -> None:
    i, j = var("i", 4), var("j", 3)
    assert inside(i * 3 + j, 12, ()) == "inside"
    assert inside(i * 3 + j, 11, ()) == "outside"
    assert inside(i * 3 + j, 11, (((i < 3), True),)) == "inside"
    assert inside(i * 3 + j, 11, (((i + j < 5), True),)) in ("inside", "unknown")
    big = fresh("big", 1 << 20)
    assert collision([big], [(big.var * 2,)]) == "inside"
    assert collision([big], [(big.var // 2,)]) == "outside"
