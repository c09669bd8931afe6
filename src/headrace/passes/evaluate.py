"""Contents of small integer tensors, element by element, where elements may be symbolic.

    Gather(Shape(x: [B, T, 3]), 1)        is  T
    Concat(Gather(Shape(x), 0), [-1, 6])  is  [B, -1, 6]

An evaluator returns one object array per output, or None for what it cannot decide. Integer
division truncates in ONNX; it is evaluated only where both sides are known not to be negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import onnx_ir as ir

from headrace.graph.facts import TRACKED_ELEMENTS, TRACKED_TYPES, Facts
from headrace.graph.rewrite import attribute, get_input
from headrace.graph.symbolic import Dim, SymDim, combine, floor_div, interval, product, provably
from headrace.passes.infer_symbolic import int_list

Content = np.ndarray[Any, Any]
Evaluator = Callable[[ir.Node, Facts], "list[Content | None] | None"]


class Undecided(Exception):
    """The content depends on run-time values, or on the value of a symbol."""


def evaluate(node: ir.Node, facts: Facts) -> list[Content | None] | None:
    """Contents of the outputs, or None where nothing is known."""
    evaluator = EVALUATORS.get(node.op_type) if node.domain == "" else None
    if evaluator is None or any(out.dtype not in TRACKED_TYPES for out in node.outputs):
        return None
    for value in node.outputs:
        dims = facts.dims.get(value, ())
        if any(isinstance(d, SymDim) for d in dims) or math.prod(d for d in dims if isinstance(d, int)) > (
            TRACKED_ELEMENTS
        ):
            return None
    try:
        return evaluator(node, facts)
    except (Undecided, IndexError, ZeroDivisionError, OverflowError):
        return None


def _array(items: Any, shape: tuple[int, ...] | None = None) -> Content:
    if isinstance(items, np.ndarray):
        return items.astype(object)
    flat = list(items) if isinstance(items, list | tuple) else [items]
    result = np.empty(len(flat), object)
    result[:] = flat
    return result.reshape(shape if shape is not None else (() if not isinstance(items, list | tuple) else -1))


def _get(node: ir.Node, index: int, facts: Facts) -> Content:
    content = facts.content(get_input(node, index))
    if content is None:
        raise Undecided
    return content


def _shape(node: ir.Node, facts: Facts) -> list[Content | None] | None:
    value = node.inputs[0]
    dims = None if value is None else facts.dims.get(value)
    if dims is None:
        raise Undecided
    start, end = attribute(node, "start", 0), attribute(node, "end")
    return [_array(list(dims[start:end]))]


def _size(node: ir.Node, facts: Facts) -> list[Content | None] | None:
    value = node.inputs[0]
    dims = None if value is None else facts.dims.get(value)
    if dims is None:
        raise Undecided
    return [_array(product(*dims))]


def _moved(node: ir.Node, facts: Facts) -> list[Content | None] | None:
    """Reshape, Squeeze, Unsqueeze, Flatten, Identity: the same elements in another shape."""
    data = _get(node, 0, facts)
    dims = facts.dims.get(node.outputs[0])
    if dims is None:
        raise Undecided
    return [data.reshape([d for d in dims if isinstance(d, int)])]


def _gather(node: ir.Node, facts: Facts) -> list[Content | None] | None:
    data, index = _get(node, 0, facts), _get(node, 1, facts)
    if any(isinstance(item, SymDim) for item in index.reshape(-1)):
        raise Undecided
    return [_array(np.take(data, index.astype(np.int64), axis=attribute(node, "axis", 0)))]


def _concat(node: ir.Node, facts: Facts) -> list[Content | None] | None:
    parts = [_get(node, i, facts) for i in range(len(node.inputs))]
    return [np.concatenate(parts, axis=attribute(node, "axis", 0))]


def _slice(node: ir.Node, facts: Facts) -> list[Content | None] | None:
    data = _get(node, 0, facts)
    lists = [int_list(get_input(node, i), facts) for i in range(1, 5)]
    starts, ends, axes, steps = lists
    if starts is None or ends is None:
        raise Undecided
    index = [slice(None)] * data.ndim
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis, step = (axes[i] if axes else i), (steps[i] if steps else 1)
        if not (isinstance(start, int) and isinstance(end, int) and isinstance(axis, int) and isinstance(step, int)):
            raise Undecided
        stop = None if step < 0 and end < -data.shape[axis] else end
        index[axis] = slice(start, stop, step)
    return [data[tuple(index)]]


def _split(node: ir.Node, facts: Facts) -> list[Content | None] | None:
    data, axis = _get(node, 0, facts), attribute(node, "axis", 0)
    results: list[Content | None] = []
    begin = 0
    for value in node.outputs:
        extent = facts.dims[value][axis]
        if isinstance(extent, SymDim):
            raise Undecided
        results.append(np.take(data, range(begin, begin + extent), axis=axis))
        begin += extent
    return results


def _transpose(node: ir.Node, facts: Facts) -> list[Content | None] | None:
    return [np.transpose(_get(node, 0, facts), attribute(node, "perm"))]


def _constant_of_shape(node: ir.Node, facts: Facts) -> list[Content | None] | None:
    tensor = attribute(node, "value")
    item = 0.0 if tensor is None else tensor.numpy().reshape(-1)[0].item()
    dims = facts.dims[node.outputs[0]]
    result = np.empty([d for d in dims if isinstance(d, int)], object)
    result[...] = item
    return [result]


def _range(node: ir.Node, facts: Facts) -> list[Content | None] | None:
    start, step = _get(node, 0, facts).item(), _get(node, 2, facts).item()
    extent = facts.dims[node.outputs[0]][0]
    if not isinstance(extent, int) or isinstance(start, float) or isinstance(step, float):
        raise Undecided
    return [_array([start + step * i for i in range(extent)])]


def _expand(node: ir.Node, facts: Facts) -> list[Content | None] | None:
    dims = facts.dims[node.outputs[0]]
    return [_array(np.broadcast_to(_get(node, 0, facts), [d for d in dims if isinstance(d, int)]))]


def _tile(node: ir.Node, facts: Facts) -> list[Content | None] | None:
    times = _get(node, 1, facts)
    if any(isinstance(item, SymDim) for item in times):
        raise Undecided
    return [np.tile(_get(node, 0, facts), times.astype(np.int64))]


def _cast(node: ir.Node, facts: Facts) -> list[Content | None] | None:
    data, to = _get(node, 0, facts), ir.DataType(attribute(node, "to"))

    def one(item: Any) -> Any:
        if isinstance(item, SymDim):
            if to == ir.DataType.BOOL:
                raise Undecided
            if to in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
                exact = 2**24 if to == ir.DataType.FLOAT else 2**53
                if max(map(abs, interval(item, facts.symbols))) > exact:
                    raise Undecided
            if to == ir.DataType.INT32 and max(map(abs, interval(item, facts.symbols))) >= 2**31:
                raise Undecided
            return item
        return np.array(item).astype(to.numpy()).item()

    return [_map(one, data)]


def _map(function: Callable[..., Any], *arrays: Content) -> Content:
    spread = np.broadcast_arrays(*arrays)
    return _array([function(*items) for items in zip(*(a.reshape(-1) for a in spread), strict=True)]).reshape(
        spread[0].shape
    )


def _elementwise(function: Callable[..., Any]) -> Evaluator:
    def run(node: ir.Node, facts: Facts) -> list[Content | None] | None:
        arrays = [_get(node, i, facts) for i in range(len(node.inputs))]
        return [_map(lambda *items: function(facts, *items), *arrays)]

    return run


def _floats(*items: Any) -> bool:
    return any(isinstance(item, float) for item in items)


def _add(facts: Facts, a: Any, b: Any) -> Any:
    if _floats(a, b) and (isinstance(a, SymDim) or isinstance(b, SymDim)):
        raise Undecided
    return a + b


def _sub(facts: Facts, a: Any, b: Any) -> Any:
    return _add(facts, a, -b)


def _mul(facts: Facts, a: Any, b: Any) -> Any:
    if isinstance(a, SymDim) or isinstance(b, SymDim):
        sym, other = (a, b) if isinstance(a, SymDim) else (b, a)
        if isinstance(other, float):
            if not other.is_integer():
                raise Undecided
            other = int(other)
        return product(sym, other)
    return a * b


def _div(facts: Facts, a: Any, b: Any) -> Any:
    if _floats(a, b) or isinstance(b, SymDim):
        raise Undecided
    if b <= 0 or interval(a, facts.symbols)[0] < 0:
        if isinstance(a, SymDim) or b == 0:
            raise Undecided
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return floor_div(a, b, facts.symbols)


def _mod(facts: Facts, a: Any, b: Any) -> Any:
    if _floats(a, b) or isinstance(b, SymDim) or b <= 0:
        raise Undecided
    return a - product(floor_div(a, b, facts.symbols), b)


def _least(facts: Facts, *items: Any) -> Any:
    return _extreme(facts, items, lambda a, b: provably(a, "<=", b, facts.symbols))


def _greatest(facts: Facts, *items: Any) -> Any:
    return _extreme(facts, items, lambda a, b: provably(b, "<=", a, facts.symbols))


def _extreme(facts: Facts, items: tuple[Any, ...], wins: Callable[[Any, Any], bool | None]) -> Any:
    if _floats(*items):
        raise Undecided
    best = items[0]
    for item in items[1:]:
        if wins(item, best):
            best = item
        elif not wins(best, item):
            raise Undecided
    return best


def _relation(relation: str, swap: bool = False) -> Callable[..., bool]:
    def run(facts: Facts, a: Any, b: Any) -> bool:
        if _floats(a, b):
            raise Undecided
        truth = provably(*((b, relation, a) if swap else (a, relation, b)), facts.symbols)
        if truth is None:
            raise Undecided
        return truth

    return run


def _where(facts: Facts, condition: Any, a: Any, b: Any) -> Any:
    return a if condition else b


def _floor(facts: Facts, item: Any) -> Any:
    return item if isinstance(item, SymDim) else float(math.floor(item))


def _ceil(facts: Facts, item: Any) -> Any:
    return item if isinstance(item, SymDim) else float(math.ceil(item))


def _reduce(function: Callable[[list[Any]], Any]) -> Evaluator:
    def run(node: ir.Node, facts: Facts) -> list[Content | None] | None:
        data = _get(node, 0, facts)
        axes = int_list(get_input(node, 1), facts)
        if axes is None:
            if get_input(node, 1) is not None or attribute(node, "noop_with_empty_axes", 0):
                raise Undecided
            axes = list(range(data.ndim))
        if data.ndim != 1 or len(axes) != 1 or _floats(*data):
            raise Undecided
        result = function(list(data))
        return [_array([result] if attribute(node, "keepdims", 1) else result)]

    return run


def _sum(items: list[Dim]) -> Dim:
    return combine([(item, Fraction(1)) for item in items])


EVALUATORS: dict[str, Evaluator] = {
    "Shape": _shape,
    "Size": _size,
    "Identity": _moved,
    "Reshape": _moved,
    "Squeeze": _moved,
    "Unsqueeze": _moved,
    "Flatten": _moved,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Transpose": _transpose,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Expand": _expand,
    "Tile": _tile,
    "Cast": _cast,
    "Add": _elementwise(_add),
    "Sub": _elementwise(_sub),
    "Mul": _elementwise(_mul),
    "Div": _elementwise(_div),
    "Mod": _elementwise(_mod),
    "Min": _elementwise(_least),
    "Max": _elementwise(_greatest),
    "Neg": _elementwise(lambda facts, a: -a),
    "Equal": _elementwise(_relation("==")),
    "Less": _elementwise(_relation("<")),
    "LessOrEqual": _elementwise(_relation("<=")),
    "Greater": _elementwise(_relation("<", swap=True)),
    "GreaterOrEqual": _elementwise(_relation("<=", swap=True)),
    "Not": _elementwise(lambda facts, a: not a),
    "And": _elementwise(lambda facts, a, b: bool(a and b)),
    "Or": _elementwise(lambda facts, a, b: bool(a or b)),
    "Where": _elementwise(_where),
    "Floor": _elementwise(_floor),
    "Ceil": _elementwise(_ceil),
    "ReduceProd": _reduce(lambda items: product(*items)),
    "ReduceSum": _reduce(_sum),
}
