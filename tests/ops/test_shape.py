"""Views: Reshape, Transpose, Expand, Tile, Trilu, ReverseSequence, DepthToSpace and the like."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from headrace.errors import UnsupportedOperator
from headrace.ops.shape import groups, reshape
from headrace.program import interp
from headrace.program.build import Builder
from headrace.program.expr import load
from headrace.program.ir import Define
from tests.ops.one_node import check, lowered, node_model

I64 = np.int64
shapes = st.lists(st.sampled_from([1, 1, 2, 3, 4, 6]), max_size=4).map(tuple)


def numbers(shape: tuple[int, ...], seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@st.composite
def same_size(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes of equally many elements."""
    factors = draw(st.lists(st.sampled_from([1, 2, 2, 3, 5]), max_size=5))

    def grouped(order: list[int]) -> tuple[int, ...]:
        out: list[int] = []
        for f in order:
            if out and draw(st.booleans()):
                out[-1] *= f
            else:
                out.append(f)
        return tuple(out)

    return grouped(factors), grouped(draw(st.permutations(factors)))


@given(same_size())
def test_reshape_is_row_major(pair: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    old, new = pair
    check("Reshape", [numbers(old), np.array(new, I64)], constants=[1])


def test_reshape_of_an_empty_tensor() -> None:
    check("Reshape", [numbers((0, 3)), np.array([3, 0, 2], I64)], constants=[1], allowzero=1)


def test_reshape_needs_no_division_between_equal_dimensions() -> None:
    """(N, T, 6) → (N, T, 2, 3) leaves N and T alone, also when they are symbols."""
    b = Builder()
    n, t = b.symbol("n", 8), b.symbol("t", 100)
    x = b.input("x", "f32", (n, t, 6))
    y = reshape(b, x, (n, t, 2, 3))
    define = b.body[-1]
    assert isinstance(define, Define)
    i, j, k, m = (a.var for a in define.axes)
    assert define.stores[0].value is load(x.buffer, (i, j, k * 3 + m))
    b.output("y", y)
    value = numbers((2, 5, 6))
    np.testing.assert_array_equal(interp.run(b.module(), {"x": value})["y"], value.reshape(2, 5, 2, 3))


def test_groups_are_as_small_as_possible() -> None:
    found = [(list(old), list(new)) for old, new in groups((5, 6, 4), (5, 2, 3, 4))]
    assert found == [([0], [0]), ([1], [1, 2]), ([2], [3])]


@given(shapes, st.data())
def test_transpose(shape: tuple[int, ...], data: st.DataObject) -> None:
    perm = data.draw(st.permutations(range(len(shape))))
    check("Transpose", [numbers(shape)], **({"perm": list(perm)} if shape else {}))


@given(shapes, st.data())
def test_expand_and_tile(shape: tuple[int, ...], data: st.DataObject) -> None:
    target = [data.draw(st.sampled_from([1, 3])) if e == 1 else e for e in shape]
    check("Expand", [numbers(shape), np.array([2, *target], I64)], constants=[1])
    repeats = [data.draw(st.integers(0, 3)) for _ in shape]
    if math.prod(repeats) and shape:
        check("Tile", [numbers(shape), np.array(repeats, I64)], constants=[1])


def test_tile_to_nothing() -> None:
    check("Tile", [numbers((2, 3)), np.array([0, 2], I64)], constants=[1])


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [-4, -1, 0, 2, 9])
@pytest.mark.parametrize("constants", [(), (1,)])
def test_trilu(upper: int, k: int, constants: tuple[int, ...]) -> None:
    check("Trilu", [numbers((2, 3, 5)), np.array(k, I64)], constants=constants, upper=upper)


@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
@pytest.mark.parametrize("constants", [(), (1,)])
def test_reverse_sequence(axes: tuple[int, int], constants: tuple[int, ...]) -> None:
    time, batch = axes
    x, lens = numbers((4, 4, 2)), np.array([1, 4, 2, 3], I64)
    check("ReverseSequence", [x, lens], constants=constants, time_axis=time, batch_axis=batch)


def test_reverse_sequence_beyond_the_end_is_refused() -> None:
    model = node_model("ReverseSequence", [numbers((4, 1)), np.array([5], I64)], [TensorProto.FLOAT], constants=[1])
    with pytest.raises(UnsupportedOperator, match="exceed the 4 steps"):
        lowered(model)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_and_back(mode: str) -> None:
    check("DepthToSpace", [numbers((2, 12, 2, 3))], blocksize=2, mode=mode)
    check("SpaceToDepth", [numbers((2, 3, 4, 6))], blocksize=2)


def test_squeeze_and_unsqueeze() -> None:
    check("Squeeze", [numbers((1, 3, 1, 2)), np.array([-4, 2], I64)], constants=[1])
    check("Squeeze", [numbers((1, 3, 1, 2))])
    check("Unsqueeze", [numbers((3, 2)), np.array([-1, 1], I64)], constants=[1])


def test_dropout_keeps_everything() -> None:
    check("Dropout", [numbers((3, 2))], [TensorProto.FLOAT, TensorProto.BOOL])


def test_training_dropout_is_refused() -> None:
    model = node_model(
        "Dropout",
        [numbers((3, 2)), np.array(0.5, np.float32), np.array(True)],
        [TensorProto.FLOAT],
        constants=[1, 2],
    )
    with pytest.raises(UnsupportedOperator, match="training mode"):
        lowered(model)
