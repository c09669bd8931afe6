"""Sums of products of bytes by words: the same integers, from the same elements, on every target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from headrace.program.build import Builder, Tensor
from headrace.program.byte_dot import dot_bytes
from headrace.program.expr import Expr, binary, cast, const, select, walk, word
from headrace.program.fuse import fuse
from headrace.program.guard import guard_narrow
from headrace.program.interp import run
from headrace.program.ir import Define, Module
from headrace.program.optimise import optimise
from headrace.program.verify import verify
from headrace.schedule.steps import macs
from headrace.targets.registry import get_target
from tests.codegen.native import EVERYDAY, HERE, Native

BOTH = hs.sampled_from(["u8", "i8"])
NUMPY = {"u8": np.uint8, "i8": np.int8}


def data(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Bytes with the ends of their range among them."""
    info = np.iinfo(NUMPY[dtype])
    ends = rng.choice([info.min, info.max], shape)
    return np.where(rng.random(shape) < 0.3, ends, rng.integers(info.min, info.max + 1, shape)).astype(NUMPY[dtype])


def product(
    rows: int, k: int, columns: int, dtype: str, zero: str = "none", weight: str = "i8", seed: int = 0, wide: int = 1
) -> Module:
    """y[i, j] = sum(u < wide, r < k: (x[i, u, r] - zero) * w[j, u, r]). zero: none, const, input or rows."""
    b, rng = Builder(), np.random.default_rng(seed)
    x = b.input("x", dtype, (rows, wide, k))
    w = b.constant(data(rng, weight, (columns, wide, k)))
    z = {"input": lambda: b.input("z", dtype, (1,)), "rows": lambda: b.input("z", dtype, (rows,))}.get(zero)
    given = z() if z else None

    def left(i: Expr, u: Expr, r: Expr) -> Expr:
        wide_x = cast(x[i, u, r], "i32")
        if isinstance(given, Tensor):
            return wide_x - cast(given[i if zero == "rows" else 0], "i32")
        return wide_x - const(7, "i32") if zero == "const" else wide_x

    def right(j: Expr, u: Expr, r: Expr) -> Expr:
        wide_w = cast(w[j, u, r], "i32")
        return wide_w - const(128, "i32") if weight == "u8" else wide_w

    def element(i: Expr, j: Expr) -> Expr:
        return b.sum((wide, k), lambda u, r: left(i, u, r) * right(j, u, r))

    b.output("y", b.compute((rows, columns), element))
    return fuse(b.module())


