"""LSTM, GRU and RNN against onnxruntime: directions, activations, clip, peepholes, lengths, layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from headrace.errors import UnsupportedOperator
from headrace.program.ir import Loop
from tests.ops.one_node import check, lowered, node_model, run_here

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
FLOAT = TensorProto.FLOAT
Array = np.ndarray[Any, Any]


def operands(
    op: str,
    rng: np.random.Generator,
    steps: int = 4,
    batch: int = 2,
    directions: int = 1,
    bias: bool = True,
    initial: bool = True,
    peepholes: bool = False,
    lens: list[int] | None = None,
) -> list[Array | None]:
    """Inputs of a node with 3 inputs and 4 hidden elements."""
    size, rows = 4, 4 * GATES[op]

    def numbers(*shape: int) -> Array:
        return rng.normal(size=shape).astype(np.float32)

    states = [numbers(directions, batch, size) if initial else None for _ in range(2 if op == "LSTM" else 1)]
    out: list[Array | None] = [
        numbers(steps, batch, 3),
        numbers(directions, rows, 3),
        numbers(directions, rows, size),
        numbers(directions, 2 * rows) if bias else None,
        None if lens is None else np.array(lens, np.int32),
        *states,
    ]
    if op == "LSTM":
        out.append(numbers(directions, 3 * size) if peepholes else None)
    return out


def outputs(op: str) -> list[int]:
    return [FLOAT] * (3 if op == "LSTM" else 2)


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, list[Array | None], list[int], dict[str, Any]]:
    """Operator, inputs, which are constant, attributes."""
    op = draw(st.sampled_from(["LSTM", "GRU", "RNN"]))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    count = 2 if direction == "bidirectional" else 1
    steps, batch = draw(st.sampled_from([1, 4])), draw(st.sampled_from([1, 2]))
    lens = draw(st.none() | st.lists(st.integers(0, steps), min_size=batch, max_size=batch))
    inputs = operands(
        op,
        np.random.default_rng(draw(st.integers(0, 99))),
        steps,
        batch,
        count,
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.booleans()),
        lens,
    )
    attrs: dict[str, Any] = {"hidden_size": 4, "direction": direction}
    if draw(st.booleans()):
        attrs["clip"] = 0.4
    if op == "GRU":
        attrs["linear_before_reset"] = draw(st.sampled_from([0, 1]))
    if op == "LSTM":
        attrs["input_forget"] = draw(st.sampled_from([0, 1]))
    if draw(st.booleans()):
        bounded = st.sampled_from(["Sigmoid", "Tanh", "Softsign", "HardSigmoid"])
        attrs["activations"] = [draw(bounded) for _ in range(FUNCTIONS[op] * count)]
    constants = [i for i in (1, 2, 3, 4) if inputs[i] is not None and draw(st.booleans())]
    return op, inputs, constants, attrs


@settings(max_examples=80)
@given(cases())
def test_recurrence(case: tuple[str, list[Array | None], list[int], dict[str, Any]]) -> None:
    op, inputs, constants, attrs = case
    check(op, inputs, outputs(op), constants, **attrs)


ACTIVATIONS = [
    "Relu", "Tanh", "Sigmoid", "Softsign", "Softplus", "Affine", "LeakyRelu", "ThresholdedRelu",
    "ScaledTanh", "HardSigmoid", "Elu",
]  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_with_alpha_and_beta(name: str) -> None:
    inputs = operands("RNN", np.random.default_rng(3), directions=2)
    check(
        "RNN", inputs, outputs("RNN"), activations=[name, name], activation_alpha=[0.3, 0.2],
        activation_beta=[0.7, 0.9], hidden_size=4, direction="bidirectional",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["LeakyRelu", "HardSigmoid", "Elu"])
def test_activation_with_its_default(name: str) -> None:
    inputs = operands("RNN", np.random.default_rng(3))
    check("RNN", inputs, outputs("RNN"), activations=[name], hidden_size=4)


@pytest.mark.parametrize("name", ["Affine", "ThresholdedRelu", "ScaledTanh"])
def test_activation_without_a_common_default_is_refused(name: str) -> None:
    inputs = operands("RNN", np.random.default_rng(3))
    with pytest.raises(UnsupportedOperator, match="alpha or beta"):
        lowered(node_model("RNN", inputs, outputs("RNN"), activations=[name], hidden_size=4))


def test_alpha_goes_to_those_that_take_one() -> None:
    inputs = operands("LSTM", np.random.default_rng(5))
    check(
        "LSTM", inputs, outputs("LSTM"), activations=["HardSigmoid", "Tanh", "LeakyRelu"],
        activation_alpha=[0.3, 0.1], activation_beta=[0.4], hidden_size=4,
    )  # fmt: skip


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_batch_first(op: str) -> None:
    """layout=1 only moves the batch axis to the front."""
    inputs = operands(op, np.random.default_rng(7), directions=2)
    attrs = {"hidden_size": 4, "direction": "bidirectional"}
    model = node_model(op, inputs, outputs(op), **attrs)
    feeds = {f"x{i}": a for i, a in enumerate(inputs) if a is not None}
    swapped = {k: np.swapaxes(a, 0, 1).copy() if k in ("x0", "x5", "x6") else a for k, a in feeds.items()}
    moved = [swapped.get(f"x{i}") for i in range(len(inputs))]
    other = node_model(op, moved, outputs(op), layout=1, **attrs)
    y, *states = run_here(model, feeds)
    y2, *states2 = run_here(other, swapped)
    np.testing.assert_array_equal(y2, y.transpose(2, 0, 1, 3))
    for a, b in zip(states, states2, strict=True):
        np.testing.assert_array_equal(b, a.swapaxes(0, 1))


@pytest.mark.parametrize(("steps", "loops"), [(1, 0), (3, 1)])
def test_one_step_needs_no_loop(steps: int, loops: int) -> None:
    inputs = operands("GRU", np.random.default_rng(0), steps=steps)
    module = lowered(node_model("GRU", inputs, outputs("GRU"), hidden_size=4))
    assert sum(isinstance(s, Loop) for s in module.body) == loops


def test_only_the_last_state() -> None:
    inputs = operands("LSTM", np.random.default_rng(0))
    feeds = {f"x{i}": a for i, a in enumerate(inputs) if a is not None}
    whole = run_here(node_model("LSTM", inputs, outputs("LSTM"), hidden_size=4), feeds)
    (last,) = run_here(node_model("LSTM", inputs, [0, FLOAT], hidden_size=4), feeds)
    np.testing.assert_array_equal(last, whole[1])


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-5), (np.float16, 2e-2)])
def test_other_precisions(dtype: Any, rtol: float) -> None:
    single = operands("GRU", np.random.default_rng(0))
    other = [None if a is None else a.astype(dtype) for a in single]
    kind = TensorProto.DOUBLE if dtype is np.float64 else TensorProto.FLOAT16

    def results(inputs: list[Array | None], kind: int) -> list[Array]:
        feeds = {f"x{i}": a for i, a in enumerate(inputs) if a is not None}
        return run_here(node_model("GRU", inputs, [kind] * 2, hidden_size=4), feeds)

    for a, b in zip(results(single, FLOAT), results(other, kind), strict=True):
        assert b.dtype == dtype
        np.testing.assert_allclose(b.astype(np.float64), a, rtol=rtol, atol=rtol)
