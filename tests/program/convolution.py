"""Convolutions as modules, with a reference in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.program.build import Builder
from headrace.program.expr import Expr, all_of, call, const, index, maximum, select
from headrace.program.fuse import fuse
from headrace.program.ir import Module

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Conv:
    """A layer: batch, channels, rows, columns, outputs; padding of zeros; what follows the sum."""

    batch: int = 1
    channels: int = 3
    rows: int = 8
    columns: int = 8
    outputs: int = 5
    pad: int = 1
    stride: int = 1
    dilation: int = 1
    kernel: int = 3
    after: str = "relu"  # "", "relu", "tanh", "residual", "sum", "both"
    seed: int = 0

    def size(self, extent: int) -> int:
        return (extent + 2 * self.pad - self.dilation * (self.kernel - 1) - 1) // self.stride + 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.batch, self.outputs, self.size(self.rows), self.size(self.columns)

    @property
    def weights(self) -> tuple[Array, Array]:
        rng = np.random.default_rng(self.seed)
        taps = rng.standard_normal((self.outputs, self.channels, self.kernel, self.kernel))
        scaled = taps / np.sqrt(self.channels * self.kernel**2)
        return scaled.astype(np.float32), rng.standard_normal(self.outputs).astype(np.float32)

    def feeds(self) -> dict[str, Array]:
        rng = np.random.default_rng(self.seed + 1)
        x = rng.standard_normal((self.batch, self.channels, self.rows, self.columns)).astype(np.float32)
        return {"x": x, "r": rng.standard_normal(self.shape).astype(np.float32)}


def module(c: Conv, dtype: str = "f32", constant: bool = True) -> Module:
    """x, r → y = what follows(sum + bias), and z = tanh(y) where `after` is "both"."""
    b = Builder()
    x = b.input("x", dtype, (c.batch, c.channels, c.rows, c.columns))
    r = b.input("r", "f32", c.shape)
    taps, bias = c.weights
    w = b.constant((100 * taps).astype(np.int32) if dtype == "i32" else taps)
    if not constant:
        w = b.input("w", dtype, taps.shape)
    add = b.constant(bias)

    def element(n: Expr, o: Expr, i: Expr, j: Expr) -> Expr:
        def tap(k: Expr, s: Expr, t: Expr) -> Expr:
            at = (i * c.stride + s * c.dilation - c.pad, j * c.stride + t * c.dilation - c.pad)
            inside = [index(0) <= at[0], at[0] < c.rows, index(0) <= at[1], at[1] < c.columns]
            return select(all_of(inside), x[(n, k, *at)], const(0, dtype)) * w[o, k, s, t]

        return b.sum((c.channels, c.kernel, c.kernel), tap)

    t = b.compute(c.shape, element)
    if dtype != "f32":
        b.output("y", t)
        return fuse(b.module())
    y = b.compute(c.shape, lambda *i: _after(c, t[i] + add[i[1]], r[i], x, i, b))
    b.output("y", y)
    if c.after == "both":
        b.output("z", b.compute(c.shape, lambda *i: call("tanh", y[i])))
    return fuse(b.module())


def _after(c: Conv, v: Expr, r: Expr, x: Any, i: tuple[Expr, ...], b: Builder) -> Expr:
    if c.after == "relu":
        return maximum(v, 0.0)
    if c.after == "tanh":
        return call("tanh", v)
    if c.after == "residual":
        return maximum(v * 0.5 + r, 0.0)
    if c.after == "sum":
        return v + r * b.sum((c.channels,), lambda k: x[i[0], k, 0, 0])
    return v


def reference(c: Conv, feeds: dict[str, Array]) -> dict[str, Array]:
    """The same in float64."""
    taps, bias = (a.astype(np.float64) for a in c.weights)
    x = feeds["x"].astype(np.float64)
    padded = np.pad(x, ((0, 0), (0, 0), (c.pad, c.pad), (c.pad, c.pad)))
    _, _, rows, columns = c.shape
    total = np.zeros(c.shape)
    for s in range(c.kernel):
        for t in range(c.kernel):
            down, right = s * c.dilation, t * c.dilation
            part = padded[:, :, down:, right:][:, :, : (rows - 1) * c.stride + 1 : c.stride]
            part = part[:, :, :, : (columns - 1) * c.stride + 1 : c.stride]
            total += np.einsum("ncij,oc->noij", part, taps[:, :, s, t])
    v, r = total + bias[:, None, None], feeds["r"].astype(np.float64)
    y = {
        "": v,
        "relu": np.maximum(v, 0),
        "tanh": np.tanh(v),
        "residual": np.maximum(v * 0.5 + r, 0),
        "sum": v + r * x[:, :, 0, 0].sum(1)[:, None, None, None],
        "both": v,
    }[c.after]
    return {"y": y, "z": np.tanh(y)} if c.after == "both" else {"y": y}
