"""Facets of operators, and what a facet sees of a node.

An operator family is one file in this folder. A facet is a function with a decorator:

    @lower("Relu")
    def relu(b: Builder, node: Node) -> Tensor:
        x = node.input(0)
        return b.compute(x.shape, lambda *i: maximum(x[i], 0))
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Union

import numpy as np

from headrace.errors import UnsupportedOperator
from headrace.ops.timed import Plan, Site
from headrace.program.build import Builder, Tensor
from headrace.program.expr import Extent

Result = Union[Tensor, Sequence[Union[Tensor, None]]]
LowerFn = Callable[[Builder, "Node"], Result]
StreamFn = Callable[[Site], Plan]


@dataclass(frozen=True)
class Node:
    """One ONNX node: tensors in, attributes, and the types that its outputs must have.

    inputs: one entry per input, None where the model leaves it out. out_shapes, out_dtypes: of every
    output ("" names are None). version: opset of the node's domain.
    """

    op: str
    name: str
    domain: str
    version: int
    inputs: tuple[Tensor | None, ...]
    attributes: dict[str, Any]
    out_shapes: tuple[tuple[Extent, ...] | None, ...]
    out_dtypes: tuple[str | None, ...]
    subgraph: Callable[[str, Sequence[Tensor]], tuple[Tensor, ...]] | None = None

    def has(self, i: int) -> bool:
        """Whether input i is given."""
        return i < len(self.inputs) and self.inputs[i] is not None

    def input(self, i: int) -> Tensor:
        """Input i, which must be given."""
        t = self.inputs[i] if i < len(self.inputs) else None
        if t is None:
            raise self.refuse(f"input {i} is missing", "give it; the operator needs it")
        return t

    def optional(self, i: int) -> Tensor | None:
        return self.inputs[i] if i < len(self.inputs) else None

    def attr(self, name: str, default: Any = None) -> Any:
        """int, float, str, list of these, np.ndarray for tensors, or the default."""
        return self.attributes.get(name, default)

    def const(self, i: int, what: str = "") -> np.ndarray[Any, Any]:
        """The compile-time value of input i; refused when it is known only at run time."""
        t = self.input(i)
        if t.data is None:
            raise self.refuse(
                f"its {what or f'input {i}'} is computed at run time",
                "make it a constant (compile with constants=, or fix the shapes it depends on)",
            )
        return t.data

    def optional_const(self, i: int, what: str = "") -> np.ndarray[Any, Any] | None:
        return self.const(i, what) if self.has(i) else None

    def static(self, t: Tensor, what: str = "shape") -> tuple[int, ...]:
        """The shape as integers; refused when symbolic."""
        if not all(isinstance(e, int) for e in t.shape):
            raise self.refuse(f"its {what} {t.shape} is symbolic", "fix it with shapes=")
        return t.static

    def wants(self, i: int) -> bool:
        """Whether output i is used."""
        return i < len(self.out_dtypes) and self.out_dtypes[i] is not None

    def refuse(self, why: str, hint: str) -> UnsupportedOperator:
        """The typed refusal; raise it."""
        return UnsupportedOperator(self.op, self.name, "lower", f"{why}; {hint}")


_lower: dict[tuple[str, str], LowerFn] = {}


def lower(*names: str, domain: str = "") -> Callable[[LowerFn], LowerFn]:
    """Register the `lower` facet of one or several operators."""

    def register(fn: LowerFn) -> LowerFn:
        for name in names:
            if (domain, name) in _lower:
                raise ValueError(f"{name} is lowered twice")
            _lower[(domain, name)] = fn
        return fn

    return register


_stream: dict[tuple[str, str], StreamFn] = {}


def stream(*names: str, domain: str = "") -> Callable[[StreamFn], StreamFn]:
    """Register the `stream` facet of one or several operators."""

    def register(fn: StreamFn) -> StreamFn:
        for name in names:
            if (domain, name) in _stream:
                raise ValueError(f"{name} has two stream facets")
            _stream[(domain, name)] = fn
        return fn

    return register


def stream_facet(domain: str, op: str) -> StreamFn | None:
    """The facet, or None."""
    _load_families()
    return _stream.get(("" if domain == "ai.onnx" else domain, op))


def streamed_operators() -> list[tuple[str, str]]:
    """(domain, operator) of every stream facet, sorted."""
    _load_families()
    return sorted(_stream)


@lru_cache(maxsize=1)
def _load_families() -> None:
    import headrace.ops as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"headrace.ops.{module.name}")


def lower_facet(domain: str, op: str) -> LowerFn | None:
    """The facet, or None."""
    _load_families()
    return _lower.get(("" if domain == "ai.onnx" else domain, op))


def native(domain: str, op: str, version: int) -> bool:
    """Whether the compiler lowers this operator itself."""
    return lower_facet(domain, op) is not None or (domain in ("", "ai.onnx") and op in ("If", "Loop", "Scan"))


def lowered_operators() -> list[tuple[str, str]]:
    """(domain, operator) of every lower facet, sorted."""
    _load_families()
    return sorted(_lower)
