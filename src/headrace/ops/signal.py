"""DFT and STFT as products with constant matrices of cosines and sines."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.ops.reduce import accumulator
from headrace.ops.registry import Node, lower
from headrace.ops.shape import normal_axis, out_shape
from headrace.program.build import Builder, Tensor
from headrace.program.dtypes import numpy_dtype
from headrace.program.expr import Expr, cast, index

Array = np.ndarray[Any, Any]


def dft_matrix(samples: int, bins: int, n: int, parts: int, inverse: bool = False) -> Array:
    """(samples, parts, bins, 2): what part p (0 real, 1 imaginary) of sample t adds to both parts of bin k.

    n: length of the transform, samples ≤ n of it are given; inverse: with the factor 1/n.
    """
    turns = np.outer(np.arange(samples), np.arange(bins))
    wave = circle(turns if inverse else -turns, n)
    out = np.empty((samples, parts, bins, 2))
    out[:, 0, :, 0], out[:, 0, :, 1] = wave
    if parts == 2:
        out[:, 1, :, 0], out[:, 1, :, 1] = -wave[1], wave[0]
    return out / n if inverse else out


def half_inverse_matrix(bins: int, n: int) -> Array:
    """(bins, 2, n, 1): the real signal of length n from the first bins of its spectrum."""
    wave = circle(np.outer(np.arange(bins), np.arange(n)), n)
    twice = np.array([1.0 if k == 0 or 2 * k == n else 2.0 for k in range(bins)])[:, None] / n
    return np.stack([wave[0] * twice, -wave[1] * twice], axis=1)[..., None]


def circle(turns: Array, n: int) -> tuple[Array, Array]:
    """Cosine and sine of 2π·turns/n; exact at quarter turns."""
    turns = turns % n
    quarter = 4 * turns % n == 0
    angle = 2 * np.pi * turns / n
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.where(quarter, np.round(cosine), cosine), np.where(quarter, np.round(sine), sine)


@lower("DFT")
def dft(b: Builder, node: Node) -> Tensor:
    """Along one axis of (…, 1) real or (…, 2) complex values; onesided: half of the spectrum."""
    x, shape = node.input(0), out_shape(node)
    given = node.optional_const(2, "axis")
    axis = normal_axis(node, -2 if given is None else int(given.reshape(-1)[0]), x.rank)
    inverse, onesided = bool(node.attr("inverse", 0)), bool(node.attr("onesided", 0))
    size, out_size, parts = x.shape[axis], shape[axis], x.shape[-1]
    if not (isinstance(size, int) and isinstance(out_size, int) and isinstance(parts, int)):
        raise node.refuse("its transform's length is symbolic", "fix it with shapes=")
    length = node.optional_const(1, "dft_length")
    n = size if length is None else int(length.reshape(-1)[0])
    if onesided and inverse:
        if parts != 2:
            raise node.refuse("it turns a half spectrum of real values into a signal", "give complex values")
        n = out_size
        matrix = half_inverse_matrix(min(size, n // 2 + 1), n)
    else:
        if onesided and parts != 1:
            raise node.refuse("it takes half of the spectrum of complex values", "use onesided=0")
        matrix = dft_matrix(min(size, n), out_size, n, parts, inverse)
    acc = accumulator(x.dtype)
    waves = b.constant(matrix.astype(numpy_dtype(acc)), "dft")

    def element(*i: Expr) -> Expr:
        def product(t: Expr, p: Expr) -> Expr:
            sample = x[(*i[:axis], t, *i[axis + 1 : -1], p)]
            return cast(sample, acc) * waves[t, p, i[axis], i[-1]]

        return cast(b.sum(waves.shape[:2], product), x.dtype)

    return b.compute(shape, element)


@lower("STFT")
def stft(b: Builder, node: Node) -> Tensor:
    """(B, L, 1 | 2) → (B, frames, bins, 2): the spectrum of each windowed frame."""
    x, shape = node.input(0), out_shape(node)
    step, window = int(node.const(1, "frame_step").reshape(-1)[0]), node.optional(2)
    length = node.optional_const(3, "frame_length")
    if length is not None:
        n = int(length.reshape(-1)[0])
    else:
        (n,) = node.static(window) if window is not None else (node.static(x)[1],)
    if window is not None and window.shape != (n,):
        raise node.refuse(f"its window has shape {window.shape}, its frames {n} samples", "make them equal")
    bins, parts = shape[2], x.shape[2]
    if not isinstance(bins, int) or not isinstance(parts, int):
        raise node.refuse("the number of its bins is symbolic", "fix it with shapes=")
    if parts == 2 and node.attr("onesided", 1):
        raise node.refuse("it takes half of the spectrum of complex values", "use onesided=0")
    acc = accumulator(x.dtype)
    matrix = dft_matrix(n, bins, n, parts)
    known = None if window is None else window.data
    if known is not None:
        matrix = matrix * known.astype(np.float64)[:, None, None, None]
    waves = b.constant(matrix.astype(numpy_dtype(acc)), "stft")

    def element(row: Expr, frame: Expr, k: Expr, c: Expr) -> Expr:
        def product(t: Expr, p: Expr) -> Expr:
            sample = cast(x[row, frame * index(step) + t, p], acc)
            if window is not None and known is None:
                sample = sample * cast(window[t], acc)
            return sample * waves[t, p, k, c]

        return cast(b.sum((n, parts), product), x.dtype)

    return b.compute(shape, element)
