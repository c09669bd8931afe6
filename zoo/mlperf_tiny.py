"""The four networks of MLPerf Tiny (Banbury et al., arXiv 2106.07597), untrained, with seeded weights.

Made from the published description in channels-first layout: batch norms are kept as nodes, paddings are
TensorFlow's SAME written out, and the classifiers end in a softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx

from zoo.build import Builder, same_pads

Size = tuple[int, int]


def build(name: str, seed: int = 0) -> onnx.ModelProto:
    """The model called `name`, batch 1; the same seed gives the same bytes."""
    if name not in _BUILDERS:
        raise ValueError(f"no MLPerf Tiny model {name!r}; there are {', '.join(NAMES)}")
    return _BUILDERS[name](Builder(np.random.default_rng(seed)))


def _unit(b: Builder, x: str, shape: tuple[int, ...], size: Size, stride: int = 1, groups: int = 1) -> str:
    """Convolution with SAME padding on an image of `size`, batch norm, ReLU."""
    pads = same_pads(size, shape[2:], stride)
    return b.op("Relu", b.batch_norm(b.conv(x, shape, stride, pads, groups), shape[0]))


def _separable(b: Builder, x: str, channels: int, out: int, size: Size, stride: int = 1) -> str:
    """Depthwise 3x3, then pointwise; each with batch norm and ReLU."""
    x = _unit(b, x, (channels, 1, 3, 3), size, stride, groups=channels)
    return _unit(b, x, (out, channels, 1, 1), size)


def _classify(b: Builder, x: str, channels: int, classes: int) -> str:
    """Mean over the image, a dense layer, softmax."""
    x = b.op("Flatten", b.op("GlobalAveragePool", x))
    return b.op("Softmax", b.dense(x, channels, classes, gain=1.0))


def _ds_cnn(b: Builder) -> onnx.ModelProto:
    """Keyword spotting: 49 frames of 10 MFCCs, 12 words; 2.7 M MAC."""
    x = _unit(b, "mfcc", (64, 1, 10, 4), (49, 10), stride=2)
    for _ in range(4):
        x = _separable(b, x, 64, 64, (25, 5))
    return b.model("ds_cnn", {"mfcc": (1, 1, 49, 10)}, {_classify(b, x, 64, 12): (1, 12)})


def _resnet8(b: Builder) -> onnx.ModelProto:
    """CIFAR-10 images, three residual blocks; 12.5 M MAC."""
    x, channels, size = _unit(b, "image", (16, 3, 3, 3), (32, 32)), 16, 32
    for out, stride in ((16, 1), (32, 2), (64, 2)):
        y = _unit(b, x, (out, channels, 3, 3), (size, size), stride)
        small = size // stride
        y = b.batch_norm(b.conv(y, (out, out, 3, 3), pads=same_pads((small, small), (3, 3), 1)), out)
        if stride > 1:
            x = b.conv(x, (out, channels, 1, 1), stride, bias=True)
        x, channels, size = b.op("Relu", b.op("Add", x, y)), out, small
    return b.model("resnet8", {"image": (1, 3, 32, 32)}, {_classify(b, x, 64, 10): (1, 10)})


def _mobilenet_v1(b: Builder) -> onnx.ModelProto:
    """Visual wake words: MobileNetV1 at width 0.25 on 96x96 images, two classes; 7.5 M MAC."""
    x, channels, size = _unit(b, "image", (8, 3, 3, 3), (96, 96), stride=2), 8, 48
    plan = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1))
    for out, stride in plan:
        x = _separable(b, x, channels, out, (size, size), stride)
        channels, size = out, size // stride
    return b.model("mobilenet_v1_025", {"image": (1, 3, 96, 96)}, {_classify(b, x, 256, 2): (1, 2)})


def _auto_encoder(b: Builder) -> onnx.ModelProto:
    """Anomaly detection: five frames of 128 log-mel bands squeezed through eight values; 0.26 M MAC."""
    x, width = "features", 640
    for out in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        x, width = b.op("Relu", b.batch_norm(b.dense(x, width, out), out)), out
    return b.model("auto_encoder", {"features": (1, 640)}, {b.dense(x, width, 640, gain=1.0): (1, 640)})


_BUILDERS: Mapping[str, Callable[[Builder], onnx.ModelProto]] = {
    "ds-cnn": _ds_cnn,
    "resnet8": _resnet8,
    "mobilenet-v1-025": _mobilenet_v1,
    "auto-encoder": _auto_encoder,
}
NAMES = tuple(_BUILDERS)
