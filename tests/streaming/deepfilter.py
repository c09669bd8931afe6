"""DeepFilterNet3 as one model: its three graphs, the shift by two frames, band gains and deep filter.

The trained graphs are causal; the look-ahead of the real pipeline is explicit in it. Features move two
frames to the left, so that the decoders see two frames beyond the one that they answer for, and the filter
reaches over the spectra of frames t - 2 … t + 2 (arXiv 2305.08227, section 2; order 5, look-ahead 2).
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, compose, helper

from zoo import catalog
from zoo.build import Builder
from zoo.features import erb_widths

SHIFT, ORDER, BINS, LOW = 2, 5, 481, 96
AXES = {"feat_erb": 2, "feat_spec": 2, "spec": 1}
I64 = np.int64


def pipeline() -> onnx.ModelProto:
    """feat_erb [1,1,T,32], feat_spec [1,2,T,96], spec [1,T,481,2] → enhanced [1,T,481,2], lsnr [1,T,1]."""
    enc, erb, df = (compose.add_prefix(onnx.load(catalog.path(f"dfn3-{k}")), f"{k}/") for k in ("enc", "erb", "df"))
    b = Builder(np.random.default_rng(0))
    for name in ("feat_erb", "feat_spec"):
        ahead = b.constant([0, 0, -SHIFT, 0, 0, 0, SHIFT, 0], I64)
        b.nodes.append(helper.make_node("Pad", [name, ahead], [f"enc/{name}"]))
    b.nodes += enc.graph.node
    for part in (erb, df):
        names = [v.name for v in part.graph.input]
        b.nodes += [helper.make_node("Identity", [f"enc/{n.split('/')[1]}"], [n]) for n in names]
        b.nodes += part.graph.node
    b.nodes.append(helper.make_node("Identity", ["enc/lsnr"], ["lsnr"]))
    gained = _band_gains(b, "erb/m")
    low = _deep_filter(b, "df/coefs")
    high = b.op("Slice", gained, *(b.constant([v], I64) for v in (LOW, BINS, 2)))
    b.nodes.append(helper.make_node("Concat", [low, high], ["enhanced"], axis=2))
    weights = [*b.weights, *(w for part in (enc, erb, df) for w in part.graph.initializer)]
    graph = helper.make_graph(
        b.nodes,
        "deepfilternet3",
        [
            helper.make_tensor_value_info("feat_erb", TensorProto.FLOAT, [1, 1, "T", 32]),
            helper.make_tensor_value_info("feat_spec", TensorProto.FLOAT, [1, 2, "T", LOW]),
            helper.make_tensor_value_info("spec", TensorProto.FLOAT, [1, "T", BINS, 2]),
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * r) for n, r in (("enhanced", 4), ("lsnr", 3))],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _band_gains(b: Builder, gains: str) -> str:
    """The spectrum times the gain of the band of each bin."""
    bands = np.zeros((32, BINS))
    bands[np.repeat(np.arange(32), erb_widths()), np.arange(BINS)] = 1
    per_bin = b.op("MatMul", gains, b.constant(bands))
    return b.op("Mul", "spec", b.op("Transpose", per_bin, perm=[0, 2, 3, 1]))


def _deep_filter(b: Builder, coefficients: str) -> str:
    """sum over k of c[t, f, k] · spec[t - 2 + k, f], complex, for the lowest bins; zeros outside the signal."""
    taps = b.op("Reshape", coefficients, b.constant([1, -1, LOW, ORDER, 2], I64))
    low = b.op("Slice", "spec", *(b.constant([v], I64) for v in (0, LOW, 2)))
    padded = b.op("Pad", low, b.constant([0, ORDER - 1 - SHIFT, 0, 0, 0, SHIFT, 0, 0], I64))
    frames = [
        b.op("Slice", padded, *(b.constant([v], I64) for v in (k, k - ORDER + 1 or 2**62, 1))) for k in range(ORDER)
    ]
    near = b.op("Concat", *(b.op("Unsqueeze", frame, axes=[3]) for frame in frames), axis=3)

    def part(x: str, k: int) -> str:
        return b.op("Slice", x, *(b.constant([v], I64) for v in (k, k + 1, 4)))

    (ar, ai), (br, bi) = ([part(x, k) for k in (0, 1)] for x in (taps, near))
    real = b.op("Sub", b.op("Mul", ar, br), b.op("Mul", ai, bi))
    imaginary = b.op("Add", b.op("Mul", ar, bi), b.op("Mul", ai, br))
    return b.op("ReduceSum", b.op("Concat", real, imaginary, axis=4), axes=[3], keepdims=0)
