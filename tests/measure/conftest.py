"""A program that onnx.reference computes, with mistakes where a test wants them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from headrace.frontends.onnx import load
from headrace.graph.model import Model
from headrace.spec import TensorSpec

Faults = Mapping[str, Callable[[Any], Any]]


@dataclass
class FakeProgram:
    """Stands for headrace.Program. faults: value name -> what the program makes of the right content."""

    model: Model
    faults: Faults = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    path: Path = Path("fake")

    def __post_init__(self) -> None:
        self.model = load(self.model)
        pairs = self.options.get("state", {})
        specs = {n: TensorSpec(s.dtype, s.shape) for n, s in self.model.inputs.items()}
        fixed = self.options.get("constants", {})
        self.inputs = {n: s for n, s in specs.items() if n not in pairs and n not in fixed}
        self.states = {n: specs[n] for n in pairs}
        self.outputs = {n: s for n, s in self.model.outputs.items() if n not in pairs.values()}
        self.info = SimpleNamespace(
            manifest={
                "model": {"name": "fake"},
                "options": self.options,
                "symbols": [],
                "target": {"name": "native"},
                "toolchain": {"kind": "gcc"},
            }
        )

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return self.instance().run(inputs)

    def instance(self) -> FakeInstance:
        return FakeInstance(self)


class FakeInstance:
    def __init__(self, program: FakeProgram) -> None:
        self.program = program
        self.kept = {n: np.zeros(s.shape, s.dtype) for n, s in program.states.items()}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        program = self.program
        fixed = {k: np.asarray(v) for k, v in program.options.get("constants", {}).items()}
        values = _evaluate(program.model.proto, {**inputs, **self.kept, **fixed}, program.faults)
        self.kept = {i: values[o] for i, o in program.options.get("state", {}).items()}
        return {name: values[name] for name in program.outputs}

    def state(self) -> dict[str, Any]:
        return dict(self.kept)

    def restore(self, state: Mapping[str, Any]) -> None:
        self.kept = dict(state)


def _evaluate(model: onnx.ModelProto, feeds: Mapping[str, Any], faults: Faults) -> dict[str, Any]:
    """Node by node, with every fault applied where its value appears."""
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer} | dict(feeds)
    for node in model.graph.node:
        single = ReferenceEvaluator(node, opsets={o.domain: o.version for o in model.opset_import})
        results = single.run(None, {n: values[n] for n in node.input if n})
        for name, result in zip(node.output, results, strict=True):
            values[name] = faults[name](result) if name in faults else result
    return values


@pytest.fixture
def make() -> Callable[..., Any]:
    """make(nodes, inputs, outputs, weights): a model; inputs and outputs map names to (dtype, shape)."""

    def build(
        nodes: list[tuple[str, list[str], list[str], dict[str, Any]]],
        inputs: Mapping[str, tuple[str, tuple[int | str, ...]]],
        outputs: Mapping[str, tuple[str, tuple[int | str, ...]]],
        weights: Mapping[str, Any] | None = None,
    ) -> Model:
        ports = [
            [
                helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.dtype(d)), s)
                for n, (d, s) in p.items()
            ]
            for p in (inputs, outputs)
        ]
        graph = helper.make_graph(
            [helper.make_node(op, i, o, name=f"{op.lower()}_{o[0]}", **a) for op, i, o, a in nodes],
            "tested",
            *ports,
            [numpy_helper.from_array(np.asarray(v), n) for n, v in (weights or {}).items()],
        )
        return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))

    return build


@pytest.fixture
def perceptron(make: Callable[..., Any]) -> Model:
    """y = tanh(relu(x @ w1) @ w2), x [2, 8], y [2, 4]."""
    rng = np.random.default_rng(0)
    return make(
        [
            ("MatMul", ["x", "w1"], ["a"], {}),
            ("Relu", ["a"], ["b"], {}),
            ("MatMul", ["b", "w2"], ["c"], {}),
            ("Tanh", ["c"], ["y"], {}),
        ],
        {"x": ("float32", (2, 8))},
        {"y": ("float32", (2, 4))},
        {
            "w1": rng.standard_normal((8, 16)).astype(np.float32),
            "w2": 0.2 * rng.standard_normal((16, 4)).astype(np.float32),
        },
    )


@pytest.fixture
def leaky_sum(make: Callable[..., Any]) -> Model:
    """h' = 0.5 h + x; y = relu(h'). Compile with state={"h": "h_next"}."""
    return make(
        [
            ("Mul", ["h", "half"], ["old"], {}),
            ("Add", ["old", "x"], ["h_next"], {}),
            ("Relu", ["h_next"], ["y"], {}),
        ],
        {"x": ("float32", (1, 4)), "h": ("float32", (1, 4))},
        {"y": ("float32", (1, 4)), "h_next": ("float32", (1, 4))},
        {"half": np.float32(0.5)},
    )
