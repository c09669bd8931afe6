"""Where the time of a program goes: each kernel of the same C, timed by marks between the calls."""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headrace.artifact.bridge import Call
from headrace.artifact.ports import Array, numpy_dtype
from headrace.artifact.program import Program
from headrace.codegen.generated import KernelInfo
from headrace.codegen.marks import marked
from headrace.codegen.stream_plan import parse
from headrace.errors import Error, TargetError
from headrace.measure.gap import reasons
from headrace.measure.machine import this_machine
from headrace.measure.profile_report import KernelTime, ProfileReport
from headrace.measure.setup import random_inputs, setup_of, title
from headrace.measure.timing import EVICT_BYTES, quartiles
from headrace.targets.link import compile_library, library_name
from headrace.targets.machine import Machine
from headrace.targets.registry import Target, get_target
from headrace.targets.toolchain import Toolchain, find_toolchain

SECONDS = 1.0
ROUNDS = 20
KEPT = 8  # consecutive calls in a trace
STAMPS = 1 << 19  # at most so many marks at a time

Ticks = np.ndarray[Any, np.dtype[np.uint64]]
Times = np.ndarray[Any, np.dtype[np.float64]]


def profile(
    program: Program,
    inputs: Mapping[str, Array] | None = None,
    *,
    seconds: float = SECONDS,
    evict: bool = False,
    remeasure: bool = False,
    seed: int = 0,
) -> ProfileReport:
    """Time every kernel of NAME_run and compare it with what this machine can do.

    The program's C is compiled again by the same toolchain with a clock read after every kernel; calls of
    that library and of the program's own take turns for about `seconds`. inputs: arrays for the program's
    inputs, else seeded random ones (of a step model a step far from both ends is timed); evict: touch 4 MB before
    every call; remeasure: measure the limits of this machine again, else once for a processor and compiler.
    Of a program for several instruction sets the widest is timed.

    Raises TargetError for a program of another machine, ToolchainError, ValueError for wrong inputs, Error
    for C that this version did not write.
    """
    manifest = program.info.manifest
    target = get_target(manifest["target"]["name"])
    held = manifest["target"]["isa"].split(", ")
    target = replace(target, isa=[isa for isa in (target.isa, *target.wider) if isa.name in held][-1])
    lacking = target.missing_here()
    if lacking:
        raise TargetError(f"the kernels of {program.path} are described for other instructions: they need {lacking}")
    toolchain = find_toolchain(manifest["toolchain"]["kind"], manifest["target"]["triple"])
    machine = this_machine(target, toolchain, remeasure)
    given = _inputs(program, inputs, seed)
    instance = program.instance()
    shapes = {name: value.shape for name, value in program.instance().run(given).items()}
    taken = {name: np.zeros(shapes[name], numpy_dtype(spec.dtype)) for name, spec in program.outputs.items()}
    entry, kernels = _entry(program)
    library = MarkedLibrary(program, target, toolchain, entry, [k.name for k in kernels])
    own = instance.entry if entry == "run" else 0
    found = library.measure(own, instance.arguments(given, taken), seconds, evict)
    io_bytes = sum(value.nbytes for value in (*given.values(), *taken.values()))
    weights = min(program.info.weight_bytes, sum(k.constant_bytes for k in kernels))  # of these instructions
    between = program.info.memory_bytes + io_bytes + weights + (EVICT_BYTES if evict else 0)
    return ProfileReport(
        subject=title(program),
        target=program.info.target,
        toolchain=program.info.toolchain,
        machine=machine,
        evict=evict,
        calls=len(found.inner),
        us=float(np.median(found.whole)),
        quartiles_us=_quartiles(found.whole),
        rest_us=float(np.median(found.inner[:, -1])),
        mark_us=found.mark_us,
        working_set=between,
        kernels=tuple(_kernel(k, found.inner[:, n], machine, between) for n, k in enumerate(kernels)),
        trace=tuple(tuple(float(us) for us in row) for row in found.trace),
    )


def _entry(program: Program) -> tuple[str, tuple[KernelInfo, ...]]:
    """The entry that most calls take, and its kernels."""
    steady = program.info.manifest["facts"].get("steady")
    if steady is None:
        return "run", program.info.kernels
    return "steady", tuple(
        KernelInfo(**{**k, "nodes": tuple(k["nodes"]), "schedule": tuple(k["schedule"])}) for k in steady
    )


def _inputs(program: Program, inputs: Mapping[str, Array] | None, seed: int) -> dict[str, Array]:
    setup = setup_of(program)
    given = dict(inputs) if inputs is not None else random_inputs(program, setup.symbols, seed)
    stream = program.info.manifest["facts"].get("stream")
    if stream is not None and inputs is None:
        for name, value in parse(stream).steady_inputs.items():
            if name in given:
                given[name] = np.asarray(value, given[name].dtype).reshape(given[name].shape)
    return {name: np.ascontiguousarray(value) for name, value in given.items()}


