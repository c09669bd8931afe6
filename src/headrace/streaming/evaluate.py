"""Run a part of the prepared graph for a signal of fixed length, without the signal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from headrace.graph.rewrite import upstream
from headrace.graph.symbolic import Dim, SymDim
from headrace.ops.timed import TIME, TimeFact

if TYPE_CHECKING:
    from headrace.streaming.analyse import Analysis

Array = np.ndarray[Any, Any]


class CannotEvaluate(Exception):
    """The value depends on an input, or on an operator that the reference lacks."""


def evaluate(
    value: ir.Value,
    frames: int,
    analysis: Analysis,
    scores: Collection[ir.Node] = (),
    draw: int = 0,
    numbered: bool = False,
) -> Array:
    """A value for T = frames, time inputs and the outputs of `scores` taken as 0.

    draw: not 0 takes the outputs of `scores` as noise; numbered: as 0, 1, 2, …, in float64. CannotEvaluate.
    """
    prepared = analysis.prepared
    fixed: dict[str, Array] = {}
    nodes: set[ir.Node] = set()
    queue = [value]
    while queue:
        item = queue.pop()
        node, name = item.producer(), item.name or ""
        content, constant = prepared.facts.contents.get(item), prepared.constant(item)
        kind = np.dtype(item.dtype.numpy()) if item.dtype is not None else np.dtype(np.float32)
        if constant is not None:
            fixed[name] = constant
        elif content is not None:
            numbers = [_at(x, frames) for x in content.reshape(-1)]
            fixed[name] = np.array(numbers, kind).reshape(content.shape)
        elif node in scores or (node is None and isinstance(analysis.time.get(item), TimeFact)):
            dims = [_at(d, frames) for d in prepared.facts.dims[item]]
            fixed[name] = _filler(dims, draw, numbered) if numbered else _filler(dims, draw, numbered).astype(kind)
        elif node is None:
            raise CannotEvaluate(f"it depends on the input {name!r}")
        elif node not in nodes:
            nodes.add(node)
            queue += [v for v in node.inputs if v is not None]
    return _run([n for n in prepared.model.graph if n in nodes], fixed, value)


def numbers_of(value: ir.Value, analysis: Analysis, scores: Collection[ir.Node] = ()) -> set[int]:
    """Magnitudes of the whole numbers among the constants, outside tables, that a value is made of."""
    constant = analysis.prepared.constant
    values = upstream(value, lambda v: constant(v) is not None or v.producer() in scores)
    tensors = [array for array in map(constant, values) if array is not None]
    small = [array for array in tensors if array.size <= 16 and array.dtype.kind in "iuf"]
    return {abs(int(x)) for array in small for x in array.reshape(-1) if _counts(x)}


def _counts(x: Any) -> bool:
    return bool(np.isfinite(x)) and int(x) == x


def _filler(dims: Sequence[int], draw: int, numbered: bool) -> Array:
    if numbered:
        return np.arange(np.prod(dims), dtype=np.float64).reshape(dims)
    return np.random.default_rng(abs(draw)).standard_normal(dims) * np.sign(draw) if draw else np.zeros(dims)


def frames_for(length: Dim, size: int, multiple: int) -> int | None:
    """T for which a length has that value, or None."""
    low, high = 0, 1 << 24
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _at(length, middle * multiple) <= size else (low, middle)
    return low * multiple if _at(length, low * multiple) == size else None


def first_frames(analysis: Analysis, value: ir.Value, count: int) -> Array:
    """The first frames of a value that depends on no input there, rows apart from time. CannotEvaluate."""
    fact, facts = analysis.fact(value), analysis.prepared.facts
    frames = 4096 // analysis.multiple * analysis.multiple
    needs = [*analysis.needs, (fact.length, count)]
    while any(_at(length, frames) < least for length, least in needs):
        frames *= 2
    whole = evaluate(value, min(frames, analysis.limit or frames), analysis)
    dims = [d if isinstance(d, int) else -1 for d in facts.dims[value]]
    if fact.fold != 1:
        whole = whole.reshape([*dims[: fact.axis], fact.fold, -1, *dims[fact.axis + 1 :]])
    return np.take(whole, range(count), fact.axis + (fact.fold != 1))


def _at(number: object, frames: int) -> Any:
    return number.evaluate({TIME: frames}) if isinstance(number, SymDim) else number


def _run(nodes: Sequence[ir.Node], fixed: Mapping[str, Array], value: ir.Value) -> Array:
    if not nodes:
        return fixed[value.name or ""]
    inputs = [
        onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), list(a.shape))
        for n, a in fixed.items()
    ]
    graph = onnx.helper.make_graph(
        [ir.to_proto(n) for n in nodes], "part", inputs, [onnx.ValueInfoProto(name=value.name or "")]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 26)])
    try:
        return np.asarray(next(iter(ReferenceEvaluator(model).run(None, dict(fixed)))))
    except (NotImplementedError, RuntimeError, TypeError, ValueError, IndexError) as error:
        raise CannotEvaluate(str(error)) from error
