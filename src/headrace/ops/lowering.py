"""Graph → Program: every node of a prepared graph becomes definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from headrace.errors import UnsupportedOperator
from headrace.graph.facts import label
from headrace.graph.prepare import Prepared
from headrace.graph.symbolic import Dim, FloorDiv
from headrace.ops.registry import Node, lower_facet
from headrace.program import dtypes
from headrace.program.build import Builder, Tensor
from headrace.program.expr import Expr, Extent, index
from headrace.program.ir import Module


def lower(prepared: Prepared, name: str = "model", state: Mapping[str, str] | None = None) -> Module:
    """Lower a prepared graph.

    state: input name → output name; the input becomes a state that starts at zero (or at the default in
    `prepared.defaults`) and takes the output's value after each run. Both leave the signature.
    Raises UnsupportedOperator, naming the node; ValueError for a wrong state pair.
    """
    return _Lowering(prepared, Builder(name), dict(state or {})).run()


@dataclass
class _Lowering:
    prepared: Prepared
    b: Builder
    state: dict[str, str]
    values: dict[ir.Value, Tensor] = field(default_factory=dict)

    def run(self) -> Module:
        graph = self.prepared.model.graph
        for symbol, (bound, divisor) in self.prepared.symbols.items():
            self.b.symbol(symbol, bound, divisor)
        self._check_state(graph)
        for value in graph.inputs:
            self._input(value)
        self.b.reserve([value.name or "output" for value in graph.outputs])
        for node in graph:
            self.node(node)
        states = {p.name: p for p in self.b.states}
        followers = {out: inp for inp, out in self.state.items()}
        for value in graph.outputs:
            t = self.tensor(value)
            if value.name in followers:
                pair = states[followers[value.name]]
                self.b.update_state(Tensor(pair.buffer), t)
            else:
                self.b.output(value.name or "output", t)
        return self.b.module()

    def _check_state(self, graph: ir.Graph) -> None:
        ins = {v.name: v for v in graph.inputs}
        outs = {v.name: v for v in graph.outputs}
        for i, o in self.state.items():
            if i not in ins:
                raise ValueError(f"state: the model has no input {i!r}; its inputs are {sorted(map(str, ins))}")
            if o not in outs:
                raise ValueError(f"state: the model has no output {o!r}; its outputs are {sorted(map(str, outs))}")
            a, c = self.shape(ins[i]), self.shape(outs[o])
            if a != c or ins[i].dtype != outs[o].dtype:
                raise ValueError(f"state: input {i!r} has shape {a} and output {o!r} {c}; they must be alike")
        if len(set(self.state.values())) != len(self.state):
            raise ValueError("state: an output is paired with two inputs")

    def _input(self, value: ir.Value) -> None:
        name = value.name or "input"
        dtype, shape = self.dtype(value, "input"), self.shape(value)
        if name not in self.state:
            self.values[value] = self.b.input(name, dtype, shape)
            return
        static = [e for e in shape if isinstance(e, int)]
        if len(static) != len(shape):
            raise ValueError(f"state: input {name!r} has a symbolic shape {shape}; fix it with shapes=")
        default = self.prepared.defaults.get(name)
        zero = np.zeros(static, dtypes.numpy_dtype(dtype))
        self.values[value] = self.b.state(name, zero if default is None else default)

    def dtype(self, value: ir.Value, op: str) -> str:
        name = self.prepared.dtype(value)
        if not dtypes.supported(name):
            raise UnsupportedOperator(
                op, value.name or "", "lower", f"element type {name} is not supported; convert to another type"
            )
        return dtypes.short_name(name)

    def shape(self, value: ir.Value) -> tuple[Extent, ...]:
        dims = self.prepared.facts.dims.get(value)
        if dims is None:
            raise UnsupportedOperator(
                "", value.name or "", "lower", f"only tensors are supported, this value is {value.type}"
            )
        return tuple(self.extent(d) for d in dims)

    def extent(self, dim: Dim) -> Extent:
        if isinstance(dim, int):
            return dim
        common = 1
        for _, k in dim.terms:
            common = common * k.denominator // np.gcd(common, k.denominator)
        total: Expr = index(0)
        for monomial, k in dim.terms:
            term = index(int(k * common))
            for atom in monomial:
                term = term * self._atom(atom)
            total = total + term
        total = total // int(common)
        return int(total.arg) if total.op == "const" else total

    def _atom(self, atom: str | FloorDiv) -> Expr:
        if isinstance(atom, FloorDiv):
            return index(self.extent(atom.numerator)) // atom.denominator
        s = self.b.symbols.get(atom)
        if s is None:
            raise UnsupportedOperator(
                "", atom, "lower", f"extent {atom!r} is known only at run time and has no bound; fix it with shapes="
            )
        return self.b.symbol(s.name, s.bound, s.divisor)

    def tensor(self, value: ir.Value) -> Tensor:
        found = self.values.get(value)
        if found is None:
            data = self.prepared.constant(value)
            if data is None:
                raise UnsupportedOperator("", value.name or "", "lower", "the value has no producer")
            dtype = self.dtype(value, "constant")
            found = self.values[value] = self.b.constant(np.asarray(data), value.name or "c", dtype)
        return found

    def node(self, node: ir.Node) -> None:
        facet = lower_facet(node.domain, node.op_type)
        if facet is None:
            raise UnsupportedOperator(
                node.op_type, label(node), "lower", "this operator has no lowering yet; replace it before export"
            )
        used = [bool(v.name) and (bool(v.uses()) or v.is_graph_output()) for v in node.outputs]
        view = Node(
            node.op_type,
            label(node),
            node.domain,
            node.version or self.prepared.model.opset_imports.get(node.domain, 1),
            tuple(None if v is None else self.tensor(v) for v in node.inputs),
            {name: _attribute(a) for name, a in node.attributes.items()},
            tuple(self.shape(v) if u else None for v, u in zip(node.outputs, used, strict=True)),
            tuple(self.dtype(v, node.op_type) if u else None for v, u in zip(node.outputs, used, strict=True)),
            lambda attr, args: self._subgraph(node, attr, args),
        )
        self.b.nodes = (label(node),)
        result = facet(self.b, view)
        outs = [result] if isinstance(result, Tensor) else list(result)
        for n, value in enumerate(node.outputs):
            if used[n]:
                self.values[value] = self._checked(view, n, outs[n] if n < len(outs) else None)

    def _checked(self, node: Node, n: int, t: Tensor | None) -> Tensor:
        if t is None:
            raise node.refuse(f"output {n} is not computed", "do not use this output")
        if t.dtype != node.out_dtypes[n] or t.shape != node.out_shapes[n]:
            raise AssertionError(
                f"{node.op} {node.name!r}: output {n} is {t.dtype}{list(t.shape)}, "
                f"should be {node.out_dtypes[n]}{list(node.out_shapes[n] or ())}"
            )
        return t

    def _subgraph(self, node: ir.Node, attr: str, args: Sequence[Tensor]) -> tuple[Tensor, ...]:
        graph = node.attributes[attr].as_graph()
        self.values.update(zip(graph.inputs, args, strict=True))
        for inner in graph:
            self.node(inner)
        return tuple(self.tensor(v) for v in graph.outputs)


def _attribute(a: ir.Attr) -> Any:
    if a.type == ir.AttributeType.TENSOR:
        return a.as_tensor().numpy()
    if a.type == ir.AttributeType.STRING:
        return a.as_string()
    if a.type == ir.AttributeType.STRINGS:
        return list(a.as_strings())
    if a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return None
    return list(a.value) if isinstance(a.value, (tuple, list)) else a.value
