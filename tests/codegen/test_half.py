"""16-bit floats in vectors: the same bits as the interpreter where no multiply-add is fused, on every target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.program import interp
from headrace.program.build import Builder
from headrace.program.dtypes import numpy_dtype
from headrace.program.expr import Expr, call, cast, const, select, unary
from headrace.program.fuse import fuse
from headrace.program.ir import Module
from headrace.program.optimise import optimise
from headrace.schedule.heuristic import Heuristic
from headrace.schedule.steps import Vectorize
from headrace.targets.registry import get_target
from tests.codegen.native import HERE, Native
from tests.program.compare import assert_close

ROWS, COLUMNS = 3, 45
Array = np.ndarray[Any, Any]


def chain(dtype: str, source: str) -> Module:
    """Arithmetic, comparisons, conversions and stores of one element type; x and z are of `source`."""
    b = Builder()
    x, z = (b.input(n, source, (ROWS, COLUMNS)) for n in "xz")
    w = b.constant(np.linspace(-3, 3, COLUMNS).astype(numpy_dtype(dtype)))

    def element(i: Expr, j: Expr) -> Expr:
        p, q = cast(x[i, j], dtype), cast(z[i, j], dtype)
        ratio = p / call("max", unary("abs", q), const(0.5, dtype))
        bent = select(p < w[j], ratio, p - q)
        return call("min", bent * w[j], const(100.0, dtype))

    y = b.compute((ROWS, COLUMNS), element)
    b.output("y", y)
    b.output("single", b.compute((ROWS, COLUMNS), lambda i, j: cast(y[i, j], "f32")))
    b.output("turned", b.compute((COLUMNS, ROWS), lambda j, i: cast(y[i, j], "f16")))
    return fuse(b.module())


def values(dtype: str, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 2, (ROWS, COLUMNS))
    x[0, ::7], x[1, ::5], x[2, 3] = np.inf, np.nan, 60000
    return x.astype(numpy_dtype(dtype))


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize(("dtype", "source"), [("f16", "f16"), ("bf16", "bf16"), ("f16", "f32"), ("bf16", "f16")])
def test_elementwise(target: str, dtype: str, source: str) -> None:
    module = chain(dtype, source)
    feeds = {"x": values(source, 0), "z": values(source, 1)}
    with np.errstate(all="ignore"):
        wanted = interp.run(module, feeds)
        got = Native(optimise(module, get_target(target).isa.lanes), target).run(feeds)
        for name, want in wanted.items():
            np.testing.assert_array_equal(got[name].astype(np.float32), want.astype(np.float32), err_msg=name)


def test_the_heuristic_takes_vectors() -> None:
    module = chain("f16", "f16")
    target = get_target("x86-64-avx2")
    for define in module.body:
        assert any(isinstance(s, Vectorize) for s in Heuristic(target.isa).schedule(define))  # type: ignore[arg-type]


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_multiply_adds_and_functions(target: str, dtype: str) -> None:
    """a*b + c, c - a*b and functions, within a rounding or two of the type."""
    b = Builder()
    x, y, z = (b.input(n, dtype, (ROWS, COLUMNS)) for n in "xyz")
    b.output("add", b.compute((ROWS, COLUMNS), lambda i, j: x[i, j] * y[i, j] + z[i, j]))
    b.output("sub", b.compute((ROWS, COLUMNS), lambda i, j: z[i, j] - x[i, j] * y[i, j]))
    b.output("tanh", b.compute((ROWS, COLUMNS), lambda i, j: call("tanh", x[i, j]) * call("sigmoid", y[i, j])))
    module, rng = b.module(), np.random.default_rng(0)
    feeds = {n: rng.normal(0, 1, (ROWS, COLUMNS)).astype(numpy_dtype(dtype)) for n in "xyz"}
    got, wanted = Native(module, target).run(feeds), interp.run(module, feeds)
    assert_close(got, wanted, 2 if dtype == "bf16" else 0.5, target)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_contractions_load_vectors(dtype: str) -> None:
    """f32(x) · f32(w) with 16-bit constants: whole vectors are widened, never lane by lane."""
    b = Builder()
    x = b.input("x", dtype, (7, 33))
    w = b.constant(np.random.default_rng(0).normal(0, 1, (33, 50)).astype(numpy_dtype(dtype)))
    y = b.compute((7, 50), lambda i, j: b.sum((33,), lambda r: cast(x[i, r], "f32") * cast(w[r, j], "f32")))
    b.output("y", b.compute((7, 50), lambda i, j: cast(y[i, j], dtype)))
    module = optimise(b.module(), 8)
    feeds = {"x": np.random.default_rng(1).normal(0, 1, (7, 33)).astype(numpy_dtype(dtype))}
    net = Native(module, "native")
    assert f"_{dtype}x" in net.generated.source and "l0 <" not in net.generated.source
    assert_close(net.run(feeds), interp.run(module, feeds), 2)
