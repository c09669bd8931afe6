"""Streaming of spectra: a window of samples in, one frame out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from headrace.ops.registry import stream
from headrace.ops.timed import Emit, Plan, Site, Timed, framewise


@stream("DFT")
def dft(site: Site) -> Plan:
    fact = site.fact(0)
    if fact is None or site.timed() != [0]:
        raise site.refuse("has a length that changes over time", "make it constant")
    rank = len(site.dims(0))
    given = site.const(2)
    axis = int(given.reshape(-1)[0]) % rank if given is not None else rank - 2
    if axis == fact.axis or fact.axis == rank - 1:
        raise site.refuse("transforms the whole signal", "transform frames of it (STFT)")
    return framewise(site, {0: fact.axis})


@stream("STFT")
def stft(site: Site) -> Plan:
    """Samples that the window multiplies by zero at its ends are not waited for."""
    fact = site.fact(0)
    if fact is None or site.timed() != [0]:
        raise site.refuse("has a window that changes over time", "make it constant")
    onesided = site.attr("onesided", 1)  # spelled out: shape inference of onnx takes 0 where it is missing
    if fact.axis == 0:
        return framewise(site, {0: 0}, emit=lambda e: e.clone({0: e.read(0)}, onesided=onesided))
    if fact.axis != 1 or fact.fold != 1:
        raise site.refuse("takes time as real and imaginary parts", "put time on axis 1")
    hop, length, window = site.const(1), site.const(3), site.const(2)
    if hop is None or (length is None and window is None):
        raise site.refuse("has a step or a frame length computed at run time", "make them constant")
    step = int(hop.reshape(-1)[0])
    size = int(length.reshape(-1)[0]) if length is not None else len(window)  # type: ignore[arg-type]
    first, last = 0, size - 1
    if window is not None and np.any(window):
        used = np.flatnonzero(window)
        first, last = int(used[0]), int(used[-1])
    read = site.read(0, step, 1, first, last)

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        value = e.read(0)
        if (first, last) != (0, size - 1):
            value = e.op("Pad", value, e.const([0, first, 0, 0, size - 1 - last, 0]))
        return e.clone({0: value}, onesided=onesided)

    return Plan((read,), (Timed(1),), emit, f"past {max(0, last - first + 1 - step)} samples")
