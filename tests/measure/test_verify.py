"""verify() finds the mistakes that are put into a program, and names the node they come from."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from headrace.graph.model import Model
from headrace.measure.reference import ReferenceFailed
from headrace.measure.verify import verify
from tests.measure.conftest import FakeProgram


def compiler(faults: dict[str, Callable[[Any], Any]]) -> Callable[..., Any]:
    """compile() of a compiler that makes these mistakes."""

    def compile(model: Any, **options: Any) -> FakeProgram:
        kept = {k: options[k] for k in ("state",) if options.get(k)}
        return FakeProgram(model, faults, kept)

    return compile


def off(amount: float) -> Callable[[Any], Any]:
    return lambda x: (x + np.asarray(amount, x.dtype)).astype(x.dtype)


@pytest.mark.parametrize("reference", ["onnxruntime", "onnx"])
def test_a_right_program(perceptron: Model, reference: str) -> None:
    report = verify(FakeProgram(perceptron), reference=reference)
    assert report.ok and report.relative < 1e-6 and len(report.checks) == 4
    assert report.layers == () and report.diverges_at is None
    assert "equal" in report.table() and reference in report.reference


@pytest.mark.parametrize(("value", "op"), [("a", "MatMul"), ("b", "Relu"), ("c", "MatMul"), ("y", "Tanh")])
def test_the_first_wrong_node_is_named(perceptron: Model, value: str, op: str) -> None:
    faults = {value: off(0.01)}
    report = verify(FakeProgram(perceptron, faults), compile=compiler(faults))
    assert not report.ok
    assert report.diverges_at is not None
    assert (report.diverges_at.output, report.diverges_at.op) == (value, op)
    assert report.diverges_at.stage == "compiled code"
    assert f"node {report.diverges_at.node!r}" in report.table() and "DIFFERENT" in report.table()
    value_of = json.loads(report.to_json())
    assert value_of["diverges_at"]["output"] == value and not value_of["ok"]


def test_a_mistake_that_needs_fusion_is_found_by_bisection(perceptron: Model) -> None:
    def compile(model: Any, **options: Any) -> FakeProgram:
        inner = set(FakeProgram(model).outputs) - {"y"}
        return FakeProgram(model, {"c": off(0.01)} if len(inner) < 2 and "b" not in inner else {})

    report = verify(FakeProgram(perceptron, {"c": off(0.01)}), compile=compile)
    assert report.diverges_at is not None and report.diverges_at.output == "c"
    assert any("bisection" in note for note in report.notes)


def test_a_mistake_that_no_variant_shows(perceptron: Model) -> None:
    report = verify(FakeProgram(perceptron, {"c": off(0.01)}), compile=compiler({}))
    assert not report.ok and report.diverges_at is None
    assert any("fusion or planning" in note for note in report.notes)


def test_layers_on_request(perceptron: Model) -> None:
    report = verify(FakeProgram(perceptron), layers=True, compile=compiler({}))
    assert report.ok and [layer.output for layer in report.layers] == ["a", "b", "c", "y"]
    assert "least exact of 4 layers" in report.table()
    without = verify(FakeProgram(perceptron, {"c": off(1)}), layers=False, compile=compiler({}))
    assert not without.ok and without.layers == () and without.notes == ()


def test_graph_preparation_is_checked_against_the_source(perceptron: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.measure import verify as module

    prepare = module.prepare

    def mistaken(model: Model, **options: Any) -> Any:
        prepared = prepare(model, **options)
        relu = next(node for node in prepared.model.graph if node.op_type == "Relu")
        relu.op_type = "Sigmoid"
        return prepared

    monkeypatch.setattr(module, "prepare", mistaken)
    report = verify(FakeProgram(perceptron, {"b": off(0.5)}), compile=compiler({}))
    assert report.diverges_at is not None
    assert (report.diverges_at.output, report.diverges_at.stage) == ("b", "graph preparation")


def test_state_is_followed_over_runs(leaky_sum: Model) -> None:
    options = {"state": {"h": "h_next"}}
    report = verify(FakeProgram(leaky_sum, options=options))
    assert report.ok and {(c.name, c.is_state) for c in report.checks} == {("y", False), ("h_next", True)}
    assert [c.run for c in report.checks if c.name == "y"] == [0, 1, 2, 3]


def test_a_mistake_in_the_third_run_is_found(leaky_sum: Model) -> None:
    options = {"state": {"h": "h_next"}}
    rounds = iter(range(100))
    faults = {"old": lambda x: x * np.float32(1.1) if next(rounds) % 4 >= 2 else x}
    report = verify(FakeProgram(leaky_sum, faults, options), layers=False)
    assert not report.ok and min(c.run for c in report.checks if not c.ok) == 2


def test_the_wrong_node_of_a_step_model_is_named(leaky_sum: Model) -> None:
    options = {"state": {"h": "h_next"}}
    faults = {"old": lambda x: x * np.float32(1.1)}
    report = verify(FakeProgram(leaky_sum, faults, options), compile=compiler(faults))
    assert report.diverges_at is not None and report.diverges_at.output == "old"


def test_given_inputs_and_starting_state(leaky_sum: Model) -> None:
    options = {"state": {"h": "h_next"}}
    x, h = np.ones((1, 4), np.float32), np.full((1, 4), 8, np.float32)
    report = verify(FakeProgram(leaky_sum, options=options), inputs=[{"x": x, "h": h}, {"x": x}], runs=0)
    assert report.ok and len(report.checks) == 4
    with pytest.raises(ValueError, match="only the first run"):
        verify(FakeProgram(leaky_sum, options=options), inputs=[{"x": x}, {"x": x, "h": h}])


def test_float64_decides_where_rounding_is_all(make: Callable[..., Any]) -> None:
    """(x + 1e8) - 1e8: both are far from the exact answer, and the program is right to be the nearer."""
    model = make(
        [("Add", ["x", "big"], ["a"], {}), ("Sub", ["a", "big"], ["y"], {})],
        {"x": ("float32", (64,))},
        {"y": ("float32", (64,))},
        {"big": np.float32(1e8)},
    )

    class Exact(FakeProgram):
        def run(self, inputs: Any) -> Any:
            return {"y": inputs["x"]}

    report = verify(Exact(model), layers=False)
    assert report.ok and all(check.is_nearer and not check.difference.ok for check in report.checks)
    assert "nearer to float64" in report.table()
    worse = verify(FakeProgram(model, {"y": off(20)}), layers=False)
    assert not worse.ok and worse.worst.exact_errors is not None


def test_constants_reach_the_reference(make: Callable[..., Any]) -> None:
    model = make(
        [("Mul", ["x", "gain"], ["y"], {})],
        {"x": ("float32", (3,)), "gain": ("float32", (1,))},
        {"y": ("float32", (3,))},
    )
    assert verify(FakeProgram(model, options={"constants": {"gain": np.float32([3])}})).ok is True


def test_random_inputs_that_the_reference_refuses(make: Callable[..., Any]) -> None:
    model = make(
        [("Gather", ["table", "i"], ["y"], {})],
        {"i": ("int64", (5,))},
        {"y": ("float32", (5,))},
        {"table": np.arange(2, dtype=np.float32)},
    )
    given = {"i": np.array([0, 1, 1, 0, 1])}

    class Patient(FakeProgram):
        def run(self, inputs: Any) -> Any:
            return super().run({"i": np.minimum(inputs["i"], 1)})

    report = verify(Patient(model), inputs=given)
    assert report.ok and any("random inputs left out" in note for note in report.notes)
    with pytest.raises(ReferenceFailed, match="nothing was compared"):
        verify(Patient(model))


def test_wrong_arguments(perceptron: Model) -> None:
    with pytest.raises(ValueError, match="unknown reference 'torch'"):
        verify(FakeProgram(perceptron), reference="torch")
    with pytest.raises(ReferenceFailed, match="nothing was compared"):
        verify(FakeProgram(perceptron), runs=0)
