"""Nodes of old operator sets keep their meaning. The reference is the original in onnxruntime, or NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from headrace.errors import UnsupportedOperator
from headrace.frontends.onnx import load
from headrace.passes.prepare import prepare
from tests.passes.running import array, check_same, everything, model, node, operators, proto_of, run

X = array(2, 4, 6, 8)
F = np.float32


def one(op, opset, out_shape, constants=None, inputs=("x",), outputs=("y",), x=X, dtype=F, **attributes):
    constants = constants or {}
    return model(
        [node(op, [*inputs, *constants], list(outputs), **attributes)],
        {"x": (x.shape, x.dtype)},
        dict.fromkeys(outputs, (out_shape, dtype)),
        constants,
        opset=opset,
    )


I64 = np.int64
CASES = {
    **{
        f"{op} axis {axis} opset {opset}": one(op, opset, X.shape, axis=axis)
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for axis in (0, 1, 2, 3, -1, -2)
        for opset in (7, 11, 13)
        if opset != 7 or axis >= 0
    },
    "Softmax default opset 12": one("Softmax", 12, X.shape),
    "Softmax default opset 13": one("Softmax", 13, X.shape),
    **{f"Clip {o}": one("Clip", o, X.shape, min=-0.5, max=0.25) for o in (7, 10)},
    "Clip one-sided 9": one("Clip", 9, X.shape, min=0.0),
    "Clip none 9": one("Clip", 9, X.shape),
    "Clip 11": one("Clip", 11, X.shape, {"lo": F(-0.5), "hi": F(0.5)}),
    **{f"Squeeze {o}": one("Squeeze", o, (2, 4), x=array(2, 1, 4, 1), axes=[1, 3]) for o in (7, 11)},
    "Squeeze all 11": one("Squeeze", 11, (2, 4), x=array(2, 1, 4, 1)),
    **{f"Unsqueeze {o}": one("Unsqueeze", o, (1, 2, 1, 3), x=array(2, 3), axes=[0, 2]) for o in (7, 11)},
    **{
        f"{op} {o}": one(op, o, (2, 4, 1, 1), x=np.abs(X) + 1, axes=[2, 3])
        for op in ("ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp", "ReduceProd", "ReduceSum")
        for o in (7, 11, 12)
    },
    "ReduceSum flat 17": one("ReduceSum", 17, (), keepdims=0),
    "ReduceMean all 13": one("ReduceMean", 13, (1, 1, 1, 1)),
    "ReduceMean axes 17": one("ReduceMean", 17, (2, 6, 8), axes=[1], keepdims=0),
    "Pad 7": one("Pad", 7, (2, 4, 9, 11), pads=[0, 0, 1, 2, 0, 0, 2, 1], value=0.5),
    "Pad reflect 10": one("Pad", 10, (2, 4, 8, 10), pads=[0, 0, 1, 1, 0, 0, 1, 1], mode="reflect"),
    "Slice 9": one("Slice", 9, (2, 2, 6, 3), starts=[1, -3], ends=[3, 1000], axes=[1, 3]),
    "Slice no axes 7": one("Slice", 7, (1, 2, 6, 8), starts=[1, 0], ends=[2, 2]),
    "Split 7": model(
        [node("Split", ["x"], ["y", "z"], axis=1, split=[1, 3])],
        {"x": (X.shape, F)},
        {"y": ((2, 1, 6, 8), F), "z": ((2, 3, 6, 8), F)},
        opset=7,
    ),
    "Split even 12": model(
        [node("Split", ["x"], ["y", "z"], axis=3)],
        {"x": (X.shape, F)},
        {"y": ((2, 4, 6, 4), F), "z": ((2, 4, 6, 4), F)},
        opset=12,
    ),
    "Split even 13": model(
        [node("Split", ["x"], ["y", "z"], axis=2)],
        {"x": (X.shape, F)},
        {"y": ((2, 4, 3, 8), F), "z": ((2, 4, 3, 8), F)},
        opset=13,
    ),
    "Upsample nearest 7": one("Upsample", 7, (2, 4, 12, 24), scales=[1.0, 1.0, 2.0, 3.0]),
    "Upsample linear 9": one("Upsample", 9, (2, 4, 12, 16), {"s": np.array([1, 1, 2, 2], F)}, mode="linear"),
    "Upsample nearest 9": one("Upsample", 9, (2, 4, 9, 12), {"s": np.array([1, 1, 1.5, 1.5], F)}),
    "Resize up 10": one("Resize", 10, (2, 4, 12, 16), {"s": np.array([1, 1, 2, 2], F)}),
    "Resize down 10": one("Resize", 10, (2, 4, 4, 5), {"s": np.array([1, 1, 0.7, 0.7], F)}),
    "Resize linear 10": one("Resize", 10, (2, 4, 9, 6), {"s": np.array([1, 1, 1.5, 0.8], F)}, mode="linear"),
    "Dropout 7": one("Dropout", 7, X.shape, ratio=0.4),
    "Dropout 10": one("Dropout", 10, X.shape, ratio=0.4),
    "Dropout 13": one("Dropout", 13, X.shape, {"r": F(0.4)}),
    "Scatter 9": one("Scatter", 9, X.shape, {"i": np.array([[[[0, 2]]]]), "u": np.ones((1, 1, 1, 2), F)}, axis=3),
    "Gemm 7": one("Gemm", 7, (3, 5), {"b": array(4, 5), "c": array(5)}, x=array(3, 4), alpha=0.5),
    "Cast 7": one("Cast", 7, X.shape, dtype=I64, to=7),
    "AveragePool 7": one("AveragePool", 7, (2, 4, 3, 4), kernel_shape=[2, 2], strides=[2, 2]),
    "InstanceNormalization 7": one("InstanceNormalization", 7, X.shape, {"s": array(4), "b": array(4, seed=1)}),
    **{
        f"BatchNormalization {o}": one(
            "BatchNormalization",
            o,
            X.shape,
            {"s": array(4), "b": array(4, seed=1), "m": array(4, seed=2), "v": np.abs(array(4, seed=3)) + 1},
            epsilon=1e-3,
        )
        for o in (7, 9, 14, 15)
    },
    "PRelu 7": one("PRelu", 7, X.shape, {"s": array(4, 1, 1)}),
    "Sum 7": one("Sum", 7, X.shape, {"b": X}),
    "LSTM 7": model(
        [node("LSTM", ["x", "w", "r"], ["y"], hidden_size=3)],
        {"x": ((5, 2, 4), F)},
        {"y": ((5, 1, 2, 3), F)},
        {"w": array(1, 12, 4), "r": array(1, 12, 3)},
        opset=7,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_old_operator_set(name):
    proto = CASES[name]
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    x = X if tuple(shape) == X.shape else array(*shape)
    if "LogSum" in name:
        x = np.abs(x) + 1
    prepared = check_same(proto, {"x": x})
    assert prepared.model.opset_imports[""] == 26


def test_topk_9():
    proto = model(
        [node("TopK", ["x"], ["y", "i"], k=3, axis=-1)],
        {"x": (X.shape, F)},
        {"y": ((2, 4, 6, 3), F), "i": ((2, 4, 6, 3), I64)},
        opset=9,
    )
    check_same(proto, {"x": X})


@pytest.mark.parametrize("opset", [7, 9, 10, 12, 13])
def test_dropout_mask_is_all_ones(opset):
    kind = F if opset < 10 else np.bool_
    nodes = [node("Dropout", ["x"], ["y", "m"]), node("Cast", ["m"], ["n"], to=1)]
    proto = model(nodes, {"x": (X.shape, F)}, {"y": (X.shape, F), "n": (X.shape, F)}, opset=opset)
    prepared = check_same(proto, {"x": X}, expected=[X, np.ones_like(X)])
    assert "Dropout" not in operators(prepared) and kind is not None


@pytest.mark.parametrize(("axis", "shape"), [(0, (4,)), (1, (6,)), (0, (4, 6)), (2, (8,)), (-1, (8,))])
@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_broadcast_at_an_axis(op, axis, shape):
    x, b = X[0], array(*shape, seed=5)
    proto = model(
        [node(op, ["x", "b"], ["y"], broadcast=1, axis=axis)],
        {"x": (x.shape, F), "b": (shape, F)},
        {"y": (x.shape, F)},
        opset=6,
    )
    wide = b.reshape(b.shape + (1,) * (3 - axis % 3 - b.ndim))
    check_same(proto, {"x": x, "b": b}, expected=[x + wide if op == "Add" else x * wide])


def test_first_operator_sets():
    nodes = [
        node("Relu", ["x"], ["a"], consumed_inputs=[0]),
        node("Concat", ["a", "a"], ["b"]),
        node("Reshape", ["b"], ["c"], shape=[0, -1]),
        node("Cast", ["c"], ["y"], to="DOUBLE"),
    ]
    x = array(2, 3, 4)
    proto = model(nodes, {"x": (x.shape, F)}, {"y": ((2, 24), np.float64)}, opset=1)
    want = np.concatenate([np.maximum(x, 0)] * 2, 1).reshape(2, 24).astype(np.float64)
    check_same(proto, {"x": x}, expected=[want])


def test_prelu_slope_per_channel():
    slope = array(4)
    proto = one("PRelu", 6, X.shape, {"s": slope})
    check_same(proto, {"x": X}, expected=[np.where(X < 0, X * slope[:, None, None], X)])


def test_batch_normalization_per_element():
    parts = {n: np.abs(array(4, 6, 8, seed=i)) + 0.5 for i, n in enumerate(("s", "b", "m", "v"))}
    proto = one("BatchNormalization", 7, X.shape, parts, spatial=0, epsilon=1e-3)
    want = (X - parts["m"]) / np.sqrt(parts["v"] + 1e-3) * parts["s"] + parts["b"]
    check_same(proto, {"x": X}, expected=[want])


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_normalization_18(groups):
    scale, bias = array(groups), array(groups, seed=1)
    proto = one("GroupNormalization", 18, X.shape, {"s": scale, "b": bias}, num_groups=groups)
    flat = X.reshape(2, groups, -1)
    normal = (flat - flat.mean(-1, keepdims=True)) / np.sqrt(flat.var(-1, keepdims=True) + 1e-5)
    want = (normal * scale[:, None] + bias[:, None]).reshape(X.shape)
    check_same(proto, {"x": X}, expected=[want], rtol=1e-4)


@pytest.mark.parametrize("axis", [1, 2])
def test_dft_17(axis):
    x = array(2, 6, 8, 1)
    proto = one("DFT", 17, (2, 6, 8, 2), x=x, axis=axis)
    spectrum = np.fft.fft(x[..., 0].astype(np.float64), axis=axis)
    want = np.stack([spectrum.real, spectrum.imag], -1).astype(F)
    prepared = check_same(proto, {"x": x}, expected=[want], atol=1e-4)
    assert operators(prepared) == ["DFT"]


def test_grid_sample_16():
    grid = np.tanh(array(2, 5, 5, 2))
    check_same(one("GridSample", 16, (2, 4, 5, 5), {"grid": grid}, mode="bilinear"), {"x": X})


def test_roi_align_10():
    rois = np.array([[0, 0, 5, 5], [1, 1, 6, 6]], F)
    index = np.array([0, 1])
    proto = one("RoiAlign", 10, (2, 4, 2, 2), {"r": rois, "b": index}, output_height=2, output_width=2)
    prepared = prepare(load(proto), native=everything)
    got = ReferenceEvaluator(proto_of(prepared)).run(None, {"x": X})
    np.testing.assert_allclose(got[0], run(proto, {"x": X})[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", range(7, 29))
def test_every_operator_set_is_read(opset):
    axes = {"axes": np.array([1])} if opset >= 13 else {}
    squeeze = node("Unsqueeze", ["a", *axes], ["b"], **({} if axes else {"axes": [1]}))
    nodes = [node("Relu", ["x"], ["a"]), squeeze, node("Softmax", ["b"], ["c"], axis=2)]
    nodes.append(node("MatMul", ["c", "w"], ["y"]))
    x, w = array(3, 5), array(5, 2)
    proto = model(nodes, {"x": ((3, 5), F)}, {"y": ((3, 1, 2), F)}, {"w": w, **axes}, opset=opset)
    relu = np.exp(np.maximum(x, 0))
    want = (relu / relu.sum(-1, keepdims=True))[:, None] @ w
    prepared = check_same(proto, {"x": x}, expected=[want])
    assert prepared.model.opset_imports[""] == 26


REFUSED = {
    "training batch norm": (
        model(
            [node("BatchNormalization", ["x", "s", "s", "s", "s"], ["y", "m", "v", "a", "b"], name="bn")],
            {"x": (X.shape, F)},
            {"y": (X.shape, F)},
            {"s": np.ones(4, F)},
            opset=9,
        ),
        "training",
    ),
    "training dropout": (one("Dropout", 6, X.shape, is_test=0), "training"),
    "mixed resize": (one("Resize", 10, (2, 4, 12, 4), {"s": np.array([1, 1, 2, 0.5], F)}), "shrinks"),
    "foreign": (
        model(
            [node("FusedGelu", ["x"], ["y"], domain="com.microsoft", name="f")],
            {"x": (X.shape, F)},
            {"y": (X.shape, F)},
            opsets=[helper.make_opsetid("com.microsoft", 1)],
        ),
        "com.microsoft",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    proto, pattern = REFUSED[name]
    with pytest.raises(UnsupportedOperator, match=pattern) as caught:
        check_same(proto, {"x": X})
    assert caught.value.stage == "normalise" and caught.value.node


def test_lowest_operator_set_that_suffices():
    x = array(2, 4, 4, 4)
    cases = [
        (one("SpaceToDepth", 28, (2, 16, 2, 2), x=x, blocksize=2, mode="DCR"), 26),
        (one("SpaceToDepth", 28, (2, 16, 2, 2), x=x, blocksize=2, mode="CRD"), 28),
        (one("Relu", 28, x.shape, x=x), 26),
    ]
    for proto, opset in cases:
        prepared = prepare(load(proto), native=everything)
        assert prepared.model.opset_imports[""] == opset
        proto_of(prepared)
