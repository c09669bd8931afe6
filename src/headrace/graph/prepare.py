"""A model in the form that lowering reads; `headrace.passes.prepare` makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from headrace.graph.facts import Facts, dtype_name
from headrace.graph.symbolic import SymDim

DECISIONS = "headrace.decisions"
SOURCE = "headrace.source"
SHA256 = "headrace.sha256"


@dataclass(frozen=True)
class Prepared:
    """A model that is ready to be lowered.

    model: valid ONNX, opset >= 26; every tensor has a dtype and extents that are integers or named;
    constants are initializers of the main graph; each output is produced by a node (or is an input).
    symbols: name → (bound, divisor) of each bounded symbol. defaults: values of the inputs kept by
    `keep_inputs`. decisions: what was decided about the graph, one sentence each.
    """

    model: ir.Model
    symbols: dict[str, tuple[int, int]]
    decisions: list[str]
    defaults: dict[str, np.ndarray[Any, Any]]
    facts: Facts

    def constant(self, value: ir.Value | None) -> np.ndarray[Any, Any] | None:
        """Content of a value that is fixed, else None (also for an absent input)."""
        return self.facts.constant(value)

    def shape(self, value: ir.Value) -> tuple[int | str | SymDim, ...]:
        """Extents: integers, names of bare symbols, or expressions in symbols."""
        dims = self.facts.dims.get(value)
        if dims is None:
            raise ValueError(f"{value.name!r} has no shape; it is of type {value.type}")
        return tuple(dim if isinstance(dim, int) else dim.name or dim for dim in dims)

    def dtype(self, value: ir.Value) -> str:
        """NumPy (or ml_dtypes) name of the element type; "str" for strings."""
        return dtype_name(value.dtype)
