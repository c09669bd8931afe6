"""Conv, ConvInteger, QLinearConv, ConvTranspose, DeformConv on random shapes and attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from headrace.errors import UnsupportedOperator
from headrace.program import interp
from headrace.program.expr import walk
from headrace.program.ir import Define, expressions
from tests.ops.one_node import SEVEN_BITS, check, lowered, node_model, run_here, same


@dataclass(frozen=True)
class Case:
    """Shapes and attributes of one convolution."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    attrs: dict[str, Any]
    bias: bool
    seed: int

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


def ints(draw: st.DrawFn, n: int, low: int, high: int) -> list[int]:
    return [draw(st.integers(low, high)) for _ in range(n)]


@st.composite
def windows(draw: st.DrawFn, rank: int, transposed: bool = False) -> tuple[list[int], list[int], dict[str, Any]]:
    """Spatial extents, kernel and attributes that leave at least one output."""
    kernel, strides = ints(draw, rank, 1, 4), ints(draw, rank, 1, 3)
    dilations = ints(draw, rank, 1, 3)
    attrs: dict[str, Any] = {"strides": strides, "dilations": dilations}
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    mode = draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if mode == "NOTSET":
        attrs["pads"] = [draw(st.integers(0, min(2, r - 1))) for r in reach * 2]
    else:
        attrs["auto_pad"] = mode
        if mode.startswith("SAME"):
            attrs["dilations"] = [1] * rank
    if transposed:
        spatial = [draw(st.integers(2, 6)) + (r if mode == "NOTSET" else 0) for r in reach]
    else:
        spatial = [r + draw(st.integers(0, 6)) for r in reach]
    return spatial, kernel, attrs


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
    rank = draw(st.integers(1, 3))
    spatial, kernel, attrs = draw(windows(rank))
    group = draw(st.integers(1, 3))
    within, each = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    x = (draw(st.integers(1, 2)), group * within, *spatial)
    w = (group * each, within, *kernel)
    return Case(x, w, {**attrs, "group": group}, draw(st.booleans()), draw(st.integers(0, 99)))


@given(convolutions(), st.booleans())
def test_conv(case: Case, fixed: bool) -> None:
    x, w = (case.rng.normal(size=s).astype(np.float32) for s in (case.x, case.w))
    bias = case.rng.normal(size=case.w[0]).astype(np.float32) if case.bias else None
    check("Conv", [x, w, bias], constants=(1,) if fixed else (), **case.attrs)


@given(convolutions(), st.sampled_from([None, 0, 3, 250]))
def test_conv_integer(case: Case, zero: int | None) -> None:
    x = case.rng.integers(0, 256, case.x).astype(np.uint8)
    w = case.rng.integers(0, 256, case.w).astype(np.uint8)
    x_zero = None if zero is None else np.array(zero, np.uint8)
    w_zero = np.array(7, np.uint8) if case.bias and x_zero is not None else None
    check("ConvInteger", [x, w, x_zero, w_zero], [TensorProto.INT32], **case.attrs)


@given(convolutions(), st.booleans(), st.booleans())
def test_qlinear_conv(case: Case, signed: bool, per_channel: bool) -> None:
    rng, outputs = case.rng, case.w[0]
    dtype = np.dtype(np.int8 if signed else np.uint8)
    low = -128 if signed else 0
    x = rng.integers(low, low + 256, case.x).astype(dtype)
    w = rng.integers(*SEVEN_BITS, case.w).astype(np.int8)
    n = (outputs,) if per_channel else ()
    w_scale = rng.uniform(0.001, 0.01, n).astype(np.float32)
    inputs = [
        x, np.float32(0.02), np.array(low + 100, dtype), w, w_scale, np.zeros(n, np.int8),
        np.float32(0.011), np.array(low + 130, dtype),
        rng.integers(-900, 900, outputs).astype(np.int32) if case.bias else None,
    ]  # fmt: skip
    arrays = [None if a is None else np.asarray(a) for a in inputs]
    check(
        "QLinearConv",
        arrays,
        [TensorProto.INT8 if signed else TensorProto.UINT8],
        constants=(1, 2, 3, 4, 5, 6, 7),
        **case.attrs,
    )


@st.composite
def transposed(draw: st.DrawFn) -> Case:
    rank = draw(st.integers(1, 2))
    spatial, kernel, attrs = draw(windows(rank, transposed=True))
    strides, dilations = attrs["strides"], attrs["dilations"]
    same = attrs.get("auto_pad", "").startswith("SAME")
    attrs["output_padding"] = [0 if same else draw(st.integers(0, s - 1)) for s in strides]
    group = draw(st.integers(1, 3))
    within, each = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    if "pads" in attrs and draw(st.booleans()):
        del attrs["pads"]
        full = [
            (e - 1) * s + p + (k - 1) * d + 1
            for e, s, p, k, d in zip(spatial, strides, attrs["output_padding"], kernel, dilations, strict=True)
        ]
        attrs["output_shape"] = [
            draw(st.integers(max(f - 3, e), max(f, e))) for f, e in zip(full, spatial, strict=True)
        ]
    x = (draw(st.integers(1, 2)), group * within, *spatial)
    w = (group * within, each, *kernel)
    return Case(x, w, {**attrs, "group": group}, draw(st.booleans()), draw(st.integers(0, 99)))


@given(transposed())
def test_conv_transpose(case: Case) -> None:
    x, w = (case.rng.normal(size=s).astype(np.float32) for s in (case.x, case.w))
    outputs = case.w[1] * case.attrs["group"]
    bias = case.rng.normal(size=outputs).astype(np.float32) if case.bias else None
    check("ConvTranspose", [x, w, bias], **case.attrs)


