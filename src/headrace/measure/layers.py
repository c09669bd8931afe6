"""Which node is the first to be wrong? Values inside the model, compared one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from headrace.artifact.ports import Array
from headrace.artifact.program import Program
from headrace.graph.facts import label
from headrace.measure.compare import compare
from headrace.measure.reference import Run, open_reference
from headrace.measure.verify_report import Layer

if TYPE_CHECKING:
    from headrace.measure.verify import Subject, Trial

Compile = Callable[..., Program]
Runs = list[dict[str, Array]]


@dataclass(frozen=True)
class Layers:
    """layers: in the order of computation; first: the first wrong one; notes: what could not be decided."""

    layers: tuple[Layer, ...]
    first: Layer | None
    notes: tuple[str, ...] = ()


def compare_layers(subject: Subject, trial: Trial, reference: str, compile: Compile, is_wrong: bool) -> Layers:
    """Compare every value inside the prepared model, in the runs of the trial.

    First the prepared graph with the source, both in the reference runtime: a difference there is a
    mistake of graph preparation. Then a program of the same graph whose inner values are all outputs.
    If that one is right although the program is_wrong (inner values that are outputs are not fused
    away), programs with one more output each narrow the mistake down to a node.
    """
    model = subject.prepared(algebra=True).model
    nodes = _inner(model)
    everything = _with_outputs(model, list(nodes))
    expected = _reference_runs(open_reference(reference, ir.to_proto(everything)), subject, trial)
    changed = _changed_by_preparation(subject, trial, reference, expected, nodes)
    if changed is not None:
        return Layers((changed,), changed)
    layers = _layers(nodes, _program_runs(_compiled(compile, everything, subject), subject, trial), expected)
    first = next((layer for layer in layers if not layer.ok), None)
    if first is not None or not is_wrong:
        return Layers(layers, first)
    return _narrowed(subject, trial, compile, model, nodes, expected, layers)


def _narrowed(
    subject: Subject,
    trial: Trial,
    compile: Compile,
    model: ir.Model,
    nodes: dict[str, ir.Node],
    expected: Runs,
    layers: tuple[Layer, ...],
) -> Layers:
    """Bisect over programs with one inner value as an output."""
    names = list(nodes)
    low, high, found = 0, len(names), None
    while low < high:
        middle = (low + high) // 2
        name = names[middle]
        variant = _compiled(compile, _with_outputs(model, [name]), subject)
        (layer,) = _layers({name: nodes[name]}, _program_runs(variant, subject, trial), expected)
        if layer.ok:
            low = middle + 1
        else:
            high, found = middle, layer
    note = (
        "found by bisection: with every inner value as an output the program is right"
        if found
        else "with any inner value as an output the program is right: the mistake is in fusion or planning"
    )
    return Layers(layers, found, (note,))


def _inner(model: ir.Model) -> dict[str, ir.Node]:
    """Every tensor that a node of the main graph computes, in order, with its node."""
    found = {}
    for node in model.graph:
        for value in node.outputs:
            typed = isinstance(value.type, ir.TensorType) and value.shape is not None
            if value.name and typed and value.dtype != ir.DataType.STRING:
                found[value.name] = node
    return found


def _with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy of the model with these values as outputs, after its own."""
    copy = model.clone()
    present = {value.name for value in copy.graph.outputs}
    wanted = set(names) - present
    for node in copy.graph:
        copy.graph.outputs.extend(value for value in node.outputs if value.name in wanted)
    return copy


def _compiled(compile: Compile, model: ir.Model, subject: Subject) -> Program:
    return compile(model, **subject.setup.variant_options)


def _reference_runs(run: Run, subject: Subject, trial: Trial) -> Runs:
    """Outputs of every run, the state handed on from one to the next."""
    state = dict(trial.start)
    results: Runs = []
    for step in trial.steps:
        results.append(run({**step, **state}))
        state = {name: results[-1][subject.setup.state[name]] for name in state}
    return results


def _program_runs(program: Program, subject: Subject, trial: Trial) -> Runs:
    instance = program.instance()
    if trial.start:
        instance.restore(trial.start)
    pairs = subject.setup.state
    results: Runs = []
    for step in trial.steps:
        outputs = instance.run(step)
        results.append({**outputs, **{pairs[name]: v for name, v in instance.state().items()}})
    return results


def _layers(nodes: dict[str, ir.Node], got: Runs, expected: Runs) -> tuple[Layer, ...]:
    """Every value in the first run where one is wrong, or else in the last."""
    layers: tuple[Layer, ...] = ()
    for mine, theirs in zip(got, expected, strict=True):
        layers = tuple(
            Layer(label(node), node.op_type, name, compare(mine[name], theirs[name]))
            for name, node in nodes.items()
            if name in mine
        )
        if not all(layer.ok for layer in layers):
            break
    return layers


def _changed_by_preparation(
    subject: Subject, trial: Trial, reference: str, expected: Runs, nodes: dict[str, ir.Node]
) -> Layer | None:
    """The first value of the source model that has another content in the prepared one."""
    if subject.model is None:
        return None
    source = onnx.ModelProto()
    source.CopyFrom(subject.model.proto)
    outputs = {port.name for port in source.graph.output}
    produced = {name for node in source.graph.node for name in node.output}
    shared = [name for name in nodes if name in produced]
    source.graph.output.extend(onnx.ValueInfoProto(name=n) for n in shared if n not in outputs)
    run = open_reference(reference, source)
    model = subject.model
    got = _reference_runs(lambda feeds: run(subject.setup.feeds(feeds, model)), subject, trial)
    for mine, theirs in zip(expected, got, strict=True):
        for name in shared:
            difference = compare(mine[name], theirs[name])
            if not difference.ok:
                node = nodes[name]
                return Layer(label(node), node.op_type, name, difference, "graph preparation")
    return None
