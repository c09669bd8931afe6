"""Sliding windows of convolutions and pools: attributes, padding, positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.ops.registry import Node
from headrace.program.expr import Expr, Extent, all_of, index
from headrace.program.index import ONE, terms


@dataclass(frozen=True)
class Window:
    """One entry per spatial axis. begin, end: padding before and after the signal."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """Distance of the last tap from the first."""
        return tuple((k - 1) * d for k, d in zip(self.kernel, self.dilations, strict=True))

    def positions(self, o: Sequence[Expr], k: Sequence[Expr]) -> list[Expr]:
        """Input positions that tap k of output o reads; they may lie in the padding."""
        return [a * s + v * d - p for a, v, s, d, p in zip(o, k, self.strides, self.dilations, self.begin, strict=True)]


def inside(positions: Sequence[Expr], extents: Sequence[Extent]) -> Expr:
    """Whether all positions lie within the signal."""
    return all_of([c for p, e in zip(positions, extents, strict=True) for c in (p >= 0, p < index(e))])


def spatial_attribute(node: Node, name: str, rank: int, default: int = 1) -> tuple[int, ...]:
    """An integer per spatial axis."""
    values = tuple(int(v) for v in node.attr(name) or [default] * rank)
    if len(values) != rank:
        raise node.refuse(f"{name} has {len(values)} entries for {rank} spatial axes", f"correct {name}")
    return values


def window(node: Node, spatial: Sequence[Extent], kernel: Sequence[int]) -> Window:
    """The window that strides, dilations, pads and auto_pad describe over a signal of these extents."""
    rank = len(spatial)
    kernel = tuple(kernel)
    strides = spatial_attribute(node, "strides", rank)
    dilations = spatial_attribute(node, "dilations", rank)
    if len(kernel) != rank or min((*kernel, *strides, *dilations), default=1) < 1:
        raise node.refuse(
            f"kernel {kernel}, strides {strides}, dilations {dilations} do not fit {rank} spatial axes",
            "each needs one positive integer per axis",
        )
    begin, end = _padding(node, spatial, kernel, strides, dilations)
    return Window(kernel, strides, dilations, begin, end)


def explicit_pads(node: Node, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The attribute `pads` as (begin, end)."""
    pads = tuple(int(p) for p in node.attr("pads") or [0] * (2 * rank))
    if len(pads) != 2 * rank:
        raise node.refuse(f"pads has {len(pads)} entries for {rank} spatial axes", "give two per axis")
    return pads[:rank], pads[rank:]


def auto_pad(node: Node) -> str:
    """NOTSET, VALID, SAME_UPPER or SAME_LOWER."""
    mode = str(node.attr("auto_pad", "NOTSET") or "NOTSET")
    if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise node.refuse(f"auto_pad {mode!r} is not known", "use NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    return mode


def _padding(
    node: Node,
    spatial: Sequence[Extent],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank, mode = len(spatial), auto_pad(node)
    if mode == "NOTSET":
        return explicit_pads(node, rank)
    if mode == "VALID":
        return (0,) * rank, (0,) * rank
    totals = [
        same_padding(node, e, (k - 1) * d + 1, s)
        for e, k, s, d in zip(spatial, kernel, strides, dilations, strict=True)
    ]
    small, large = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
    return (small, large) if mode == "SAME_UPPER" else (large, small)


def same_padding(node: Node, extent: Extent, reach: int, stride: int) -> int:
    """Padding on both sides together with which ⌈extent/stride⌉ windows of `reach` elements fit."""
    if isinstance(extent, int):
        return max((-(-extent // stride) - 1) * stride + reach - extent, 0)
    rest = _rest(extent, stride)
    if rest is None:
        raise node.refuse(
            f"auto_pad depends on the extent {extent!r}, which is known only at run time",
            f"fix it with shapes=, or bound it as a multiple of {stride}",
        )
    return max(reach - (rest or stride), 0)


def _rest(extent: Expr, stride: int) -> int | None:
    """extent % stride when the divisors of its symbols tell."""
    rest = 0
    for atom, k in terms(extent).items():
        if atom is ONE:
            rest += k
        elif k * (atom.arg.divisor if atom.op == "sym" else 1) % stride:
            return None
    return rest % stride
