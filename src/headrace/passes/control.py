"""Control flow: splice the branch of an `If` whose condition is known, prepare the graphs of the others.

y = If(true) {then: Add(x, x)} {else: …}   →   y = Add(x, x)
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from headrace.errors import InvalidModel, UnsupportedOperator
from headrace.graph.facts import label
from headrace.graph.rewrite import Walk, attribute, clone_nodes, get_input, replace_node
from headrace.graph.symbolic import Dim, SymDim
from headrace.passes.walk import PIN

WalkGraph = Callable[[ir.Graph, Walk], None]
MAX_WIDENINGS = 8


def splice_branch(node: ir.Node, walk: Walk) -> list[ir.Node] | None:
    """Replace an If on a constant by the nodes of its branch."""
    if node.op_type != "If" or node.domain != "":
        return None
    condition = walk.facts.content(get_input(node, 0))
    if condition is None or condition.size != 1:
        return None
    taken = bool(condition.reshape(-1)[0])
    branch = node.attributes["then_branch" if taken else "else_branch"].as_graph()
    walk.facts.decide(f"If {label(node)!r} is decided: {'then' if taken else 'else'} branch")
    outputs = list(branch.outputs)
    if len(outputs) < len(node.outputs):
        raise InvalidModel(f"If {label(node)!r} has {len(node.outputs)} outputs, its branch {len(outputs)}")
    del branch.outputs[:]
    for value in list(branch.initializers.values()):
        assert value.const_value is not None
        moved = walk.initializer(value.const_value, value.name or "branch/const")
        outputs = [moved if output is value else output for output in outputs]
        value.replace_all_uses_with(moved)
    inner = list(branch)
    branch.remove(inner)
    version = walk.version(node)
    for child in inner:
        child.meta.pop(PIN, None)
        if child.version is None and child.domain == "":
            child.version = version
    return replace_node(node, inner, outputs)


def prepare_bodies(node: ir.Node, walk: Walk, walk_graph: WalkGraph) -> bool:
    """Walk the graphs of a run-time If, Loop or Scan and set the types of its outputs."""
    if node.domain != "" or node.op_type not in ("If", "Loop", "Scan"):
        return False
    if node.op_type == "If":
        _if(node, walk, walk_graph)
    elif node.op_type == "Loop":
        _loop(node, walk, walk_graph)
    else:
        _scan(node, walk, walk_graph)
    return True


def _if(node: ir.Node, walk: Walk, walk_graph: WalkGraph) -> None:
    branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    for branch in branches:
        walk_graph(branch, walk)
    for index, value in enumerate(node.outputs):
        sides = [branch.outputs[index] for branch in branches]
        value.type = sides[0].type
        if sides[0].type != sides[1].type:
            raise InvalidModel(f"If {label(node)!r}: its branches give different types for {value.name!r}")
        dims = [walk.facts.dims.get(side) for side in sides]
        if dims[0] is None or dims[1] is None:
            continue
        if len(dims[0]) != len(dims[1]):
            raise UnsupportedOperator(
                "If", label(node), "normalise", f"its branches give different ranks for {value.name!r}"
            )
        merged = [
            a if a == b else walk.facts.fresh(value, axis)
            for axis, (a, b) in enumerate(zip(dims[0], dims[1], strict=True))
        ]
        walk.facts.set_dims(value, tuple(merged))


def _assume(value: ir.Value, like: ir.Value, dims: tuple[Dim, ...] | None, walk: Walk) -> None:
    value.type = like.type
    if dims is not None:
        walk.facts.set_dims(value, dims)


def _settle_carried(
    body: ir.Graph,
    formals: list[ir.Value],
    actuals: list[ir.Value],
    results: int,
    walk: Walk,
    walk_graph: WalkGraph,
) -> None:
    """Give carried values extents that one more iteration does not change, then walk the body."""
    extents = [walk.facts.dims.get(actual) for actual in actuals]
    for _ in range(MAX_WIDENINGS):
        changed = False
        if any(extents):
            trial, inputs = _copy(body)
            for formal, actual, dims in zip(formals, actuals, extents, strict=True):
                _assume(inputs[formal], actual, dims, walk)
            for formal in body.inputs:
                if formal not in formals:
                    _assume(inputs[formal], formal, walk.facts.dims.get(formal), walk)
            walk_graph(trial, walk)
            for i, formal in enumerate(formals):
                after = walk.facts.dims.get(trial.outputs[results + i])
                before = extents[i]
                if before is None or after is None or before == after:
                    continue
                if len(before) != len(after):
                    raise InvalidModel(f"the rank of the carried value {formal.name!r} changes from turn to turn")
                extents[i] = tuple(
                    a if a == b or _is_fresh(a, walk) else walk.facts.fresh(formal, axis)
                    for axis, (a, b) in enumerate(zip(before, after, strict=True))
                )
                changed = changed or extents[i] != before
        if not changed:
            break
    for formal, actual, dims in zip(formals, actuals, extents, strict=True):
        _assume(formal, actual, dims, walk)
    walk_graph(body, walk)


def _is_fresh(dim: Dim, walk: Walk) -> bool:
    if not isinstance(dim, SymDim) or dim.name is None:
        return False
    return walk.facts.symbols[dim.name].bound is None


def _copy(graph: ir.Graph) -> tuple[ir.Graph, dict[ir.Value, ir.Value]]:
    inputs = {value: ir.Value(name=value.name, type=value.type, shape=value.shape) for value in graph.inputs}
    values: dict[ir.Value, ir.Value | None] = dict(inputs)
    initializers = []
    for value in graph.initializers.values():
        copy = ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=value.const_value)
        values[value] = copy
        initializers.append(copy)
    nodes = clone_nodes(list(graph), values, {}, lambda name: name)
    outputs = [values.get(value) or value for value in graph.outputs]
    return ir.Graph(list(inputs.values()), outputs, nodes=nodes, initializers=initializers), inputs


def _loop(node: ir.Node, walk: Walk, walk_graph: WalkGraph) -> None:
    body = node.attributes["body"].as_graph()
    carried = len(node.inputs) - 2
    if len(body.inputs) != carried + 2 or len(body.outputs) != 1 + len(node.outputs):
        raise InvalidModel(f"Loop {label(node)!r}: its body has the wrong number of inputs or outputs")
    for formal, dtype in zip(body.inputs[:2], (ir.DataType.INT64, ir.DataType.BOOL), strict=True):
        formal.type = ir.TensorType(dtype)
        walk.facts.set_dims(formal, ())
    actuals = [value for value in node.inputs[2:] if value is not None]
    if len(actuals) != carried:
        raise InvalidModel(f"Loop {label(node)!r}: an initial value is absent")
    _settle_carried(body, list(body.inputs[2:]), actuals, 1, walk, walk_graph)
    trips = _trip_count(node, body, walk)
    for index, value in enumerate(node.outputs):
        result = body.outputs[1 + index]
        value.type = result.type
        dims = walk.facts.dims.get(result)
        if dims is None:
            continue
        if index < carried:
            initial = walk.facts.dims.get(actuals[index])
            same = initial == dims
            walk.facts.set_dims(value, dims if same or initial is None else walk.facts.dims[body.inputs[2 + index]])
        else:
            walk.facts.set_dims(value, (walk.facts.fresh(value, 0) if trips is None else trips, *dims))


def _trip_count(node: ir.Node, body: ir.Graph, walk: Walk) -> Dim | None:
    limit = walk.facts.content(get_input(node, 0))
    start = walk.facts.content(get_input(node, 1))
    if limit is None or (get_input(node, 1) is not None and (start is None or not start.reshape(-1)[0])):
        return None
    going = body.outputs[0]
    producer = going.producer()
    while producer is not None and producer.op_type == "Identity" and producer.inputs[0] is not None:
        going = producer.inputs[0]
        producer = going.producer()
    kept = walk.facts.content(going)
    if going is not body.inputs[1] and (kept is None or not kept.reshape(-1)[0]):
        return None
    trips = limit.reshape(-1)[0]
    return max(trips, 0) if isinstance(trips, int) else trips if isinstance(trips, SymDim) else None


def _scan(node: ir.Node, walk: Walk, walk_graph: WalkGraph) -> None:
    body = node.attributes["body"].as_graph()
    scans = attribute(node, "num_scan_inputs")
    states = len(node.inputs) - scans
    if len(body.inputs) != len(node.inputs) or len(body.outputs) != len(node.outputs):
        raise InvalidModel(f"Scan {label(node)!r}: its body has the wrong number of inputs or outputs")
    axes = attribute(node, "scan_input_axes") or [0] * scans
    length: Dim | None = None
    for index in range(scans):
        source, formal = node.inputs[states + index], body.inputs[states + index]
        dims = walk.facts.dims.get(source) if source is not None else None
        if source is None or dims is None:
            raise InvalidModel(f"Scan {label(node)!r}: scan input {index} is absent or has no shape")
        axis = axes[index] % len(dims)
        length = dims[axis] if length is None else length
        _assume(formal, source, dims[:axis] + dims[axis + 1 :], walk)
    actuals = [value for value in node.inputs[:states] if value is not None]
    _settle_carried(body, list(body.inputs[:states]), actuals, 0, walk, walk_graph)
    out_axes = attribute(node, "scan_output_axes") or [0] * (len(node.outputs) - states)
    for index, value in enumerate(node.outputs):
        result = body.outputs[index]
        value.type = result.type
        dims = walk.facts.dims.get(result)
        if dims is None or length is None:
            continue
        if index >= states:
            axis = out_axes[index - states] % (len(dims) + 1)
            dims = (*dims[:axis], length, *dims[axis:])
        walk.facts.set_dims(value, dims)
