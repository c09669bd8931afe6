"""Taps of convolutions that cannot count, and padding that a convolution can do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.frontends.onnx import load
from headrace.passes.prepare import prepare
from tests.passes.running import array, check_same, everything, model, node, operators, proto_of, run

F = np.float32


def conv(weights, size, **attributes):
    """One Conv from x to y."""
    nodes = [node("Conv", ["x", "w"], ["y"], **attributes)]
    out = (size[0], weights.shape[0], *[None] * (len(size) - 2))
    return model(nodes, {"x": (size, F)}, {"y": (out, F)}, {"w": weights.astype(F)})


def kernel(prepared):
    (one,) = [n for n in prepared.model.graph if n.op_type == "Conv"]
    return tuple(prepared.constant(one.inputs[1]).shape[2:]), tuple(one.attributes["pads"].as_ints())


def zeroed(weights, *at):
    weights = weights.copy()
    weights[..., list(at)] = 0
    return weights


CASES = {
    "the only frame in the middle": (array(4, 3, 3), (1, 3, 1), {"pads": [1, 1]}, (1,), (0, 0)),
    "the only frame at the end": (array(4, 3, 3), (1, 3, 1), {"pads": [2, 0]}, (1,), (0, 0)),
    "two frames, stride 2": (array(4, 3, 3), (1, 3, 2), {"pads": [1, 1], "strides": [2]}, (2,), (0, 1)),
    "SAME": (array(4, 3, 5), (1, 3, 2), {"auto_pad": "SAME_UPPER"}, (3,), (1, 1)),
    "dilated beyond the signal": (array(4, 3, 5), (1, 3, 7), {"pads": [8, 8], "dilations": [4]}, (3,), (4, 4)),
    "zeros at the end": (zeroed(array(4, 3, 3), 2), (1, 3, 9), {"pads": [1, 1]}, (2,), (1, 0)),
    "zeros in front": (zeroed(array(4, 3, 3), 0), (1, 3, 9), {"pads": [1, 1]}, (2,), (0, 1)),
    "zeros in front, without padding": (zeroed(array(4, 3, 3), 0), (1, 3, 9), {}, (2,), (0, 0)),
    "zeros around": (zeroed(array(4, 3, 5), 0, 1, 4), (1, 3, 9), {"pads": [1, 0]}, (2,), (0, 0)),
    "one axis of two": (array(4, 3, 3, 3), (1, 3, 1, 9), {"pads": [2, 1, 0, 1]}, (1, 3), (0, 1, 0, 1)),
    "nothing to drop": (array(4, 3, 3), (1, 3, 3), {"pads": [1, 1]}, (3,), (1, 1)),
    "one zero of many": (zeroed(array(1, 1, 64), 0), (1, 1, 200), {"pads": [0, 0]}, (64,), (0, 0)),
    "nothing but zeros": (np.zeros((4, 3, 3)), (1, 3, 9), {"pads": [1, 1]}, (3,), (1, 1)),
    "nothing but padding": (array(4, 3, 1), (1, 3, 1), {"pads": [3, 0], "strides": [5]}, (1,), (3, 0)),
}


@pytest.mark.parametrize("name", CASES)
def test_taps(name):
    weights, size, attributes, expected, pads = CASES[name]
    prepared = check_same(conv(weights, size, **attributes), {"x": array(*size)}, atol=1e-5)
    assert kernel(prepared) == (expected, pads)
    assert any("taps" in text for text in prepared.decisions) == (expected != weights.shape[2:])


def test_reasons():
    def reason(weights, size, **attributes):
        (text,) = [
            t for t in prepare(load(conv(weights, size, **attributes)), native=everything).decisions if "taps" in t
        ]
        return text

    assert "2 only meet padding" in reason(array(4, 3, 3), (1, 3, 1), pads=[1, 1])
    assert "1 are zeros" in reason(zeroed(array(4, 3, 3), 0), (1, 3, 9), pads=[1, 1])
    both = reason(zeroed(array(4, 3, 5), 0, 3), (1, 3, 2), pads=[2, 2])
    assert "1 only meet padding" in both or "1 are zeros" in both


@st.composite
def convolutions(draw):
    rank = draw(st.sampled_from((1, 2)))
    taps = [draw(st.integers(1, 5)) for _ in range(rank)]
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    weights = rng.standard_normal((4, 1, *taps))
    for a, count in enumerate(taps):
        for k in draw(st.sets(st.integers(0, count - 1), max_size=3)):
            np.moveaxis(weights, a + 2, 0)[k] = 0
    attributes = {
        "group": 2,
        "strides": [draw(st.integers(1, 3)) for _ in range(rank)],
        "dilations": [draw(st.integers(1, 3)) for _ in range(rank)],
        "pads": [draw(st.integers(0, 5)) for _ in range(2 * rank)],
    }
    reach = [(k - 1) * d + 1 for k, d in zip(taps, attributes["dilations"], strict=True)]
    pads = attributes["pads"]
    least = [max(1, n - pads[a] - pads[a + rank]) for a, n in enumerate(reach)]
    size = (1, 2, *(draw(st.integers(n, n + 4)) for n in least))
    return weights, size, attributes


@settings(max_examples=120, deadline=None)
@given(convolutions())
def test_random_convolutions(case):
    weights, size, attributes = case
    check_same(conv(weights, size, **attributes), {"x": array(*size)}, rtol=1e-4, atol=1e-5)


def test_open_extents_keep_what_padding_does_not_cover():
    weights = zeroed(array(4, 3, 5), 0, 1, 4)
    proto = conv(weights, (1, 3, "T"), pads=[1, 1])
    prepared = prepare(load(proto), bounds={"T": (50, 1, 6)}, native=everything)
    assert kernel(prepared) == ((3,), (0, 0))
    for length in (6, 7, 20):
        x = {"x": array(1, 3, length)}
        np.testing.assert_allclose(run(proto_of(prepared), x)[0], run(proto, x)[0], atol=1e-5)
    uncovered = prepare(load(conv(weights, (1, 3, "T"))), bounds={"T": (50, 1, 6)}, native=everything)
    assert operators(uncovered) == ["Conv"] and kernel_of_open(uncovered) == (5,)


def kernel_of_open(prepared):
    (one,) = prepared.model.graph
    return tuple(prepared.constant(one.inputs[1]).shape[2:])


def test_dropped_zeros_do_not_spread_nan():
    """What the reason says: 0 · NaN was NaN."""
    x = array(1, 3, 9)
    x[0, :, 0] = np.nan
    proto = conv(zeroed(array(4, 3, 3), 0), (1, 3, 9), pads=[0, 0])
    (got,) = run(proto_of(prepare(load(proto), native=everything)), {"x": x})
    assert np.isfinite(got).all()


def padded(amounts, size, fill=None, axes=None, **attributes):
    names = ["x", "p"]
    constants = {"p": np.array(amounts), "w": array(4, 3, *[3] * (len(size) - 2))}
    if fill is not None or axes is not None:
        constants["f"] = np.array(0 if fill is None else fill, F)
        names.append("f")
    if axes is not None:
        constants["a"] = np.array(axes)
        names.append("a")
    mode = attributes.pop("mode", "constant")
    nodes = [node("Pad", names, ["m"], mode=mode), node("Conv", ["m", "w"], ["y"], **attributes)]
    out = (size[0], 4, *[None] * (len(size) - 2))
    return model(nodes, {"x": (size, F)}, {"y": (out, F)}, constants)


MERGED = {
    "in front": (([0, 0, 2, 0, 0, 0], (1, 3, 9)), {}, (2, 0)),
    "beside padding of the convolution": (([0, 0, 2, 0, 0, 1], (1, 3, 9)), {"pads": [1, 1]}, (3, 2)),
    "with axes": (([2, 1], (1, 3, 9)), {"axes": [-1]}, (2, 1)),
    "zero as a value": (([0, 0, 2, 0, 0, 0], (1, 3, 9), 0.0), {}, (2, 0)),
    "images": (([0, 0, 2, 0, 0, 0, 0, 1], (1, 3, 9, 8)), {"strides": [2, 1]}, (2, 0, 0, 1)),
}


@pytest.mark.parametrize("name", MERGED)
def test_padding_is_merged(name):
    arguments, attributes, pads = MERGED[name]
    prepared = check_same(padded(*arguments, **attributes), {"x": array(*arguments[1])}, atol=1e-5)
    assert operators(prepared) == ["Conv"] and kernel(prepared)[1] == pads
    assert any(text.startswith("Pad") for text in prepared.decisions)


KEPT = {
    "a value": (([0, 0, 2, 0, 0, 0], (1, 3, 9), 1.0), {}),
    "a cut": (([0, 0, 2, 0, 0, -1], (1, 3, 9)), {}),
    "reflection": (([0, 0, 2, 0, 0, 0], (1, 3, 9)), {"mode": "reflect"}),
    "rows": (([1, 0, 2, 0, 0, 0], (1, 3, 9)), {}),
}


@pytest.mark.parametrize("name", KEPT)
def test_padding_is_kept(name):
    arguments, attributes = KEPT[name]
    proto = padded(*arguments, **attributes)
    proto.graph.output[0].type.tensor_type.shape.dim[0].Clear()
    assert operators(check_same(proto, {"x": array(*arguments[1])}, atol=1e-5)) == ["Pad", "Conv"]
