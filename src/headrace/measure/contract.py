"""The streaming contract, tried on a step program: concat(push(x1), push(x2), …, flush()) == f(x)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from headrace.artifact.program import Program
from headrace.graph.model import Model
from headrace.measure.clauses import CLAUSES
from headrace.measure.contract_report import BROKEN, HOLDS, UNTESTED, Clause, ContractReport, OutputTime
from headrace.measure.contract_subject import Again, Broken, Subject, Untested, Whole, Worst
from headrace.measure.reference import version
from headrace.measure.setup import title

LONG = 60  # frames of the longest signal, where the model does not need more


def contract(
    program: Program,
    step: Model,
    offline: Model,
    *,
    constants: Mapping[str, Any] | None = None,
    again: Again | None = None,
    whole: Whole | None = None,
    lengths: Sequence[int] | None = None,
    cuttings: int = 6,
    seed: int = 0,
    progress: Callable[[str], object] | None = None,
) -> ContractReport:
    """Try every clause of the streaming contract (docs/design/streaming.md).

    lengths: of the signals, in input frames; cuttings: random ones per length; progress: is told the name of each
    clause before it is tried. Outputs must agree with the offline model: integers bit for bit, floats with at
    most twice its own error against float64, in onnxruntime or (where that is not enough) compiled by `whole`,
    plus 1e-6 of scale.
    Raises ReferenceFailed when onnxruntime cannot run the models.
    """
    subject = Subject(program, step, offline, dict(constants or {}), seed, again, whole)
    tried = tuple(lengths or _lengths(subject))
    clauses = []
    for name, check in CLAUSES:
        if progress is not None:
            progress(name)
        clauses.append(_clause(subject, name, check, tried, cuttings))
    about = subject.told["outputs"]
    outputs = tuple(
        OutputTime(o.name, o.rate[0] / o.rate[1], about[o.name]["latency"], about[o.name]["lookahead"],
                   about[o.name]["receptive_field"])
        for o in subject.facts.outputs
    )  # fmt: skip
    notes = tuple(subject.notes)
    reference, chunk = version("onnxruntime"), subject.facts.chunk
    return ContractReport(title(program), reference, chunk, outputs, tried, tuple(clauses), notes)


def _lengths(subject: Subject) -> list[int]:
    """The shortest, those about one step longer, and one with a good piece of steady state."""
    facts = subject.facts
    fixed = {subject.offline.inputs[o.name].shape[o.axis] for o in facts.inputs if o.name in subject.offline.inputs}
    numbers = [d for d in fixed if isinstance(d, int)]
    window = subject.told.get("window")
    if window is not None:
        text = f"the model on every window of {window['frames']} frames, {window['hop']} apart"
        subject.notes.append(f"{text}: another function than the model over the whole signal")
    elif numbers:
        subject.notes.append(f"the offline model takes {numbers[0]} frames only; no other length can be compared")
        return [numbers[0]]
    unit = facts.multiple
    for lane in facts.inputs:
        unit = int(np.lcm(unit, lane.rate[1]))
    least = -(-max(1, facts.min_length) // unit) * unit
    span = facts.last_position + facts.chunk * (facts.flush_steps + 3)
    most = -(-max(LONG, 2 * span, least + span) // unit) * unit
    step = -(-facts.chunk // unit) * unit
    found = {least, least + unit, least + step + unit, (least + most) // 2 // unit * unit, most}
    if facts.max_past is not None:
        found = {min(n, facts.max_past // unit * unit) for n in found}
    return sorted(n for n in found if n >= least)


def _clause(subject: Subject, name: str, check: Callable[..., str], lengths: tuple[int, ...], cuttings: int) -> Clause:
    subject.worst = Worst()
    try:
        return Clause(name, HOLDS, check(subject, lengths, cuttings))
    except Broken as error:
        return Clause(name, BROKEN, str(error))
    except Untested as error:
        return Clause(name, UNTESTED, str(error))
