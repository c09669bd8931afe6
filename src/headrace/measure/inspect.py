"""What is in a model: operators, extents, parameters, work. Nothing is compiled."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from headrace.errors import Error
from headrace.graph.facts import dtype_name, identifier, label
from headrace.graph.macs import macs
from headrace.graph.model import Model
from headrace.graph.prepare import Prepared
from headrace.graph.rewrite import subgraphs
from headrace.graph.symbolic import Dim, SymDim, symbol
from headrace.measure.inspect_table import table
from headrace.passes.prepare import prepare
from headrace.streaming.explain import TimeReport, explain

ANY_EXTENT = 2**12  # bound of an extent that nobody fixed; several of them may be multiplied


@dataclass(frozen=True)
class NodeFacts:
    """One node. outputs: name -> "float32 [1, 2*T, 8]"; parameters: elements of its weights.

    macs: a number, a formula in the unknown dims, or None where that is not known. Nodes inside a Loop,
    Scan or If come after the one that holds them.
    """

    name: str
    op: str
    outputs: dict[str, str]
    parameters: int
    macs: int | SymDim | None


@dataclass(frozen=True)
class Inspection:
    """A model as the compiler sees it after constants were folded.

    inputs, outputs: name -> "float32 [N, 576]"; unknown: dim -> the inputs that have it; operators: type
    -> count; parameters, parameter_bytes: of the weights in use, without int64 and booleans, which are
    arguments; macs: of one run, a formula where dims are unknown; macs_complete: every node's is known.
    time: of a model with time axes, how time passes through every layer, or what blocks it.
    """

    name: str
    opset: int
    source_nodes: int
    inputs: dict[str, str]
    outputs: dict[str, str]
    unknown: dict[str, tuple[str, ...]]
    operators: dict[str, int]
    parameters: int
    parameter_bytes: int
    macs: int | SymDim
    macs_complete: bool
    nodes: tuple[NodeFacts, ...]
    notes: tuple[str, ...]
    time: TimeReport | None = None

    def table(self) -> str:
        """For a terminal."""
        return table(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; formulas as text."""
        rows = [{**vars(node), "macs": _number(node.macs)} for node in self.nodes]
        unknown = {dim: list(names) for dim, names in self.unknown.items()}
        return {
            **vars(self),
            "unknown": unknown,
            "macs": _number(self.macs),
            "nodes": rows,
            "notes": list(self.notes),
            "time": None if self.time is None else self.time.to_dict(),
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)


def inspect(
    model: Model,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    axes: Mapping[str, int] | None = None,
    constants: Mapping[str, Any] | None = None,
    **streaming: Any,
) -> Inspection:
    """Look into a model. shapes, constants: as in compile(); dims left open stay formulas.

    axes: time input -> its time axis, and `streaming` the other arguments of stream(): also tell how time
    passes through every layer. Raises ValueError for arguments that do not fit.
    """
    given = dict(shapes or {})
    fixed = dict(constants or {})
    if streaming and not axes:
        raise ValueError(f"{', '.join(streaming)}: give the time axis too, axes= (--axis)")
    time = explain(model, axes, shapes=given, constants=fixed, **streaming) if axes else None
    opened, unknown, bounds = _open_dims(model, given, set(fixed))
    notes: list[str] = []
    try:
        prepared = _prepared(model, opened, bounds, fixed)
    except Error as error:
        notes.append(f"{error}. The graph is shown as the file has it; more shapes or constants may help")
        return replace(_inspection(model, model.ir.graph, None, unknown, notes), time=time)
    notes += [text for text in prepared.decisions if not text.startswith("input ")]
    return replace(_inspection(model, prepared.model.graph, prepared, unknown, notes), time=time)


def _prepared(
    model: Model,
    shapes: Mapping[str, Sequence[int | str]],
    bounds: Mapping[str, int],
    constants: Mapping[str, Any],
) -> Prepared:
    """Constants folded and extents inferred; every operator stays what it is."""
    return prepare(model, shapes=shapes, bounds=bounds, constants=constants, native=lambda domain, op, version: True)


