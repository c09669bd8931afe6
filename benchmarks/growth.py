"""Cost as the work grows: channels of a streamed network (beside plain C), streams at once, threads.

python -m benchmarks.growth PATH    writes the figures as JSON. Sequence length is in the table of models.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import headrace as hr
from benchmarks.subjects import subjects
from headrace.measure.bench import bench
from headrace.measure.peers import is_installed
from headrace.measure.peers.contestant import Case
from headrace.measure.peers.onnxruntime import open as open_onnxruntime
from headrace.measure.timing import interleave
from headrace.targets.host import host_triple
from headrace.targets.link import library_name
from headrace.targets.toolchain import find_toolchain, run_compiler
from zoo import nets
from zoo.build import Builder

CHANNELS = ((16, 4, 3), (32, 5, 5), (64, 6, 9), (128, 8, 9))  # channels, layers, kernel
STREAMS = (1, 4, 16, 64)
THREADS = (1, 2)
SOURCE = Path(__file__).with_name("causal.c")
SECONDS = 2.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("--only", choices=("channels", "streams", "threads"))
    arguments = parser.parse_args()
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "channels": lambda: [channels(*size) for size in CHANNELS],
        "streams": streams,
        "threads": threads,
    }
    found = {name: run() for name, run in parts.items() if arguments.only in (None, name)}
    arguments.path.write_text(json.dumps(found, indent=1), encoding="utf-8")


def channels(width: int, layers: int, kernel: int) -> dict[str, Any]:
    """Dilated causal convolutions, streamed a frame at a time: ours, onnxruntime and tract on the same step model,
    plain C on the same weights. Raises where plain C computes something else."""
    model = nets.causal(Builder(np.random.default_rng(0)), width, layers, kernel, frames="T")
    step = hr.stream(model, {"x": 2})
    program = hr.compile(step)
    frames = np.random.default_rng(1).standard_normal((40, width)).astype(np.float32)
    plain_c = _plain_c(model, width, layers, kernel)
    _check(program, plain_c, frames)
    x, y = np.ascontiguousarray(frames[0]), np.zeros(width, np.float32)
    call = plain_c(x, y)
    peers = [name for name in ("onnxruntime", "tract") if is_installed(name)]
    inputs = {name: np.zeros(spec.shape, spec.dtype) for name, spec in program.inputs.items()} | {"x": x[None, :, None]}
    report = bench(program, peers, step, inputs, seconds=SECONDS, extra={"plain C": call})
    return {
        "size": f"{width} channels, {layers} layers, kernel {kernel}",
        "macs": program.info.macs,
        "weight_bytes": program.info.weight_bytes,
        "us": report.bound_us,
        "plain C": report.extra["plain C"].median_us,
        **{name: e.bound_us for name, e in report.peers.items()},
    }


def _plain_c(model: onnx.ModelProto, width: int, layers: int, kernel: int) -> Callable[..., Callable[[], object]]:
    """(x, y) -> a call of causal.c on these arrays."""
    toolchain = find_toolchain(None, host_triple())
    with tempfile.TemporaryDirectory(prefix="headrace-causal-") as name:
        library = library_name("causal", host_triple())
        (Path(name) / "causal.c").write_bytes(SOURCE.read_bytes())
        sizes = (f"-DCHANNELS={width}", f"-DLAYERS={layers}", f"-DKERNEL={kernel}")
        flags = ("-std=c11", "-O3", "-march=native", "-ffast-math", "-fPIC", "-shared", *sizes)
        run_compiler(toolchain, (*flags, "-o", library, "causal.c"), Path(name))
        function = ctypes.CDLL(str(Path(name) / library)).causal_step
    function.restype = None
    weights = plain_weights(model)

    def bound(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> Callable[[], object]:
        places = [ctypes.c_void_p(a.ctypes.data) for a in (weights, x, y)]
        keep = (weights, x, y)
        return lambda: (function(*places), keep)

    return bound


def plain_weights(model: onnx.ModelProto) -> np.ndarray[Any, Any]:
    """Weights and biases of all layers, as causal.c reads them."""
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    parts = []
    for node in model.graph.node:
        if node.op_type == "Conv":
            weight, bias = tensors[node.input[1]], tensors[node.input[2]]
            parts += [weight.transpose(2, 1, 0).ravel(), bias.ravel()]
    return np.ascontiguousarray(np.concatenate(parts), np.float32)


def _check(program: hr.Program, plain_c: Callable[..., Callable[[], object]], frames: np.ndarray[Any, Any]) -> None:
    stream, y = program.stream(), np.zeros(frames.shape[1], np.float32)
    for frame in frames:
        x = np.ascontiguousarray(frame)
        plain_c(x, y)()
        (ours,) = stream.push({"x": x[None, :, None]}).values()
        np.testing.assert_allclose(ours[0, :, 0], y, rtol=1e-3, atol=1e-3 * max(1.0, float(np.abs(y).max())))


def streams() -> list[dict[str, Any]]:
    """µs per step of silero-step when several streams take turns, each with its own state."""
    subject = subjects()["silero-step"]
    program, feeds = subject.compile(), subject.random(0)
    given = {name: np.ascontiguousarray(feeds[name]) for name in program.inputs}
    rows = []
    for count in STREAMS:
        calls = {"headrace": _together([_bound(program, given) for _ in range(count)])}
        if is_installed("onnxruntime"):
            case = Case(subject.load(), feeds, {})
            calls["onnxruntime"] = _together([_opened(case) for _ in range(count)])
        timed = interleave(calls, seconds=SECONDS / 2)
        rows.append({"streams": count, **{name: t.median_us / count for name, t in timed.items()}})
    return rows


def _bound(program: hr.Program, given: dict[str, np.ndarray[Any, Any]]) -> Callable[[], object]:
    taken = {name: np.zeros(spec.shape, spec.dtype) for name, spec in program.outputs.items()}
    return program.instance().bind(given, taken)


def _opened(case: Case) -> Callable[[], object]:
    bound = open_onnxruntime(case).bound
    assert bound is not None
    return bound


def _together(calls: list[Callable[[], object]]) -> Callable[[], object]:
    def every() -> None:
        for call in calls:
            call()

    return every


def threads() -> list[dict[str, Any]]:
    """µs of a matrix product and of ResNet-50 by the number of threads."""
    rows = []
    for name in ("gemm-960x1024x1024", "light-resnet50"):
        subject = subjects()[name]
        feeds = {k: np.ascontiguousarray(v) for k, v in subject.random(0).items()}
        calls = {str(n): _bound(subject.compile(threads=n), feeds) for n in THREADS}
        timed = interleave(calls, seconds=SECONDS)
        rows.append({"model": name, **{n: t.median_us for n, t in timed.items()}})
    return rows


if __name__ == "__main__":
    main()