def feeds(module: Module, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return {b.name: data(rng, b.dtype, b.bound) for b in module.inputs}


def ops(module: Module) -> set[str]:
    return {n.op for d in module.body if isinstance(d, Define) for s in d.stores for n in walk(s.value)}


def sums(module: Module) -> list[Expr]:
    values = (s.value for d in module.body if isinstance(d, Define) for s in d.stores)
    return [n for value in values for n in walk(value) if n.op == "reduce"]


@settings(max_examples=60, deadline=None)
@given(
    hs.integers(1, 4), hs.integers(3, 21), hs.integers(1, 5), BOTH, hs.sampled_from(["none", "const", "input", "rows"]),
    BOTH, hs.integers(0, 99), hs.integers(1, 3),
)  # fmt: skip
def test_the_same_integers(
    rows: int, k: int, columns: int, dtype: str, zero: str, weight: str, seed: int, wide: int
) -> None:
    module = product(rows, k, columns, dtype, zero, weight, seed, wide)
    new = dot_bytes(module)
    verify(new)
    assert "dot4" in ops(new) and not any(n.op == "mul" and n.dtype == "i32" for r in sums(new) for n in walk(r))
    given = feeds(module, seed)
    assert (run(new, given)["y"] == run(module, given)["y"]).all()
    assert sum(macs(d) for d in new.body) == rows * k * columns * wide  # type: ignore[arg-type]


def test_the_instruction_is_its_loop_nest() -> None:
    """dot4(word(a), word(b)) as the interpreter has it, and sum(r < 4: i32(u8) * i32(i8)) over all extremes."""
    values = np.array([0, 1, 127, 128, 254, 255], np.uint8)
    a = np.stack(np.meshgrid(values, values, indexing="ij"), -1).reshape(-1, 2).repeat(2, 1)
    b = Builder()
    x, y = b.input("x", "u8", (*a.shape,)), b.input("y", "i8", (*a.shape,))
    n = len(a)
    b.output("words", b.compute((n, n), lambda i, j: binary("dot4", word([x[i, r] for r in range(4)]),
                                                            word([y[j, r] for r in range(4)]))))  # fmt: skip
    b.output("nest", b.compute((n, n), lambda i, j: b.sum((4,), lambda r: cast(x[i, r], "i32") * cast(y[j, r], "i32"))))
    module = b.module()
    verify(module)
    given = {"x": a, "y": a.view(np.int8)}
    wanted = run(module, given)
    assert (wanted["words"] == wanted["nest"]).all()
    for target in EVERYDAY:
        got = Native(module, target).run(given)
        assert (got["words"] == wanted["words"]).all() and (got["nest"] == wanted["words"]).all(), target


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize(
    ("rows", "k", "columns", "dtype", "zero"), [(5, 39, 37, "u8", "const"), (1, 64, 70, "i8", "rows")]
)
def test_native_code_gives_the_same(target: str, rows: int, k: int, columns: int, dtype: str, zero: str) -> None:
    module, isa = product(rows, k, columns, dtype, zero, wide=2), get_target(target).isa
    new = optimise(module, isa.lanes, True)
    assert "dot4" in ops(new)
    given = feeds(module, 3)
    assert (Native(new, target).run(given)["y"] == run(module, given)["y"]).all()


def test_overflow_wraps_as_before() -> None:
    """255 * 127 over so many elements leaves i32; the sum of bytes times the zero point does too."""
    module = product(1, 70000, 1, "u8", "input")
    given = {"x": np.full((1, 1, 70000), 255, np.uint8), "z": np.array([255], np.uint8)}
    assert (run(dot_bytes(module), given)["y"] == run(module, given)["y"]).all()


def convolution(zero: int, dtype: str = "u8", padded: bool = True) -> Module:
    """3 taps over 5 channels that lie innermost, padded by one frame at both ends."""
    b, rng = Builder(), np.random.default_rng(0)
    x, w = b.input("x", dtype, (9, 5)), b.constant(data(rng, "i8", (4, 3, 5)))
    frames = 9 if padded else 7

    def tap(t: Expr, c: Expr) -> Expr:
        value = cast(x[t, c], "i32") - const(zero, "i32")
        inside = binary("and", 0 <= t, t < 9)
        return select(inside, value, const(0, "i32")) if padded else value

    def element(t: Expr, o: Expr) -> Expr:
        return b.sum((3, 5), lambda k, c: tap(t + k - (1 if padded else 0), c) * cast(w[o, k, c], "i32"))

    b.output("y", b.compute((frames, 4), element))
    return b.module()


@pytest.mark.parametrize(("zero", "dtype"), [(0, "u8"), (200, "u8"), (-128, "i8")])
def test_padding_holds_the_zero_point(zero: int, dtype: str) -> None:
    module = convolution(zero, dtype)
    new = optimise(module, 16, True)
    assert "dot4" in ops(new)
    assert sums(new) and not any(n.op == "select" for r in sums(new) for n in walk(r))
    given = feeds(module, 1)
    assert (run(new, given)["y"] == run(module, given)["y"]).all()
    assert (run(guard_narrow(module), given)["y"] == run(module, given)["y"]).all()


def test_a_zero_point_that_is_no_byte_keeps_its_guard() -> None:
    module = convolution(300)
    assert guard_narrow(module).body == module.body
    given = feeds(module, 1)
    assert (run(optimise(module, 16, True), given)["y"] == run(module, given)["y"]).all()


def test_what_stays_as_it_is() -> None:
    """Weights of more than eight bits, weights that are no constants, elements that lie apart, other types."""

    def contraction(k: int, left: Any, right: Any) -> Module:
        b = Builder()
        x, v = b.input("x", "u8", (3, 8)), b.input("v", "i8", (8, 3))
        h, w = b.input("h", "i16", (3, 8)), b.constant(np.ones((8, 3), np.int8) * np.arange(3, dtype=np.int8))
        t = {"x": x, "v": v, "h": h, "w": w}
        b.output("y", b.compute((3, 3), lambda i, j: b.sum((k,), lambda r: left(t, i, r) * right(t, r, j))))
        return b.module()

    def plain(name: str) -> Any:
        return lambda t, i, r: cast(t[name][i, r], "i32")

    cases = {
        "wide weights": contraction(8, plain("x"), lambda t, r, j: cast(t["w"][r, j], "i32") * const(100, "i32")),
        "no constants": contraction(8, plain("x"), plain("v")),
        "apart": contraction(3, lambda t, i, r: cast(t["x"][r, i], "i32"), plain("w")),
        "i16": contraction(8, plain("h"), plain("w")),
        "two terms": contraction(2, plain("x"), plain("w")),
    }
    for name, module in cases.items():
        assert "dot4" not in ops(dot_bytes(module)), name
    assert "dot4" in ops(dot_bytes(contraction(8, plain("x"), plain("w"))))
