"""Padding and taps of convolutions that cannot count.

    y = Pad(x, 2 zeros in front); z = Conv(y, w: [8, 4, 3])   →   z = Conv(x, w, pads=[2, 0])
    z = Conv(x: [1, 4, 1], w: [8, 4, 3], pads=[1, 1])         →   z = Conv(x, w[:, :, 1:2])
    z = Conv(x, w with w[:, :, 0] = 0, pads=[1, 1])           →   z = Conv(x, w[:, :, 1:], pads=[0, 1])

A tap that only ever meets padding adds exact zeros. A tap of zeros adds zeros too, but for NaN and infinity
in the input, which it would turn into NaN; such taps go where they are a sixteenth of the kernel or more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from headrace.graph.facts import Facts, label
from headrace.graph.rewrite import Builder, Walk, attribute, get_input
from headrace.graph.symbolic import Dim, SymDim
from headrace.ops.window import Window
from headrace.passes.linear import (
    Convolution,
    convolution,
    finite,
    is_inner,
    may_copy,
    spatial,
    stand_in,
    window_of,
    write_convolution,
)
from headrace.passes.notes import Notes


def merge_padding(node: ir.Node, walk: Walk, notes: Notes) -> list[ir.Node] | None:
    """Let a convolution do the zero padding of its input."""
    source = get_input(node, 0)
    pad = source.producer() if source is not None and is_inner(source, node) else None
    if node.domain != "" or node.op_type != "Conv" or pad is None or pad.op_type != "Pad" or pad.domain != "":
        return None
    extra = _zero_padding(pad, walk.facts)
    weights = walk.facts.dims.get(node.inputs[1]) if node.inputs[1] is not None else None
    if extra is None or weights is None or any(isinstance(n, SymDim) for n in weights):
        return None
    window = window_of(node, [int(n) for n in weights[2:] if isinstance(n, int)], walk.facts)
    if window is None:
        return None
    begin = tuple(a + b for a, b in zip(window.begin, extra[0], strict=True))
    end = tuple(a + b for a, b in zip(window.end, extra[1], strict=True))
    wider = Window(window.kernel, window.strides, window.dilations, begin, end)
    make = Builder(walk, node)
    write_convolution(make, [pad.inputs[0], *node.inputs[1:]], int(attribute(node, "group", 1)), wider)
    notes.count("Pad with zeros is padding of the Conv after it", pad)
    return stand_in(node, make.nodes, walk)


def _zero_padding(pad: ir.Node, facts: Facts) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Zeros that a Pad puts before and after each spatial axis; None if it does anything else."""
    source, given, fill = pad.inputs[0], facts.constant(get_input(pad, 1)), get_input(pad, 2)
    dims = facts.dims.get(source) if source is not None else None
    if dims is None or given is None or attribute(pad, "mode", "constant") != "constant":
        return None
    value = facts.constant(fill)
    if fill is not None and (value is None or value.size != 1 or value.reshape(-1)[0] != 0):
        return None
    rank = len(dims)
    axes = facts.constant(get_input(pad, 3))
    if axes is None and get_input(pad, 3) is not None:
        return None
    chosen = list(range(rank)) if axes is None else [int(a) % rank for a in axes.reshape(-1)]
    begin, end = [0] * rank, [0] * rank
    for n, axis in enumerate(chosen):
        begin[axis], end[axis] = int(given[n]), int(given[n + len(chosen)])
    if min(begin + end) < 0 or any(begin[:2]) or any(end[:2]):
        return None
    return tuple(begin[2:]), tuple(end[2:])


@dataclass(frozen=True)
class Cut:
    """Taps first … last of an axis stay; `zeros` of the others hold zeros, the rest only meets padding."""

    first: int
    last: int
    zeros: int


def drop_taps(node: ir.Node, walk: Walk, notes: Notes) -> list[ir.Node] | None:
    """Shrink a kernel by the taps at its ends that cannot count."""
    facts = walk.facts
    conv = convolution(node, facts)
    extents = spatial(node, facts)
    if conv is None or extents is None or math.prod(conv.window.kernel) == 1 or not may_copy(node, 1):
        return None
    cuts = [_cut(conv, a, extents[0][a], extents[1][a]) for a in range(len(conv.window.kernel))]
    if all(cut.first == 0 and cut.last == k - 1 for cut, k in zip(cuts, conv.window.kernel, strict=True)):
        return None
    made = _shrunk(node, conv, cuts, walk) if finite(conv.weights) else None
    if made is None:
        return None
    for a, cut in enumerate(cuts):
        _say(notes, node, a, conv.window.kernel[a], cut)
    return stand_in(node, made, walk)


