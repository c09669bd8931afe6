"""Bring a model into the form that lowering reads: newest operators, known shapes, constants folded."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from headrace.graph.facts import Facts
from headrace.graph.model import Model
from headrace.graph.prepare import DECISIONS, SHA256, SOURCE, Prepared
from headrace.passes import pipeline
from headrace.passes.fix_inputs import Bound


def prepare(
    model: Model,
    *,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    constants: Mapping[str, Any] | None = None,
    bounds: Mapping[str, Bound] | None = None,
    native: Callable[[str, str, int], bool],
    keep: Collection[str] = (),
    keep_inputs: Collection[str] = (),
    algebra: bool = True,
) -> Prepared:
    """Run `pipeline` on a copy of the model.

    shapes: input name → extents; a string is a symbol that `bounds` bounds.
    constants: input name → value; the input leaves the signature.
    bounds: symbol → its greatest value, or (greatest value, divisor), or (greatest, divisor, least value)
    for the length of a signal that will be streamed; least is the divisor otherwise.
    native(domain, op_type, since_version): operators the compiler lowers itself; all others are
    expanded through their function bodies.
    keep: operator types that are never folded, such as DequantizeLinear.
    keep_inputs: inputs with a default value that stay inputs.
    algebra: whether constants are multiplied with each other where that saves work (passes/algebra.py);
    without, every value of the model is computed as the model says.

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
        algebra=algebra,
    )
    if model.source is not None:
        work.metadata_props[SOURCE] = str(model.source)
    work.metadata_props[SHA256] = model.sha256
    work.metadata_props[DECISIONS] = json.dumps(facts.decisions, ensure_ascii=False)
    symbols = {n: (s.bound, s.divisor) for n, s in facts.symbols.items() if s.bound is not None}
    return Prepared(work, symbols, facts.decisions, defaults, facts)
