from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from headrace.measure.compare import compare, tolerance_of, ulp_distance


def test_floats_are_compared_to_the_largest_element() -> None:
    reference = np.array([1000.0, 0.0, 1.0], np.float32)
    near = compare(reference + np.float32(0.05), reference)
    assert near.ok and near.relative == pytest.approx(5e-5, rel=1e-3) and near.scale == 1000
    far = compare(reference + np.array([0, 0.2, 0], np.float32), reference)
    assert not far.ok and far.at == (1,) and far.wrong == 1 and far.expected == "0"


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64, np.bool_])
def test_integers_are_compared_bit_for_bit(dtype: type) -> None:
    a = np.array([1, 0, 1], dtype)
    assert compare(a, a).ok
    b = np.array([1, 1, 1], dtype)
    different = compare(a, b)
    assert not different.ok and different.wrong == 1 and different.at == (1,) and different.max_abs == 1


def test_large_integers_that_float64_cannot_tell_apart_differ() -> None:
    a, b = np.array([2**62], np.int64), np.array([2**62 + 1], np.int64)
    assert not compare(a, b).ok
    assert compare(np.array([-(2**63)]), np.array([2**63 - 1])).max_abs == pytest.approx(2.0**64)


def test_what_is_not_finite_must_be_alike() -> None:
    odd = np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    assert compare(odd, odd).ok
    for place, value in ((0, 1.0), (1, -np.inf), (2, np.nan), (3, np.nan)):
        other = odd.copy()
        other[place] = value
        difference = compare(other, odd)
        assert not difference.ok and difference.at == (place,) and "not finite alike" in difference.fault
        assert difference.relative == np.inf


def test_dtype_and_shape_are_part_of_the_answer() -> None:
    x = np.ones((2, 3), np.float32)
    assert "dtype float64" in compare(x.astype(np.float64), x).fault
    assert "shape [3, 2]" in compare(x.T, x).fault
    assert not compare(x.reshape(6), x).ok


def test_a_reference_of_zeros_allows_nothing_else() -> None:
    zeros = np.zeros(3, np.float32)
    assert compare(zeros, zeros).ok and compare(-zeros, zeros).ok
    assert not compare(zeros + np.float32(1e-30), zeros).ok


def test_empty_scalar_and_text() -> None:
    assert compare(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)).ok
    assert not compare(np.array(1.0), np.array(2.0)).ok
    words = np.array(["a", "b"], object)
    assert compare(words, words).ok and not compare(words, words[::-1]).ok


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_ulp_counts_representable_steps(dtype: str) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    bits = np.array([1, 2, 10], f"u{kind.itemsize}")
    x, y = bits.view(kind), (bits + np.array([0, 3, 1], bits.dtype)).view(kind)
    assert ulp_distance(x, y) == 3
    assert ulp_distance(x, -y) == 10 + 11
    assert ulp_distance(np.array([0.0], kind), np.array([-0.0], kind)) == 0


def test_ulp_leaves_out_what_is_near_zero() -> None:
    reference = np.array([1.0, 1e-7], np.float32)
    shifted = reference + np.array([2.0**-22, -2e-7], np.float32)
    assert ulp_distance(shifted, reference) > 10**6
    assert compare(shifted, reference).max_ulp == 2


def test_narrow_floats_have_wider_tolerances() -> None:
    names = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn"]
    allowed = [tolerance_of(name) for name in names]
    assert allowed == sorted(allowed) and allowed[0] > 0
    assert tolerance_of("int32") == 0 and tolerance_of("complex64") == tolerance_of("float32")
    x = np.array([1.0, 2.0], ml_dtypes.bfloat16)
    assert compare(x, x).ok and not compare(x * ml_dtypes.bfloat16(1.5), x).ok
