"""MatMul, Gemm, Einsum and the integer products."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from headrace.errors import UnsupportedOperator
from headrace.ops.einsum import parse
from headrace.program import interp
from tests.ops.one_node import SEVEN_BITS, check, lowered, node_model, run_here, same

SHAPES = [
    ((3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)),
    ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)), ((2, 1, 3, 4), (6, 4, 5)), ((1, 6, 3, 4), (2, 1, 4, 5)),
    ((4,), (2, 3, 4, 5)), ((2, 3, 5, 4), (4,)), ((1, 4), (4, 1)), ((3, 0), (0, 5)), ((0, 4), (4, 5)),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_matmul(rng: np.random.Generator, left: tuple[int, ...], right: tuple[int, ...], dtype: str) -> None:
    x, y = ((rng.normal(size=s) * 9).astype(dtype) for s in (left, right))
    model = node_model("MatMul", [x, y], [helper.np_dtype_to_tensor_dtype(x.dtype)])
    (here,) = run_here(model, {"x0": x, "x1": y})
    same(here, np.asarray(np.matmul(x, y)), 1e-5, 1e-4)


def test_matmul_of_halves_is_summed_in_single_precision() -> None:
    x, y = np.ones((1, 5000), np.float16), np.ones((5000, 1), np.float16)
    (here,) = run_here(node_model("MatMul", [x, y], [TensorProto.FLOAT16]), {"x0": x, "x1": y})
    assert here.dtype == np.float16
    assert here.item() == 5000


def test_matmul_of_a_run_time_extent(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    model = node_model("MatMul", [x, y], [TensorProto.FLOAT])
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "T"
    module = lowered(model, shapes={"x0": ("T", 4)}, bounds={"T": 8})
    np.testing.assert_allclose(interp.run(module, {"x0": x, "x1": y})["y0"], x @ y, rtol=1e-5)


@given(
    st.booleans(), st.booleans(), st.sampled_from([1.0, 0.5, -2.0]), st.sampled_from([0.0, 1.0, 0.25]),
    st.sampled_from([None, (), (1,), (5,), (3, 1), (1, 5), (3, 5)]),
)  # fmt: skip
def test_gemm(flip_x: bool, flip_y: bool, alpha: float, beta: float, bias: tuple[int, ...] | None) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 3) if flip_x else (3, 4)).astype(np.float32)
    y = rng.normal(size=(5, 4) if flip_y else (4, 5)).astype(np.float32)
    c = None if bias is None else np.asarray(rng.normal(size=bias), np.float32)
    check("Gemm", [x, y, c], transA=int(flip_x), transB=int(flip_y), alpha=alpha, beta=beta)


def test_gemm_of_integers_by_a_fraction_is_refused() -> None:
    x = np.ones((2, 2), np.int32)
    with pytest.raises(UnsupportedOperator, match="fraction"):
        lowered(node_model("Gemm", [x, x], [TensorProto.INT32], alpha=0.5))


EQUATIONS = [
    ("ij,jk->ik", [(2, 3), (3, 4)]), ("ij,jk", [(2, 3), (3, 4)]), ("ba,cb", [(2, 3), (4, 2)]),
    ("ii->i", [(3, 3)]), ("ii", [(3, 3)]), ("...ii->...i", [(2, 4, 3, 3)]), ("ij->", [(2, 3)]),
    ("ij->ji", [(2, 3)]), ("...ij,...jk->...ik", [(5, 1, 2, 3), (1, 4, 3, 2)]),
    ("i...j,j->...i", [(2, 4, 5, 3), (3,)]),
    ("bhwc,hkc->bhwk", [(2, 3, 4, 5), (3, 6, 5)]), ("i,j,k->kij", [(2,), (3,), (4,)]),
    ("ij,jk,kl,lm->im", [(2, 3), (3, 4), (4, 5), (5, 2)]), ("ij,kl->ik", [(2, 3), (4, 5)]),
    ("iji,ij->j", [(3, 2, 3), (3, 2)]), (" i j , j -> i ", [(2, 3), (3,)]), (",ij->ij", [(), (2, 3)]),
    ("aB,Bc->ca", [(2, 3), (3, 4)]), ("...,...->...", [(2, 3), (1, 3)]), ("ij,jk->ik", [(2, 0), (0, 3)]),
]  # fmt: skip


@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS)
def test_einsum(rng: np.random.Generator, equation: str, shapes: list[tuple[int, ...]]) -> None:
    arrays = [np.asarray(rng.normal(size=s), np.float32) for s in shapes]
    model = node_model("Einsum", arrays, [TensorProto.FLOAT], equation=equation)
    (here,) = run_here(model, {f"x{i}": a for i, a in enumerate(arrays)})
    same(here, np.asarray(np.einsum(equation, *arrays), np.float32), 1e-4, 1e-5)


@pytest.mark.parametrize("equation", ["ij->ik", "ij->ii", "ijk->i", "i->i", "...j->j", "i1->i", "ij,j->i"])
def test_wrong_equations_say_so(equation: str) -> None:
    with pytest.raises(ValueError, match=r"'.*'"):
        parse(equation, [2])


def test_equation_labels() -> None:
    assert parse("...ij,jk", [3, 2]) == ([("...1", "i", "j"), ("j", "k")], ("...1", "i", "k"))


@pytest.mark.parametrize("zeros", [(), (1,)])
@pytest.mark.parametrize("signed", [False, True])
def test_matmul_integer(rng: np.random.Generator, zeros: tuple[int, ...], signed: bool) -> None:
    x = rng.integers(0, 256, (2, 3, 70)).astype(np.uint8)
    y = rng.integers(*(SEVEN_BITS if signed else (0, 256)), (70, 5)).astype(np.int8 if signed else np.uint8)
    x_zero, y_zero = np.full(zeros, 120, np.uint8), np.full(zeros, 3, y.dtype)
    check("MatMulInteger", [x, y, x_zero, y_zero], [TensorProto.INT32])
    check("MatMulInteger", [x, y], [TensorProto.INT32])


def test_matmul_integer_with_a_zero_point_per_row_and_column(rng: np.random.Generator) -> None:
    x = rng.integers(0, 256, (4, 6)).astype(np.uint8)
    y = rng.integers(-128, 128, (6, 5)).astype(np.int8)
    x_zero = rng.integers(0, 256, 4).astype(np.uint8)
    y_zero = rng.integers(-128, 128, 5).astype(np.int8)
    model = node_model("MatMulInteger", [x, y, x_zero, y_zero], [TensorProto.INT32])
    (here,) = run_here(model, {"x0": x, "x1": y, "x2": x_zero, "x3": y_zero})
    wide = [a.astype(np.int32) for a in (x, y, x_zero, y_zero)]
    np.testing.assert_array_equal(here, (wide[0] - wide[2][:, None]) @ (wide[1] - wide[3]))


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("constants", [(), (1, 2, 4, 5, 6, 7)])
def test_qlinear_matmul(rng: np.random.Generator, per_column: bool, constants: tuple[int, ...]) -> None:
    n = (5,) if per_column else ()
    inputs = [
        rng.integers(0, 256, (2, 3, 40)).astype(np.uint8),
        np.asarray(0.02, np.float32), np.asarray(113, np.uint8),
        rng.integers(*SEVEN_BITS, (40, 5)).astype(np.int8),
        np.asarray(rng.uniform(0.01, 0.02, n), np.float32), np.zeros(n, np.int8),
        np.asarray(0.11, np.float32), np.asarray(118, np.uint8),
    ]  # fmt: skip
    check("QLinearMatMul", inputs, [TensorProto.UINT8], constants)
