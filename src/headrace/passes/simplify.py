"""Remove nodes that return their input unchanged.

y = Dropout(x), y = Identity(x), y = Cast(x: float32, to=float32), y = Reshape(x: [2, 3], [2, 3])   →   x
y = Where(all true, x, z)   →   x
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from headrace.graph.rewrite import Builder, Walk, attribute, get_input, is_used, replace_node
from headrace.graph.symbolic import Dim, SymDim
from headrace.passes.walk import PIN

_SAME_DIMS = frozenset(("Reshape", "Expand", "Squeeze", "Unsqueeze", "Flatten"))
_VARIADIC = frozenset(("Concat", "Sum", "Max", "Min", "Mean"))


def simplify(node: ir.Node, walk: Walk) -> list[ir.Node] | None:
    """Let the input stand for the output where they are equal."""
    if node.domain != "" or PIN in node.meta or not node.inputs or node.inputs[0] is None:
        return None
    if node.op_type == "Dropout":
        return _dropout(node, walk)
    if node.op_type == "Where":
        return _where(node, walk)
    if not _is_identity(node, walk):
        return _plain_target(node, walk) if node.op_type == "Reshape" else None
    return replace_node(node, [], [node.inputs[0]])


def _is_identity(node: ir.Node, walk: Walk) -> bool:
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None
    if node.op_type == "Identity":
        return True
    if node.op_type in _VARIADIC:
        return len(node.inputs) == 1
    if node.op_type in ("Cast", "CastLike"):
        return source.dtype == result.dtype
    dims = walk.facts.dims.get(source)
    if dims is None or dims != walk.facts.dims.get(result):
        return False
    if node.op_type in _SAME_DIMS:
        return True
    if node.op_type == "Transpose":
        return list(attribute(node, "perm") or range(len(dims))[::-1]) == list(range(len(dims)))
    if node.op_type == "Slice":
        steps = walk.facts.constant(get_input(node, 4))
        return get_input(node, 4) is None or (steps is not None and bool(np.all(steps == 1)))
    if node.op_type == "Pad":
        pads = walk.facts.constant(get_input(node, 1))
        return pads is not None and not np.any(pads)
    if node.op_type == "Tile":
        repeats = walk.facts.constant(get_input(node, 1))
        return repeats is not None and bool(np.all(repeats == 1))
    return False


def _where(node: ir.Node, walk: Walk) -> list[ir.Node] | None:
    """The one operand that a constant condition takes, where the others do not widen the result."""
    condition = walk.facts.constant(node.inputs[0])
    if condition is None or condition.size == 0 or condition.min() != condition.max():
        return None
    taken = node.inputs[1 if condition.reshape(-1)[0] else 2]
    dims = walk.facts.dims.get(taken) if taken is not None else None
    if dims is None or dims != walk.facts.dims.get(node.outputs[0]):
        return None
    return replace_node(node, [], [taken])


def _plain_target(node: ir.Node, walk: Walk) -> list[ir.Node] | None:
    """Let a Reshape to computed extents read a constant, so that what computed them may go.

    Possible with at most one symbolic extent that is not copied from the same axis of the input.
    """
    target = node.inputs[1]
    before = walk.facts.dims.get(node.inputs[0]) if node.inputs[0] is not None else None
    after = walk.facts.dims.get(node.outputs[0])
    if target is None or before is None or after is None or walk.facts.constant(target) is not None:
        return None
    if any(isinstance(dim, int) and dim == 0 for dim in after):
        return None
    plain: list[int] = []
    for axis, dim in enumerate(after):
        if isinstance(dim, int):
            plain.append(dim)
        else:
            plain.append(0 if axis < len(before) and before[axis] == dim else -1)
    if plain.count(-1) > 1 or any(_unbounded(dim, walk) for dim in after):
        return None
    make = Builder(walk, node)
    same = make.op("Reshape", [node.inputs[0], make.const(plain)])
    return make.done(same)


def _unbounded(dim: Dim, walk: Walk) -> bool:
    return isinstance(dim, SymDim) and any(walk.facts.symbols[name].bound is None for name in dim.symbols)


def _dropout(node: ir.Node, walk: Walk) -> list[ir.Node] | None:
    training = get_input(node, 2)
    flag = walk.facts.constant(training)
    if training is not None and (flag is None or bool(flag.reshape(-1)[0])):
        ratio = walk.facts.constant(get_input(node, 1))
        if flag is None or ratio is None or float(ratio.reshape(-1)[0]) != 0.0:
            return None
    source = node.inputs[0]
    if len(node.outputs) < 2 or not is_used(node.outputs[1]):
        return replace_node(node, [], [source])
    make = Builder(walk, node)
    mask = make.op("Expand", [make.const(True, np.bool_), make.op("Shape", [source])])
    return make.done(source, mask)
