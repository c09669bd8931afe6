"""Relative positions by a product with rows for every distance, shifted into place (Transformer-XL).

    Q [T, d] · P [2T - 1, d]ᵀ, padded, reshaped and cut to [T, T]:  entry (i, j) is Q[i] · P[T - 1 + j - i]

How the shift is written does not matter: it is run here on numbered entries, and must take entry (i, j)
from row i and from a column that depends on the distance j - i only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from headrace.graph.symbolic import SymDim
from headrace.ops.timed import BandFact, Emit, GridFact, LengthFact, RelativeFact, TimeFact, has_time
from headrace.streaming.evaluate import CannotEvaluate, evaluate, frames_for

if TYPE_CHECKING:
    from headrace.streaming.analyse import Analysis

Array = np.ndarray[Any, Any]
SIZES = (23, 40)
VIEWS = ("Pad", "Reshape", "Slice", "Concat", "Transpose", "Squeeze", "Unsqueeze", "Identity")


def starts(node: ir.Node, analysis: Analysis, facts: Sequence[object]) -> bool:
    """Notes the product of a signal with rows that are made of the length alone."""
    if node.op_type != "MatMul" or len(facts) != 2 or not isinstance(facts[1], GridFact):
        return False
    query, positions = node.inputs
    fact, dims = facts[0], analysis.prepared.facts.dims
    if not isinstance(fact, TimeFact) or fact.fold != 1 or query is None or positions is None:
        return False
    places = [a for a, d in enumerate(dims[positions]) if has_time(d)]
    if fact.axis != len(dims[query]) - 2 or places != [len(dims[positions]) - 1]:
        return False
    analysis.time[node.outputs[0]] = RelativeFact(node)
    return True


def moves(node: ir.Node, analysis: Analysis, facts: Sequence[object]) -> bool:
    """Notes what becomes of such a product; False where it is not only moved."""
    found = [f for f in facts if isinstance(f, RelativeFact)]
    others = [f for f in facts if f is not None and not isinstance(f, RelativeFact | LengthFact | GridFact)]
    plain = all(isinstance(f, TimeFact) and f.free for f in others)
    if len(found) != 1 or node.op_type not in VIEWS or not plain or len(node.outputs) != 1:
        return False
    value, product = node.outputs[0], found[0].product
    analysis.time[value] = found[0]
    dims, length = analysis.prepared.facts.dims[value], _length(product, analysis)
    if len(dims) >= 2 and dims[-2] == length and dims[-1] == length and shift_of(value, product, analysis) is not None:
        analysis.time[value] = BandFact(len(dims) - 2, len(dims) - 1)
    return True


def product_of(node: ir.Node, analysis: Analysis) -> ir.Node | None:
    """The product that a node shifts into place."""
    facts = (analysis.time.get(v) for v in node.inputs if v is not None)
    return next((f.product for f in facts if isinstance(f, RelativeFact)), None)


def _length(product: ir.Node, analysis: Analysis) -> SymDim:
    assert product.inputs[0] is not None
    length = analysis.fact(product.inputs[0]).length
    assert isinstance(length, SymDim)
    return length


def shift_of(value: ir.Value, product: ir.Node, analysis: Analysis, sizes: Sequence[int] = SIZES) -> list[int] | None:
    """Column of distance 0 at each size, where entry (i, j) comes from row i and column `that + j - i`."""
    found = []
    for size in sizes:
        frames = frames_for(_length(product, analysis), size, analysis.multiple)
        if frames is None or frames > (analysis.limit or frames):
            return None
        try:
            got = evaluate(value, frames, analysis, {product}, numbered=True)
        except CannotEvaluate:
            return None
        entries, columns = got.reshape(-1, size, size), _columns(product, analysis, frames)
        lead, row = np.arange(len(entries))[:, None, None], np.arange(size)[:, None]
        column = entries - (lead * size + row) * columns
        distance = np.arange(size)[None, :] - row
        centre = int(column[0, 0, 0])
        if not np.array_equal(column, np.broadcast_to(centre + distance, column.shape)):
            return None
        if centre - size + 1 < 0 or centre + size > columns:
            return None
        found.append(centre)
    return found


def _columns(product: ir.Node, analysis: Analysis, frames: int) -> int:
    dim = analysis.prepared.facts.dims[product.outputs[0]][-1]
    return dim.evaluate({"T": frames}) if isinstance(dim, SymDim) else dim


def table(value: ir.Value, product: ir.Node, analysis: Analysis, size: int) -> Array | None:
    """[…, d, 2·size - 1]: what queries are multiplied with for the distances 1 - size … size - 1.

    None where that is not the same for signals of two lengths.
    """
    positions, rows = product.inputs[1], []
    assert positions is not None
    for length in (size, max(2, size // 2)):
        centre = shift_of(value, product, analysis, (length,))
        frames = frames_for(_length(product, analysis), length, analysis.multiple)
        if centre is None or frames is None:
            return None
        try:
            whole = evaluate(positions, frames, analysis)
        except CannotEvaluate:
            return None
        rows.append(whole[..., centre[0] - length + 1 : centre[0] + length])
    full, half = rows
    skip = size - max(2, size // 2)
    same = np.allclose(full[..., skip : full.shape[-1] - skip], half, rtol=1e-5, atol=1e-6)
    return full if same else None


def emit(e: Emit, query: ir.Value, rows: Array, columns: Array, content: Array, lead: Sequence[int]) -> ir.Value:
    """Shifted products of a block of queries with the positions of its window; lead: extents before them."""
    size = (content.shape[-1] + 1) // 2
    distance = np.clip(columns[None, :] - rows[:, None], 1 - size, size - 1)
    low, high = int(distance.min()), int(distance.max())
    part = content[..., size - 1 + low : size + high]
    products = e.op("MatMul", query, e.const(part, part.dtype))
    if len(rows) == 1:
        return products
    index = np.broadcast_to(distance - low, (*lead, *distance.shape))
    return e.op("GatherElements", products, e.const(index), axis=len(index.shape) - 1)
