"""The passes that prepare a model, in order.

RULES are applied to one node after the other, from the inputs of the graph to its outputs; the
functions in `run` see the whole graph.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from headrace.graph.facts import Facts
from headrace.graph.rewrite import Walk
from headrace.passes import algebra as constant_algebra
from headrace.passes.control import prepare_bodies, splice_branch
from headrace.passes.finish import name_everything, settle_opset, unpin_outputs
from headrace.passes.fix_inputs import Bound, fix_inputs
from headrace.passes.fold import fold, fold_contents
from headrace.passes.infer import infer
from headrace.passes.inline import check_functions, expand_body, inline_function
from headrace.passes.simplify import simplify
from headrace.passes.tidy import merge_duplicates, remove_unused
from headrace.passes.upgrade import check_known, upgrade
from headrace.passes.walk import Rule, all_graphs, walk_graph


def infer_types(node: ir.Node, walk: Walk) -> Sequence[ir.Node] | None:
    """Types and shapes of the outputs; for control flow, the same rules on its graphs first."""
    if not prepare_bodies(node, walk, walk_inner):
        infer(node, walk)
    return None


RULES: tuple[Rule, ...] = (
    inline_function,  # a call of the model's own function becomes its body
    upgrade,  # the node's meaning in its own opset → its meaning in opset 26
    check_known,  # refuse what nothing defines
    splice_branch,  # an If on a constant becomes its branch
    infer_types,  # dtype and extents of the outputs
    fold,  # constant inputs → constant outputs
    fold_contents,  # contents that follow from shapes
    simplify,  # a node that changes nothing disappears
    expand_body,  # what the compiler does not know becomes its ONNX function body
)


def walk_inner(graph: ir.Graph, walk: Walk) -> None:
    """Apply RULES to a graph whose inputs are known."""
    walk_graph(graph, walk, RULES)


def run(
    model: ir.Model,
    facts: Facts,
    *,
    shapes: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, Any],
    bounds: Mapping[str, Bound],
    native: Callable[[str, str, int], bool],
    keep: frozenset[str],
    keep_inputs: Collection[str],
    algebra: bool,
) -> dict[str, np.ndarray[Any, Any]]:
    """Change the model in place; returns the default values of the kept inputs."""
    graph = model.graph
    opsets = dict(model.opset_imports) or {"": 1}
    check_functions(model)
    defaults = fix_inputs(graph, facts, shapes, constants, bounds, keep_inputs)
    walk = Walk(graph, facts, opsets, model.functions, native, keep, used=_names(graph))
    walk_inner(graph, walk)
    model.functions.clear()
    remove_unused(graph)
    merge_duplicates(graph)
    remove_unused(graph)
    if algebra:
        constant_algebra.rewrite(graph, walk)
        remove_unused(graph)
    unpin_outputs(graph)
    settle_opset(model, facts, opsets.get("", 1))
    name_everything(graph)
    return defaults


def _names(root: ir.Graph) -> set[str]:
    names: set[str] = set()
    for graph in all_graphs(root):
        names.update(value.name or "" for value in graph.inputs)
        names.update(graph.initializers)
        names.update(value.name or "" for node in graph for value in node.outputs)
    return names
