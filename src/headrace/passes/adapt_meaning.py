"""Upgrade steps for operators whose meaning changed: broadcasting, flattening, sampling, training outputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from headrace.graph.rewrite import (
    Builder,
    Walk,
    attribute,
    drop_attributes,
    get_input,
    is_used,
    set_attribute,
    set_input,
)
from headrace.passes.adapt_arguments import rank, refuse

Adapter = Callable[[ir.Node, Walk], "list[ir.Node] | None"]


def _broadcast_7(node: ir.Node, walk: Walk) -> list[ir.Node] | None:
    """Before opset 7 the second operand was placed at `axis` of the first."""
    axis, enabled = attribute(node, "axis"), attribute(node, "broadcast", 0)
    drop_attributes(node, "axis", "broadcast")
    if not enabled or axis is None:
        return None
    left, right = rank(node, 0, walk), rank(node, 1, walk)
    missing = left - (axis + left if axis < 0 else axis) - right
    return _append_ones(node, 1, right, missing, walk) if missing > 0 else None


def _append_ones(node: ir.Node, index: int, old_rank: int, count: int, walk: Walk) -> list[ir.Node]:
    make = Builder(walk, node)
    axes = make.const(list(range(old_rank, old_rank + count)))
    return make.before(index, make.op("Unsqueeze", [node.inputs[index], axes]))


def _prelu_7(node: ir.Node, walk: Walk) -> list[ir.Node] | None:
    """A slope of shape [C] belonged to the channel axis."""
    slope = node.inputs[1]
    dims = walk.facts.dims.get(slope) if slope is not None else None
    trailing = rank(node, 0, walk) - 2
    if dims is not None and len(dims) == 1 and dims[0] != 1 and trailing > 0:
        return _append_ones(node, 1, 1, trailing, walk)
    return None


def _batch_norm_7(node: ir.Node, walk: Walk) -> None:
    if not attribute(node, "is_test", 0):
        raise refuse(node, "it is in training form (is_test=0); export the model for inference")
    drop_attributes(node, "is_test")


def _batch_norm_9(node: ir.Node, walk: Walk) -> list[ir.Node] | None:
    """spatial=0 kept one mean and variance for every element of a sample."""
    if attribute(node, "spatial", 1):
        drop_attributes(node, "spatial")
        return None
    if any(is_used(value) for value in node.outputs[1:]):
        raise refuse(node, "it is in training form; export the model for inference")
    x, scale, bias, mean, variance = node.inputs[:5]
    make = Builder(walk, node)
    spread = make.op("Sqrt", [make.op("Add", [variance, make.const(attribute(node, "epsilon", 1e-5), np.float32)])])
    centred = make.op("Div", [make.op("Sub", [x, mean]), spread])
    return make.done(make.op("Add", [make.op("Mul", [centred, scale]), bias]))


def _batch_norm_14(node: ir.Node, walk: Walk) -> None:
    if any(value.name for value in node.outputs[1:]):
        raise refuse(node, "it is in training form (more than one output); export the model for inference")
    node.resize_outputs(1)


def _dropout_7(node: ir.Node, walk: Walk) -> None:
    if not attribute(node, "is_test", 0):
        raise refuse(node, "it is in training form (is_test=0); export the model for inference")
    drop_attributes(node, "is_test")


def _dropout_12(node: ir.Node, walk: Walk) -> list[ir.Node] | None:
    """Before opset 12 Dropout never dropped at inference; before 10 its mask had the type of the data."""
    make = Builder(walk, node)
    x = node.inputs[0]
    same = make.op("Identity", [x])
    if len(node.outputs) < 2 or not is_used(node.outputs[1]):
        return make.done(same)
    shape = make.op("Shape", [x])
    ones = make.op("Expand", [make.const(True, np.bool_), shape])
    if walk.version(node) < 10 and x is not None and x.dtype is not None:
        ones = make.op("Cast", [ones], to=int(x.dtype))
    return make.done(same, ones)


def _softmax_13(node: ir.Node, walk: Walk) -> list[ir.Node] | None:
    """Before opset 13 the input was flattened to two axes at `axis`."""
    axis, width = attribute(node, "axis", 1), rank(node, 0, walk)
    axis += width if axis < 0 else 0
    if axis == width - 1:
        set_attribute(node, "axis", -1)
        return None
    make = Builder(walk, node)
    x = node.inputs[0]
    flat = make.op("Flatten", [x], axis=axis)
    result = make.op(node.op_type, [flat], axis=-1)
    return make.done(make.op("Reshape", [result, make.op("Shape", [x])]))


def _upsample_7(node: ir.Node, walk: Walk) -> None:
    scales = [1.0, 1.0, attribute(node, "height_scale"), attribute(node, "width_scale")]
    set_attribute(node, "scales", [float(scale) for scale in scales])
    drop_attributes(node, "height_scale", "width_scale")


def _upsample_9(node: ir.Node, walk: Walk) -> None:
    set_input(node, 1, Builder(walk, node).const(list(attribute(node, "scales")), np.float32))
    drop_attributes(node, "scales")


def _sampling_mode(node: ir.Node) -> str:
    mode: str = attribute(node, "mode", "nearest")
    return {"bilinear": "linear"}.get(mode, mode)


def _upsample_10(node: ir.Node, walk: Walk) -> list[ir.Node]:
    make = Builder(walk, node)
    return make.done(
        make.op(
            "Resize",
            [node.inputs[0], None, node.inputs[1]],
            mode=_sampling_mode(node),
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    )


def _resize_11(node: ir.Node, walk: Walk) -> list[ir.Node]:
    """Resize-10 samples at x / scale; nearest rounds down when it enlarges and up when it shrinks."""
    scales = walk.facts.constant(get_input(node, 1))
    rounding = "floor"
    if _sampling_mode(node) == "nearest":
        if scales is None:
            raise refuse(node, "opset 10 needs constant scales; export with opset 11 or later")
        if np.all(scales <= 1) and np.any(scales < 1):
            rounding = "ceil"
        elif np.any(scales < 1):
            raise refuse(node, "opset 10 enlarges one axis and shrinks another; export with opset 11 or later")
    make = Builder(walk, node)
    return make.done(
        make.op(
            "Resize",
            [node.inputs[0], None, node.inputs[1]],
            mode=_sampling_mode(node),
            coordinate_transformation_mode="asymmetric",
            nearest_mode=rounding,
        )
    )


def _scatter_11(node: ir.Node, walk: Walk) -> list[ir.Node]:
    make = Builder(walk, node)
    return make.done(make.op("ScatterElements", node.inputs, axis=attribute(node, "axis", 0)))


def _group_norm_21(node: ir.Node, walk: Walk) -> list[ir.Node]:
    """Scale and bias were given per group, later per channel."""
    groups = attribute(node, "num_groups")
    x = node.inputs[0]
    dims = walk.facts.dims.get(x) if x is not None else None
    channels = dims[1] if dims is not None and len(dims) > 1 else None
    if not isinstance(channels, int) or channels % groups:
        raise refuse(node, "the number of channels must be known and a multiple of num_groups")
    new: list[ir.Node] = []
    for index in (1, 2):
        make = Builder(walk, node)
        tall = make.op("Unsqueeze", [node.inputs[index], make.const([1])])
        wide = make.op("Expand", [tall, make.const([groups, channels // groups])])
        new += make.before(index, make.op("Reshape", [wide, make.const([-1])]))[:-1]
    return [*new, node]


def _scan_9(node: ir.Node, walk: Walk) -> None:
    raise refuse(node, "Scan of opset 8 has a batch axis; export with opset 9 or later")


_BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less")

MEANING_STEPS: tuple[tuple[str, int, Adapter], ...] = (
    *((op, 7, _broadcast_7) for op in _BINARY),
    ("PRelu", 7, _prelu_7),
    ("BatchNormalization", 7, _batch_norm_7),
    ("BatchNormalization", 9, _batch_norm_9),
    ("BatchNormalization", 14, _batch_norm_14),
    ("Dropout", 7, _dropout_7),
    ("Dropout", 12, _dropout_12),
    *((op, 13, _softmax_13) for op in ("Softmax", "LogSoftmax", "Hardmax")),
    ("Upsample", 7, _upsample_7),
    ("Upsample", 9, _upsample_9),
    ("Upsample", 10, _upsample_10),
    ("Resize", 11, _resize_11),
    ("Scatter", 11, _scatter_11),
    ("GroupNormalization", 21, _group_norm_21),
    ("Scan", 9, _scan_9),
)
