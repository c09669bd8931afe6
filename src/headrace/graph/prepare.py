"""Bring a model into the form that lowering reads: newest operators, known shapes, constants folded."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from headrace.graph.facts import Facts, dtype_name
from headrace.graph.model import Model
from headrace.graph.symbolic import SymDim
from headrace.passes import pipeline
from headrace.passes.fix_inputs import Bound

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


def prepare(
    model: Model,
    *,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    constants: Mapping[str, Any] | None = None,
    bounds: Mapping[str, Bound] | None = None,
    native: Callable[[str, str, int], bool],
    keep: Collection[str] = (),
    keep_inputs: Collection[str] = (),
) -> Prepared:
    """Run `passes.pipeline` on a copy of the model.

    shapes: input name → extents; a string is a symbol that `bounds` bounds.
    constants: input name → value; the input leaves the signature.
    bounds: symbol → its greatest value, or (greatest value, divisor); least is 1 or the divisor.
    native(domain, op_type, since_version): operators the compiler lowers itself; all others are
    expanded through their function bodies.
    keep: operator types that are never folded, such as DequantizeLinear.
    keep_inputs: inputs with a default value that stay inputs.

    Raises ValueError for arguments that do not fit the model, InvalidModel, UnsupportedOperator.
    """
    facts = Facts()
    work = model.ir.clone()
    defaults = pipeline.run(
        work,
        facts,
        shapes=shapes or {},
        constants=constants or {},
        bounds=bounds or {},
        native=native,
        keep=frozenset(keep),
        keep_inputs=keep_inputs,
    )
    if model.source is not None:
        work.metadata_props[SOURCE] = str(model.source)
    work.metadata_props[SHA256] = model.sha256
    work.metadata_props[DECISIONS] = json.dumps(facts.decisions, ensure_ascii=False)
    symbols = {n: (s.bound, s.divisor) for n, s in facts.symbols.items() if s.bound is not None}
    return Prepared(work, symbols, facts.decisions, defaults, facts)
