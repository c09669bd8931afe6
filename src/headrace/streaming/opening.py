"""Take a model whose signal has a fixed or unknown length, and prepare it with the length open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from headrace.errors import InvalidModel, NotStreamable
from headrace.graph.model import Model
from headrace.graph.prepare import Prepared
from headrace.ops.registry import native, stream_facet
from headrace.passes.prepare import prepare

LONG = 1 << 18  # a signal is taken to be longer than any fixed slice of it
BOUND = (1 << 31) - 1  # what exporters write for "to the end"


def prepare_open(model: Model, **options: Any) -> Prepared:
    """Prepare; what does not fit an open length is a refusal."""
    try:
        return prepare(model, **options)
    except (InvalidModel, ValueError) as error:
        raise NotStreamable(
            "",
            f"it does not hold for every length of the signal: {error}",
            "export it with the time axis dynamic, and check shapes that were written down as numbers",
        ) from error


def opened(model: Model, axes: Mapping[str, int]) -> Model:
    """A model exported at one length, with that length open again.

    Whatever depends on the old length then fails to fit or is refused: the analysis that follows is a
    proof for every length, not a guess from one.
    """
    graph = model.ir.graph
    fixed = [
        v
        for v in graph.inputs
        if v.name in axes and v.shape is not None and isinstance(v.shape[axes[v.name or ""]], int)
    ]
    if not fixed:
        return model
    copy = model.ir.clone()
    names = {v.name for v in fixed}
    for value in copy.graph.inputs:
        if value.name in names and value.shape is not None:
            dims: list[int | str | None] = [d if isinstance(d, int) else d.value for d in value.shape]
            dims[axes[value.name or ""]] = f"{value.name}_frames"
            value.shape = ir.Shape(dims)
    for node in copy.graph:
        for value in node.outputs:
            value.shape = None if not value.is_graph_output() else _unknown(value)
    return Model(copy, model.source, model.digest, model.external)


def _unknown(value: ir.Value) -> ir.Shape | None:
    return None if value.shape is None else ir.Shape([None] * len(value.shape))


def streamed_natively(domain: str, op: str, version: int) -> bool:
    return native(domain, op, version) or stream_facet(domain, op) is not None


def known_shapes(
    model: Model,
    axes: Mapping[str, int],
    shapes: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, Any],
) -> dict[str, tuple[int | str, ...]]:
    """Extents of all inputs; an unknown dim is 1."""
    for name in axes:
        if name not in model.inputs:
            raise ValueError(f"axes names {name!r}, which is no input; inputs: {', '.join(model.inputs)}")
    found: dict[str, tuple[int | str, ...]] = {}
    for name, spec in model.inputs.items():
        if name in constants:
            continue
        dims = tuple(shapes.get(name, spec.shape))
        if dims == ("...",):
            raise ValueError(f"input {name!r} has no declared rank: give its shape with shapes=")
        if name not in axes:
            _check_length(name, dims, model, axes)
        found[name] = tuple(d if isinstance(d, int) else 1 for d in dims)
    return found


def _check_length(name: str, dims: Sequence[int | str], model: Model, axes: Mapping[str, int]) -> None:
    """An input as long as a time input is one itself."""
    for other, axis in axes.items():
        shape = model.inputs[other].shape
        time = shape[axis] if -len(shape) <= axis < len(shape) else None
        if isinstance(time, str) and time in dims:
            raise ValueError(
                f"input {name!r} is as long as time input {other!r} (both {time!r}): name its time axis as well, "
                f"axes={{{other!r}: {axis}, {name!r}: {list(dims).index(time)}}}, or give its shape with shapes="
            )


def time_axis(name: str, axis: int, known: Mapping[str, tuple[int | str, ...]]) -> int:
    if name not in known:
        raise ValueError(f"{name!r} is both a time input and a constant")
    rank = len(known[name])
    if not -rank <= axis < rank:
        raise ValueError(f"axes: input {name!r} has {rank} dims, no axis {axis}")
    return axis % rank
