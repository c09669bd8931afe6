"""Small tools with which passes change a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from headrace.errors import InvalidModel
from headrace.graph.facts import Facts

BASE_OPSET = 26
MAX_NODES = 200_000


@dataclass
class Walk:
    """One walk over a graph: what is known, and what the rules may ask for.

    opsets: versions that nodes without a version of their own follow, by domain;
    native: which operators need no expansion; keep: operator types whose constants are not folded.
    """

    root: ir.Graph
    facts: Facts
    opsets: Mapping[str, int]
    functions: Mapping[ir.OperatorIdentifier, ir.Function]
    native: Callable[[str, str, int], bool]
    keep: frozenset[str] = frozenset()
    visited: int = 0
    used: set[str] = field(default_factory=set)
    counters: dict[str, int] = field(default_factory=dict)

    def count(self) -> None:
        """Refuse a model that grows without end while functions are expanded."""
        self.visited += 1
        if self.visited > MAX_NODES:
            raise InvalidModel(f"the model grows beyond {MAX_NODES} nodes when its functions are expanded")

    def version(self, node: ir.Node) -> int:
        """Operator set version that gives the node its meaning."""
        if node.version is not None:
            return node.version
        return self.opsets.get(node.domain, 1)

    def unique(self, stem: str) -> str:
        """A value name that this walk has not handed out."""
        name = stem
        while name in self.used:
            count = self.counters[stem] = self.counters.get(stem, 0) + 1
            name = f"{stem}#{count}"
        self.used.add(name)
        return name

    def constant(self, array: np.ndarray[Any, Any], name: str, dtype: ir.DataType | None = None) -> ir.Value:
        """A new initializer of the main graph."""
        tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), dtype=dtype)
        return self.initializer(tensor, name)

    def initializer(self, tensor: ir.TensorProtocol, name: str) -> ir.Value:
        """A new initializer of the main graph that holds this tensor."""
        shape = tensor.shape.numpy()
        value = ir.Value(
            name=self.unique(name),
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(shape),
            const_value=tensor,
        )
        self.root.register_initializer(value)
        self.facts.dims[value] = tuple(shape)
        return value


@dataclass
class Builder:
    """Makes nodes that replace one node; they follow opset BASE_OPSET unless told otherwise."""

    walk: Walk
    site: ir.Node
    nodes: list[ir.Node] = field(default_factory=list)

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        version: int = BASE_OPSET,
        outputs: int = 1,
        **attributes: int | float | str | Sequence[int] | Sequence[float],
    ) -> ir.Value:
        """Append a node, return its first output."""
        site = self.site.name or (self.site.outputs[0].name if self.site.outputs else "") or self.site.op_type
        attrs = [_attribute(name, value) for name, value in attributes.items()]
        node = ir.Node("", op_type, inputs, attrs, num_outputs=outputs, version=version)
        node.name = self.walk.unique(f"{site}/{op_type}")
        for value in node.outputs:
            value.name = self.walk.unique(f"{node.name}:out")
        self.nodes.append(node)
        return node.outputs[0]

    def const(self, values: Any, dtype: Any = np.int64) -> ir.Value:
        """A constant of the main graph."""
        site = self.site.name or (self.site.outputs[0].name if self.site.outputs else "") or self.site.op_type
        return self.walk.constant(np.array(values, dtype), f"{site}/const")

    def before(self, index: int, value: ir.Value) -> list[ir.Node]:
        """Put the new nodes before the site, which reads `value` as that input; all nodes to visit."""
        assert self.site.graph is not None
        self.site.graph.insert_before(self.site, self.nodes)
        self.site.replace_input_with(index, value)
        return [*self.nodes, self.site]

    def done(self, *outputs: ir.Value | None) -> list[ir.Node]:
        """Put the new nodes in the place of the site; see replace_node."""
        return replace_node(self.site, self.nodes, outputs)


def _attribute(name: str, value: Any) -> ir.Attr:
    if isinstance(value, str):
        return ir.AttrString(name, value)
    if isinstance(value, float):
        return ir.AttrFloat32(name, value)
    if isinstance(value, int):
        return ir.AttrInt64(name, value)
    items = list(value)
    if items and isinstance(items[0], float):
        return ir.AttrFloat32s(name, items)
    return ir.AttrInt64s(name, [int(item) for item in items])


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """Plain value of an attribute, or the default."""
    attr = node.attributes.get(name)
    return default if attr is None else attr.value


def set_attribute(node: ir.Node, name: str, value: Any) -> None:
    """Set or overwrite an attribute."""
    node.attributes[name] = _attribute(name, value)


def drop_attributes(node: ir.Node, *names: str) -> None:
    """Remove attributes where they exist."""
    for name in names:
        node.attributes.pop(name, None)


def get_input(node: ir.Node, index: int) -> ir.Value | None:
    """The input, or None where it is absent."""
    return node.inputs[index] if index < len(node.inputs) else None


def set_input(node: ir.Node, index: int, value: ir.Value | None) -> None:
    """Set an input, with absent inputs before it where needed."""
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def is_used(value: ir.Value) -> bool:
    """Whether a node reads the value or a graph returns it."""
    return bool(value.uses()) or value.is_graph_output()


def upstream(value: ir.Value, ends: Callable[[ir.Value], bool] = lambda _: False) -> Iterator[ir.Value]:
    """A value and all that it is made from, each once; nothing from behind a value that `ends`."""
    seen: set[ir.Value] = set()
    queue = [value]
    while queue:
        item = queue.pop()
        if item in seen:
            continue
        seen.add(item)
        yield item
        node = item.producer()
        if node is not None and not ends(item):
            queue += [v for v in node.inputs if v is not None]


def replace_node(node: ir.Node, new_nodes: Sequence[ir.Node], outputs: Sequence[ir.Value | None]) -> list[ir.Node]:
    """Put new nodes before `node`, let `outputs` stand for its outputs, remove it; returns the new nodes.

    A new value that stands for a named one takes over its name, so that names of the source model
    stay recognisable. None is allowed for an output that nothing uses.
    """
    graph = node.graph
    assert graph is not None
    graph.insert_before(node, new_nodes)
    made = {id(new) for new in new_nodes}
    for old, new in zip(node.outputs, outputs, strict=False):
        if new is None:
            continue
        producer = new.producer()
        name = old.name
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        if producer is not None and id(producer) in made and name and new.name != name:
            old.name = None
            new.name = name
    graph.remove(node, safe=True)
    return list(new_nodes)


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """Graphs held by the node's attributes."""
    for attr in node.attributes.values():
        if attr.is_ref():
            continue
        if attr.type == ir.AttributeType.GRAPH:
            yield attr.as_graph()
        elif attr.type == ir.AttributeType.GRAPHS:
            yield from attr.as_graphs()


