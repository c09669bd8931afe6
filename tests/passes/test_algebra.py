"""All rules of algebra on constants together: initial states, whole models, what is reported."""

from __future__ import annotations

import json

import numpy as np
import pytest

import headrace as hr
from headrace.codegen.kernels import total_macs
from headrace.frontends.onnx import load
from headrace.graph.macs import macs
from headrace.graph.prepare import DECISIONS
from headrace.ops.lowering import lower
from headrace.ops.registry import native
from headrace.passes.prepare import prepare
from headrace.program.optimise import optimise
from tests.passes.running import array, check_same, everything, model, node, operators
from zoo import catalog

F = np.float32
SIZE, WIDTH = 8, 16


def recurrent(op, gates, steps, states, **attributes):
    constants = {
        "w": array(1, gates * SIZE, WIDTH),
        "r": array(1, gates * SIZE, SIZE, seed=1),
        "b": array(1, 2 * gates * SIZE, seed=2),
        **{f"s{i}": state for i, state in enumerate(states)},
    }
    nodes = [node(op, ["x", "w", "r", "b", "", *(f"s{i}" for i in range(len(states)))], ["y"], hidden_size=SIZE,
                  **attributes)]  # fmt: skip
    return model(nodes, {"x": ((steps, 1, WIDTH), F)}, {"y": ((steps, 1, 1, SIZE), F)}, constants, opset=22)


ZERO = np.zeros((1, 1, SIZE), F)
KINDS = {
    "LSTM": ("LSTM", 4, [ZERO, ZERO], {}, 4),
    "GRU, reset before": ("GRU", 3, [ZERO], {"linear_before_reset": 0}, 3),
    "GRU, reset after": ("GRU", 3, [ZERO], {"linear_before_reset": 1}, 3),
    "RNN": ("RNN", 1, [ZERO], {}, 1),
}


@pytest.mark.parametrize("name", KINDS)
def test_one_step_from_zeros_has_no_product_with_the_state(name):
    op, gates, states, attributes, left = KINDS[name]
    proto = recurrent(op, gates, 1, states, **attributes)
    prepared = check_same(proto, {"x": array(1, 1, WIDTH)}, native=native)
    assert sum("starts from zeros" in text for text in prepared.decisions) == len(states)
    work = sum(map(total_macs, optimise(lower(prepared)).body))
    assert work == left * SIZE * WIDTH


@pytest.mark.parametrize("name", KINDS)
def test_several_steps_from_zeros(name):
    op, gates, states, attributes, _ = KINDS[name]
    check_same(recurrent(op, gates, 5, states, **attributes), {"x": array(5, 1, WIDTH)})


def test_another_initial_state_stays():
    prepared = check_same(recurrent("GRU", 3, 1, [array(1, 1, SIZE)]), {"x": array(1, 1, WIDTH)})
    (one,) = prepared.model.graph
    assert one.inputs[5] is not None


def test_decisions_are_written_into_the_model_and_shown():
    nodes = [node("Conv", ["x", "w"], ["m"]), node("Mul", ["m", "c"], ["y"])]
    constants = {"w": array(4, 2, 3), "c": np.array(2.0, F)}
    proto = model(nodes, {"x": ((1, 2, 9), F)}, {"y": ((1, 4, 7), F)}, constants)
    said = json.loads(prepare(load(proto), native=everything).model.metadata_props[DECISIONS])
    assert "Mul is folded into the weights of Conv: 'y'" in said
    assert said[0] in hr.inspect(proto).notes


def test_many_nodes_make_one_line():
    nodes, constants, at = [], {}, "x"
    for i in range(7):
        nodes += [node("Conv", [at, f"w{i}"], [f"m{i}"]), node("Mul", [f"m{i}", f"c{i}"], [f"s{i}"])]
        nodes.append(node("Relu", [f"s{i}"], [f"r{i}"]))
        constants |= {f"w{i}": array(4, 4, 1, seed=i), f"c{i}": array(4, 1, seed=i + 9)}
        at = f"r{i}"
    proto = model(nodes, {"x": ((1, 4, 9), F)}, {"r6": ((1, 4, 9), F)}, constants)
    prepared = check_same(proto, {"x": array(1, 4, 9)}, rtol=1e-3, atol=1e-4)
    (line,) = [text for text in prepared.decisions if "folded" in text]
    assert line.endswith("and 3 more")


def test_without_algebra_every_value_stays():
    nodes = [node("Conv", ["x", "w"], ["m"]), node("Mul", ["m", "c"], ["y"])]
    constants = {"w": array(4, 2, 3), "c": np.array(2.0, F)}
    proto = model(nodes, {"x": ((1, 2, 9), F)}, {"y": ((1, 4, 7), F)}, constants)
    assert operators(prepare(load(proto), native=everything, algebra=False)) == ["Conv", "Mul"]


def test_prepared_again_nothing_changes():
    """Verification compiles the prepared graph once more."""
    rng = np.random.default_rng(0)
    constants = {"a": rng.standard_normal((12, 2, 3)), "b": rng.standard_normal((2, 12, 1)), "c": np.array(0.5)}
    nodes = [
        node("Conv", ["x", "a"], ["m"], pads=[2, 2]),
        node("Conv", ["m", "b"], ["n"]),
        node("Mul", ["n", "c"], ["y"]),
    ]
    ports = {"x": ((1, 2, 1), F)}, {"y": ((1, 2, 3), F)}
    proto = model(nodes, *ports, {k: v.astype(F) for k, v in constants.items()})
    once = prepare(load(proto), native=everything)
    twice = prepare(load(once.model), native=everything)
    assert operators(once) == operators(twice) == ["Conv"]
    np.testing.assert_array_equal(*(p.constant(p.model.graph[0].inputs[1]) for p in (once, twice)))


def multiply_adds(name, variant, algebra):
    entry = catalog.model(name).variant(variant)
    prepared = prepare(hr.load(catalog.path(name)), shapes=entry.shapes, native=everything, algebra=algebra)
    return sum(macs(n, prepared.facts.dims.get) for n in prepared.model.graph), prepared


@pytest.mark.models
def test_deepfilternet_encoder():
    """df_conv0 is one convolution of 2 · 3 · 3 taps; one frame alone meets one tap of three in time."""
    before, _ = multiply_adds("dfn3-enc", "S=1", False)
    after, prepared = multiply_adds("dfn3-enc", "S=1", True)
    assert before - after == (64 * 6 * 32 + 64 * 6 * 96) + (64 * 3 + 64 * 64 - 64 * 2 * 3) * 96
    assert (before, after) == (1269248, 845312)
    assert any("/df_conv0/1/Conv" in text and "are one Conv" in text for text in prepared.decisions)
    before, _ = multiply_adds("dfn3-enc", "S=100", False)
    after, _ = multiply_adds("dfn3-enc", "S=100", True)
    assert before - after == (64 * 9 + 64 * 64 - 64 * 2 * 9) * 96 * 100


@pytest.mark.models
@pytest.mark.parametrize(("name", "variant"), [("silero-step", "step"), ("pulsevad", "window")])
def test_taps_that_meet_padding_in_trained_models(name, variant):
    before, _ = multiply_adds(name, variant, False)
    after, prepared = multiply_adds(name, variant, True)
    assert after < before
    assert any("only meet padding" in text for text in prepared.decisions)
