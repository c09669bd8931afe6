"""Move paddings along time to their readers.

y = Relu(Pad(x))  →  y = Pad(Relu(x)); likewise Transpose, Squeeze, Unsqueeze, Reshape and arithmetic with
constants. Next to a convolution the padding becomes the convolution's own edge and costs no delay.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from headrace.graph.facts import Facts, dtype_name
from headrace.graph.prepare import Prepared
from headrace.graph.rewrite import attribute, get_input
from headrace.graph.symbolic import Dim
from headrace.ops.elementwise_stream import BROADCAST, UNARY
from headrace.ops.timed import has_time

VIEWS = ("Transpose", "Squeeze", "Unsqueeze", "Reshape")


def sink_pads(prepared: Prepared) -> None:
    """Change the graph in place."""
    graph, facts = prepared.model.graph, prepared.facts
    again = True
    while again:
        again = False
        for node in list(graph):
            if node.op_type == "Pad" and node.domain == "":
                again |= any(_sink(node, use.node, facts) for use in list(node.outputs[0].uses()))


def _sink(pad: ir.Node, reader: ir.Node, facts: Facts) -> bool:
    """Swap a Pad with one reader, where the result is the same."""
    source, padded, out = pad.inputs[0], pad.outputs[0], reader.outputs[0] if reader.outputs else None
    pads, value = facts.constant(get_input(pad, 1)), facts.constant(get_input(pad, 2))
    if source is None or out is None or pads is None or reader.graph is not pad.graph or out.is_graph_output():
        return False
    if get_input(pad, 2) is not None and value is None:
        return False
    rank = len(facts.dims[padded])
    axes = facts.constant(get_input(pad, 3)) if get_input(pad, 3) is not None else np.arange(rank)
    if axes is None or len(reader.inputs) == 0 or reader.inputs[0] is not padded:
        return False
    sizes = {int(a) % rank: (int(pads[i]), int(pads[i + len(axes)])) for i, a in enumerate(axes)}
    sizes = {a: s for a, s in sizes.items() if any(s)}
    if len(sizes) != 1 or not has_time(facts.dims[padded][next(iter(sizes))]):
        return False
    (axis, (left, right)) = next(iter(sizes.items()))
    place = _place(reader, axis, facts, padded, out)
    if place is None:
        return False
    fill = np.zeros((), dtype_name(source.dtype)) if value is None else value.reshape(())
    mode = attribute(pad, "mode", "constant")
    fill_after = fill if mode != "constant" or reader.op_type in VIEWS else _apply(reader, fill, facts)
    if fill_after is None:
        return False
    dims: list[Dim] = list(facts.dims[out])
    dims[place] = dims[place] - left - right
    inner = ir.Node(
        reader.domain,
        reader.op_type,
        [source, *reader.inputs[1:]],
        list(reader.attributes.values()),
        num_outputs=1,
        name=f"{reader.name}/inner",
    )
    inner.outputs[0].name, inner.outputs[0].type = f"{out.name}/inner", out.type
    facts.set_dims(inner.outputs[0], tuple(dims))
    after = _pad(inner.outputs[0], place, left, right, fill_after, mode, reader, facts)
    graph = pad.graph
    assert graph is not None
    graph.insert_before(reader, [inner, after])
    after.outputs[0].type = out.type
    facts.set_dims(after.outputs[0], facts.dims[out])
    after.outputs[0].name = f"{out.name}/padded"
    out.replace_all_uses_with(after.outputs[0])
    graph.remove(reader, safe=True)
    if not padded.uses() and not padded.is_graph_output():
        graph.remove(pad, safe=True)
    return True


def _place(reader: ir.Node, axis: int, facts: Facts, padded: ir.Value, out: ir.Value) -> int | None:
    """Axis of the reader's result on which the padding lies, or None where they cannot be swapped."""
    kind, before, after = reader.op_type, facts.dims[padded], facts.dims[out]
    if reader.domain != "":
        return None
    if kind == "Transpose":
        return list(attribute(reader, "perm") or range(len(before))[::-1]).index(axis)
    if kind in ("Squeeze", "Unsqueeze", "Reshape"):
        places = [i for i, d in enumerate(after) if has_time(d)]
        target = facts.constant(get_input(reader, 1))
        alone = len(places) == 1 and after[places[0]] == before[axis]
        ones = [d for d in before if d != 1] == [d for d in after if d != 1]
        if not alone or not ones or target is None:
            return None
        return places[0] if kind != "Reshape" or target.reshape(-1)[places[0]] == -1 else None
    if kind in UNARY and len(reader.outputs) == 1:
        return axis
    if kind in BROADCAST and len(before) == len(after):
        for value in reader.inputs[1:]:
            if value is None:
                continue
            dims = facts.dims[value]
            index = axis - (len(after) - len(dims))
            if facts.constant(value) is None or (index >= 0 and dims[index] != 1):
                return None
        return axis
    return None


def _apply(reader: ir.Node, fill: np.ndarray[Any, Any], facts: Facts) -> np.ndarray[Any, Any] | None:
    """What the reader makes of the padding value, where that is one value."""
    constants = [facts.constant(v) for v in reader.inputs[1:]]
    if any(c is None or c.size != 1 for c in constants):
        return None
    node = ir.to_proto(reader)
    names = ["x", *(f"c{i}" for i in range(len(constants)))]
    del node.input[:], node.output[:]
    node.input.extend(names)
    node.output.append("y")
    feeds = dict(zip(names, [fill, *(c.reshape(()) for c in constants if c is not None)], strict=True))
    types = [
        onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), [])
        for n, a in feeds.items()
    ]
    graph = onnx.helper.make_graph([node], "one", types, [onnx.ValueInfoProto(name="y")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 26)])
    try:
        return np.asarray(next(iter(ReferenceEvaluator(model).run(None, feeds)))).reshape(())
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return None


def _pad(
    source: ir.Value,
    axis: int,
    left: int,
    right: int,
    fill: np.ndarray[Any, Any],
    mode: str,
    site: ir.Node,
    facts: Facts,
) -> ir.Node:
    def constant(array: np.ndarray[Any, Any], what: str) -> ir.Value:
        tensor = ir.Tensor(array)
        value = ir.Value(
            name=f"{site.name}/{what}",
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(array.shape),
            const_value=tensor,
        )
        facts.dims[value] = tuple(array.shape)
        return value

    inputs = [
        source,
        constant(np.array([left, right], np.int64), "pads"),
        constant(np.asarray(fill), "fill") if mode == "constant" else None,
        constant(np.array([axis], np.int64), "axes"),
    ]
    return ir.Node("", "Pad", inputs, [ir.AttrString("mode", mode)], num_outputs=1, name=f"{site.name}/pad")
