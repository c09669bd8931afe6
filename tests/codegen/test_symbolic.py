"""Programs compiled once for extents that each run brings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import headrace as hr
from headrace.codegen.shapes import extent_number, extent_text
from headrace.errors import InvalidModel
from headrace.program.build import Builder
from headrace.program.expr import Expr, Sym, maximum, minimum, sym
from headrace.program.optimise import optimise
from tests.codegen.native import Native
from tests.program.compare import assert_close

LENGTHS = (1, 2, 15, 16, 17, 100, 511, 512)


def model(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, np.ndarray], width: int, columns: int, outputs: Sequence[str]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", width])],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, [f"rows of {y}", columns]) for y in outputs],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def test_a_product_and_shapes_that_follow(tmp_path, rng: np.random.Generator) -> None:  # type: ignore[no-untyped-def]
    """x·w with T rows; two of them stacked (2T rows); one row put before (T + 1 rows)."""
    w, row = rng.standard_normal((24, 20)).astype(np.float32), rng.standard_normal((1, 20)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Concat", ["y", "y"], ["twice"], axis=0),
        helper.make_node("Concat", ["row", "y"], ["more"], axis=0),
    ]
    proto = model(nodes, {"w": w, "row": row}, 24, 20, ["y", "twice", "more"])
    hr.compile(proto, bounds={"T": 512}, out=tmp_path / "net")
    program = hr.open(tmp_path / "net")
    for t in LENGTHS:
        x = rng.standard_normal((t, 24)).astype(np.float32)
        got, y = program.run({"x": x}), (x.astype(np.float64) @ w)
        wanted = {"y": y, "twice": np.concatenate([y, y]), "more": np.concatenate([row, y])}
        assert_close(got, {n: a.astype(np.float32) for n, a in wanted.items()}, 64, f"T = {t}: ")


def test_an_extent_beyond_its_bound_is_refused(rng: np.random.Generator) -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])], {}, 4, 4, ["y"])
    program = hr.compile(proto, bounds={"T": (16, 4)})
    x = rng.standard_normal((16, 4)).astype(np.float32)
    np.testing.assert_array_equal(program.run({"x": x})["y"], np.maximum(x, 0))
    for t in (0, 3, 20):
        with pytest.raises(ValueError, match=r"allowed|multiple"):
            program.run({"x": np.zeros((t, 4), np.float32)})


@pytest.mark.parametrize("name", ["T", "batch size", "a-b", "a_b", "naïve", "2x"])
def test_symbols_of_any_name(name: str) -> None:
    b = Builder()
    t, u = b.symbol(name, 40), b.symbol("a.b", 8)
    x, y = b.input("x", "f32", (t, u)), b.input("y", "i32", (t,))
    b.output("total", b.compute((t,), lambda i: b.sum((u,), lambda k: x[i, k])))
    b.output("z", b.compute((t * 2 + 1,), lambda i: y[minimum(i // 2, t - 1)]))
    program = Native(optimise(b.module(), 16))
    for m, n in ((1, 1), (17, 3), (40, 8)):
        feeds = {"x": np.arange(m * n, dtype=np.float32).reshape(m, n), "y": np.arange(m, dtype=np.int32)}
        last = np.minimum(np.arange(2 * m + 1) // 2, m - 1).astype(np.int32)
        assert_close(program.run(feeds), {"total": feeds["x"].sum(1), "z": last})


def test_extents_as_text() -> None:
    t, u = sym(Sym("T", 512)), sym(Sym("frames per chunk", 9))
    cases: list[tuple[Expr, str]] = [
        (t, "T"),
        (t * 2 + 1, "T*2 + 1"),
        ((t + 1) // 2, "(T + 1)//2"),
        (t - (t + u) % 3, None),
        (maximum(t * u - 3, u) * 2, None),
        (minimum(t // 4, u) + (t * t) // (u + 1), None),
    ]  # type: ignore[list-item]
    for e, text in cases:
        shown = extent_text(e)
        assert shown is not None and (text is None or shown == text)
        for a, c in ((1, 1), (7, 2), (512, 9)):
            wanted = _value(e, {"T": a, "frames per chunk": c})
            assert extent_number(shown, {"T": a, "frames per chunk": c}) == wanted


def _value(e: Expr, known: dict[str, int]) -> int:
    from headrace.program.interp import extent_value

    return extent_value(e, {Sym("T", 512): known["T"], Sym("frames per chunk", 9): known["frames per chunk"]})


@pytest.mark.parametrize("text", ["U", "T T", "T + ", "__import__('os')", "T.real", "T**9**9**9", "min", "", "[T]"])
def test_what_is_no_extent(text: str) -> None:
    with pytest.raises(InvalidModel):
        extent_number(text, {"T": 3})
