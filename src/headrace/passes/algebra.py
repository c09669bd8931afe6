"""Algebra on constants, before anything is scheduled: fewer operations for the same function.

The rules of RULES are applied to one node after the other, until none applies. Each keeps the result within
the rounding of the operators it replaces, is used only where it lowers the work, and is reported in the
decisions. A value that disappears is read by one node of the same graph and is no output.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from headrace.graph.facts import label
from headrace.graph.rewrite import Walk, get_input
from headrace.passes.compose import compose
from headrace.passes.integer import integer_products
from headrace.passes.notes import Notes
from headrace.passes.scale import absorb_after, absorb_before
from headrace.passes.taps import drop_taps, merge_padding
from headrace.passes.walk import Rule, all_graphs, walk_graph

NoteRule = Callable[[ir.Node, Walk, Notes], "list[ir.Node] | None"]


def drop_zero_state(node: ir.Node, walk: Walk, notes: Notes) -> list[ir.Node] | None:
    """An initial state of zeros is what a recurrence has without one."""
    if node.domain != "" or node.op_type not in ("LSTM", "GRU", "RNN"):
        return None
    for index, name in ((5, "initial_h"), (6, "initial_c")):
        value = walk.facts.constant(get_input(node, index))
        if value is not None and not value.any():
            node.replace_input_with(index, None)
            notes.say(f"{node.op_type} {label(node)!r} starts from zeros: {name} is left out")
    return None


RULES: tuple[NoteRule, ...] = (
    integer_products,  # products of dequantised bytes become products of integers
    merge_padding,  # a Pad with zeros becomes padding of the convolution after it
    absorb_after,  # a scale or offset becomes part of the weights before it
    absorb_before,  # a scale becomes part of the weights after it
    drop_taps,  # taps that only meet padding, or are zeros, go
    compose,  # two convolutions or products are one where that is less work
    drop_zero_state,  # so that lowering knows that there is nothing to multiply
)


def rewrite(root: ir.Graph, walk: Walk) -> None:
    """Apply RULES to every graph. All types and extents must be known, and what is unused be gone."""
    notes = Notes(walk.facts)
    rules = tuple(_with(rule, notes) for rule in RULES)
    with np.errstate(all="ignore"):  # what is out of range is not used
        for graph in all_graphs(root):
            walk_graph(graph, walk, rules)
    notes.finish()


def _with(rule: NoteRule, notes: Notes) -> Rule:
    return lambda node, walk: rule(node, walk, notes)
