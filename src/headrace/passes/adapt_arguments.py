"""Upgrade steps that move arguments: attributes that became inputs, renamed or dropped attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from headrace.errors import InvalidModel, UnsupportedOperator
from headrace.graph.facts import label
from headrace.graph.rewrite import (
    Builder,
    Walk,
    attribute,
    drop_attributes,
    get_input,
    set_attribute,
    set_input,
)

Adapter = Callable[[ir.Node, Walk], "list[ir.Node] | None"]


def refuse(node: ir.Node, hint: str) -> UnsupportedOperator:
    """The refusal of an old form of an operator."""
    return UnsupportedOperator(node.op_type, label(node), "normalise", hint)


def rank(node: ir.Node, index: int, walk: Walk) -> int:
    """Rank of an input."""
    value = get_input(node, index)
    dims = None if value is None else walk.facts.dims.get(value)
    if dims is None:
        raise refuse(node, "its opset needs the rank of the input, which is not known")
    return len(dims)


def _axes_to_input(index: int = 1) -> Adapter:
    def adapt(node: ir.Node, walk: Walk) -> None:
        axes = attribute(node, "axes")
        drop_attributes(node, "axes")
        if axes is not None:
            set_input(node, index, Builder(walk, node).const(list(axes)))

    return adapt


def _dropped(*names: str) -> Adapter:
    def adapt(node: ir.Node, walk: Walk) -> None:
        drop_attributes(node, *names)

    return adapt


def _reshape_5(node: ir.Node, walk: Walk) -> None:
    shape = attribute(node, "shape")
    drop_attributes(node, "shape")
    if shape is None:
        raise InvalidModel(f"node {label(node)!r}: Reshape without a shape")
    set_input(node, 1, Builder(walk, node).const(list(shape)))


def _clip_11(node: ir.Node, walk: Walk) -> None:
    value = node.inputs[0]
    dtype = value.dtype.numpy() if value is not None and value.dtype is not None else np.float32
    for index, name in ((1, "min"), (2, "max")):
        limit = attribute(node, name)
        if limit is not None and abs(limit) < 3.4028234e38:
            set_input(node, index, Builder(walk, node).const(limit, dtype))
    drop_attributes(node, "min", "max")


def _concat_4(node: ir.Node, walk: Walk) -> None:
    if attribute(node, "axis") is None:
        set_attribute(node, "axis", 1)


def _cast_6(node: ir.Node, walk: Walk) -> None:
    name = attribute(node, "to")
    if not isinstance(name, str) or name.upper() not in ir.DataType.__members__:
        raise InvalidModel(f"node {label(node)!r}: Cast to {name!r}")
    set_attribute(node, "to", int(ir.DataType[name.upper()]))


def _pad_2(node: ir.Node, walk: Walk) -> None:
    set_attribute(node, "pads", list(attribute(node, "paddings")))
    drop_attributes(node, "paddings")


def _pad_11(node: ir.Node, walk: Walk) -> None:
    make = Builder(walk, node)
    value = node.inputs[0]
    dtype = value.dtype.numpy() if value is not None and value.dtype is not None else np.float32
    set_input(node, 1, make.const(list(attribute(node, "pads"))))
    fill = attribute(node, "value", 0.0)
    if fill:
        set_input(node, 2, make.const(fill, dtype))
    drop_attributes(node, "pads", "value")


def _slice_10(node: ir.Node, walk: Walk) -> None:
    make = Builder(walk, node)
    set_input(node, 1, make.const(list(attribute(node, "starts"))))
    set_input(node, 2, make.const(list(attribute(node, "ends"))))
    axes = attribute(node, "axes")
    if axes is not None:
        set_input(node, 3, make.const(list(axes)))
    drop_attributes(node, "starts", "ends", "axes")


def _split_2(node: ir.Node, walk: Walk) -> None:
    if attribute(node, "axis") is None:
        set_attribute(node, "axis", 0)
    if get_input(node, 1) is not None:
        sizes = walk.facts.constant(node.inputs[1])
        if sizes is None:
            raise refuse(node, "opset 1 split sizes must be constant")
        set_attribute(node, "split", [int(size) for size in sizes])
        node.resize_inputs(1)


def _split_13(node: ir.Node, walk: Walk) -> None:
    sizes = attribute(node, "split")
    drop_attributes(node, "split")
    if sizes is not None:
        set_input(node, 1, Builder(walk, node).const(list(sizes)))


def _split_18(node: ir.Node, walk: Walk) -> None:
    if get_input(node, 1) is None and attribute(node, "num_outputs") is None:
        set_attribute(node, "num_outputs", len(node.outputs))


def _topk_10(node: ir.Node, walk: Walk) -> None:
    set_input(node, 1, Builder(walk, node).const([attribute(node, "k")]))
    drop_attributes(node, "k")


def _tile_6(node: ir.Node, walk: Walk) -> None:
    tiles, axis = walk.facts.constant(get_input(node, 1)), walk.facts.constant(get_input(node, 2))
    if tiles is None or axis is None:
        raise refuse(node, "opset 1 tiles and axis must be constant")
    repeats = [1] * rank(node, 0, walk)
    repeats[int(axis.reshape(-1)[0])] = int(tiles.reshape(-1)[0])
    node.resize_inputs(2)
    set_input(node, 1, Builder(walk, node).const(repeats))


def _power_to_int(node: ir.Node, walk: Walk) -> None:
    p = attribute(node, "p", 2.0)
    if float(p) != int(p):
        raise refuse(node, f"the exponent {p} is not an integer")
    set_attribute(node, "p", int(p))


def _direction_typo(node: ir.Node, walk: Walk) -> None:
    if attribute(node, "direction") == "foward":
        drop_attributes(node, "direction")


def _selu_6(node: ir.Node, walk: Walk) -> None:
    for name, value in (("alpha", 1.6732), ("gamma", 1.0507)):
        if attribute(node, name) is None:
            set_attribute(node, name, value)


def _dft_20(node: ir.Node, walk: Walk) -> None:
    set_input(node, 2, Builder(walk, node).const(attribute(node, "axis", 1)))
    drop_attributes(node, "axis")


def _grid_sample_20(node: ir.Node, walk: Walk) -> None:
    renamed = {"bilinear": "linear", "bicubic": "cubic"}
    mode: Any = attribute(node, "mode", "bilinear")
    set_attribute(node, "mode", renamed.get(mode, mode))


def _roi_align_16(node: ir.Node, walk: Walk) -> None:
    set_attribute(node, "coordinate_transformation_mode", "output_half_pixel")


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

ARGUMENT_STEPS: tuple[tuple[str, int, Adapter], ...] = (
    ("Cast", 6, _cast_6),
    ("Clip", 11, _clip_11),
    ("Concat", 4, _concat_4),
    ("DFT", 20, _dft_20),
    ("GRU", 3, _direction_typo),
    ("GRU", 7, _dropped("output_sequence")),
    ("Gemm", 7, _dropped("broadcast")),
    ("GlobalLpPool", 2, _power_to_int),
    ("GridSample", 20, _grid_sample_20),
    ("LSTM", 7, _dropped("output_sequence")),
    ("LpPool", 2, _power_to_int),
    ("Pad", 2, _pad_2),
    ("Pad", 11, _pad_11),
    ("RNN", 7, _dropped("output_sequence")),
    *((f"Reduce{kind}", 18, _axes_to_input()) for kind in _REDUCTIONS),
    ("ReduceSum", 13, _axes_to_input()),
    ("Reshape", 5, _reshape_5),
    ("RoiAlign", 16, _roi_align_16),
    ("Selu", 6, _selu_6),
    ("Slice", 10, _slice_10),
    ("Split", 2, _split_2),
    ("Split", 13, _split_13),
    ("Split", 18, _split_18),
    ("Squeeze", 13, _axes_to_input()),
    ("Tile", 6, _tile_6),
    ("TopK", 10, _topk_10),
    ("Unsqueeze", 13, _axes_to_input()),
)