def _kernel(kernel: KernelInfo, us: Times, machine: Machine, between: int) -> KernelTime:
    """Constants come from where all that lies `between` two calls fits, other data from where they fit themselves."""
    median = float(np.median(us))
    moved = kernel.read_bytes + kernel.written_bytes
    computing = kernel.operations / machine.fma / 1000
    constants = kernel.constant_bytes / machine.bandwidth(between) / 1000
    reading = constants + moved / machine.bandwidth(moved) / 1000
    level = machine.level(between if constants > reading / 2 else moved)
    return KernelTime(
        kernel=kernel,
        us=median,
        quartiles_us=_quartiles(us),
        limit_us=max(computing, reading),
        bound="arithmetic" if computing >= reading else f"reading from {level}",
        reasons=reasons(kernel, median, computing, reading, machine),
    )


def _quartiles(us: Times) -> tuple[float, float]:
    return quartiles([float(x) for x in us])


@dataclass(frozen=True)
class Found:
    """Microseconds. whole: of calls of the program's own library; inner[call]: each kernel, then the rest of
    the call; trace: the marks of some consecutive calls; mark_us: taken off for each mark."""

    whole: Times
    inner: Times
    trace: Times
    mark_us: float


class MarkedLibrary:
    """A program's C with marks, compiled and loaded."""

    def __init__(
        self, program: Program, target: Target, toolchain: Toolchain, entry: str, kernels: Sequence[str]
    ) -> None:
        manifest = program.info.manifest
        self.name: str = manifest["name"]
        self.marks = len(kernels) + 2
        source = (program.path / f"{self.name}.c").read_text(encoding="utf-8")
        text = marked(source, self.name, kernels, entry)
        with tempfile.TemporaryDirectory(prefix="headrace-profile-") as name:
            folder = Path(name)
            (folder / f"{self.name}.h").write_bytes((program.path / f"{self.name}.h").read_bytes())
            (folder / "marked.c").write_text(text, encoding="utf-8")
            file = library_name("marked", target.triple)
            compile_library(toolchain, target.triple, ("marked.c",), file, folder)
            self._library = ctypes.CDLL(str(folder / file))
        size, pointer = ctypes.c_size_t, ctypes.c_void_p
        self._calls = getattr(self._library, f"{self.name}_calls")
        self._calls.argtypes = [*[pointer] * 7, size, size, size, pointer]
        self._marks = getattr(self._library, f"{self.name}_marks")
        self._marks.argtypes = [size, pointer]

    def measure(self, entry: int, call: Call, seconds: float, evict: bool) -> Found:
        """Let the program's own entry (at `entry`, or where that is 0 the one of this library) and the marked one
        take turns."""
        other = np.zeros(EVICT_BYTES if evict else 0, np.uint8)
        begun = time.perf_counter_ns()
        start = int(self._run(entry, call, other, 1, 2)[0, 0])
        count, whole, inner = self._count(entry, call, other, seconds), [], []
        for _ in range(ROUNDS):
            whole.append(self._run(entry, call, other, count, 2))
            inner.append(self._run(entry, call, other, count, self.marks))
        last = inner[-1]
        ns = (time.perf_counter_ns() - begun) / (int(last[-1, -1]) - start)
        mark = self._overhead()
        plain, marks = np.concatenate(whole), np.concatenate(inner)
        gaps = np.diff(marks.astype(np.int64), axis=1) - mark
        outside = (plain[:, -1] - plain[:, 0]).astype(np.int64) - mark
        kept = last[-KEPT:].astype(np.int64)
        return Found(
            np.maximum(outside, 0) * ns / 1000,
            np.maximum(gaps, 0) * ns / 1000,
            (kept - kept[0, 0]) * ns / 1000,
            mark * ns / 1000,
        )

    def _count(self, entry: int, call: Call, other: Array, seconds: float) -> int:
        """Calls in a round, after a tenth of the time to warm up."""
        begun, calls = time.perf_counter(), 0
        while (spent := time.perf_counter() - begun) < seconds / 10 or calls == 0:
            self._run(entry, call, other, 1 + calls // 4, 2)
            calls += 1 + calls // 4
        return max(1, min(int(0.9 * seconds / (2 * ROUNDS) / (spent / calls)), STAMPS // ROUNDS // self.marks))

    def _run(self, entry: int, call: Call, other: Array, count: int, marks: int) -> Ticks:
        stamps = np.zeros((count, marks), np.uint64)
        code = self._calls(
            entry or None, call.state, call.scratch, call.weights, call.inputs, call.outputs,
            other.ctypes.data, len(other), count, marks, stamps.ctypes.data,
        )  # fmt: skip
        if code:
            raise Error(f"{self.name}_run returned error {code}; its header says what that means")
        return stamps

    def _overhead(self) -> int:
        """Ticks of one mark."""
        stamps = np.zeros(1000, np.uint64)
        self._marks(len(stamps), stamps.ctypes.data)
        return int(np.median(np.diff(stamps)))
