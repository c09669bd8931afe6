"""Streaming of convolutions and pools along time: history, edges, strides, overlap-add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from headrace.graph.facts import dtype_name
from headrace.graph.symbolic import exact_div
from headrace.ops.registry import stream
from headrace.ops.timed import Edge, Emit, Plan, Read, Site, Timed, TimeFact, framewise


@dataclass(frozen=True)
class Taps:
    """A window along time: kernel taps `dilation` apart, `stride` frames from one output to the next."""

    kernel: int
    stride: int
    dilation: int
    left: int
    right: int

    @property
    def reach(self) -> int:
        return (self.kernel - 1) * self.dilation


@dataclass(frozen=True)
class Layout:
    """Attributes of all spatial axes, paddings explicit. k: the one that is time; ceil: the last window may be cut."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    begin: list[int]
    end: list[int]
    k: int
    ceil: bool = False

    @property
    def taps(self) -> Taps:
        k = self.k
        return Taps(self.kernel[k], self.strides[k], self.dilations[k], self.begin[k], self.end[k])

    def attributes(self, kernel: int) -> dict[str, Any]:
        """Attributes of the same window without padding in time."""
        begin, end, size = list(self.begin), list(self.end), list(self.kernel)
        begin[self.k] = end[self.k] = 0
        size[self.k] = kernel
        return {"pads": [*begin, *end], "kernel_shape": size}


def _signal(site: Site) -> TimeFact:
    fact = site.fact(0)
    if fact is None or site.timed() != [0]:
        raise site.refuse("has weights that change over time", "use constant weights")
    if fact.axis == 1:
        raise site.refuse("sums over time as if frames were channels", "put time on a spatial axis")
    if fact.axis > 1 and fact.fold != 1:
        raise site.refuse("slides over rows merged with time", "reshape rows and time apart first")
    return fact


def _layout(site: Site, fact: TimeFact, kernel: Sequence[int], same: bool = True) -> Layout:
    """The attributes; same: SAME as convolutions and pools mean it."""
    rank = len(kernel)
    strides = [int(v) for v in site.attr("strides") or [1] * rank]
    dilations = [int(v) for v in site.attr("dilations") or [1] * rank]
    pads = [int(v) for v in site.attr("pads") or [0] * (2 * rank)]
    auto = str(site.attr("auto_pad", "NOTSET"))
    begin, end = pads[:rank], pads[rank:]
    if auto != "NOTSET":
        begin, end = [0] * rank, [0] * rank
    layout = Layout(list(kernel), strides, dilations, begin, end, fact.axis - 2)
    if same and auto.startswith("SAME"):
        for a in range(rank):
            total = _same(site, layout, a)
            begin[a], end[a] = total // 2, total - total // 2
            if auto == "SAME_LOWER":
                begin[a], end[a] = end[a], begin[a]
    return layout