def _open_dims(
    model: Model, shapes: Mapping[str, Sequence[int | str]], constants: set[str]
) -> tuple[dict[str, tuple[int | str, ...]], dict[str, tuple[str, ...]], dict[str, int]]:
    """Shapes in which every dim that is still unknown is a symbol; these dims; a bound for each symbol."""
    full: dict[str, tuple[int | str, ...]] = {name: tuple(shape) for name, shape in shapes.items()}
    fixed: dict[str, int | str] = {}
    for name, shape in full.items():
        declared = model.inputs[name].shape if name in model.inputs else ()
        fixed |= {d: e for d, e in zip(declared, shape, strict=False) if isinstance(d, str)}
    unknown: dict[str, tuple[str, ...]] = {}
    for name, spec in model.inputs.items():
        if name in constants:
            continue
        if name not in full and any(isinstance(d, str) for d in spec.shape) and spec.shape != ("...",):
            full[name] = tuple(fixed.get(d, identifier(d)) if isinstance(d, str) else d for d in spec.shape)
        for dim in full.get(name, spec.shape):
            if isinstance(dim, str):
                unknown[dim] = (*unknown.get(dim, ()), name)
    bounds = {dim: ANY_EXTENT for dim in unknown if dim.isidentifier()}
    return full, unknown, bounds


def _inspection(
    model: Model,
    graph: ir.Graph,
    prepared: Prepared | None,
    unknown: dict[str, tuple[str, ...]],
    notes: list[str],
) -> Inspection:
    dims = prepared.facts.dims if prepared else {}

    def dims_of(value: ir.Value) -> tuple[Dim, ...] | None:
        known = dims.get(value)
        return known if known is not None else _declared_dims(value)

    nodes = tuple(_facts(node, dims_of) for node in _all_nodes(graph))
    if any(node.op in ("Loop", "Scan", "If") for node in nodes):
        notes.append("nodes inside Loop, Scan and If are counted once")
    weights = {id(w): w for node in _all_nodes(graph) for w in _weights(node)}.values()
    total: Dim = 0
    for facts in nodes:
        total = total + (facts.macs or 0)
    return Inspection(
        name=model.source.stem if model.source else graph.name or "model",
        opset=model.opset,
        source_nodes=sum(1 for _ in _all_nodes(model.ir.graph)),
        inputs={name: str(spec) for name, spec in _specs(graph.inputs, dims_of).items()},
        outputs={name: str(spec) for name, spec in _specs(graph.outputs, dims_of).items()},
        unknown=unknown,
        operators=dict(Counter(node.op for node in nodes).most_common()),
        parameters=sum(tensor.size for tensor in weights),
        parameter_bytes=sum(tensor.nbytes for tensor in weights),
        macs=total,
        macs_complete=all(node.macs is not None for node in nodes),
        nodes=nodes,
        notes=tuple(notes),
    )


def _facts(node: ir.Node, dims_of: Any) -> NodeFacts:
    return NodeFacts(
        name=label(node),
        op=node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}",
        outputs=_specs([value for value in node.outputs if value.name], dims_of),
        parameters=sum(tensor.size for tensor in _weights(node)),
        macs=macs(node, dims_of),
    )


def _specs(values: Sequence[ir.Value], dims_of: Any) -> dict[str, str]:
    return {value.name or "": _spec(value, dims_of(value)) for value in values}


def _spec(value: ir.Value, dims: tuple[Dim, ...] | None) -> str:
    shape = "[?]" if dims is None else f"[{', '.join(map(str, dims))}]"
    return f"{dtype_name(value.dtype)} {shape}"


def _declared_dims(value: ir.Value) -> tuple[Dim, ...] | None:
    """The dims that the file itself states; None when one is missing."""
    tensor = value.const_value
    shape = tensor.shape if tensor is not None else value.shape
    if shape is None:
        return None
    dims: list[Dim] = []
    for dim in shape:
        if isinstance(dim, int):
            dims.append(dim)
        elif dim.value and re.fullmatch(r"\w+", dim.value):
            dims.append(symbol(dim.value))
        else:
            return None
    return tuple(dims)


def _weights(node: ir.Node) -> list[ir.TensorProtocol]:
    """Constant inputs other than shapes, axes and flags."""
    tensors = [v.const_value for v in node.inputs if v is not None and v.producer() is None]
    return [t for t in tensors if t is not None and t.dtype not in (ir.DataType.INT64, ir.DataType.BOOL)]


def _all_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    for node in graph:
        yield node
        for inner in subgraphs(node):
            yield from _all_nodes(inner)


def _number(value: Dim | None) -> int | str | None:
    return str(value) if isinstance(value, SymDim) else value
