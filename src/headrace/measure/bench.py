"""How fast is a program? Beside other runtimes, in one interleaved run on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from headrace.artifact.ports import Array, numpy_dtype
from headrace.artifact.program import Program
from headrace.graph.model import Model
from headrace.measure.bench_report import BenchReport, Entry
from headrace.measure.compare import compare
from headrace.measure.peers import PeerRefused, check_installed, open_peer
from headrace.measure.peers.contestant import Case, Contestant
from headrace.measure.setup import random_inputs, setup_of, title
from headrace.measure.timing import BATCH_US, ROUNDS, Call, Timing, interleave

AGREES = 1e-3  # share of the largest output within which a rival computes the same thing


def bench(
    program: Program,
    peers: Sequence[str] = ("onnxruntime",),
    model: Model | None = None,
    inputs: Mapping[str, Array] | None = None,
    *,
    rounds: int = ROUNDS,
    batch_us: float = BATCH_US,
    evict: bool = False,
    seconds: float | None = None,
    extra: Mapping[str, Call] | None = None,
    seed: int = 0,
) -> BenchReport:
    """Time plain calls and bound calls of a program and its peers, all taking turns.

    peers: "onnxruntime", "openvino", "tract", "ai-edge-litert", "iree", "emx-onnx-cgen"; they run
    `model`, the program's source, on one thread each. inputs: arrays for the program's inputs, else seeded
    random ones; run-time extents take their bound. A peer that cannot run the model is listed with its
    reason in `refused`; one whose outputs differ by more than 1e-3 of the largest is marked. rounds: at
    most; a race ends after `seconds`, or MIN_ROUNDS, before. evict: touch 4 MB between calls. extra: further
    calls that take their turns with the bound ones, such as what the machine can do at most.

    Raises ValueError for an unknown peer or wrong inputs, PeerMissing for one that is not installed.
    """
    for name in peers:
        check_installed(name)
    setup = setup_of(program)
    given = dict(inputs) if inputs is not None else random_inputs(program, setup.symbols, seed)
    ours = _own(program, given, {name: bound for name, (bound, _) in setup.symbols.items()})
    rivals, refused = [], {}
    for name in dict.fromkeys(peers):
        source = model or program.model
        if source is None:
            raise ValueError("the program does not know its model; give it with model=, or peers=[]")
        try:
            rivals.append(open_peer(name, _case(program, source, given)))
        except PeerRefused as error:
            refused[name] = str(error)

    def turns(calls: Mapping[str, Call]) -> dict[str, Timing]:
        return interleave(calls, rounds, batch_us, evict, seconds=seconds)

    return _race(program, ours, rivals, refused, turns, evict, extra or {})


def _race(
    program: Program,
    ours: Contestant,
    rivals: list[Contestant],
    refused: dict[str, str],
    turns: Callable[[Mapping[str, Call]], dict[str, Timing]],
    evict: bool,
    extra: Mapping[str, Call],
) -> BenchReport:
    expected = ours.outputs()
    differences = {rival.name: _difference(rival.outputs(), expected) for rival in rivals}
    everyone = [ours, *rivals]
    plain = turns({c.name: c.plain for c in everyone})
    bound = turns({**{c.name: c.bound for c in everyone if c.bound is not None}, **extra})
    entries = {c.name: _entry(c, plain, bound, differences.get(c.name, 0.0)) for c in everyone}
    own = entries.pop(ours.name)
    info = program.info
    return BenchReport(
        subject=title(program),
        target=info.target,
        toolchain=info.toolchain,
        evict=evict,
        ours=own,
        peers=entries,
        refused=refused,
        extra={name: bound[name] for name in extra},
    )


def _entry(c: Contestant, plain: Mapping[str, Timing], bound: Mapping[str, Timing], difference: float) -> Entry:
    return Entry(c.name, c.version, plain[c.name], bound.get(c.name), difference, difference <= AGREES)


def _own(program: Program, inputs: Mapping[str, Array], extents: Mapping[str, int]) -> Contestant:
    """The program itself: a plain call of a program with state goes on from the state before."""
    instance, fresh, bound = program.instance(), program.instance(), program.instance()
    given = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
    expected = fresh.run(given)
    taken = {name: np.zeros(expected[name].shape, numpy_dtype(spec.dtype)) for name, spec in program.outputs.items()}

    def outputs() -> dict[str, Array]:
        fresh.reset()
        return fresh.run(given)

    plain = (lambda: instance.run(given)) if program.states else (lambda: program.run(given))
    return Contestant("headrace", _version(), plain, bound.bind(given, taken), outputs)


def _version() -> str:
    from importlib.metadata import version

    return version("headrace")


def _case(program: Program, model: Model, inputs: Mapping[str, Array]) -> Case:
    """The program's inputs and initial state under the names that the model has for them."""
    setup = setup_of(program)
    state = program.instance().state()
    fixed = setup.feeds({}, model)
    return Case(model, {**inputs, **state}, fixed)


def _difference(got: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Largest difference of any output, as a share of its largest element; infinite where one is missing."""
    worst = 0.0
    for name, value in expected.items():
        if name not in got:
            return float("inf")
        worst = max(worst, compare(np.asarray(got[name]), value).relative)
    return worst
