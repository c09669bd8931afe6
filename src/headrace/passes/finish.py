"""Last touches: lowest operator set, output names, unique value names."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from headrace.graph import schemas
from headrace.graph.facts import Facts
from headrace.graph.rewrite import BASE_OPSET, attribute
from headrace.passes.walk import NAME, PIN, all_graphs

# Operators whose newer version means the same for what the older version could say.
_ADDED_ATTRIBUTES = {"SpaceToDepth": ("mode", "DCR"), "Range": ("stash_type", 1)}


def settle_opset(model: ir.Model, facts: Facts, original: int) -> None:
    """Choose the lowest opset >= 26 that can express every node."""
    needed = BASE_OPSET
    for graph in all_graphs(model.graph):
        for node in graph:
            if node.domain == "":
                needed = max(needed, _needed(node))
            node.version = None
    model.opset_imports[""] = needed
    used = {node.domain for graph in all_graphs(model.graph) for node in graph} | {""}
    for domain in list(model.opset_imports):
        if domain not in used:
            del model.opset_imports[domain]
    imports = [onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()]
    model.ir_version = max(10, onnx.helper.find_min_ir_version_for(imports, ignore_unknown=True))
    if needed != original:
        facts.decide(f"opset {original} → {needed}")


def _needed(node: ir.Node) -> int:
    version = node.version or BASE_OPSET
    since = int(schemas.get(node.op_type, version).since_version)
    if since <= BASE_OPSET:
        return BASE_OPSET
    older = schemas.find(node.op_type, BASE_OPSET)
    if older is None:
        return since
    name, default = _ADDED_ATTRIBUTES.get(node.op_type, ("", None))
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in older.type_constraints}
    formals = list(zip(older.inputs, node.inputs, strict=False)) + list(zip(older.outputs, node.outputs, strict=False))
    for formal, value in formals:
        kinds = allowed.get(formal.type_str, {formal.type_str})
        if value is not None and _type_text(value) not in kinds:
            return since
    if node.op_type == "Mod" and not attribute(node, "fmod", 0) and _is_float(node):
        return since
    for key in list(node.attributes):
        if key in older.attributes:
            continue
        if key != name or attribute(node, key) != default:
            return since
        del node.attributes[key]
    return BASE_OPSET


def _is_float(node: ir.Node) -> bool:
    value = node.inputs[0]
    return value is not None and value.dtype is not None and value.dtype.is_floating_point()


def _type_text(value: ir.Value) -> str:
    if not isinstance(value.type, ir.TensorType):
        return ""
    return f"tensor({onnx.helper.tensor_dtype_to_string(int(value.type.dtype)).split('.')[1].lower()})"


def unpin_outputs(root: ir.Graph) -> None:
    """Remove the Identity before each output where a node of the same graph can produce the output itself."""
    for graph in all_graphs(root):
        for index, value in enumerate(list(graph.outputs)):
            pin = value.producer()
            if pin is None or PIN not in pin.meta:
                continue
            source = pin.inputs[0]
            name = value.meta.get(NAME)
            pin.meta.pop(PIN)
            producer = source.producer() if source is not None else None
            free = (
                source is not None
                and producer is not None
                and producer.graph is graph
                and not source.is_graph_output()
                and len(value.uses()) == 0
            )
            if free and source is not None:
                graph.outputs[index] = source
                graph.remove(pin, safe=True)
                source.meta[NAME] = name
                source.name = name
            elif source is not None and graph is root and source.name == name and source.is_graph_input():
                graph.outputs[index] = source
                graph.remove(pin, safe=True)
            else:
                value.name = name


def name_everything(root: ir.Graph) -> None:
    """Unique, non-empty names for all values and nodes; those of inputs and outputs stay."""
    taken: set[str] = set()
    fixed: set[ir.Value] = set()
    for value in (*root.inputs, *root.outputs):
        taken.add(value.name or "")
        fixed.add(value)
    node_names: set[str] = set()
    for graph in all_graphs(root):
        for value in list(graph.initializers.values()):
            if value not in fixed:
                _claim(value, taken)
        for value in graph.inputs:
            if value not in fixed:
                _claim(value, taken)
        for node in graph:
            for value in node.outputs:
                if value not in fixed and (value.name or value.uses() or value.is_graph_output()):
                    _claim(value, taken)
            base = node.name or f"{node.op_type}:{node.outputs[0].name if node.outputs else ''}"
            node.name = _free(base, node_names)


def _claim(value: ir.Value, taken: set[str]) -> None:
    wanted = value.meta.get(NAME)
    name = _free(wanted if wanted and wanted not in taken else value.name or "value", taken)
    if name != value.name:
        value.name = name


def _free(base: str, taken: set[str]) -> str:
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}#{count}"
    taken.add(name)
    return name
