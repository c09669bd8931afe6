"""Latency and look-ahead of an offline model as they are, measured by changing one frame at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.streaming.onestream import offline

NONLINEAR = frozenset(
    "Clip Cos Gelu LayerNormalization LeakyRelu Log Neg Relu Sigmoid Sin Softmax Softplus Tanh".split()
)


def positive(model: onnx.ModelProto, gain: float = 1.0) -> onnx.ModelProto:
    """The same network with positive weights, no mask values and no nonlinearity.

    Every output then grows with everything it depends on: nothing cancels, nothing saturates. Weights
    that are zero stay zero. They add up to about `gain` in every sum, so
    that products of products stay finite and the ends of long chains of convolutions are not rounded away.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for weight in copy.graph.initializer:
        array = numpy_helper.to_array(weight)
        if array.dtype == np.float32:
            masked = array < -1e8
            grown = np.where((array == 0) | masked, 0, np.abs(np.where(masked, 0, array)) + np.float32(0.1))
            grown *= gain * max(array.shape, default=1) / max(array.size, 1)
            weight.CopyFrom(numpy_helper.from_array(grown.astype(np.float32), weight.name))
    for node in copy.graph.node:
        if node.op_type in NONLINEAR:
            node.CopyFrom(helper.make_node("Identity", [node.input[0]], [node.output[0]], name=node.name))
    return copy


@dataclass(frozen=True)
class Dependence:
    """What output frames of a signal x depend on.

    last[o]: the newest input frame whose change alters output frame o; -1 for none. unit: lengths are
    multiples of it.
    """

    session: Any
    x: Any
    y: Any
    axis: int
    unit: int
    last: Any

    @property
    def total(self) -> int:
        return int(self.x.shape[2])

    def ready(self, frames: int, ratio: float) -> int:
        """Output frames that the first input frames determine, and not more than their time.

        They are the same whatever follows, also when nothing does: in the shortest signal to come.
        """
        waits = np.flatnonzero(self.last >= frames)
        short = self.session.run(None, {"x": self.x[:, :, : -(-frames // self.unit) * self.unit]})[0]
        count = short.shape[self.axis]
        same = np.isclose(short, np.take(self.y, range(count), self.axis), rtol=1e-5, atol=0)
        differ = np.flatnonzero(~same.all(axis=_others(self.y, self.axis)))
        return min([count, int(frames * ratio), *waits[:1].tolist(), *differ[:1].tolist()])


def measure(model: onnx.ModelProto, channels: int, axis: int, total: int, unit: int = 1) -> Dependence:
    """Change every frame of a positive signal in turn."""
    session = offline(model)
    x = np.random.default_rng(0).uniform(0.5, 1.5, (1, channels, total)).astype(np.float32)
    base = session.run(None, {"x": x})[0]
    assert np.isfinite(base).all()
    last = np.full(base.shape[axis], -1)
    for frame in range(total):
        changed = x.copy()
        changed[:, :, frame] += 1000
        last[np.any(session.run(None, {"x": changed})[0] != base, axis=_others(base, axis))] = frame
    return Dependence(session, x, base, axis, unit, last)


def _others(array: Any, axis: int) -> tuple[int, ...]:
    return tuple(a for a in range(array.ndim) if a != axis)


def check_times(step: Any, found: Dependence, name: str) -> None:
    """ready(n), latency and look-ahead of a step model are the least that the network allows."""
    ratio = step.ratio[name]
    inside = range(max(found.total // 3, step.spec.min_length), 2 * found.total // 3)
    assert len(inside) >= step.chunk
    short = {n: int(n * ratio) - found.ready(n, ratio) for n in inside}
    for n in inside:
        if n % step.chunk == 0:
            assert step.ready(name, n) == int(n * ratio) - short[n], n
        else:
            assert step.ready(name, n) <= int(n * ratio) - short[n], n
    assert step.latency[name] == max(0, *short.values())
    own = np.ceil((np.arange(len(found.last)) + 1) / ratio).astype(int) - 1
    middle = slice(len(own) // 3, 2 * len(own) // 3)
    assert step.lookahead[name] == max(0, int((found.last - own)[middle].max()))