def test_conv_transpose_of_stride_s_has_no_test_of_divisibility() -> None:
    """The loop over o = s·q + r leaves guards on input positions only, when s divides the kernel."""
    x, w = np.ones((1, 2, 5), np.float32), np.ones((2, 3, 4), np.float32)
    module = lowered(node_model("ConvTranspose", [x, w], [TensorProto.FLOAT], strides=[2]))
    nodes = [e for s in module.body if isinstance(s, Define) for r in expressions(s) for e in walk(r)]
    assert not any(e.op in ("mod", "floordiv") for e in nodes)
    assert sum(e.op in ("lt", "le") for e in nodes) == 2


def test_conv_of_halves_is_summed_in_single_precision() -> None:
    x = np.full((1, 4096, 3), 1.001, np.float16)
    w = np.ones((1, 4096, 1), np.float16)
    (y,) = run_here(node_model("Conv", [x, w], [TensorProto.FLOAT16]), {"x0": x, "x1": w})
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, np.full((1, 1, 3), np.float16(x.astype(np.float32)[0, :, 0].sum())))


@pytest.mark.parametrize(("op", "attrs"), [
    ("Conv", {"strides": [2], "pads": [2, 1]}), ("Conv", {"auto_pad": "SAME_LOWER"}),
    ("ConvTranspose", {"strides": [2], "pads": [1, 1]}), ("ConvTranspose", {"strides": [3]}),
])  # fmt: skip
def test_length_at_run_time(rng: np.random.Generator, op: str, attrs: dict[str, Any]) -> None:
    w = rng.normal(size=(2, 2, 4)).astype(np.float32)
    x = rng.normal(size=(1, 2, 7)).astype(np.float32)
    model = node_model(op, [x, w], [TensorProto.FLOAT], constants=(1,), **attrs)
    (fixed,) = run_here(model, {"x0": x})
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[2].dim_param = "T" if value.name == "x0" else "U"
    module = lowered(model, shapes={"x0": (1, 2, "T")}, bounds={"T": 9})
    np.testing.assert_allclose(interp.run(module, {"x0": x})["y0"], fixed, rtol=1e-6)


def test_depthwise_weights_are_indexed_by_the_output_channel() -> None:
    x, w = np.ones((1, 4, 5), np.float32), np.ones((4, 1, 3), np.float32)
    module = lowered(node_model("Conv", [x, w], [TensorProto.FLOAT], group=4))
    nodes = [e for s in module.body if isinstance(s, Define) for r in expressions(s) for e in walk(r)]
    assert not any(e.op in ("mod", "floordiv", "select") for e in nodes)
    assert [len(e.arg[1]) for e in nodes if e.op == "reduce"] == [1]


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_empty_batch(op: str) -> None:
    x, w = np.zeros((0, 2, 5), np.float32), np.ones((2, 2, 3), np.float32)
    (y,) = run_here(node_model(op, [x, w], [TensorProto.FLOAT]), {"x0": x, "x1": w})
    assert y.shape == (0, 2, 3 if op == "Conv" else 7)


def test_wrong_group_is_refused() -> None:
    x, w = np.zeros((1, 3, 5), np.float32), np.ones((2, 1, 3), np.float32)
    with pytest.raises(UnsupportedOperator, match="group"):
        lowered(node_model("Conv", [x, w], [TensorProto.FLOAT], group=2))


def _deformed(x: Any, w: Any, offset: Any, mask: Any, group: int, sets: int, begin: int, stride: int) -> Any:
    """Deformable convolution in two dimensions, one sample at a time."""
    (_, _, height, width), (outputs, within, kh, kw) = x.shape, w.shape
    n, _, oh, ow = offset.shape
    y = np.zeros((n, outputs, oh, ow))
    for b, m, c, u, v, i, j in np.ndindex(n, outputs, within, kh, kw, oh, ow):
        channel = m // (outputs // group) * within + c
        tap = channel // (x.shape[1] // sets) * kh * kw + u * kw + v
        p = i * stride - begin + u + offset[b, 2 * tap, i, j]
        q = j * stride - begin + v + offset[b, 2 * tap + 1, i, j]
        for a, e in np.ndindex(2, 2):
            r, s = int(np.floor(p)) + a, int(np.floor(q)) + e
            if 0 <= r < height and 0 <= s < width:
                share = (1 - abs(p - r)) * (1 - abs(q - s))
                y[b, m, i, j] += share * x[b, channel, r, s] * w[m, c, u, v] * mask[b, tap, i, j]
    return y


@pytest.mark.parametrize(("group", "sets", "stride"), [(1, 1, 1), (2, 1, 2), (1, 2, 1), (2, 4, 2)])
def test_deform_conv(rng: np.random.Generator, group: int, sets: int, stride: int) -> None:
    x = rng.normal(size=(2, 4, 6, 7)).astype(np.float32)
    w = rng.normal(size=(4, 4 // group, 3, 2)).astype(np.float32)
    out = ((6 + 2 - 3) // stride + 1, (7 + 2 - 2) // stride + 1)
    offset = rng.normal(scale=2, size=(2, sets * 12, *out)).astype(np.float32)
    mask = rng.uniform(size=(2, sets * 6, *out)).astype(np.float32)
    inputs = [x, w, offset, None, mask]
    attrs = {"group": group, "offset_group": sets, "pads": [1, 1, 1, 1], "strides": [stride, stride]}
    (y,) = run_here(
        node_model("DeformConv", inputs, [TensorProto.FLOAT], **attrs),
        {f"x{i}": a for i, a in enumerate(inputs) if a is not None},
    )
    same(y, _deformed(x, w, offset, mask, group, sets, 1, stride).astype(np.float32), 1e-4, 1e-4)