def _same(site: Site, layout: Layout, axis: int) -> int:
    """Frames of padding that SAME asks for on one axis."""
    size, stride = site.dims(0)[2 + axis], layout.strides[axis]
    reach = (layout.kernel[axis] - 1) * layout.dilations[axis] + 1
    if isinstance(size, int):
        return max(0, (-(-size // stride) - 1) * stride + reach - size)
    if stride > 1 and exact_div(size, stride, site.facts.symbols) is None:
        raise site.refuse(
            f"has SAME padding with stride {stride}: where it pads depends on the length",
            f"say that the length is always a multiple, such as multiple={{…: {stride}}}",
        )
    return max(0, reach - stride)


def _window(
    site: Site, fact: TimeFact, taps: Taps, edge: Edge, first: int = 0, last: int | None = None, cut: bool = False
) -> Read:
    """Read of taps first … last of the window; an edge only where it has padding of its own, or cut windows."""
    last = taps.kernel - 1 if last is None else last
    padded = taps.left > 0 or taps.right > 0 or cut
    return site.read(
        0,
        taps.stride,
        1,
        first * taps.dilation - taps.left,
        last * taps.dilation - taps.left,
        edge if padded else None,
    )


def _nonzero(site: Site, i: int, axis: int) -> tuple[int, int]:
    """First and last tap of constant weights that are not all zero."""
    weights = site.const(i)
    size = int(site.dims(i)[axis])  # type: ignore[arg-type]
    if weights is None or weights.dtype.kind not in "fiu":
        return 0, size - 1
    used = np.flatnonzero(np.any(weights != 0, axis=tuple(a for a in range(weights.ndim) if a != axis)))
    return (int(used[0]), int(used[-1])) if used.size else (0, size - 1)


def _some_taps(site: Site, e: Emit, i: int, axis: int, first: int, last: int) -> dict[int, ir.Value]:
    """Input i with only taps first … last, if that is fewer than all."""
    weights = site.const(i)
    if weights is None or (first, last) == (0, weights.shape[axis] - 1):
        return {}
    part = np.take(weights, range(first, last + 1), axis)
    return {i: e.const(part, part.dtype)}


@stream("Conv", "ConvInteger", "QLinearConv")
def conv(site: Site) -> Plan:
    fact = _signal(site)
    if fact.axis == 0:
        return framewise(site, {0: 0})
    w = 3 if site.op == "QLinearConv" else 1
    kernel = [int(d) for d in site.dims(w)[2:]]  # type: ignore[arg-type]
    layout = _layout(site, fact, kernel)
    taps = layout.taps
    first, last = (0, taps.kernel - 1)
    if site.op == "Conv":
        first, last = _nonzero(site, w, fact.axis)
    read = _window(site, fact, taps, Edge("constant", _zero_point(site)), first, last)

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        weights = _some_taps(site, e, w, fact.axis, first, last)
        attributes = layout.attributes(last - first + 1)
        return e.clone({0: e.read(0), **weights}, drop=("auto_pad",), **attributes)

    return Plan((read,), (Timed(fact.axis),), emit, _past(read))


def _zero_point(site: Site) -> float | int:
    """What padding holds: zero, as the input represents it."""
    if site.op == "Conv" or site.value(2) is None:
        return 0
    zero = site.const(2)
    if zero is None:
        raise site.refuse("has a zero point computed at run time", "make it constant")
    return int(zero.reshape(-1)[0])


def _past(read: Read) -> str:
    return f"past {read.hi - read.lo} frames" if read.hi > read.lo else ""


def _pool_layout(site: Site) -> tuple[TimeFact, Layout | None]:
    fact = _signal(site)
    if fact.axis < 2:
        return fact, None
    layout = _layout(site, fact, [int(v) for v in site.attr("kernel_shape")])
    return fact, replace(layout, ceil=bool(site.attr("ceil_mode", 0)))


@stream("MaxPool", "LpPool")
def pool(site: Site) -> Plan:
    fact, layout = _pool_layout(site)
    if layout is None:
        return framewise(site, {0: fact.axis})
    if len(site.node.outputs) > 1 and site.node.outputs[1].uses():
        raise site.refuse("gives indices into the whole signal", "use only its first output")
    low: float | int = 0
    if site.op == "MaxPool":
        dtype = np.dtype(dtype_name(site.node.outputs[0].dtype))
        low = int(np.iinfo(dtype).min) if dtype.kind in "iu" else -np.inf
    read = _window(site, fact, layout.taps, Edge("constant", low), cut=layout.ceil)

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        return e.clone({0: e.read(0)}, drop=("auto_pad",), **layout.attributes(layout.taps.kernel))

    return Plan((read,), (Timed(fact.axis),), emit, _past(read))


@stream("AveragePool")
def average_pool(site: Site) -> Plan:
    """Where padding, or what lies beyond it, does not count, the mean is the full mean over the share that does."""
    fact, layout = _pool_layout(site)
    if layout is None:
        return framewise(site, {0: fact.axis})
    taps = layout.taps
    counted = bool(site.attr("count_include_pad", 0))
    cut = layout.ceil and taps.stride > 1
    partial = cut or (not counted and (taps.left > 0 or taps.right > 0))
    read = _window(site, fact, taps, Edge())
    if partial:
        source = site.node.inputs[0]
        assert source is not None
        read = Read(source, taps.stride, 1, -taps.left, taps.reach - taps.left, Edge())
    rank = len(site.dims(0))

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        attributes = layout.attributes(taps.kernel)
        mean = e.clone({0: e.read(0)}, drop=("auto_pad",), **attributes)[0]
        if not partial:
            return [mean]
        dtype = site.node.outputs[0].dtype
        counts = e.op("LessOrEqual", e.beyond(0, True), e.const([taps.right])) if counted else e.within(0)
        frames = e.op("Cast", counts, to=int(dtype or 1))
        frames = e.op("Reshape", frames, e.const([1, 1, -1]))
        share = e.op(
            "AveragePool", frames, kernel_shape=[taps.kernel], strides=[taps.stride], dilations=[taps.dilation]
        )
        shape = [1] * rank
        shape[fact.axis] = -1
        return [e.op("Div", mean, e.op("Reshape", share, e.const(shape)))]

    return Plan((read,), (Timed(fact.axis),), emit, _past(read))


@stream("ConvTranspose")
def conv_transpose(site: Site) -> Plan:
    """Overlap-add: the state is the sum so far of the frames that later input still adds to."""
    fact = _signal(site)
    if fact.axis == 0:
        return framewise(site, {0: 0})
    kernel = [int(d) for d in site.dims(1)[2:]]  # type: ignore[arg-type]
    if site.attr("output_shape"):
        raise site.refuse("has a fixed output_shape", "use pads instead")
    layout = _layout(site, fact, kernel, same=False)
    if str(site.attr("auto_pad", "NOTSET")).startswith("SAME"):
        layout = _same_transposed(site, layout)
    taps = layout.taps
    first, last = _nonzero(site, 1, fact.axis)
    left = taps.left - first * taps.dilation
    reach = (last - first) * taps.dilation
    source = site.node.inputs[0]
    assert source is not None
    read = Read(source, 1, taps.stride, left - reach, left, Edge(), own=True)

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        size = e.frames() // taps.stride
        tail = max(0, reach + 1 - taps.stride)
        extra = [int(v) for v in site.attr("output_padding") or [0] * len(kernel)]
        extra[layout.k] = max(0, taps.stride - reach - 1)
        weights = _some_taps(site, e, 1, fact.axis, first, last).get(1, e.given(1))
        attributes = {
            **layout.attributes(last - first + 1),
            "output_padding": extra,
            "strides": layout.strides,
            "dilations": layout.dilations,
            "group": int(site.attr("group", 1)),
        }
        value = e.op("ConvTranspose", e.read(0), weights, **attributes)
        value = _overlap(e, value, fact.axis, size * taps.stride, tail, source)
        bias = e.given(2)
        if bias is not None:
            value = e.op("Add", value, e.op("Reshape", bias, e.const([-1] + [1] * len(kernel))))
        late = e.fact().delay - (max(0, fact.delay) * taps.stride + left)
        return [_delayed(e, value, fact.axis, late, source, bias, site)]

    return Plan((read,), (Timed(fact.axis),), emit, f"overlap {max(0, reach + 1 - taps.stride)} frames")


def _same_transposed(site: Site, layout: Layout) -> Layout:
    """SAME of a transposed convolution: output = input · stride on every axis."""
    extra = [int(v) for v in site.attr("output_padding") or [0] * len(layout.kernel)]
    begin, end = list(layout.begin), list(layout.end)
    upper = site.attr("auto_pad") == "SAME_UPPER"
    for a, (k, s, d) in enumerate(zip(layout.kernel, layout.strides, layout.dilations, strict=True)):
        total = max(0, (k - 1) * d + 1 + extra[a] - s)
        half = total // 2
        begin[a], end[a] = (half, total - half) if upper else (total - half, half)
    return replace(layout, begin=begin, end=end)


def _cut(e: Emit, value: ir.Value, axis: int, first: int, end: int) -> ir.Value:
    return e.op("Slice", value, e.const([first]), e.const([end]), e.const([axis]))


def _overlap(e: Emit, value: ir.Value, axis: int, count: int, tail: int, like: ir.Value) -> ir.Value:
    """Add what earlier blocks left over, return the finished frames, keep the rest."""
    if not tail:
        return value
    dims = e.dims()
    dims[axis] = tail
    rest = e.state("overlap", np.zeros(dims, np.dtype(dtype_name(like.dtype))))
    padding = [0] * (2 * len(dims))
    padding[len(dims) + axis] = count
    value = e.op("Add", value, e.op("Pad", rest, e.const(padding)))
    e.keep(rest, _cut(e, value, axis, count, count + tail))
    return _cut(e, value, axis, 0, count)


def _delayed(
    e: Emit, value: ir.Value, axis: int, late: int, like: ir.Value, bias: ir.Value | None, site: Site
) -> ir.Value:
    """The same frames `late` frames later. Before the first there is nothing but the bias."""
    if not late:
        return value
    dims = e.dims()
    count, dims[axis] = dims[axis], late
    initial = np.zeros(dims, np.dtype(dtype_name(like.dtype)))
    constant = site.const(2)
    if constant is not None:
        initial = initial + constant.reshape([-1] + [1] * (len(dims) - 2))
    elif bias is not None:
        raise site.refuse("needs frames before its first tap with a bias known at run time", "make the bias constant")
    past = e.state("late", initial.astype(dtype_name(like.dtype)))
    joined = e.op("Concat", past, value, axis=axis)
    e.keep(past, _cut(e, joined, axis, count, count + late))
    return _cut(e, joined, axis, 0, count)
