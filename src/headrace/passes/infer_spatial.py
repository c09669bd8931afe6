"""Extents of operators that slide over spatial axes or rescale them, where extents are symbolic.

Formulas follow the ONNX operator specification, opset 26.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import onnx_ir as ir

from headrace.graph.facts import Facts
from headrace.graph.rewrite import attribute, get_input
from headrace.graph.symbolic import Dim, SymDim, floor_div, product

Dims = tuple["Dim | None", ...]


def _dims(node: ir.Node, index: int, facts: Facts) -> tuple[Dim, ...] | None:
    value = get_input(node, index)
    return None if value is None else facts.dims.get(value)


def _windowed(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    """Convolutions and pools."""
    dims = _dims(node, 0, facts)
    if dims is None or len(dims) < 3:
        return None
    spatial = len(dims) - 2
    weights = _dims(node, {"QLinearConv": 3}.get(node.op_type, 1), facts) if "Conv" in node.op_type else None
    kernel: Any = attribute(node, "kernel_shape") or (weights[2:] if weights else None)
    if kernel is None or any(isinstance(k, SymDim) for k in kernel):
        return None
    strides = attribute(node, "strides") or [1] * spatial
    dilations = attribute(node, "dilations") or [1] * spatial
    pads = attribute(node, "pads") or [0] * (2 * spatial)
    auto = attribute(node, "auto_pad", "NOTSET")
    ceil = bool(attribute(node, "ceil_mode", 0))
    result: list[Dim | None] = [dims[0], weights[0] if weights else dims[1]]
    for i in range(spatial):
        size, reach = dims[2 + i], (kernel[i] - 1) * dilations[i] + 1
        if auto.startswith("SAME"):
            result.append(floor_div(size + (strides[i] - 1), strides[i], facts.symbols))
            continue
        total = 0 if auto == "VALID" else pads[i] + pads[i + spatial]
        span = size + total - reach
        if ceil:  # a window more where frames are left, but none that starts in the padding at the end
            right = 0 if auto == "VALID" else pads[i + spatial]
            span = span + strides[i] - 1 - max(0, right - reach + strides[i])
        result.append(floor_div(span, strides[i], facts.symbols) + 1)
    return [tuple(result)] * len(node.outputs)


def _conv_transpose(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    dims, weights = _dims(node, 0, facts), _dims(node, 1, facts)
    if dims is None or weights is None:
        return None
    spatial = len(dims) - 2
    kernel: Any = attribute(node, "kernel_shape") or weights[2:]
    strides = attribute(node, "strides") or [1] * spatial
    dilations = attribute(node, "dilations") or [1] * spatial
    pads = attribute(node, "pads") or [0] * (2 * spatial)
    extra = attribute(node, "output_padding") or [0] * spatial
    auto = attribute(node, "auto_pad", "NOTSET")
    fixed = attribute(node, "output_shape")
    result: list[Dim | None] = [dims[0], product(weights[1], attribute(node, "group", 1))]
    for i in range(spatial):
        size = dims[2 + i]
        if fixed:
            result.append(fixed[i])
        elif auto.startswith("SAME"):
            result.append(product(size, strides[i]))
        else:
            total = 0 if auto == "VALID" else pads[i] + pads[i + spatial]
            reach = (kernel[i] - 1) * dilations[i] + 1
            result.append(product(size - 1, strides[i]) + extra[i] + reach - total)
    return [tuple(result)]


def _depth_to_space(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    dims, block = _dims(node, 0, facts), attribute(node, "blocksize")
    if dims is None or len(dims) != 4:
        return None
    n, c, h, w = dims
    if node.op_type == "DepthToSpace":
        return [(n, floor_div(c, block * block, facts.symbols), product(h, block), product(w, block))]
    high, wide = floor_div(h, block, facts.symbols), floor_div(w, block, facts.symbols)
    return [(n, product(c, block, block), high, wide)]


def _resize(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    """⌊extent · scale⌋, or the sizes as they are given."""
    dims, scales, sizes = _dims(node, 0, facts), facts.constant(get_input(node, 2)), facts.content(get_input(node, 3))
    if dims is None:
        return None
    axes = [int(a) % len(dims) for a in attribute(node, "axes") or range(len(dims))]
    result: list[Dim | None] = list(dims)
    if scales is not None and scales.size == len(axes):
        for axis, scale in zip(axes, scales, strict=True):
            exact = Fraction(float(scale))
            result[axis] = floor_div(product(dims[axis], exact.numerator), exact.denominator, facts.symbols)
        return [tuple(result)]
    if sizes is None or sizes.size != len(axes) or attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    for axis, size in zip(axes, sizes, strict=True):
        result[axis] = size if isinstance(size, SymDim) else int(size)
    return [tuple(result)]


Rule = Callable[[ir.Node, Facts], "list[Dims | None] | None"]

RULES: dict[str, Rule] = {
    "Conv": _windowed,
    "ConvInteger": _windowed,
    "QLinearConv": _windowed,
    "MaxPool": _windowed,
    "AveragePool": _windowed,
    "LpPool": _windowed,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _depth_to_space,
    "Resize": _resize,
}
