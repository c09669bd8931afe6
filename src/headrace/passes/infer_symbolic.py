"""Extents that ONNX's own inference loses when dims are symbolic: one small rule per operator.

A rule returns the extents of every output, with None for what it cannot say, or None when it has
nothing to add. Formulas follow the ONNX operator specification, opset 26.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from headrace.errors import InvalidModel
from headrace.graph.facts import Facts, label
from headrace.graph.rewrite import attribute, get_input
from headrace.graph.symbolic import Dim, SymDim, exact_div, floor_div, interval, product, provably
from headrace.passes import infer_spatial

Dims = tuple["Dim | None", ...]
Rule = Callable[[ir.Node, Facts], "list[Dims | None] | None"]


def symbolic_dims(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    """Extents by the operator's rule, or None where it has none."""
    rule = RULES.get(node.op_type) if node.domain == "" else None
    if rule is None:
        return None
    symbolic = any(
        isinstance(dim, SymDim) for value in node.inputs if value is not None for dim in facts.dims.get(value, ())
    ) or any(value in facts.contents for value in node.inputs if value is not None)
    return rule(node, facts) if symbolic or node.op_type in ALWAYS else None


def _dims(node: ir.Node, index: int, facts: Facts) -> tuple[Dim, ...] | None:
    value = get_input(node, index)
    return None if value is None else facts.dims.get(value)


def int_list(value: ir.Value | None, facts: Facts) -> list[Dim] | None:
    """Content of a small integer tensor, elements possibly symbolic."""
    content = facts.content(value)
    if content is None:
        return None
    items = list(content.reshape(-1))
    if any(isinstance(item, float) for item in items):
        return None
    return [item if isinstance(item, SymDim) else int(item) for item in items]


