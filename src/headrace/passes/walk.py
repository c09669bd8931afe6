"""Walk a graph from its inputs to its outputs and apply the node rules to every node in turn.

A rule returns None to leave the node to the next rule, or the nodes that took its place, which are
then visited themselves. Every node is thus seen with all facts about its inputs known, and one walk
reaches the fixpoint.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import onnx_ir as ir

from headrace.graph.rewrite import Walk, subgraphs

Rule = Callable[[ir.Node, Walk], "Sequence[ir.Node] | None"]
PIN = "headrace.pin"
NAME = "headrace.name"


def walk_graph(graph: ir.Graph, walk: Walk, rules: Sequence[Rule]) -> None:
    """Apply the rules to all nodes of the graph. Facts about its inputs must be known."""
    pin_outputs(graph, walk)
    for value in graph.initializers.values():
        if value not in walk.facts.dims and value.const_value is not None:
            walk.facts.set_dims(value, tuple(value.const_value.shape.numpy()))
    pending = deque(graph)
    while pending:
        node = pending.popleft()
        walk.count()
        for rule in rules:
            replacement = rule(node, walk)
            if replacement is not None:
                pending.extendleft(reversed(replacement))
                break


def pin_outputs(graph: ir.Graph, walk: Walk) -> None:
    """Let every output be made by an Identity of its own, so that rules never rename or remove one."""
    for index, value in enumerate(list(graph.outputs)):
        producer = value.producer()
        if producer is not None and PIN in producer.meta:
            continue
        node = ir.Node("", "Identity", [value], version=26, name=walk.unique(f"{value.name}/output"))
        node.meta[PIN] = True
        out = node.outputs[0]
        out.type, out.shape = value.type, value.shape
        graph.append(node)
        graph.outputs[index] = out
        out.name = walk.unique(f"{value.name}~out")
        out.meta[NAME] = value.name


def all_graphs(root: ir.Graph) -> list[ir.Graph]:
    """The graph and all graphs inside it, outermost first."""
    found = [root]
    for graph in found:
        for node in graph:
            found += list(subgraphs(node))
    return found
