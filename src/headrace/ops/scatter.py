"""Writing at computed places: ScatterElements, ScatterND, TensorScatter."""

from __future__ import annotations

from headrace.ops.gather import place, position
from headrace.ops.registry import Node, lower
from headrace.ops.shape import normal_axis
from headrace.program.build import Builder, Tensor
from headrace.program.expr import Expr, Scalar, check, index

_COMBINERS = {"none": None, "add": "add", "mul": "mul", "max": "max", "min": "min"}


def combiner(node: Node, x: Tensor) -> str | None:
    """The `reduction` attribute as the combiner of a store."""
    kind = node.attr("reduction", "none")
    if kind not in _COMBINERS:
        raise node.refuse(f"its reduction is {kind!r}", f"use one of {sorted(_COMBINERS)}")
    if kind != "none" and x.dtype == "bool":
        raise node.refuse(f"it combines booleans with {kind!r}", "convert them to integers")
    return _COMBINERS[kind]


@lower("ScatterElements", "Scatter")
def scatter_elements(b: Builder, node: Node) -> Tensor:
    """Of several updates of one element the last wins, or all combine in their order."""
    x, updates = node.input(0), node.input(2)
    axis = normal_axis(node, node.attr("axis", 0), x.rank)
    indices = place(b, node, node.input(1), (x.shape[axis],))

    def where(*i: Expr) -> tuple[Scalar, ...]:
        return (*i[:axis], position(indices, i, x.shape[axis]), *i[axis + 1 :])

    return b.scatter(x, indices.shape, where, lambda *i: updates[i], combiner(node, x))


@lower("ScatterND")
def scatter_nd(b: Builder, node: Node) -> Tensor:
    """out[indices[j…, :]…, rest…] = updates[j…, rest…]."""
    x, given, updates = node.input(0), node.input(1), node.input(2)
    depth = given.shape[-1]
    if not isinstance(depth, int):
        raise node.refuse("the length of its index tuples is symbolic", "fix it with shapes=")
    addressed = x.shape[:depth]
    indices = place(b, node, given, addressed)
    outer = indices.rank - 1

    def where(*i: Expr) -> tuple[Scalar, ...]:
        at = [position(indices, (*i[:outer], k), addressed[k]) for k in range(depth)]
        return (*at, *i[outer:])

    return b.scatter(x, updates.shape, where, lambda *i: updates[i], combiner(node, x))


@lower("TensorScatter")
def tensor_scatter(b: Builder, node: Node) -> Tensor:
    """A cache with the update written from write_indices[batch] on; circular: modulo the cache's length."""
    past, update, start = node.input(0), node.input(1), node.optional(2)
    axis = normal_axis(node, node.attr("axis", -2), past.rank)
    mode = node.attr("mode", "linear")
    if mode not in ("linear", "circular"):
        raise node.refuse(f"its mode is {mode!r}", "use linear or circular")
    extent = past.shape[axis]

    def where(*i: Expr) -> tuple[Scalar, ...]:
        at = i[axis] if start is None else index(start[i[0]]) + i[axis]
        at = at % index(extent) if mode == "circular" else check(at, extent)
        return (*i[:axis], at, *i[axis + 1 :])

    return b.scatter(past, update.shape, where, lambda *i: update[i])
