"""Layers that graph preparation composes, folds or shortens stream like any other."""

from __future__ import annotations

import numpy as np
import pytest

from tests.streaming.networks import build, conv, pad
from tests.streaming.onestream import check

LENGTHS = (2, 3, 5, 8, 13)


def composed(b):
    """Grouped, then 1x1, as in DeepFilterNet: one convolution."""
    return conv(b, conv(b, pad(b, "x", 2, 0), (3, 12), 3, groups=3), (12, 4), 1)


def behind_padding(b):
    """1x1 without bias before "same" padding, behind a delay."""
    x = b.op("Relu", conv(b, "x", (3, 3), 3, (1, 1)))
    return conv(b, b.conv(x, (12, 3, 1)), (12, 2), 3, (1, 1))


def strided(b):
    return conv(b, b.conv("x", (12, 3, 2), stride=2), (12, 2), 3, stride=2)


def normed(b):
    x = conv(b, "x", (3, 4), 3, (1, 1))
    rows = [b.constant(np.abs(b.rng.standard_normal(4)) + 0.1) for _ in range(4)]
    return b.op("Mul", b.op("BatchNormalization", x, *rows), b.constant(0.3))


def shortened(b):
    """The last tap is zero and meets padding only at the end."""
    weights = b.rng.standard_normal((2, 3, 3))
    weights[:, :, 2] = 0
    return b.op("Conv", "x", b.constant(weights), pads=[1, 1])


NETS = {
    "composed": (composed, ["Conv"], 0),
    "behind padding": (behind_padding, ["Conv", "Conv"], 2),
    "strided": (strided, ["Conv"], 1),
    "normed": (normed, ["Conv"], 1),
    "shortened": (shortened, ["Conv"], 0),
}


@pytest.mark.parametrize("name", NETS)
def test_network(name) -> None:
    make, convolutions, latency = NETS[name]
    proto = build(make)
    step = check(proto, {"x": 2}, (12, 13, 20, 31) if name == "strided" else LENGTHS)
    assert [n.op_type for n in step.ir.graph if n.op_type in ("Conv", "BatchNormalization")] == convolutions
    assert list(step.latency.values()) == [latency]
