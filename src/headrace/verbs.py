"""What a user does with Headrace, as plain functions; the command line and the studio call the same ones."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from headrace.artifact.build import Source, build
from headrace.artifact.manifest import plain
from headrace.artifact.naming import c_identifier
from headrace.artifact.package import check_output
from headrace.artifact.program import Program, open_program, open_temporary
from headrace.errors import InvalidModel, TargetError
from headrace.live import by_hand, state_pairs, stream_data
from headrace.targets.registry import Target, get_target
from headrace.targets.toolchain import find_toolchain

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from headrace.codegen.generated import Generated
    from headrace.graph.model import Model
    from headrace.graph.prepare import Prepared
    from headrace.measure.bench_report import BenchReport
    from headrace.measure.contract_report import ContractReport
    from headrace.measure.inspect import Inspection
    from headrace.measure.profile_report import ProfileReport
    from headrace.measure.verify_report import VerifyReport
    from headrace.program.ir import Module
    from headrace.streaming.model import StepModel

PathLike: TypeAlias = Union[str, "os.PathLike[str]"]
ModelLike: TypeAlias = Union[PathLike, bytes, "onnx.ModelProto", "ir.Model", "Model"]
Shapes: TypeAlias = Mapping[str, Sequence[Union[int, str]]]
MAX_THREADS = 64
Bounds: TypeAlias = Mapping[str, Union[int, tuple[int, int]]]


def load(source: ModelLike) -> Model:
    """Read and check a model: a path, bytes, an onnx.ModelProto or an onnx_ir.Model.

    Raises InvalidModel for a damaged or inconsistent model, FileNotFoundError, TypeError.
    """
    from headrace.frontends.onnx import load as load_onnx

    return load_onnx(source)


def compile(
    model: ModelLike,
    target: str | Target = "native",
    *,
    shapes: Shapes | None = None,
    bounds: Bounds | None = None,
    constants: Mapping[str, Any] | None = None,
    state: Mapping[str, str] | None = None,
    axes: Mapping[str, int] | None = None,
    threads: int = 1,
    out: PathLike | None = None,
    toolchain: str | None = None,
) -> Program:
    """Compile a model to native code for `target`.

    shapes: fixes unknown dims of inputs; a string makes the dim an extent that is known at run time.
    bounds: the greatest value of each such extent, or (greatest value, divisor).
    constants: values of inputs that are fixed now.
    state: pairs "input" -> "output": that output of one run is that input of the next; a step model
    brings its own.
    axes: with `state`, the time axis of inputs and outputs of a step model made elsewhere: its program
    streams, in whole steps.
    threads: the most that work on one large kernel; results do not depend on it. Python brings a pool of
    them, C programs pass a parallel_for.
    out: folder to keep the artifact in; None for a temporary one that goes away with the Program.
    toolchain: "gcc", "clang", "zig", or None for the first that is here.

    Raises InvalidModel, UnsupportedOperator, TargetError, ToolchainError, OutputError (`out` cannot be
    written), or ValueError for wrong arguments. What was at `out` stays there unless all succeeds.
    """
    wanted = get_target(target)
    check_threads(threads, wanted)
    compiler = find_toolchain(toolchain, wanted.triple)
    folder = None if out is None else Path(out)
    if folder is not None:
        check_output(folder)
    loaded = load(model)
    name = model_name(loaded)
    data = stream_data(loaded)
    if data is not None:
        if state or axes:
            raise ValueError("state, axes: a step model of hr.stream() states these itself; leave them out")
        state = state_pairs(data)
    options = {
        "shapes": shapes or {},
        "bounds": bounds or {},
        "constants": constants or {},
        "state": state or {},
        **({"axes": axes} if axes else {}),
        "threads": threads,
    }
    plain(options)
    generated = generate(
        loaded,
        c_identifier(name),
        wanted,
        shapes=shapes or {},
        bounds=bounds or {},
        constants=constants or {},
        state=state or {},
        axes=axes or {},
        threads=threads,
    )
    source = Source(name, loaded.sha256, loaded.source)
    path = build(generated, wanted, compiler, folder, source=source, options=options)
    return open_temporary(path, model=loaded) if folder is None else open_program(path, model=loaded, check=False)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of cycles: expressions form none, and it would visit them all again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_uncollected()
def generate(
    model: Model,
    name: str,
    target: Target,
    *,
    shapes: Shapes,
    bounds: Bounds,
    constants: Mapping[str, Any],
    state: Mapping[str, str],
    axes: Mapping[str, int] | None = None,
    threads: int = 1,
) -> Generated:
    """The whole compiler in one place: graph clean-up, lowering, fusion, scheduling, C."""
    from headrace.codegen import Variant
    from headrace.codegen import generate as generate_c
    from headrace.codegen.section import changes_something
    from headrace.codegen.stream_plan import parse
    from headrace.ops.lowering import lower
    from headrace.ops.registry import native
    from headrace.passes.prepare import prepare
    from headrace.program.optimise import simplify, specialise
    from headrace.program.ring import use_rings

    def prepared_with(fixed: Mapping[str, Any]) -> Prepared:
        return prepare(
            model,
            shapes=shapes,
            bounds=bounds,
            constants={**constants, **fixed},
            native=native,
            keep_inputs=list(state or {}),
        )

    prepared = prepared_with({})
    module = lower(prepared, name, state)
    module.notes += prepared.decisions
    data = stream_data(model)
    if data is None and axes:
        inputs, outputs = ({b.name: b.bound for b in side} for side in (module.inputs, module.outputs))
        data = by_hand(axes, state, inputs, outputs)
    live = None if data is None else parse(data)
    far = live.steady_inputs if live is not None else None
    steady = lower(prepared_with(far), name, state) if far else None
    main, *far_from_ends = use_rings([simplify(m) for m in (module, steady) if m is not None])

    @functools.cache
    def special(lanes: int, dots: bool, pairs: bool) -> list[Module]:
        return [specialise(m, lanes, dots, pairs) for m in (main, *far_from_ends)]

    narrow, *wider = (Variant(isa, *special(isa.lanes, isa.dots, isa.pairs)) for isa in (target.isa, *target.wider))
    wider = [v for v in wider if changes_something(v)]
    generated = generate_c(narrow.module, name, target, stream=live, steady=narrow.steady, threads=threads, wider=wider)
    if data is not None:
        offline = model.metadata.get("headrace.sha256", "")
        generated = replace(generated, facts={**generated.facts, "stream": data, "stream_of": offline})
    names = [str(v.name) for v in prepared.model.graph.outputs if v.name not in (state or {}).values()]
    return _with_declared_names(generated, names)


def _with_declared_names(generated: Generated, names: Sequence[str]) -> Generated:
    """Outputs under the names of the model, where an output may be an input under the same name."""
    ports = [replace(p, name=name) for p, name in zip(generated.outputs, names, strict=True)]
    return replace(generated, outputs=tuple(ports))


def stream(
    model: ModelLike,
    axes: Mapping[str, int],
    *,
    shapes: Shapes | None = None,
    constants: Mapping[str, Any] | None = None,
    multiple: Mapping[str, int] | None = None,
    max_past: int | None = None,
    window: int | Mapping[str, int] | None = None,
    hop: int = 1,
    chunk: int | None = None,
    align: bool = False,
    lengths: Mapping[str, str] | None = None,
) -> StepModel:
    """The step model of an offline model: one chunk of frames and the state in, what is ready out.

    axes: time input -> its time axis; shapes: other unknown dims (1 where not given); constants: inputs
    fixed now; multiple: time input -> a number of which its length is always a multiple; max_past: the
    longest signal, in frames, for attention that reaches back without limit (StreamFull beyond);
    chunk: frames per step, a multiple of the smallest; align: delay all outputs to the slowest;
    lengths: integer input -> the time input whose number of frames it holds. It leaves the step model:
    masks of frames before the end hold for every frame, the frame before the end is known at the flush.
    window: another function than the model over the whole signal: the model on every window of so many
    frames, `hop` frames apart, results stacked on a new first axis, y[k] = f(x[k·hop : k·hop + window]).
    Layers whose padding allows it are computed once for all windows; step.window says what that saves.

    Raises NotStreamable, which names the node, the reason and a way out; ValueError for wrong arguments.
    """
    from headrace.streaming.rewrite import stream as run

    return run(
        load(model), axes, shapes=shapes, constants=constants, multiple=multiple, max_past=max_past,
        window=window, hop=hop, chunk=chunk, align=align, lengths=lengths,
    )  # fmt: skip


def open(path: PathLike) -> Program:
    """Open an artifact. Raises InvalidModel, naming the file, when it is none or was changed or damaged."""
    return open_program(path)


def verify(
    program: Program | ModelLike,
    model: ModelLike | None = None,
    inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    reference: str | Program = "onnxruntime",
    *,
    layers: bool | None = None,
    **options: Any,
) -> VerifyReport | ContractReport:
    """Compare a program with the model it was compiled from, run by `reference`.

    Of a step model, or a program compiled from one, with the offline model as `model` (or where its file
    still lies): the whole streaming contract; `constants` are those of hr.stream(), and `lengths`, `cuttings`
    and `seed` say what is tried; `progress` is called with the name of each clause.

    inputs: arrays for one run or for consecutive runs, beside random ones; reference: "onnxruntime",
    "onnx" (onnx.reference) or another Program; layers: compare layer by layer always, never, or (None)
    when an output differs. A model instead of a program is compiled first, with `options` as in compile().
    """
    from headrace.measure.verify import verify as run

    step = _step_model(program)
    if step is not None and inputs is None and reference == "onnxruntime":
        offline = _offline_model(step, model)
        if offline is not None:
            return _contract(program, step, offline, options)
    compiled = _compiled(program, options)
    source = None if isinstance(reference, Program) and model is None else source_model(compiled, model)
    return run(compiled, source, inputs, reference, layers=layers, compile=compile)


def _step_model(program: Program | ModelLike) -> Model | None:
    """The step model that is given, or that a program was compiled from; None for anything else."""
    if isinstance(program, Program):
        if "stream" not in program.info.manifest["facts"] or program.info.manifest["options"].get("axes"):
            return None
        return source_model(program, None)
    loaded = load(program)
    return loaded if stream_data(loaded) is not None else None


def _offline_model(step: Model, given: ModelLike | None) -> Model | None:
    """The model that was streamed: the one given, or the file that the step model names; None if it is not there."""
    if given is not None:
        offline = load(given)
        return None if stream_data(offline) is not None else offline
    path = step.metadata.get("headrace.source", "")
    if not path or not Path(path).is_file():
        return None
    offline = load(path)
    return offline if offline.sha256 == step.metadata.get("headrace.sha256") else None


def _contract(program: Program | ModelLike, step: Model, offline: Model, options: Mapping[str, Any]) -> ContractReport:
    """The streaming contract of a step model against the model that was streamed."""
    from headrace.codegen.stream_plan import parse
    from headrace.measure.contract import contract

    own = {k: v for k, v in options.items() if k in ("constants", "lengths", "cuttings", "seed", "progress")}
    rest = {k: v for k, v in options.items() if k not in own}
    compiled = _compiled(program if isinstance(program, Program) else step, rest)
    facts = parse(stream_data(step) or {})
    kept: dict[str, Any] = {
        "constants": own.get("constants"),
        **_made_with(stream_data(step) or {}),
    }
    known = _known_shapes(compiled, offline, stream_data(step) or {})

    def again(chunk: int, shapes: Shapes) -> Program:
        axes = {lane.name: lane.axis for lane in facts.inputs}
        return compile(stream(offline, axes, shapes={**known, **shapes}, chunk=chunk, **kept), **rest)

    def whole(shapes: Shapes) -> Program:
        return compile(offline, shapes=shapes, constants=own.get("constants"), **rest)

    return contract(compiled, step, offline, again=again, whole=whole, **own)


def bench(
    program: Program | ModelLike,
    peers: Sequence[str] = ("onnxruntime",),
    *,
    model: ModelLike | None = None,
    inputs: Mapping[str, Any] | None = None,
    rounds: int | None = None,
    evict: bool = False,
    **options: Any,
) -> BenchReport:
    """Time a program beside other runtimes, interleaved in one run.

    model: the source of the program, when its file has moved; inputs: arrays, else seeded random ones;
    evict: touch 4 MB between calls. A model instead of a program is compiled first, with `options` as in
    compile().
    """
    from headrace.measure.bench import bench as run
    from headrace.measure.timing import ROUNDS

    compiled = _compiled(program, options)
    source = source_model(compiled, model) if peers else None
    return run(compiled, list(peers), source, inputs, rounds=rounds or ROUNDS, evict=evict)


def profile(
    program: Program | ModelLike,
    inputs: Mapping[str, Any] | None = None,
    *,
    seconds: float = 1.0,
    evict: bool = False,
    remeasure: bool = False,
    **options: Any,
) -> ProfileReport:
    """Time, work and bytes of each kernel of a program, beside what this machine can do at most.

    inputs: arrays, else seeded random ones; seconds: how long to measure; evict: touch 4 MB before every
    call; remeasure: the limits of this machine, which are otherwise measured once for a processor and a
    compiler. A model instead of a program is compiled first, with `options` as in compile().
    """
    from headrace.measure.profile import profile as run

    return run(_compiled(program, options), inputs, seconds=seconds, evict=evict, remeasure=remeasure)


def inspect(
    model: ModelLike,
    shapes: Shapes | None = None,
    axes: Mapping[str, int] | None = None,
    constants: Mapping[str, Any] | None = None,
    **streaming: Any,
) -> Inspection:
    """Operators, shapes, parameters and multiply-accumulates of a model; open dims stay formulas.

    axes: also time, delay and state of every layer, or what blocks it; `streaming`: the arguments multiple,
    max_past, window and hop of stream().
    """
    from headrace.measure.inspect import inspect as run

    return run(load(model), shapes=shapes, axes=axes, constants=constants, **streaming)


def check_threads(threads: object, target: Target) -> None:
    """Raise ValueError, or TargetError where the pool has no threads to be made of."""
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"threads={threads!r}: a whole number from 1 to {MAX_THREADS} is expected")
    if threads > 1 and "windows" in target.triple:
        raise TargetError(
            f"threads={threads}: the pool needs POSIX threads, which {target.triple} has not; use threads=1"
        )


def model_name(model: Model) -> str:
    """Stem of the model's file, or the graph's name, or "model"."""
    if model.source is not None:
        return model.source.stem
    return model.ir.graph.name or "model"


def source_model(program: Program, given: ModelLike | None) -> Model:
    """The model a program was compiled from: the one given, the one in memory, or the file it came from.

    Raises InvalidModel when the file has moved or was changed since.
    """
    if given is not None:
        return load(given)
    if program.model is not None:
        return program.model
    path = program.origin
    if path is None:
        raise InvalidModel(f"{program.path} does not say where its model lies; give it with model= (--model)")
    if not path.is_file():
        raise InvalidModel(f"the model of {program.path} is no longer at {path}; give it with model= (--model)")
    model, manifest = load(path), program.info.manifest
    if model.sha256 == manifest["facts"].get("stream_of"):
        return _streamed_again(program, model)
    if model.sha256 != manifest["model"]["sha256"]:
        raise InvalidModel(
            f"{path} was changed since {program.path} was compiled from it; "
            "compile again, or give the model with model= (--model)"
        )
    return model


def _streamed_again(program: Program, offline: Model) -> Model:
    """The step model that a program was compiled from, which was in no file. InvalidModel if it comes out another."""
    data = program.info.manifest["facts"]["stream"]
    axes = {name: port["axis"] for name, port in data["inputs"].items()}
    known = _known_shapes(program, offline, data)
    step = stream(offline, axes, shapes=known, chunk=data["chunk"], **_made_with(data))
    if stream_data(step) != data:
        raise InvalidModel(
            f"{program.path} was compiled from a step model that was not saved; save it, and give it with model="
        )
    return step


def _made_with(data: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of stream() with which a step model was made."""
    name, port = next(iter(data["inputs"].items()))
    multiple = {name: data["multiple"] * port["rate"][0]} if data["multiple"] > 1 else None
    window = data.get("window")
    made = {} if window is None else {"window": window["frames"], "hop": window["hop"]}
    lengths = {name: bound["input"] for name, bound in data.get("lengths", {}).items()}
    align = data.get("align", False)
    return {**made, "multiple": multiple, "max_past": data["max_past"], "align": align, "lengths": lengths}


def _known_shapes(program: Program, offline: Model, data: Mapping[str, Any]) -> dict[str, tuple[int | str, ...]]:
    """Extents with which a model was streamed."""
    known = {name: tuple(spec.shape) for name, spec in program.inputs.items() if name in offline.inputs}
    return {**known, **{name: tuple(bound["shape"]) for name, bound in data.get("lengths", {}).items()}}


def _compiled(program: Program | ModelLike, options: Mapping[str, Any]) -> Program:
    if not isinstance(program, Program):
        return compile(program, **options)
    if options:
        raise ValueError(f"{', '.join(options)}: these belong to compile(), and the program is compiled already")
    return program
