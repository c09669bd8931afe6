"""Inputs that say how long the signal is: bound to a time input, and masks made of them settled.

lens → Expand(Cast(Gather(Shape(x), axis)), shape of lens): every row is as long as the signal. What follows
is a number like any other extent; a comparison of frame numbers with it is the same for every frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from headrace.graph.facts import Facts, dtype_name
from headrace.graph.model import Model
from headrace.graph.prepare import Prepared
from headrace.graph.symbolic import Dim, SymDim, provably
from headrace.ops.timed import has_time

Span = tuple[Dim, Dim]
VIEWS = ("Unsqueeze", "Squeeze", "Reshape", "Flatten", "Expand", "Tile", "Transpose", "Identity", "Slice", "Gather")
COMPARISONS = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual")


def length_shapes(
    model: Model, lengths: Mapping[str, str], axes: Mapping[str, int], shapes: Mapping[str, Sequence[int | str]]
) -> dict[str, tuple[int, ...]]:
    """Extents of the length inputs; an unknown dim is 1. ValueError for lengths that do not fit the model."""
    found = {}
    for name, signal in lengths.items():
        if name not in model.inputs:
            raise ValueError(f"lengths names {name!r}, which is no input; inputs: {', '.join(model.inputs)}")
        if signal not in axes:
            raise ValueError(f"lengths: {name!r} is bound to {signal!r}, which is no time input: {', '.join(axes)}")
        if name in axes:
            raise ValueError(f"lengths: {name!r} is a time input itself")
        spec = model.inputs[name]
        if spec.dtype not in ("int32", "int64"):
            raise ValueError(f"lengths: {name!r} is {spec.dtype}; a length is int32 or int64")
        if spec.shape == ("...",) and name not in shapes:
            raise ValueError(f"lengths: input {name!r} has no declared rank: give its shape with shapes=")
        found[name] = tuple(d if isinstance(d, int) else 1 for d in shapes.get(name, spec.shape))
    return found


def bind_lengths(
    model: Model, lengths: Mapping[str, str], axes: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]
) -> Model:
    """The model with each of these inputs computed from the extent of a time input."""
    if not lengths:
        return model
    copy = model.ir.clone()
    graph = copy.graph
    inputs = {v.name or "": v for v in graph.inputs}

    def constant(values: Sequence[int], name: str) -> ir.Value:
        tensor = ir.Tensor(np.array(values, np.int64))
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
        graph.register_initializer(value)
        return value

    for name, signal in lengths.items():
        old = inputs[name]
        axis = axes[signal] % len(model.inputs[signal].shape)
        shape = ir.node("Shape", [inputs[signal]], name=f"{name}/Shape")
        extent = ir.node("Gather", [shape.outputs[0], constant([axis], f"{name}/axis")], name=f"{name}/Gather")
        cast = ir.node("Cast", extent.outputs, {"to": int(old.dtype or ir.DataType.INT64)}, name=f"{name}/Cast")
        reach = "Expand" if shapes[name] else "Reshape"
        last = ir.node(reach, [cast.outputs[0], constant(shapes[name], f"{name}/shape")], name=f"{name}/{reach}")
        for node in (shape, extent, cast, last):
            node.outputs[0].name = f"{node.name}:0"
        graph.insert_before(graph[0], [shape, extent, cast, last])
        old.replace_all_uses_with(last.outputs[0], replace_graph_outputs=True)
        graph.inputs.remove(old)
    return Model(copy, model.source, model.sha256, model.external)


def settle_comparisons(prepared: Prepared) -> None:
    """Comparisons of frame numbers and lengths that have one answer for all frames become that answer.

    Less(Range(0, T), [T]) → True for every frame. Changes the graph in place.
    """
    graph, facts = prepared.model.graph, prepared.facts
    spans: dict[ir.Value, Span] = {}
    for node in list(graph):
        if node.domain != "" or len(node.outputs) != 1:
            continue
        out = node.outputs[0]
        if node.op_type not in COMPARISONS:
            span = _span(node, facts, spans)
            if span is not None:
                spans[out] = span
            continue
        timed = [d for d in facts.dims.get(out, ()) if has_time(d)]
        answer = _answer(node, facts, spans)
        if answer is not None and len(timed) == 1 and not out.is_graph_output():
            _replace(node, answer, facts)


def _known(value: ir.Value | None, facts: Facts, spans: Mapping[ir.Value, Span]) -> Span | None:
    """Least and greatest element of a value of integers."""
    if value is None or not np.issubdtype(np.dtype(dtype_name(value.dtype)), np.integer):
        return None
    if value in spans:
        return spans[value]
    content = facts.content(value)
    if content is None or not content.size:
        return None
    items = list(content.reshape(-1))
    if all(item == items[0] for item in items):
        return items[0], items[0]
    if any(isinstance(item, SymDim) for item in items):
        return None
    return int(min(items)), int(max(items))


def _span(node: ir.Node, facts: Facts, spans: Mapping[ir.Value, Span]) -> Span | None:
    known = [_known(v, facts, spans) for v in node.inputs]
    dtype = node.outputs[0].dtype
    if dtype is None or not np.issubdtype(np.dtype(dtype_name(dtype)), np.integer):
        return None
    if node.op_type == "Range":
        first, step = known[0], known[2]
        (count,) = facts.dims[node.outputs[0]]
        if first is None or step is None or step[0] != step[1] or not isinstance(step[0], int) or step[0] < 1:
            return None
        return first[0], first[1] + (count - 1) * step[0]
    if node.op_type in VIEWS or node.op_type == "Cast":
        return known[0]
    if node.op_type in ("Add", "Sub") and known[0] is not None and known[1] is not None:
        (low, high), (a, b) = known[0], known[1]
        return (low + a, high + b) if node.op_type == "Add" else (low - b, high - a)
    return None


def _answer(node: ir.Node, facts: Facts, spans: Mapping[ir.Value, Span]) -> bool | None:
    left, right = (_known(v, facts, spans) for v in node.inputs)
    if left is None or right is None:
        return None
    if node.op_type.startswith("Greater"):
        left, right = right, left
    strict, other = ("<", "<=") if not node.op_type.endswith("OrEqual") else ("<=", "<")
    if provably(left[1], strict, right[0], facts.symbols) is True:
        return True
    if provably(right[1], other, left[0], facts.symbols) is True:
        return False
    return None


def _replace(node: ir.Node, answer: bool, facts: Facts) -> None:
    """A constant for every frame in the place of a comparison."""
    out, graph = node.outputs[0], node.graph
    assert graph is not None
    dims = facts.dims[out]
    shape = ir.Value(name=f"{out.name}/shape", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([len(dims)]))
    facts.dims[shape], facts.contents[shape] = (len(dims),), np.array([*dims], object)
    made = ir.node("ConstantOfShape", [shape], {"value": ir.Tensor(np.array([answer]))}, name=f"{node.name}/settled")
    made.outputs[0].name, made.outputs[0].type = f"{out.name}/settled", out.type
    facts.set_dims(made.outputs[0], dims)
    graph.insert_before(node, made)
    out.replace_all_uses_with(made.outputs[0])
    graph.remove(node, safe=True)