def _cut(conv: Convolution, a: int, size: Dim, count: Dim) -> Cut:
    window = conv.window
    taps = np.arange(window.kernel[a])
    others = tuple(n for n in range(conv.weights.ndim) if n != a + 2)
    used = np.any(conv.weights != 0, axis=others)
    if not used.any():
        used[:] = True  # the result is the bias; some tap has to be there
    if 16 * (~used).sum() < used.size:
        used[:] = True  # not worth an odd kernel
    met = np.ones_like(used)
    fixed = isinstance(size, int) and isinstance(count, int) and size > 0 and count > 0
    if fixed:
        assert isinstance(size, int) and isinstance(count, int)
        starts = np.arange(count)[:, None] * window.strides[a] - window.begin[a]
        positions = starts + taps * window.dilations[a]
        met = ((positions >= 0) & (positions < size)).any(axis=0)
    counts = np.flatnonzero(used & met)
    if not counts.size:
        return Cut(0, window.kernel[a] - 1, 0)
    first, last = int(counts[0]), int(counts[-1])
    if not fixed:  # an input of open extent is not sliced: what goes must lie within the padding
        step = window.dilations[a]
        first = min(first, window.begin[a] // step)
        last = max(last, window.kernel[a] - 1 - window.end[a] // step)
    gone = np.r_[0:first, last + 1 : window.kernel[a]]
    return Cut(first, last, int((~used & met)[gone].sum()))


def _shrunk(node: ir.Node, conv: Convolution, cuts: list[Cut], walk: Walk) -> list[ir.Node] | None:
    """The convolution with the taps that stay; what no tap of an unpadded input meets any more is sliced off."""
    window, make, source = conv.window, Builder(walk, node), conv.source
    begin = [b - cut.first * d for b, cut, d in zip(window.begin, cuts, window.dilations, strict=True)]
    end = [
        e - (k - 1 - cut.last) * d
        for e, k, cut, d in zip(window.end, window.kernel, cuts, window.dilations, strict=True)
    ]
    dims = list(walk.facts.dims[source])
    sliced = [(a, max(0, -b), max(0, -e)) for a, (b, e) in enumerate(zip(begin, end, strict=True)) if b < 0 or e < 0]
    if sliced:
        stops = []
        for a, front, back in sliced:
            size = dims[a + 2]
            if not isinstance(size, int) or front + back >= size:
                return None
            stops.append(size - back)
            dims[a + 2] = size - front - back
        ends = [[front for _, front, _ in sliced], stops, [a + 2 for a, _, _ in sliced]]
        part = make.op("Slice", [source, *(make.const(numbers) for numbers in ends)])
        part.type = source.type
        walk.facts.set_dims(part, tuple(dims))
        source = part
    weights = conv.weights
    for a, cut in enumerate(cuts):
        weights = np.take(weights, range(cut.first, cut.last + 1), a + 2)
    kept = walk.constant(weights, f"{label(node)}/weights", node.outputs[0].dtype)
    kernel = tuple(cut.last + 1 - cut.first for cut in cuts)
    padding = tuple(max(0, b) for b in begin), tuple(max(0, e) for e in end)
    smaller = Window(kernel, window.strides, window.dilations, *padding)
    write_convolution(make, [source, kept, *node.inputs[2:]], conv.groups, smaller)
    return make.nodes


def _say(notes: Notes, node: ir.Node, axis: int, kernel: int, cut: Cut) -> None:
    gone = kernel - (cut.last + 1 - cut.first)
    if not gone:
        return
    reasons = []
    if gone > cut.zeros:
        reasons.append(f"{gone - cut.zeros} only meet padding")
    if cut.zeros:
        reasons.append(f"{cut.zeros} are zeros, and NaN or infinity under them no longer spreads")
    notes.say(f"Conv {label(node)!r} drops {gone} of {kernel} taps on spatial axis {axis}: {', '.join(reasons)}")
