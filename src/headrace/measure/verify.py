"""Is a program right? Its outputs beside those of the model it was compiled from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Union

import numpy as np

from headrace.artifact.ports import Array, numpy_dtype
from headrace.artifact.program import Program
from headrace.errors import Error
from headrace.graph.model import Model
from headrace.graph.prepare import Prepared
from headrace.measure.compare import compare
from headrace.measure.double import open_double
from headrace.measure.reference import ReferenceFailed, Run, open_reference, version
from headrace.measure.setup import Setup, concrete, random_inputs, setup_of, title
from headrace.measure.verify_report import Check, VerifyReport
from headrace.passes.prepare import prepare

Feeds = Mapping[str, Array]
Inputs = Union[Feeds, Sequence[Feeds]]
Compile = Callable[..., Program]


@dataclass(frozen=True)
class Trial:
    """Runs on `steps`, from the state `start`; in a program with state each goes on from the one before."""

    label: str
    start: Feeds
    steps: tuple[Feeds, ...]


@dataclass
class Subject:
    """What is compared: a program, its model (None: unknown), and the reference that computes the model."""

    program: Program
    model: Model | None
    setup: Setup
    reference: Run
    reference_name: str
    notes: list[str] = field(default_factory=list)

    def prepared(self, algebra: bool) -> Prepared:
        """The model with constants and shapes settled, every operator as it is. Error without a model.

        algebra: whether constants are multiplied with each other as in the compiler.
        """
        if self.model is None:
            raise Error("the program does not know its model; give it with model=")
        s = self.setup
        defaults = [name for name in s.state if name in self.model.defaults]
        return prepare(
            self.model,
            shapes=s.shapes,
            constants=s.constants,
            bounds=s.bounds,
            native=lambda domain, op, version: True,
            keep_inputs=defaults,
            algebra=algebra,
        )


def verify(
    program: Program,
    model: Model | None = None,
    inputs: Inputs | None = None,
    reference: str | Program = "onnxruntime",
    *,
    runs: int = 4,
    seed: int = 0,
    layers: bool | None = None,
    compile: Compile | None = None,
) -> VerifyReport:
    """Run a program and its model on the same inputs and compare every output and every state.

    model: the source of the program. inputs: arrays for one run, or a sequence of these for consecutive
    runs, compared beside `runs` random ones (0: none); names of states give the state to start from.
    reference: "onnxruntime", "onnx" (onnx.reference), or another Program.
    layers: compare layer by layer: always, never, or (None) only when an output differs; this needs
    `compile`, the function that compiles a variant of the model.

    An output is right when it equals the reference: integers bit for bit, float32 within 1e-4 of the
    largest element (compare.TOLERANCE for other floats), or when it is no farther from a float64
    evaluation of the model than the reference is. Raises ValueError for wrong inputs or an unknown
    reference, ReferenceFailed when the reference cannot run the model.
    """
    subject = _subject(program, model or program.model, reference)
    trials = _trials(subject, inputs, runs, seed)
    checks = [check for trial in trials for check in _checked(subject, trial)]
    if not checks:
        raise ReferenceFailed(f"nothing was compared: {'; '.join(subject.notes) or 'there were no runs'}")
    report = VerifyReport(title(program), subject.reference_name, tuple(checks))
    if layers or (layers is None and not report.ok):
        report = _with_layers(report, subject, trials, reference, compile)
    return replace(report, notes=(*report.notes, *subject.notes))


def _subject(program: Program, model: Model | None, reference: str | Program) -> Subject:
    setup = setup_of(program)
    if isinstance(reference, Program):
        name = f"the program {title(reference)} in {reference.path}"
        return Subject(program, model, setup, _program_run(reference, setup.state), name)
    if model is None:
        raise ValueError("the program does not know its model; give it with model=")
    source, names = model, [*program.outputs, *setup.state.values()]
    run = open_reference(reference, source.proto, list(dict.fromkeys(names)))
    return Subject(program, model, setup, lambda feeds: run(setup.feeds(feeds, source)), version(reference))


def _program_run(program: Program, pairs: Mapping[str, str]) -> Run:
    """A program as reference: the state goes in and comes out by hand, as with other runtimes."""
    instance = program.instance()

    def run(feeds: Feeds) -> dict[str, Array]:
        if program.states:
            instance.restore({name: feeds[name] for name in program.states})
        outputs = instance.run({name: feeds[name] for name in feeds if name not in program.states})
        return {**outputs, **{pairs[name]: value for name, value in instance.state().items()}}

    return run


def _trials(subject: Subject, inputs: Inputs | None, runs: int, seed: int) -> list[Trial]:
    """The given runs, and random ones from the initial state."""
    program, zero = subject.program, initial_state(subject)
    trials = []
    if inputs is not None:
        given = [inputs] if isinstance(inputs, Mapping) else list(inputs)
        start = {k: np.asarray(v) for k, v in (given[0] if given else {}).items() if k in zero}
        for number, step in enumerate(given):
            if number and any(name in step for name in zero):
                raise ValueError(f"inputs[{number}] gives a state; only the first run may start from one")
        steps = tuple({k: np.asarray(v) for k, v in step.items() if k not in zero} for step in given)
        trials.append(Trial("given", {**zero, **start}, steps))
    if runs:
        symbols = subject.setup.symbols
        try:
            randoms = tuple(random_inputs(program, symbols, seed + number) for number in range(runs))
            trials.append(Trial("random", zero, randoms))
        except Error as error:
            subject.notes.append(f"no random inputs: {error}")
    return trials


def initial_state(subject: Subject) -> dict[str, Array]:
    """Every state as the model has it: its default where the input has one, else zeros."""
    defaults = subject.model.ir.graph.initializers if subject.model else {}
    state = {}
    for name, spec in subject.program.states.items():
        default = defaults[name].const_value if name in defaults else None
        zeros = np.zeros(concrete(spec, {}), numpy_dtype(spec.dtype))
        state[name] = zeros if default is None else np.asarray(default.numpy())
    return state


def _checked(subject: Subject, trial: Trial) -> Iterator[Check]:
    """Compare every run of a trial. Random inputs that the reference refuses end the trial with a note."""
    program, pairs = subject.program, subject.setup.state
    instance = program.instance()
    if trial.start:
        instance.restore(trial.start)
    state: dict[str, Array] = dict(trial.start)
    exact: list[dict[str, Array]] | None = None
    for number, step in enumerate(trial.steps):
        got = instance.run(step) if program.states else program.run(step)
        try:
            expected = subject.reference({**step, **state})
        except ReferenceFailed as error:
            if trial.label != "random":
                raise
            subject.notes.append(f"random inputs left out: {error}")
            return
        got = {**got, **{pairs[name]: value for name, value in instance.state().items()}}
        state = {name: expected[pairs[name]] for name in state}
        for name, value in got.items():
            difference = compare(value, expected[name])
            check = Check(trial.label, number, name, name not in program.outputs, difference)
            if not difference.ok and not difference.fault and difference.tolerance:
                exact = _exact_runs(subject, trial) if exact is None else exact
                if number < len(exact):
                    check = replace(check, exact_errors=_errors(value, expected[name], exact[number][name]))
            yield check


def _exact_runs(subject: Subject, trial: Trial) -> list[dict[str, Array]]:
    """Outputs of every run of a trial in float64; empty, with a note, where that cannot be computed."""
    try:
        run = open_double(_proto(subject.prepared(algebra=False)))
        state: dict[str, Array] = dict(trial.start)
        results = []
        for step in trial.steps:
            results.append(run({**step, **state}))
            state = {name: results[-1][subject.setup.state[name]] for name in state}
        return results
    except Error as error:
        subject.notes.append(f"no float64 evaluation: {error}")
        return []


def _proto(prepared: Prepared) -> Any:
    import onnx_ir as ir

    return ir.to_proto(prepared.model)


def _errors(got: Array, expected: Array, exact: Array) -> tuple[float, float]:
    """Largest distance of the program's and of the reference's values from the exact ones."""
    wide = np.asarray(exact).astype(np.float64)
    mine, theirs = (float(np.abs(a.astype(np.float64) - wide).max()) for a in (got, expected))
    return mine, theirs


def _with_layers(
    report: VerifyReport,
    subject: Subject,
    trials: list[Trial],
    reference: str | Program,
    compile: Compile | None,
) -> VerifyReport:
    from headrace.measure.layers import compare_layers

    if compile is None:
        return replace(report, notes=("layers were not compared: that needs compile=",))
    broken = next((check for check in report.checks if not check.ok), report.checks[0])
    trial = next(trial for trial in trials if trial.label == broken.trial)
    until = replace(trial, steps=trial.steps[: broken.run + 1])
    name = reference if isinstance(reference, str) else "onnxruntime"
    try:
        found = compare_layers(subject, until, name, compile, is_wrong=not report.ok)
    except Error as error:
        return replace(report, notes=(f"layers were not compared: {error}",))
    return replace(report, layers=found.layers, diverges_at=found.first, notes=found.notes)
