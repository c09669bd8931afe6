"""The command line: every verb of the package, for people by default and as JSON with --json.

Exit status: 0 done, 1 the check failed or the model was refused, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.cli_options import (
    add_compile_options,
    add_stream_options,
    add_time_options,
    compile_options,
    is_artifact,
    parse_axis,
    parse_constant,
    parse_file,
    parse_shape,
    stream_options,
    time_options,
)
from headrace.errors import Error, TargetError

if TYPE_CHECKING:
    from headrace.artifact.program import Program

DONE, FAILED, USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    try:
        arguments = parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else USAGE
    try:
        with _terminated_cleanly():
            status: int = arguments.command(arguments)
            sys.stdout.flush()
            return status
    except BrokenPipeError:  # the reader, such as `head`, has enough
        sys.stderr.close()
        return DONE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except Terminated:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGTERM
    except Exception as error:
        if arguments.debug:
            traceback.print_exc()
        else:
            print(f"headrace: {_message(error)}", file=sys.stderr)
        return exit_status(error)


class Terminated(BaseException):
    """The process was asked to end; what is half-done is undone on the way out."""


@contextlib.contextmanager
def _terminated_cleanly() -> Iterator[None]:
    """Turn SIGTERM into Terminated, as Python turns SIGINT into KeyboardInterrupt."""

    def stop(*_: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def exit_status(error: Exception) -> int:
    """2 for what the caller can write differently, 1 for everything else."""
    from headrace.artifact.package import OutputError

    if isinstance(error, (TargetError, OutputError)):
        return USAGE
    return USAGE if isinstance(error, (ValueError, TypeError, OSError)) else FAILED


def _message(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    if isinstance(error, (Error, ValueError, OSError)):
        return text
    return f"internal error, {type(error).__name__}: {text} (--debug shows where)"


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="headrace", description="Compile neural networks to native C.")
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument("--json", action="store_true", help="print JSON")
    everywhere.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=about, description=about, parents=[everywhere])
        sub.set_defaults(command=run)
        return sub

    sub = command("inspect", _inspect, "operators, shapes, parameters and work of a model")
    sub.add_argument("model", metavar="MODEL")
    sub.add_argument("--shape", action="append", type=parse_shape, default=[], metavar="x=1x3x224x224")
    sub.add_argument("--axis", action="append", type=parse_axis, default=[], metavar="x=1", help="time axis of x")
    sub.add_argument("--const", action="append", type=parse_constant, default=[], metavar="sr=16000")
    add_time_options(sub)

    sub = command("stream", _stream, "make the step model of a model over time")
    sub.add_argument("model", metavar="MODEL")
    sub.add_argument("-o", "--out", required=True, metavar="FILE", help="the step model, .onnx")
    sub.add_argument("--verify", action="store_true", help="compile it and try the whole streaming contract")
    add_stream_options(sub)

    sub = command("compile", _compile, "compile a model to an artifact")
    sub.add_argument("model", metavar="MODEL")
    sub.add_argument("-o", "--out", required=True, metavar="DIR", help="folder of the artifact")
    add_compile_options(sub)

    sub = command("run", _run, "run an artifact once on arrays from files")
    sub.add_argument("artifact", metavar="DIR")
    sub.add_argument("--input", action="append", type=parse_file, default=[], metavar="x=x.npy")
    sub.add_argument("--output", action="append", type=parse_file, default=[], metavar="y=y.npy")

    sub = command("verify", _verify, "compare a compiled model with its source")
    sub.add_argument("subject", metavar="MODEL|DIR")
    sub.add_argument("--model", metavar="MODEL", help="where the source of DIR lies now")
    sub.add_argument("--reference", default="onnxruntime", help="onnxruntime or onnx")
    sub.add_argument("--layers", action="store_true", help="compare layer by layer even when all is right")
    add_compile_options(sub)

    sub = command("bench", _bench, "time a compiled model beside other runtimes")
    sub.add_argument("subject", metavar="MODEL|DIR")
    sub.add_argument("--peers", default="onnxruntime", metavar="A,B", help="runtimes to compare with, or ''")
    sub.add_argument("--model", metavar="MODEL", help="where the source of DIR lies now")
    sub.add_argument("--evict", action="store_true", help="touch 4 MB between calls")
    sub.add_argument("--rounds", type=int, metavar="N", help="interleaved rounds (default: 31)")
    add_compile_options(sub)

    sub = command("profile", _profile, "time, work and share of the limit of every kernel")
    sub.add_argument("subject", metavar="MODEL|DIR")
    sub.add_argument("--sort", choices=("time", "order"), default="time", help="rows by time, or as kernels run")
    sub.add_argument("--trace", metavar="FILE", help="write some calls for ui.perfetto.dev or chrome://tracing")
    sub.add_argument("--input", action="append", type=parse_file, default=[], metavar="x=x.npy", help="default: random")
    sub.add_argument("--seconds", type=float, default=1.0, metavar="S", help="how long to measure (default: 1)")
    sub.add_argument("--evict", action="store_true", help="touch 4 MB before every call")
    sub.add_argument("--remeasure", action="store_true", help="measure the limits of this machine again")
    add_compile_options(sub)

    command("targets", _targets, "targets, and whether they can be built and run here")
    command("doctor", _doctor, "what is installed, what is missing, the command that fixes it")
    return top


def _inspect(arguments: argparse.Namespace) -> int:
    from headrace import verbs

    report = verbs.inspect(
        arguments.model,
        shapes=dict(arguments.shape),
        axes=dict(arguments.axis),
        constants=dict(arguments.const),
        **time_options(arguments),
    )
    _print_report(report, arguments)
    return DONE if report.time is None or report.time.blocked is None else FAILED


def _stream(arguments: argparse.Namespace) -> int:
    from headrace import verbs

    options = stream_options(arguments)
    with _progress(f"streaming {Path(arguments.model).name}"):
        step = verbs.stream(arguments.model, **options)
    step.save(arguments.out)
    report = None
    if arguments.verify:
        with _progress("compiling the step model") as status:
            report = verbs.verify(
                step,
                model=arguments.model,
                constants=options.get("constants"),
                progress=lambda clause: status.update(f"trying the contract: {clause}"),
            )
    if arguments.json:
        facts = json.loads(step.metadata["headrace.stream"])
        _print_json({"path": arguments.out, **facts, **({"verify": report.to_dict()} if report else {})})
    else:
        print(f"{arguments.out}: {step.chunk} input frame(s) per step")
        if step.window is not None:
            print(f"  {step.window}")
        print(report.table() if report else _promises(step))
    return DONE if report is None or report.ok else FAILED


def _promises(step: Any) -> str:
    """Times of every output of a step model, a line each."""
    lines = []
    for name, latency in step.latency.items():
        field = step.receptive_field[name]
        lines.append(
            f"  {name}: {step.ratio[name]:g} frame(s) per input frame, latency {latency}, "
            f"look-ahead {step.lookahead[name]}, receptive field {'unbounded' if field is None else f'{field} frames'}"
        )
    return "\n".join(lines)


def _compile(arguments: argparse.Namespace) -> int:
    program = _compiled(arguments, arguments.model, out=arguments.out)
    info = program.info
    if arguments.json:
        _print_json({"path": str(program.path), **info.manifest})
        return DONE
    rows = [
        ("artifact", str(program.path)),
        ("target", f"{info.target}, {info.toolchain}"),
        (
            "memory",
            f"{_size(info.memory_bytes)} (state {info.state_bytes:,}, scratch {info.scratch_bytes:,})",
        ),
        ("weights", _size(info.weight_bytes)),
        ("code", "unknown" if info.code_bytes is None else _size(info.code_bytes)),
        ("work", f"{info.macs:,} MAC in {len(info.kernels)} kernels"),
        *(("input", f"{name}: {spec}") for name, spec in program.inputs.items()),
        *(("output", f"{name}: {spec}") for name, spec in program.outputs.items()),
    ]
    for key, value in rows:
        print(f"{key:9} {value}")
    return DONE


def _run(arguments: argparse.Namespace) -> int:
    from headrace import verbs
    from headrace.cli_options import load_array, save_array

    program = verbs.open(arguments.artifact)
    targets = dict(arguments.output)
    unknown = [name for name in targets if name not in program.outputs]
    if unknown:
        raise ValueError(f"unknown output {unknown[0]!r}; there are {', '.join(map(repr, program.outputs))}")
    inputs = {name: load_array(path, program.inputs.get(name)) for name, path in arguments.input}
    results = program.run(inputs)
    for name, path in targets.items():
        save_array(path, results[name])
    if arguments.json:
        _print_json({name: _described(array) for name, array in results.items()})
        return DONE
    for name, array in results.items():
        where = f" -> {targets[name]}" if name in targets else f"\n{array}"
        print(f"{name}: {array.dtype.name} {list(array.shape)}{where}")
    return DONE


def _verify(arguments: argparse.Namespace) -> int:
    from headrace import verbs

    program = _compiled(arguments, arguments.subject)
    with _progress("verifying"):
        report = verbs.verify(
            program,
            model=arguments.model,
            reference=arguments.reference,
            layers=True if arguments.layers else None,
        )
    _print_report(report, arguments)
    return DONE if report.ok else FAILED


def _bench(arguments: argparse.Namespace) -> int:
    from headrace import verbs

    program = _compiled(arguments, arguments.subject)
    peers = [name for name in arguments.peers.split(",") if name]
    with _progress("measuring"):
        report = verbs.bench(program, peers, model=arguments.model, rounds=arguments.rounds, evict=arguments.evict)
    return _print_report(report, arguments)


def _profile(arguments: argparse.Namespace) -> int:
    from headrace import verbs
    from headrace.cli_options import load_array

    program = _compiled(arguments, arguments.subject)
    inputs = {name: load_array(path, program.inputs.get(name)) for name, path in arguments.input}
    with _progress("measuring"):
        report = verbs.profile(
            program, inputs or None, seconds=arguments.seconds, evict=arguments.evict, remeasure=arguments.remeasure
        )
    if arguments.trace:
        report.write_trace(arguments.trace)
    if arguments.json:
        return _print_report(report, arguments)
    print(report.table(arguments.sort))
    return DONE


def _targets(arguments: argparse.Namespace) -> int:
    from headrace.targets.registry import targets

    rows = targets()
    if arguments.json:
        _print_json(rows)
        return DONE
    first, second = (2 + max(map(len, names)) for names in ([r.name for r in rows], [r.isa for r in rows]))
    print(f"{'target':{first}}{'instruction set':{second}}{'build':7}{'run':5}missing")
    for row in rows:
        build, run = ("yes" if flag else "no" for flag in (row.can_build, row.can_run))
        print(f"{row.name:{first}}{row.isa:{second}}{build:7}{run:5}{row.missing}".rstrip())
    return DONE


def _doctor(arguments: argparse.Namespace) -> int:
    from headrace.doctor import examine, healthy

    checks = examine()
    if arguments.json:
        _print_json(checks)
    else:
        for check in checks:
            mark = "ok  " if check.ok else "MISS" if check.required else "-   "
            print(f"{mark} {check.name:14} {check.found}" + (f"   fix: {check.fix}" if check.fix else ""))
        print("all that is needed is here" if healthy(checks) else "something that is needed is missing")
    return DONE if healthy(checks) else FAILED


def _compiled(arguments: argparse.Namespace, subject: str, out: str | None = None) -> Program:
    """The program of an artifact's folder, or of a model, which is compiled now."""
    from headrace import verbs

    options = compile_options(arguments)
    if out is None and is_artifact(subject):
        if options:
            raise ValueError(f"{subject} is compiled already; {', '.join(options)} cannot change it")
        return verbs.open(subject)
    with _progress(f"compiling {Path(subject).name}"):
        time = time_options(arguments)
        if "axes" not in options or "state" in options:
            if time:
                raise ValueError(
                    f"{', '.join(time)}: these say how a model is streamed; give its --axis, and no --state"
                )
            return verbs.compile(subject, out=out, **options)
        own = {k: options.pop(k) for k in ("axes", "shapes", "constants", *time) if k in options}
        return verbs.compile(verbs.stream(subject, **own), out=out, **options)


def _progress(text: str) -> Any:
    """A moving line on a terminal while something long runs; nothing elsewhere."""
    from rich.console import Console

    return Console(stderr=True).status(text)


def _print_report(report: Any, arguments: argparse.Namespace) -> int:
    if arguments.json:
        _print_json(report.to_dict() if hasattr(report, "to_dict") else report)
    else:
        print(report.table() if hasattr(report, "table") else report)
    return DONE


def _print_json(value: object) -> None:
    from headrace.artifact.manifest import plain

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    elif isinstance(value, tuple):
        value = [dataclasses.asdict(row) for row in value]
    print(json.dumps(plain(value), indent=1))


def _described(array: Any) -> dict[str, Any]:
    from headrace.artifact.manifest import plain

    about: dict[str, Any] = {"dtype": array.dtype.name, "shape": list(array.shape)}
    return {**about, **plain(array)}


def _size(count: int) -> str:
    for unit, factor in (("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count:,} bytes ({count / factor:.1f} {unit})"
    return f"{count:,} bytes"


if __name__ == "__main__":
    sys.exit(main())
