"""The clauses of the streaming contract. Each tries one, and says in words what it tried.

Raises Broken where the clause does not hold, Untested where it says nothing about the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from headrace.artifact.ports import Array
from headrace.artifact.program import Program
from headrace.artifact.stream import Stream
from headrace.codegen.stream_plan import StreamFacts
from headrace.errors import Error, StreamFull
from headrace.measure.contract_subject import Arrays, Broken, Subject, Untested
from headrace.measure.perturb import perturbed
from headrace.measure.reference import Run, open_reference
from headrace.measure.stepping import Hand


def cut(subject: Subject, signal: Arrays, sizes: Sequence[int]) -> Iterator[Arrays]:
    """Pieces of so many input frames each; an input of another rate brings the frames that are complete."""
    edges = np.cumsum([0, *sizes])
    for a, b in pairwise(edges.tolist()):
        piece = {}
        for lane in subject.facts.inputs:
            p, q = lane.rate
            piece[lane.name] = np.take(signal[lane.name], range(a * p // q, b * p // q), lane.axis)
        yield piece


def sizes_of(frames: int, rng: np.random.Generator) -> list[int]:
    """A random cutting, with empty pieces."""
    sizes: list[int] = []
    while sum(sizes) < frames:
        size = int(rng.integers(0, 1 + int(rng.choice([1, 2, 5, 20]))))
        sizes.append(min(size, frames - sum(sizes)))
    return sizes


def join(facts: StreamFacts, got: Sequence[Mapping[str, Array]], finals: Mapping[str, Array]) -> Arrays:
    """What all pieces gave together, and the outputs without time."""
    return {
        **{o.name: np.concatenate([g[o.name] for g in got], o.axis) for o in facts.outputs},
        **{name: finals[name] for name in facts.finals},
    }


def streamed(subject: Subject, stream: Stream, signal: Arrays, sizes: Sequence[int]) -> Arrays:
    """The whole signal through a live stream."""
    got = [stream.push(piece) for piece in cut(subject, signal, sizes)]
    last = stream.flush()
    return join(subject.facts, [*got, last], last)


def _cuttings(subject: Subject, lengths: tuple[int, ...], cuttings: int) -> str:
    rng = np.random.default_rng(subject.seed)
    stream = subject.program.stream(subject.given)
    for frames in lengths:
        signal, want, exact = subject.wanted(frames)
        for sizes in ([frames], [1] * frames, *(sizes_of(frames, rng) for _ in range(cuttings))):
            subject.judge(streamed(subject, stream, signal, sizes), want, exact, f"{frames} frames cut {sizes}")
            stream.reset()
    return f"{(cuttings + 2) * len(lengths)} cuttings; worst: {subject.worst.text}"


def _ready(subject: Subject, lengths: tuple[int, ...], cuttings: int) -> str:
    """What has come after n frames is what those frames determine, at every n."""
    facts, frames = subject.facts, lengths[-1]
    stream, rng = subject.program.stream(subject.given), np.random.default_rng(subject.seed)
    signal = subject.wanted(frames)[0]
    unit = int(np.lcm.reduce([o.rate[1] for o in facts.inputs]))
    for sizes in ([unit] * (frames // unit), [unit * s for s in sizes_of(frames // unit, rng)]):
        count, done = dict.fromkeys((o.name for o in facts.outputs), 0), 0
        for size, piece in zip(sizes, cut(subject, signal, sizes), strict=True):
            got, done = stream.push(piece), done + size
            for lane in facts.outputs:
                count[lane.name] += got[lane.name].shape[lane.axis]
                table = subject.told["outputs"][lane.name]["ready"]
                due = max(0, done // facts.chunk * lane.frames + min(0, table[0]))
                if count[lane.name] != due:
                    raise Broken(f"after {done} frames {count[lane.name]} of {lane.name!r} have come, {due} are ready")
        stream.reset()
    return f"at every one of {frames} frames"


def _twice(subject: Subject, lengths: tuple[int, ...], cuttings: int) -> str:
    for factor in (2, -(-lengths[-1] // subject.facts.chunk)):
        other = _again(subject, subject.facts.chunk * factor, {})
        rng = np.random.default_rng(subject.seed)
        for frames in lengths[-2:]:
            signal, want, exact = subject.wanted(frames)
            facts = other.stream(subject.given)
            got = [facts.push(piece) for piece in cut(subject, signal, sizes_of(frames, rng))]
            last = facts.flush()
            subject.judge(join(subject.facts, [*got, last], last), want, exact, f"chunk {factor * subject.facts.chunk}")
    return f"chunk {2 * subject.facts.chunk}, and one for the whole signal; worst: {subject.worst.text}"


def _again(subject: Subject, chunk: int, shapes: Mapping[str, tuple[int | str, ...]]) -> Program:
    if subject.again is None:
        raise Untested("needs the offline model to be streamed once more")
    try:
        return subject.again(chunk, shapes)
    except (Error, ValueError) as error:
        raise Untested(f"could not be streamed once more: {error}") from error


def _beyond(subject: Subject, lengths: tuple[int, ...], cuttings: int) -> str:
    """NaN in the frames after the end, in the compiled program driven step by step."""
    facts, used = subject.facts, 0
    for frames in lengths:
        signal, want, exact = subject.wanted(frames)
        hand = by_hand(subject, compiled(subject), start_of(subject), filler=float("nan"))
        got = hand.push(signal)
        end = hand.flush()
        used += len(end)
        subject.judge(join(facts, [*got, *end], hand.finals or want), want, exact, f"{frames} frames, then NaN")
    if not used:
        raise Untested("no step reaches beyond the end of a signal")
    return f"{used} steps with frames beyond the end; worst: {subject.worst.text}"


def start_of(subject: Subject) -> Arrays:
    """All that a stream remembers before the first frame."""
    return subject.program.stream(subject.given).state()


def compiled(subject: Subject) -> Run:
    """The program as a function of inputs and state."""
    instance, pairs = subject.program.instance(), subject.pairs()

    def run(feeds: Mapping[str, Array]) -> Arrays:
        instance.restore({n: feeds[n] for n in subject.program.states})
        out = instance.run({n: feeds[n] for n in subject.program.inputs})
        return {**out, **{pairs[n]: a for n, a in instance.state().items()}}

    return run


def by_hand(subject: Subject, run: Run, state: Arrays, filler: float = 0.0) -> Hand:
    return Hand(subject.facts, run, subject.pairs(), dict(state), filler)


def _in_onnxruntime(subject: Subject, lengths: tuple[int, ...], cuttings: int) -> str:
    run = open_reference("onnxruntime", subject.step.proto)
    for frames in lengths:
        signal, want, exact = subject.wanted(frames)
        hand = by_hand(subject, run, start_of(subject), filler=float("nan"))
        got = [*hand.push(signal), *hand.flush()]
        whole = join(subject.facts, _or_empty(subject, got), hand.finals or want)
        subject.judge(whole, want, exact, f"{frames} frames")
    return f"{len(lengths)} signals; worst: {subject.worst.text}"


def _or_empty(subject: Subject, got: list[Arrays]) -> list[Arrays]:
    """With a piece of no frames first, so that there is always something to join."""
    stream = subject.program.stream(subject.given)
    nothing = {n: a[(slice(None),) * lane.axis + (slice(0, 0),)] for lane in subject.facts.inputs
               for n, a in ((lane.name, subject.signal(subject.facts.chunk)[lane.name]),)}  # fmt: skip
    return [stream.push(nothing), *got]


def _state(subject: Subject, lengths: tuple[int, ...], cuttings: int) -> str:
    """The state after any frame goes on in a new stream, bit for bit."""
    rng, frames, facts = np.random.default_rng(subject.seed), lengths[-1], subject.facts
    signal = subject.wanted(frames)[0]
    for _ in range(cuttings):
        first = int(rng.integers(0, frames + 1))
        pieces = list(cut(subject, signal, [first, frames - first]))
        one, other = subject.program.stream(subject.given), subject.program.stream(subject.given)
        one.push(pieces[0])
        other.push(next(cut(subject, subject.signal(facts.chunk, seed=1), [facts.chunk])))
        state = one.state()
        other.restore(state)
        for name, value in other.state().items():
            if value.tobytes() != state[name].tobytes():
                raise Broken(f"state {name!r} after {first} frames is another after restore()")
        for a, b in zip(_finish(one, pieces[1]), _finish(other, pieces[1]), strict=True):
            for name in a:
                if a[name].tobytes() != b[name].tobytes():
                    raise Broken(f"output {name!r} differs after state() and restore() at {first} frames")
    return f"at {cuttings} places, bit for bit"


def _finish(stream: Stream, piece: Arrays) -> list[Arrays]:
    return [stream.push(piece), stream.flush()]


def _state_elsewhere(subject: Subject, lengths: tuple[int, ...], cuttings: int) -> str:
    """A state of the compiled program goes on in onnxruntime, and one of onnxruntime in the program."""
    run = open_reference("onnxruntime", subject.step.proto)
    rng, frames, facts = np.random.default_rng(subject.seed + 1), lengths[-1], subject.facts
    signal, want, exact = subject.wanted(frames)
    for _ in range(cuttings):
        first = int(rng.integers(0, frames + 1))
        before, after = cut(subject, signal, [first, frames - first])
        stream = subject.program.stream(subject.given)
        got = [stream.push(before)]
        hand = by_hand(subject, run, stream.state())
        rest = [*hand.push(after), *hand.flush()]
        finals = hand.finals or {n: stream.state()[n] for n in facts.finals if n in stream.state()}
        subject.judge(join(facts, [*got, *rest], finals or want), want, exact, f"onnxruntime from frame {first}")
        hand = by_hand(subject, run, start_of(subject))
        got = _or_empty(subject, hand.push(before))
        stream.reset()
        stream.restore({**stream.state(), **_known(hand.state, stream), **hand.finals})
        end = _finish(stream, after)
        subject.judge(join(facts, [*got, *end], end[-1]), want, exact, f"from onnxruntime at frame {first}")
    return f"at {cuttings} places, both ways; worst: {subject.worst.text}"


def _known(state: Arrays, stream: Stream) -> Arrays:
    names = stream.state()
    return {n: a for n, a in state.items() if n in names}


def _reset(subject: Subject, lengths: tuple[int, ...], cuttings: int) -> str:
    stream, frames = subject.program.stream(subject.given), lengths[-1]
    signal = subject.wanted(frames)[0]
    once = streamed(subject, stream, signal, [frames])
    try:
        stream.push(signal)
    except ValueError:
        pass
    else:
        raise Broken("a push after the flush was not refused")
    for interrupted in (False, True):
        stream.reset()
        if interrupted:
            stream.push(next(cut(subject, subject.signal(lengths[-1], seed=2), [lengths[-1] // 2])))
            stream.reset()
        for name, value in streamed(subject, stream, signal, [frames]).items():
            if value.tobytes() != once[name].tobytes():
                raise Broken(f"output {name!r} differs after reset()")
    return "after a flush and in the middle, bit for bit" + _full(subject, stream)


def _full(subject: Subject, stream: Stream) -> str:
    """A stream with a stated maximum says so when it is reached, and takes nothing more."""
    facts = subject.facts
    if facts.max_past is None:
        return ""
    unit = int(np.lcm(facts.chunk, facts.multiple))
    most = facts.max_past // unit * unit
    stream.reset()
    stream.push(subject.signal(most))
    try:
        stream.push(subject.signal(facts.max_past - most + unit))
    except StreamFull:
        return f"; full after {facts.max_past} frames"
    raise Broken(f"{facts.max_past + unit} frames were taken, {facts.max_past} is the stated maximum")


def _rows(subject: Subject, lengths: tuple[int, ...], cuttings: int) -> str:
    """Rows of a batch do not see each other."""
    facts, frames = subject.facts, lengths[-1]
    axes, shapes = _batch(subject)
    if subject.given:
        raise Untested("the model has side inputs or initial states")
    other = _again(subject, facts.chunk, shapes)
    signal, want, exact = subject.wanted(frames)
    rng, rows = np.random.default_rng(subject.seed), {}
    for name, array in signal.items():
        garbage = np.full_like(array, np.nan) if array.dtype.kind == "f" else array
        rows[name] = np.concatenate([garbage, array, rng.permutation(array.ravel()).reshape(array.shape)], axes[name])
    stream = other.stream()
    got = [stream.push(piece) for piece in cut(subject, rows, sizes_of(frames, rng))]
    last = stream.flush()
    whole = join(facts, [*got, last], last)
    for name, value in whole.items():
        grown = [a for a, (x, y) in enumerate(zip(value.shape, want[name].shape, strict=True)) if x == 3 * y]
        if len(grown) != 1:
            raise Untested(f"where the rows are in output {name!r} is not clear")
        whole[name] = np.array_split(value, 3, grown[0])[1]
    subject.judge(whole, want, exact, "a row between NaN and another signal")
    return f"a row between NaN and another signal; worst: {subject.worst.text}"


def _batch(subject: Subject) -> tuple[dict[str, int], dict[str, tuple[int | str, ...]]]:
    """The batch axis of every time input, and shapes with three rows."""
    axes: dict[str, int] = {}
    specs = {**subject.offline.inputs}
    for lane in subject.facts.inputs:
        axis = 0 if lane.axis != 0 else 1
        shape = specs[lane.name].shape
        if axis >= len(shape) or isinstance(shape[axis], int) or subject.program.inputs[lane.name].shape[axis] != 1:
            raise Untested("the model was exported with a fixed number of rows")
        axes[lane.name] = axis
    names = {specs[n].shape[a] for n, a in axes.items()}
    shapes = {}
    for name, spec in specs.items():
        if name in subject.constants:
            continue
        known = subject.program.inputs.get(name, spec).shape
        shapes[name] = tuple(
            3 if d in names else k if isinstance(k, int) else d for d, k in zip(spec.shape, known, strict=True)
        )
    return axes, shapes


def _field(subject: Subject, lengths: tuple[int, ...], cuttings: int) -> str:
    fields = [subject.told["outputs"][o.name]["receptive_field"] for o in subject.facts.outputs]
    frames = max([lengths[-1], *(min(400, 3 * f) for f in fields if f is not None)])
    frames = frames // subject.facts.multiple * subject.facts.multiple if len(lengths) > 1 else lengths[-1]
    if subject.facts.max_past is not None:
        frames = min(frames, subject.facts.max_past)
    told, signal = subject.told["outputs"], subject.signal(frames)
    fault, text = perturbed(subject.facts, told, signal, subject.offline_run, subject.seed)
    if fault:
        raise Broken(fault)
    return text


CLAUSES: tuple[tuple[str, Callable[..., str]], ...] = (
    ("any cutting", _cuttings),
    ("frames come when ready", _ready),
    ("larger steps", _twice),
    ("nothing beyond the end", _beyond),
    ("rows of a batch", _rows),
    ("receptive field", _field),
    ("flush and reset", _reset),
    ("state goes on", _state),
    ("step model in onnxruntime", _in_onnxruntime),
    ("state in onnxruntime", _state_elsewhere),
)
