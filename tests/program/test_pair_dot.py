"""Sums of products of bf16 by pairs: the same products, in f32, on every target."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from headrace.program.build import Builder
from headrace.program.expr import Expr, binary, cast, const, select, walk, word
from headrace.program.fuse import fuse
from headrace.program.interp import run
from headrace.program.ir import Define, Module
from headrace.program.optimise import optimise
from headrace.program.pair_dot import dot_pairs
from headrace.program.verify import verify
from headrace.schedule.steps import macs
from headrace.targets.registry import get_target
from tests.codegen.native import EVERYDAY, HERE, RUNNABLE, Native
from tests.program.compare import assert_close

BF16 = ml_dtypes.bfloat16
Array = np.ndarray[Any, Any]


def data(rng: np.random.Generator, shape: tuple[int, ...], whole: bool) -> Array:
    """bf16; whole: small integers, whose sums are exact in any order."""
    return (rng.integers(-9, 10, shape) if whole else rng.normal(0, 1, shape)).astype(BF16)


def product(rows: int, k: int, columns: int, wide: int = 1, out: str = "f32", whole: bool = False) -> Module:
    """y[i, j] = sum(u < wide, r < k: f32(x[i, u, r]) * f32(w[j, u, r])) as `out`."""
    b, rng = Builder(), np.random.default_rng(k)
    x, w = b.input("x", "bf16", (rows, wide, k)), b.constant(data(rng, (columns, wide, k), whole))

    def element(i: Expr, j: Expr) -> Expr:
        return cast(b.sum((wide, k), lambda u, r: cast(x[i, u, r], "f32") * cast(w[j, u, r], "f32")), out)

    b.output("y", b.compute((rows, columns), element))
    return fuse(b.module())


def feeds(module: Module, whole: bool = False) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    return {b.name: data(rng, b.bound, whole) for b in module.inputs}


def ops(module: Module) -> set[str]:
    return {n.op for d in module.body if isinstance(d, Define) for s in d.stores for n in walk(s.value)}


def total(given: dict[str, Array], module: Module) -> Array:
    """The products in f64."""
    (w,) = {
        n.arg for d in module.body if isinstance(d, Define) for s in d.stores for n in walk(s.value)
        if n.op == "load" and n.arg.space == "const"
    }  # fmt: skip
    return np.einsum("iur,jur->ij", given["x"].astype(np.float64), w.data.astype(np.float64))


@settings(max_examples=40, deadline=None)
@given(hs.integers(1, 4), hs.integers(2, 21), hs.integers(1, 5), hs.integers(1, 3), hs.booleans())
def test_the_same_products(rows: int, k: int, columns: int, wide: int, whole: bool) -> None:
    module = product(rows, k, columns, wide, whole=whole)
    new = dot_pairs(module)
    verify(new)
    assert "dot2" in ops(new)
    assert sum(macs(d) for d in new.body) == rows * k * columns * wide  # type: ignore[arg-type]
    given = feeds(module, whole)
    want, got = total(given, module), run(new, given)["y"]
    assert np.allclose(got, want, rtol=0, atol=0 if whole else 1e-5 * k * wide)


def test_the_operator_is_its_loop_nest() -> None:
    """dot2(word(a), word(b)) and sum(r < 2: f32(a) * f32(b)), infinities and NaN among the operands."""
    values = np.array([0, 1, -1.5, 1e9, -3e-9, np.inf, np.nan, 0.007], BF16)
    a = np.stack(np.meshgrid(values, values, indexing="ij"), -1).reshape(-1, 2)
    b, n = Builder(), len(a)
    x, y = b.input("x", "bf16", a.shape), b.input("y", "bf16", a.shape)
    pair = lambda t, i: word([t[i, 0], t[i, 1]])  # noqa: E731
    b.output("words", b.compute((n, n), lambda i, j: binary("dot2", pair(x, i), pair(y, j))))
    b.output("nest", b.compute((n, n), lambda i, j: b.sum((2,), lambda r: cast(x[i, r], "f32") * cast(y[j, r], "f32"))))
    module = b.module()
    verify(module)
    with np.errstate(all="ignore"):
        wanted = run(module, {"x": a, "y": a})
        p, q = (a[:, None].astype(np.float64), a[None].astype(np.float64))
        exact = (p * q).sum(-1).astype(np.float32)
    np.testing.assert_array_equal(wanted["words"], exact)
    assert_close({"words": wanted["nest"]}, {"words": exact}, 2)
    for target in EVERYDAY:
        got = Native(module, target).run({"x": a, "y": a})
        assert_close(got, wanted, 2, target)


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize(("rows", "k", "columns", "out"), [(5, 39, 37, "bf16"), (1, 64, 70, "f32")])
def test_native_code_gives_the_same(target: str, rows: int, k: int, columns: int, out: str) -> None:
    module, isa = product(rows, k, columns, 2, out, whole=True), get_target(target).isa
    new = optimise(module, isa.lanes, isa.dots, True)
    assert "dot2" in ops(new)
    given = feeds(module, True)
    wanted = total(given, module).astype(BF16 if out == "bf16" else np.float32)
    for form in (new, optimise(module, isa.lanes)):  # without words too
        assert (Native(form, target).run(given)["y"] == wanted).all()


def test_only_targets_with_the_instruction_take_pairs() -> None:
    with_it = [t for t in RUNNABLE if get_target(t).isa.pairs]
    assert set(with_it) <= {"x86-64-avx512-bf16", "x86-64-avx512-fp16", "x86-64-avx512-amx"}
    for target in with_it:
        net = Native(optimise(product(3, 32, 40), 16, True, True), target)
        assert "_mm512_dpbf16_ps" in net.generated.source


def test_padding_is_zeros() -> None:
    b, rng = Builder(), np.random.default_rng(0)
    x, w = b.input("x", "bf16", (9, 5)), b.constant(data(rng, (4, 3, 5), True))

    def tap(t: Expr, c: Expr) -> Expr:
        return select(binary("and", 0 <= t, t < 9), cast(x[t, c], "f32"), const(0.0, "f32"))

    def element(t: Expr, o: Expr) -> Expr:
        return b.sum((3, 5), lambda k, c: tap(t + k - 1, c) * cast(w[o, k, c], "f32"))

    b.output("y", b.compute((9, 4), element))
    module = b.module()
    new = optimise(module, 16, True, True)
    assert "dot2" in ops(new)
    given = feeds(module, True)
    assert (run(new, given)["y"] == run(module, given)["y"]).all()


def test_what_stays_as_it_is() -> None:
    """Weights that bf16 does not hold or takes as zero, no constants, elements that lie apart, f16."""

    def contraction(dtype: str, left: Any, weights: Array) -> Module:
        b = Builder()
        x, v, w = b.input("x", dtype, (8, 8)), b.input("v", dtype, (8, 8)), b.constant(weights)
        t = {"x": x, "v": v, "w": w}
        b.output("y", b.compute((8, 8), lambda i, j: b.sum((8,), lambda r: left(t, i, r) * cast(t["w"][r, j], "f32"))))
        return b.module()

    def plain(t: Any, i: Expr, r: Expr) -> Expr:
        return cast(t["x"][i, r], "f32")

    ones = np.ones((8, 8), np.float32)
    assert "dot2" in ops(dot_pairs(contraction("bf16", plain, ones)))
    cases = {
        "no bf16": contraction("bf16", plain, ones * np.float32(1.001)),
        "denormal": contraction("bf16", plain, ones * np.float32(2.0**-127)),
        "apart": contraction("bf16", lambda t, i, r: cast(t["x"][r, i], "f32"), ones),
        "f16": contraction("f16", plain, ones),
    }
    for name, module in cases.items():
        assert "dot2" not in ops(dot_pairs(module)), name
