"""ConvTranspose, written as a gather: each output is one sum."""

from __future__ import annotations

from collections.abc import Callable

from headrace.ops.conv import groups
from headrace.ops.numeric import wide
from headrace.ops.registry import Node, lower
from headrace.ops.window import Window, auto_pad, explicit_pads, inside, spatial_attribute
from headrace.program.build import Builder, Tensor
from headrace.program.expr import Expr, Extent, all_of, cast, index, select


def _window(node: Node, x: Tensor, kernel: tuple[int, ...]) -> Window:
    """Kernel, strides, dilations; padding is what is cut off the full output."""
    rank = x.rank - 2
    if len(kernel) != rank or rank == 0:
        raise node.refuse(f"kernel {kernel} does not fit {rank} spatial axes", "correct the weights")
    strides = spatial_attribute(node, "strides", rank)
    dilations = spatial_attribute(node, "dilations", rank)
    extra = spatial_attribute(node, "output_padding", rank, 0)
    wanted, mode = node.attr("output_shape"), auto_pad(node)
    if not wanted and mode in ("NOTSET", "VALID"):
        begin, end = explicit_pads(node, rank) if mode == "NOTSET" else ((0,) * rank, (0,) * rank)
        return Window(kernel, strides, dilations, begin, end)
    if not wanted and any(extra):
        raise node.refuse(f"output_padding {extra} with auto_pad {mode} has no agreed meaning", "give output_shape")
    static = node.static(x)[2:]
    targets = [int(v) for v in wanted] if wanted else [e * s for e, s in zip(static, strides, strict=True)]
    totals = [
        max((e - 1) * s + p + (k - 1) * d + 1 - t, 0)
        for e, s, p, k, d, t in zip(static, strides, extra, kernel, dilations, targets[-rank:], strict=True)
    ]
    small, large = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
    begin, end = (small, large) if mode == "SAME_UPPER" else (large, small)
    return Window(kernel, strides, dilations, begin, end)


def _taps(win: Window) -> tuple[int, ...]:
    """How many taps of each axis can meet one output."""
    return tuple(-(-k // s) if d == 1 else k for k, s, d in zip(win.kernel, win.strides, win.dilations, strict=True))


def _meeting(win: Window, o: tuple[Expr, ...], j: tuple[Expr, ...]) -> tuple[list[Expr], list[Expr], Expr]:
    """Input positions and kernel taps of term j of output o, and whether that tap exists.

    Output o gets x[i]·w[k] for i·s + k·d = o + begin. Without dilation k = (o + begin) % s + s·j; with
    dilation k = j, and s must divide the rest.
    """
    positions, taps, exists = [], [], []
    for p, v, k, s, d, cut in zip(o, j, win.kernel, win.strides, win.dilations, win.begin, strict=True):
        full = p + cut
        if d == 1:
            tap = full % s + v * s
            positions.append(full // s - v)
            exists.append(tap < index(k))
        else:
            tap = v
            positions.append((full - v * d) // s)
            exists.append(((full - v * d) % s).eq(0))
        taps.append(tap)
    return positions, taps, all_of(exists)


@lower("ConvTranspose")
def conv_transpose(b: Builder, node: Node) -> Tensor:
    x, w, bias = node.input(0), node.input(1), node.optional(2)
    channels, per_group, *kernel = node.static(w, "weights' shape")
    given = node.attr("kernel_shape")
    if given and list(given) != kernel:
        raise node.refuse(f"kernel_shape {given} differs from the weights' {kernel}", "correct kernel_shape")
    within = channels // groups(node, x, w, channels)
    win, spatial = _window(node, x, tuple(kernel)), x.shape[2:]
    shape = node.out_shapes[0] or ()
    if len(shape) != x.rank:
        raise node.refuse(
            f"the model declares an output of shape {shape} for an input of rank {x.rank}",
            "correct output_shape, which must not be smaller than the input",
        )

    def value(n: Expr, m: Expr, o: tuple[Expr, ...]) -> Expr:
        first = m // per_group * within

        def term(c: Expr, *j: Expr) -> Expr:
            at, k, exists = _meeting(win, o, j)
            product = wide(x[(n, first + c, *at)]) * wide(w[(first + c, m % per_group, *k)])
            return select(exists & inside(at, spatial), product, 0)

        if within == 1:
            total = b.sum(_taps(win), lambda *j: term(index(0), *j))
        else:
            total = b.sum((within, *_taps(win)), term)
        return cast(total if bias is None else total + wide(bias[m]), x.dtype)

    return _by_phase(b, x.dtype, shape, win.strides, value)


def _by_phase(
    b: Builder,
    dtype: str,
    shape: tuple[Extent, ...],
    strides: tuple[int, ...],
    value: Callable[[Expr, Expr, tuple[Expr, ...]], Expr],
) -> Tensor:
    """A tensor of value(n, m, o), looped over o = s·q + r where s divides the extent of o.

    Then // and % by s in `value` become q and functions of r alone.
    """
    domain: list[Extent] = list(shape[:2])
    parts: list[tuple[int, int]] = []  # (stride, place of q in the domain; r follows), stride 1: not split
    for s, e in zip(strides, shape[2:], strict=True):
        split = s > 1 and (index(e) % s).op == "const" and (index(e) % s).arg == 0
        parts.append((s if split else 1, len(domain)))
        domain += [extent(index(e) // s), s] if split else [e]

    def point(i: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(i[at] * s + i[at + 1] if s > 1 else i[at] for s, at in parts)

    out = b.empty(dtype, shape)
    b.store(out, domain, lambda *i: (i[0], i[1], *point(i)), lambda *i: value(i[0], i[1], point(i)))
    return out


def extent(e: Expr) -> Extent:
    """A constant expression as an integer."""
    return int(e.arg) if e.op == "const" else e