def _reshape(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    source, target = _dims(node, 0, facts), int_list(get_input(node, 1), facts)
    if source is None or target is None:
        return None
    zero_copies = not attribute(node, "allowzero", 0)
    result: list[Dim] = []
    hole = -1
    for axis, dim in enumerate(target):
        if zero_copies and dim == 0:
            if axis >= len(source):
                raise InvalidModel(f"node {label(node)!r}: shape copies dim {axis} of a rank {len(source)} input")
            dim = source[axis]
        if dim == -1:
            hole = axis
        result.append(dim)
    if hole < 0:
        return [tuple(result)]
    rest = product(*(dim for axis, dim in enumerate(result) if axis != hole))
    filled = _quotient(list(source), [d for axis, d in enumerate(result) if axis != hole], facts)
    if filled is None and isinstance(rest, int) and rest > 0:
        total = product(*source)
        raise ValueError(
            f"node {label(node)!r} reshapes {total} elements to rows of {rest}: give the symbol a divisor "
            "in bounds, such as bounds={'T': (512, 4)}"
        )
    return [tuple(filled if axis == hole else dim for axis, dim in enumerate(result))]


def _quotient(numerator: list[Dim], denominator: list[Dim], facts: Facts) -> Dim | None:
    above = list(numerator)
    below = []
    for dim in denominator:
        if isinstance(dim, SymDim) and dim in above:
            above.remove(dim)
        else:
            below.append(dim)
    return exact_div(product(*above), product(*below), facts.symbols)


def _flatten(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    dims = _dims(node, 0, facts)
    if dims is None:
        return None
    axis = attribute(node, "axis", 1)
    axis += len(dims) if axis < 0 else 0
    return [(product(*dims[:axis]), product(*dims[axis:]))]


def _concat(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    every = [_dims(node, i, facts) for i in range(len(node.inputs))]
    known = [dims for dims in every if dims is not None]
    if len(known) < len(every):
        return None
    axis = attribute(node, "axis", 0) % len(known[0])
    result = list(known[0])
    total: Dim = 0
    for dims in known:
        total = total + dims[axis]
        for i, dim in enumerate(dims):
            if isinstance(dim, int):
                result[i] = dim
    result[axis] = total
    return [tuple(result)]


def slice_extent(dim: Dim, start: Dim, end: Dim, step: int, facts: Facts) -> Dim | None:
    """Number of elements of dim[start:end:step] by the rules of Slice, or None when undecided.

    A table of fixed size that is cut to the length of a signal is taken to be long enough; facts.limits
    says for which lengths.
    """
    if isinstance(dim, int) and dim > 1 and step == 1 and isinstance(end, SymDim) and end.symbols & facts.streamed:
        backwards = isinstance(start, SymDim) and bool(start.symbols & facts.streamed)
        if backwards and interval(end - start, facts.symbols)[0] > 0 and interval(start, facts.symbols)[1] < dim:
            facts.limits += [(end, dim), (-start, 0)]
            return end - start
        if isinstance(start, int) and start >= 0 and interval(end, facts.symbols)[0] > start:
            facts.limits.append((end, dim))
            return end - start
    first = _clamp(start, dim, step, facts)
    last = _clamp(end, dim, step, facts, is_end=True)
    if first is None or last is None:
        return None
    span = (last - first) if step > 0 else (first - last)
    if provably(span, "<=", 0, facts.symbols):
        return 0
    if not provably(0, "<=", span, facts.symbols):
        return None
    size = abs(step)
    return floor_div(span + (size - 1), size, facts.symbols)


def _clamp(index: Dim, dim: Dim, step: int, facts: Facts, is_end: bool = False) -> Dim | None:
    low, high = interval(index, facts.symbols)
    if low < 0:
        if high >= 0:
            return None
        index = index + dim
    least: Dim = -1 if step < 0 and is_end else 0
    most: Dim = dim - 1 if step < 0 else dim
    if provably(index, "<=", least, facts.symbols):
        return least
    if provably(most, "<=", index, facts.symbols):
        return most
    inside = provably(least, "<=", index, facts.symbols) and provably(index, "<=", most, facts.symbols)
    return index if inside else None


def slice_arguments(node: ir.Node, rank: int, facts: Facts) -> list[tuple[int, Dim, Dim, int]] | None:
    """(axis, start, end, step) for each sliced axis, or None when not all are known."""
    starts, ends = int_list(get_input(node, 1), facts), int_list(get_input(node, 2), facts)
    if starts is None or ends is None:
        return None
    axes: list[Dim] | None = list(range(len(starts)))
    if get_input(node, 3) is not None:
        axes = int_list(get_input(node, 3), facts)
    steps: list[Dim] | None = [1] * len(starts)
    if get_input(node, 4) is not None:
        steps = int_list(get_input(node, 4), facts)
    if axes is None or steps is None:
        return None
    items: list[tuple[int, Dim, Dim, int]] = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if isinstance(axis, SymDim) or isinstance(step, SymDim):
            return None
        items.append((axis % rank, start, end, step))
    return items


def _slice(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    dims = _dims(node, 0, facts)
    if dims is None:
        return None
    items = slice_arguments(node, len(dims), facts)
    if items is None:
        return None
    result: list[Dim | None] = list(dims)
    for axis, start, end, step in items:
        result[axis] = slice_extent(dims[axis], start, end, step, facts)
    return [tuple(result)]


def _pad(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    dims, pads = _dims(node, 0, facts), int_list(get_input(node, 1), facts)
    if dims is None or pads is None:
        return None
    axes: list[Dim] | None = list(range(len(dims)))
    if get_input(node, 3) is not None:
        axes = int_list(get_input(node, 3), facts)
    if axes is None:
        return None
    result: list[Dim | None] = list(dims)
    for i, axis in enumerate(axes):
        if isinstance(axis, SymDim):
            return None
        result[axis % len(dims)] = dims[axis % len(dims)] + pads[i] + pads[i + len(axes)]
    return [tuple(result)]


def _split(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    dims = _dims(node, 0, facts)
    if dims is None:
        return None
    axis = attribute(node, "axis", 0) % len(dims)
    count = len(node.outputs)
    sizes: list[Dim] | None
    if get_input(node, 1) is not None:
        sizes = int_list(get_input(node, 1), facts)
    else:
        chunk = floor_div(dims[axis] + (count - 1), count, facts.symbols)
        sizes = [chunk] * (count - 1) + [dims[axis] - chunk * (count - 1)]
    if sizes is None:
        return None
    return [(*dims[:axis], size, *dims[axis + 1 :]) for size in sizes]


def broadcast(left: tuple[Dim, ...], right: tuple[Dim, ...]) -> Dims:
    """Extents after broadcasting; None where two symbolic extents differ."""
    rank = max(len(left), len(right))
    a = (1,) * (rank - len(left)) + left
    b = (1,) * (rank - len(right)) + right
    result: list[Dim | None] = []
    for x, y in zip(a, b, strict=True):
        if x == 1 or x == y:
            result.append(y)
        elif y == 1:
            result.append(x)
        elif isinstance(x, int) or isinstance(y, int):
            result.append(x if isinstance(x, int) else y)
        else:
            result.append(None)
    return tuple(result)


def _expand(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    dims, target = _dims(node, 0, facts), int_list(get_input(node, 1), facts)
    return None if dims is None or target is None else [broadcast(dims, tuple(target))]


def _tile(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    dims, repeats = _dims(node, 0, facts), int_list(get_input(node, 1), facts)
    if dims is None or repeats is None:
        return None
    return [tuple(product(dim, times) for dim, times in zip(dims, repeats, strict=True))]


def _constant_of_shape(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    target = int_list(get_input(node, 0), facts)
    return None if target is None else [tuple(target)]


def _range(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    ends = [int_list(get_input(node, i), facts) for i in range(3)]
    if any(item is None or len(item) != 1 for item in ends):
        return None
    start, limit, step = (item[0] for item in ends if item is not None)
    if isinstance(step, SymDim) or step == 0:
        return None
    span = limit - start if step > 0 else start - limit
    extent = floor_div(span + (abs(step) - 1), abs(step), facts.symbols)
    return [(extent if provably(0, "<=", extent, facts.symbols) else None,)]


def _one_hot(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    dims, depth = _dims(node, 0, facts), int_list(get_input(node, 1), facts)
    if dims is None or not depth:
        return None
    axis = attribute(node, "axis", -1) % (len(dims) + 1)
    return [(*dims[:axis], depth[0], *dims[axis:])]


def _like_input(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    return [_dims(node, 0, facts)]


def _stft(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    """Frames of length L at hop H: 1 + (T - L) // H frames of L // 2 + 1 (one-sided) or L bins."""
    dims, hop = _dims(node, 0, facts), int_list(get_input(node, 1), facts)
    window, length = _dims(node, 2, facts), int_list(get_input(node, 3), facts)
    size = length[0] if length else window[0] if window else None
    if dims is None or size is None or not hop or isinstance(hop[0], SymDim):
        return None
    frames = floor_div(dims[1] - size, hop[0], facts.symbols) + 1
    bins = floor_div(size, 2, facts.symbols) + 1 if attribute(node, "onesided", 1) else size
    return [(dims[0], frames, bins, 2)]


def _window(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    size = int_list(get_input(node, 0), facts)
    return [(size[0],)] if size else None


def _mel_weights(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    bins, length = (int_list(get_input(node, i), facts) for i in (0, 1))
    return [(floor_div(length[0], 2, facts.symbols) + 1, bins[0])] if bins and length else None


def _max_unpool(node: ir.Node, facts: Facts) -> list[Dims | None] | None:
    target = int_list(get_input(node, 2), facts)
    return [tuple(target)] if target else None


# ONNX's own inference lacks these, or is wrong for them (STFT without frame_length).
ALWAYS = frozenset(
    (
        "GroupNormalization",
        "MeanVarianceNormalization",
        "STFT",
        "MaxUnpool",
        "MelWeightMatrix",
        "BlackmanWindow",
        "HammingWindow",
        "HannWindow",
    )
)
OVERRIDES = frozenset(("STFT",))

RULES: dict[str, Rule] = {
    **infer_spatial.RULES,
    "GroupNormalization": _like_input,
    "MeanVarianceNormalization": _like_input,
    "STFT": _stft,
    "MaxUnpool": _max_unpool,
    "MelWeightMatrix": _mel_weights,
    "BlackmanWindow": _window,
    "HammingWindow": _window,
    "HannWindow": _window,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Concat": _concat,
    "Slice": _slice,
    "Pad": _pad,
    "Split": _split,
    "Expand": _expand,
    "Tile": _tile,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "OneHot": _one_hot,
}
