"""What is known about the values of a graph: extents, small integer contents, constants."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from headrace.errors import InvalidModel
from headrace.graph.symbolic import Dim, Symbol, SymDim, interval, symbol

MAX_ELEMENTS = 2**40
TRACKED_ELEMENTS = 4096


@dataclass
class Facts:
    """Grows while a graph is walked from its inputs to its outputs.

    streamed: symbols that stand for the length of a signal; memory is never planned for their bound.
    limits: (extent, greatest value): a table of fixed size is cut to the length of the signal.
    """

    symbols: dict[str, Symbol] = field(default_factory=dict)
    dims: dict[ir.Value, tuple[Dim, ...]] = field(default_factory=dict)
    contents: dict[ir.Value, np.ndarray[Any, Any]] = field(default_factory=dict)
    decisions: list[str] = field(default_factory=list)
    printed: dict[str, SymDim] = field(default_factory=dict)
    streamed: set[str] = field(default_factory=set)
    limits: list[tuple[Dim, int]] = field(default_factory=list)

    def decide(self, text: str) -> None:
        """Record a graph-level decision once."""
        if text not in self.decisions:
            self.decisions.append(text)

    def set_dims(self, value: ir.Value, dims: tuple[Dim, ...]) -> None:
        """Note the extents of a value here and in the graph. InvalidModel for absurd extents."""
        elements = 1
        for dim in dims:
            if isinstance(dim, int):
                if dim < 0:
                    raise InvalidModel(f"{value.name!r} has a negative extent: {dims_text(dims)}")
                elements *= dim
            else:
                self.printed[str(dim)] = dim
                bounded = not dim.symbols & self.streamed and all(
                    s in self.symbols and self.symbols[s].bound is not None for s in dim.symbols
                )
                elements *= max(interval(dim, self.symbols)[1], 1) if bounded else 1
        if elements >= MAX_ELEMENTS:
            raise InvalidModel(f"{value.name!r} would have {elements} elements: {dims_text(dims)}")
        self.dims[value] = dims
        value.shape = ir.Shape([d if isinstance(d, int) else str(d) for d in dims])

    def fresh(self, value: ir.Value, axis: int) -> SymDim:
        """A new symbol without a bound, for an extent that depends on run-time values."""
        stem = identifier(f"{value.name or 'value'}_d{axis}")
        name, count = stem, 1
        while name in self.symbols:
            name, count = f"{stem}_{count}", count + 1
        self.symbols[name] = Symbol(None, 1, 0)
        return symbol(name)

    def constant(self, value: ir.Value | None) -> np.ndarray[Any, Any] | None:
        """The value's content where it is fixed, else None."""
        if value is None or value.const_value is None or value.is_graph_input():
            return None
        return np.asarray(value.const_value.numpy())

    def content(self, value: ir.Value | None) -> np.ndarray[Any, Any] | None:
        """Small integer, boolean or float content whose elements may be symbolic (object array), or None."""
        if value is None:
            return None
        known = self.contents.get(value)
        if known is not None:
            return known
        tensor = value.const_value
        if tensor is None or value.is_graph_input() or tensor.size > TRACKED_ELEMENTS:
            return None
        if value.dtype not in TRACKED_TYPES:
            return None
        return np.asarray(tensor.numpy()).astype(object)


TRACKED_TYPES = frozenset(
    (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, ir.DataType.FLOAT, ir.DataType.DOUBLE)
)


def dims_text(dims: tuple[Dim, ...]) -> str:
    """[2, T, 3]."""
    return "[" + ", ".join(map(str, dims)) + "]"


def identifier(text: str) -> str:
    """A Python identifier close to the text."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII) or "_"
    return f"_{name}" if name[0].isdigit() or keyword.iskeyword(name) else name


def label(node: ir.Node) -> str:
    """A node's name, or that of its first output."""
    if node.name:
        return node.name
    return next((out.name for out in node.outputs if out.name), "") or node.op_type


def dtype_name(dtype: ir.DataType | None) -> str:
    """NumPy (or ml_dtypes) name of an element type; "str" for strings."""
    if dtype is None:
        return "unknown"
    if dtype == ir.DataType.STRING:
        return "str"
    return str(np.dtype(dtype.numpy()).name)