def clone_nodes(
    nodes: Sequence[ir.Node],
    values: dict[ir.Value, ir.Value | None],
    attributes: Mapping[str, ir.Attr],
    rename: Callable[[str], str],
) -> list[ir.Node]:
    """Copies of nodes (and of their subgraphs), reading `values`, attribute references resolved.

    `values` maps outer values to their stand-ins and is filled with the outputs of the copies.
    """
    return [_clone_node(node, values, attributes, rename) for node in nodes]


def _clone_node(
    node: ir.Node,
    values: dict[ir.Value, ir.Value | None],
    attributes: Mapping[str, ir.Attr],
    rename: Callable[[str], str],
) -> ir.Node:
    copied: list[ir.Attr] = []
    for name, attr in node.attributes.items():
        if attr.is_ref():
            actual = attributes.get(attr.ref_attr_name or "")
            if actual is not None:
                copied.append(ir.Attr(name, actual.type, actual.value))
        elif attr.type == ir.AttributeType.GRAPH:
            copied.append(ir.AttrGraph(name, clone_graph(attr.as_graph(), values, attributes, rename)))
        elif attr.type == ir.AttributeType.GRAPHS:
            copied.append(ir.AttrGraphs(name, [clone_graph(g, values, attributes, rename) for g in attr.as_graphs()]))
        else:
            copied.append(attr)
    copy = ir.Node(
        node.domain,
        node.op_type,
        [values.get(v, v) if v is not None else None for v in node.inputs],
        copied,
        overload=node.overload,
        num_outputs=len(node.outputs),
        version=node.version,
        name=rename(node.name or node.op_type),
    )
    for old, new in zip(node.outputs, copy.outputs, strict=True):
        if old.name:
            new.name = rename(old.name)
        new.type, new.shape = old.type, old.shape
        values[old] = new
    return copy


def clone_graph(
    graph: ir.Graph,
    values: dict[ir.Value, ir.Value | None],
    attributes: Mapping[str, ir.Attr],
    rename: Callable[[str], str],
) -> ir.Graph:
    """A copy of a graph, as `clone_nodes` copies nodes."""

    def copy(value: ir.Value) -> ir.Value:
        new = ir.Value(
            name=rename(value.name or "value"),
            type=value.type,
            shape=value.shape,
            const_value=renamable(value.const_value),
        )
        values[value] = new
        return new

    inputs = [copy(value) for value in graph.inputs]
    initializers = [copy(value) for value in graph.initializers.values()]
    nodes = clone_nodes(list(graph), values, attributes, rename)
    outputs = [values.get(value, value) for value in graph.outputs]
    return ir.Graph(
        inputs,
        [value for value in outputs if value is not None],
        nodes=nodes,
        initializers=initializers,
        name=graph.name,
    )


def renamable(tensor: ir.TensorProtocol | None) -> ir.TensorProtocol | None:
    """The same content; a tensor takes on the name of its value, and the original's may be the caller's own."""
    if tensor is None or tensor.dtype == ir.DataType.STRING:
        return tensor
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype)
