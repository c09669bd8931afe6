"""Live streams: beside plain C, beside the state lifted by hand, after an hour, in silence.

python -m benchmarks.streams [PART …] [--json PATH]    parts: causal, nsnet2, hour, silence; default: all

All contestants of a line take turns in one process. A ratio is the median over the rounds, with quartiles.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

import headrace as hr
from benchmarks.growth import SOURCE, plain_weights
from headrace.measure.peers import is_installed
from headrace.measure.timing import Timing, interleave, ratio
from headrace.targets.host import host_triple
from headrace.targets.link import library_name
from headrace.targets.toolchain import find_toolchain, run_compiler
from zoo import catalog, features, nets
from zoo.build import Builder

CAUSAL = ((16, 4, 3), (64, 6, 9), (128, 8, 9))  # channels, layers, kernel
SECONDS = 4.0
MINUTE = 6000  # steps of 10 ms
Call = Callable[[], object]


@dataclass(frozen=True)
class Line:
    """One comparison: µs per step of each contestant, and its time as a multiple of `beside`, with quartiles."""

    what: str
    us: dict[str, float]
    beside: str
    ratios: dict[str, tuple[float, float, float]]

    def __str__(self) -> str:
        times = ", ".join(f"{name} {us:.2f} µs" for name, us in self.us.items())
        ratios = [f"{name} {m:.3f} ({low:.3f}-{high:.3f})" for name, (m, low, high) in self.ratios.items()]
        return f"{self.what}: {times}; times {self.beside}: {', '.join(ratios)}"


def line(what: str, calls: Mapping[str, Call], beside: str, steps: int = 1) -> Line:
    """Race the calls, each of so many steps."""
    timed: dict[str, Timing] = interleave(calls, rounds=101, seconds=SECONDS)
    others = {name: ratio(t, timed[beside]) for name, t in timed.items() if name != beside}
    return Line(
        what,
        {name: t.median_us / steps for name, t in timed.items()},
        beside,
        {name: (r.median, r.low, r.high) for name, r in others.items()},
    )


def causal() -> Iterator[Line]:
    """Dilated causal convolutions, one frame a step: NAME_push and plain C, called from C."""
    for width, layers, kernel in CAUSAL:
        model = nets.causal(Builder(np.random.default_rng(0)), width, layers, kernel, frames="T")
        with tempfile.TemporaryDirectory(prefix="headrace-race-") as name:
            program = hr.compile(hr.stream(model, {"x": 2}), out=Path(name) / "p")
            race = _race(program, (width, layers, kernel), Path(name) / "p")
            file = f"{program.info.manifest['name']}.weights"
            ours, theirs = np.fromfile(Path(name) / "p" / file, np.uint8), plain_weights(model)
        frames = np.random.default_rng(1).standard_normal((40, width)).astype(np.float32)
        y, z = np.zeros(width, np.float32), np.zeros(width, np.float32)
        _checked(race.start(_at(ours)))
        for x in frames:
            _checked(race.streamed(_at(ours), _at(x), _at(y), ctypes.c_long(1)))
            race.plain(_at(theirs), _at(x), _at(z), ctypes.c_long(1))
            np.testing.assert_allclose(y, z, rtol=1e-3, atol=1e-3 * float(np.abs(z).max()))
        steps, x = 20, frames[0]
        arguments = [[_at(w), _at(x), _at(out), ctypes.c_long(steps)] for w, out in ((ours, y), (theirs, z))]
        calls: dict[str, Call] = {
            "headrace": partial(race.streamed, *arguments[0]),
            "plain C": partial(race.plain, *arguments[1]),
        }
        yield line(f"causal C{width} L{layers} K{kernel}", calls, "plain C", steps)


def _race(program: hr.Program, sizes: tuple[int, int, int], folder: Path) -> ctypes.CDLL:
    """The artifact's C, race.c and causal.c as one library."""
    toolchain, info = find_toolchain(None, host_triple()), program.info
    name, library = info.manifest["name"], library_name("race", host_triple())
    (folder / "plain.c").write_bytes(SOURCE.read_bytes())
    (folder / "race.c").write_bytes(SOURCE.with_name("race.c").read_bytes())
    width, layers, kernel = sizes
    defines = {
        "NAME": name, "HEADER": f'"{name}.h"', "STATE": info.state_bytes, "SCRATCH": info.scratch_bytes,
        "CHANNELS": width, "LAYERS": layers, "KERNEL": kernel,
    }  # fmt: skip
    flags = ("-std=c11", "-O3", "-fPIC", *(f"-D{key}={value}" for key, value in defines.items()))
    fast = ("-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
    run_compiler(toolchain, (*flags, *fast, "-c", "plain.c", "-o", "plain.o"), folder)
    run_compiler(toolchain, (*flags, "-shared", "-o", library, "race.c", f"{name}.c", "plain.o"), folder)
    return ctypes.CDLL(str(folder / library))


def _at(array: np.ndarray[Any, Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _checked(error: int) -> None:
    if error:
        raise RuntimeError(f"a step failed with error {error}")


def nsnet2() -> Iterator[Line]:
    """A stream; our program of the T=1 model with the state lifted by hand; onnxruntime on that model."""
    path, lifted = catalog.path("nsnet2"), lift(onnx.load(catalog.path("nsnet2")))
    state = {f"h{k}": f"h{k}.next" for k in range(2)}
    streamed = hr.compile(hr.stream(path, {"input": 1})).stream()
    by_hand = hr.compile(lifted, state=state).instance()
    x, y, z = (np.zeros((1, 1, 161), np.float32) for _ in range(3))
    push, run = streamed.bind({"input": x}, {"output": y}), by_hand.bind({"input": x}, {"output": z})
    for frame in features.nsnet2_features(features.clip())[:100]:
        x[...] = frame
        push(), run()
        np.testing.assert_allclose(y, z, atol=2e-6)
    calls: dict[str, Call] = {"stream": push, "lifted by hand": run}
    if is_installed("onnxruntime"):
        calls["onnxruntime"] = _onnxruntime(lifted, x)
    yield line("nsnet2, one frame a step", calls, "lifted by hand")


def lift(model: onnx.ModelProto) -> onnx.ModelProto:
    """nsnet2 for one frame; h0 and h1, zero at first, are the inputs and h0.next, h1.next the outputs for its state."""
    lifted = onnx.ModelProto()
    lifted.CopyFrom(model)
    for tensor, frames in ((lifted.graph.input[0], 1), (lifted.graph.output[0], 1)):
        for axis, size in enumerate((1, frames, 161)):
            tensor.type.tensor_type.shape.dim[axis].dim_value = size
    for k, node in enumerate(n for n in lifted.graph.node if n.op_type == "GRU"):
        hidden = next(a.i for a in node.attribute if a.name == "hidden_size")
        node.input[5], node.output[1] = f"h{k}", f"h{k}.next"
        shape = [1, 1, hidden]
        lifted.graph.input.append(helper.make_tensor_value_info(f"h{k}", TensorProto.FLOAT, shape))
        lifted.graph.output.append(helper.make_tensor_value_info(f"h{k}.next", TensorProto.FLOAT, shape))
    onnx.checker.check_model(lifted)
    return lifted


def _onnxruntime(model: onnx.ModelProto, x: np.ndarray[Any, Any]) -> Call:
    """One thread, arrays bound beforehand, the state passed from run to run by exchanging two arrays."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    shapes = {v.name: v.shape for v in (*session.get_inputs(), *session.get_outputs())}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    arrays["input"] = x
    turns = []
    for swapped in (False, True):
        bound = session.io_binding()
        for value in (*session.get_inputs(), *session.get_outputs()):
            is_state, name = value.name.startswith("h"), value.name
            if is_state and swapped:
                name = name.removesuffix(".next") if name.endswith(".next") else f"{name}.next"
            put = bound.bind_input if value in session.get_inputs() else bound.bind_output
            array = arrays[name]
            put(value.name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        turns.append(bound)
    turn = itertools.cycle(turns)
    return lambda: (session.run_with_iobinding(next(turn)), arrays)


def streams() -> dict[str, tuple[hr.Program, dict[str, int], np.ndarray[Any, Any]]]:
    """name → (program, its time axes, frames of sound, time first)."""
    clip = features.clip()
    found = {}
    for name, axes, sound in (
        ("nsnet2", {"input": 1}, features.nsnet2_features(clip)),
        ("silero-seq", {"input": 0}, features.silero_frames(clip)),
    ):
        found[name] = (hr.compile(hr.stream(catalog.path(name), axes)), axes, sound)
    small = nets.causal(Builder(np.random.default_rng(0)), 16, 4, 3, frames="T")
    noise = np.random.default_rng(1).standard_normal((500, 16)).astype(np.float32)
    found["causal C16 L4 K3"] = (hr.compile(hr.stream(small, {"x": 2})), {"x": 2}, noise)
    leaky = _leaky()
    found["leaky integrators"] = (hr.compile(hr.stream(leaky, {"x": 1})), {"x": 1}, noise)
    return found


def _leaky() -> onnx.ModelProto:
    """64 linear recurrences that fade slowly: after silence their state is denormal for a long time."""
    b = Builder(np.random.default_rng(0))
    weights = [b.normal((1, 64, 16), 16), b.constant(np.diag(np.linspace(0.98, 0.999, 64))[None])]
    rows = b.op("Transpose", "x", perm=[1, 0, 2])
    b.nodes.append(
        helper.make_node("RNN", [rows, *weights], ["rows"], hidden_size=64, activations=["Affine"],
                         activation_alpha=[1.0], activation_beta=[0.0])
    )  # fmt: skip
    y = b.op("Squeeze", "rows", b.constant([1, 2], np.int64))
    return b.model("leaky", {"x": (1, "T", 16)}, {y: ("T", 64)})


class Feed:
    """A stream of one frame a step on fixed arrays. Calling it pushes the next frame of `frames`."""

    def __init__(self, program: hr.Program, axes: Mapping[str, int], frames: np.ndarray[Any, Any]) -> None:
        ((name, axis),) = axes.items()
        self.stream = program.stream(_initial(program))
        port, outputs = program.inputs[name], program.info.manifest["facts"]["stream"]["outputs"]
        self.x = np.zeros(port.shape, np.float32)
        rows = np.ascontiguousarray(frames.reshape(len(frames), *self.x.shape), np.float32)
        self.rows = itertools.cycle(rows)
        self.push = self.stream.bind(
            {name: self.x}, {k: np.zeros(program.outputs[k].shape, np.float32) for k in outputs}
        )
        assert self.x.shape[axis] == 1

    def __call__(self) -> None:
        self.x[...] = next(self.rows)
        self.push()

    def many(self, steps: int) -> None:
        for _ in range(steps):
            self()


def _initial(program: hr.Program) -> dict[str, np.ndarray[Any, Any]]:
    names = program.info.manifest["facts"]["stream"]["initial"]
    return {name: np.zeros(program.states[name].shape, np.float32) for name in names}


def hour() -> Iterator[Line]:
    """A stream in its first minute, and one in its sixtieth, both on the same sound.

    The large model has its clock set forward after a minute; the small ones have run for an hour.
    """
    for name, (program, axes, sound) in streams().items():
        young, old = (Feed(program, axes, sound) for _ in range(2))
        young.many(MINUTE // 2)
        old.many(MINUTE // 2 if name == "nsnet2" else 59 * MINUTE)
        if name == "nsnet2":
            state = old.stream.state()
            (clock,) = [key for key, value in state.items() if value.dtype == np.int64]
            old.stream.restore({**state, clock: state[clock] + 59 * MINUTE})
        yield line(f"{name}, minute 60", {"minute 1": young, "minute 60": old}, "minute 1")


def silence() -> Iterator[Line]:
    """A stream on sound, and one that has had ten minutes of digital silence after a minute of sound."""
    for name, (program, axes, sound) in streams().items():
        loud, quiet = Feed(program, axes, sound), Feed(program, axes, sound)
        loud.many(MINUTE // 4)
        quiet.many(MINUTE // 4)
        nothing = np.full_like(sound[:2], -12.0) if name == "nsnet2" else np.zeros_like(sound[:2])
        quiet.rows = itertools.cycle(np.ascontiguousarray(nothing.reshape(2, *quiet.x.shape)))
        quiet.many(MINUTE // 4)
        early = line(f"{name}, the first minute of silence", {"sound": loud, "silence": quiet}, "sound")
        yield early
        quiet.many(10 * MINUTE)
        yield line(f"{name}, after ten minutes of silence", {"sound": loud, "silence": quiet}, "sound")


PARTS: dict[str, Callable[[], Iterator[Line]]] = {
    "causal": causal, "nsnet2": nsnet2, "hour": hour, "silence": silence,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there as well")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {unknown.pop()!r}; there are {', '.join(PARTS)}")
    found: dict[str, list[dict[str, Any]]] = {}
    for name in arguments.parts or PARTS:
        found[name] = []
        for row in PARTS[name]():
            print(row, flush=True)
            found[name].append(asdict(row))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
