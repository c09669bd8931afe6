"""A state goes on anywhere: other steps, other instructions, onnxruntime, another process, many threads."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.streaming.reference import ReferenceStream
from tests.streaming.architectures import ARCHITECTURES
from tests.streaming.onestream import close, cuts
from tests.streaming.test_architectures import step_of

Arrays = dict[str, Any]
LARGE = 8  # times the smallest step


@functools.cache
def program(name: str, factor: int = 1, target: str = "native") -> hr.Program:
    return hr.compile(step_of(name, factor), target=target)


def signal(name: str, frames: int | None = None, seed: int = 0) -> Any:
    net = ARCHITECTURES[name]
    rng = np.random.default_rng(seed)
    return rng.standard_normal((1, net.channels, frames or net.longest)).astype(np.float32)


def finish(stream: Any, x: Any) -> Any:
    """The rest of the signal in pieces, and the end; joined."""
    rng, start, got = np.random.default_rng(1), 0, []
    for size in cuts(x.shape[2], rng):
        got.append(next(iter(stream.push({"x": x[:, :, start : start + size]}).values())))
        start += size
    got.append(next(iter(stream.flush().values())))
    return np.concatenate(got, 2)


def in_onnxruntime(step: hr.StepModel, state: Arrays) -> ReferenceStream:
    """The saved step model in onnxruntime, going on from a state of a compiled stream."""
    live = ReferenceStream(step)
    live.state = {name: state[name] for name in live.state}
    live.queue = {name: state[name] for name in live.queue}
    live.pushed = int(state["position"][0])
    live.steps = live.pushed // step.chunk
    return live


@pytest.mark.parametrize(
    "name", [name if name == "enhancer" else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
)
def test_other_steps_other_instructions_and_onnxruntime(name: str, tmp_path: Path) -> None:
    """A state taken under one compile (smallest steps, this machine) restores under another (eight times the step,
    another instruction set, so another schedule) and in onnxruntime; all three go on identically."""
    one, other, x = program(name), program(name, LARGE, "x86-64"), signal(name)
    step_of(name).save(tmp_path / "step.onnx")
    saved = hr.load(tmp_path / "step.onnx")
    step = hr.StepModel(saved.ir)
    unit = step.spec.multiple
    for first in (0, 3 * unit, 16, 40, 8 * step.chunk + 3):
        stream = one.stream()
        stream.push({"x": x[:, :, :first]})
        state = stream.state()
        assert list(state) == [*step.initial_state(), "x", "position"]
        large = other.stream()
        large.push({"x": signal(name, 9, seed=1)})
        large.restore(state)
        rest = x[:, :, first:]
        want = finish(in_onnxruntime(step, state), rest)
        close(want, finish(stream, rest), f"{name} from frame {first}, as it was", 1e-5)
        close(want, finish(large, rest), f"{name} from frame {first}, in steps of {other.stream().chunk}", 1e-5)
        with pytest.raises(ValueError, match="ended"):
            large.state()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "transformer"])
def test_back_again(name: str) -> None:
    """Small steps → large steps → small steps, at frames where neither is at the end of a step."""
    x, (small, large) = signal(name), (program(name), program(name, LARGE, "x86-64"))
    whole = small.stream()
    want, got, state, start = finish(whole, x), [], None, 0
    for turn, size in enumerate((5, 12, 3, 20, 1)):
        stream = (small, large)[turn % 2].stream()
        if state is not None:
            stream.restore(state)
        got.append(next(iter(stream.push({"x": x[:, :, start : start + size]}).values())))
        state, start = stream.state(), start + size
    last = small.stream()
    assert state is not None
    last.restore(state)
    got.append(finish(last, x[:, :, start:]))
    close(want, np.concatenate(got, 2), name, 1e-5)


CHILD = """\
import sys, numpy as np, headrace as hr
kept = dict(np.load(sys.argv[2]))
rest = kept.pop("rest")
stream = hr.open(sys.argv[1]).stream()
stream.restore(kept)
(a,), (b,) = stream.push({"x": rest}).values(), stream.flush().values()
np.save(sys.argv[3], np.concatenate([a, b], 2))
"""


@pytest.mark.slow
def test_in_another_process_with_other_steps(tmp_path: Path) -> None:
    name = "enhancer"
    hr.compile(step_of(name, LARGE), target="x86-64", out=tmp_path / "p")
    x, stream = signal(name), program(name).stream()
    stream.push({"x": x[:, :, :37]})
    kept: Any = {**stream.state(), "rest": x[:, :, 37:]}
    np.savez(tmp_path / "state.npz", **kept)
    places = [str(tmp_path / k) for k in ("p", "state.npz", "rest.npy")]
    subprocess.run([sys.executable, "-c", CHILD, *places], check=True, timeout=100)
    close(finish(stream, x[:, :, 37:]), np.load(tmp_path / "rest.npy"), name, 1e-5)


@pytest.mark.parametrize("name", ["enhancer", pytest.param("conformer", marks=pytest.mark.slow)])
def test_many_streams_in_many_threads_give_the_same_bits(name: str) -> None:
    """Six threads, each with four streams that take turns, all on one program."""
    shared, count = program(name), 24
    signals = [signal(name, 50 + k, seed=k) for k in range(count)]
    want = []
    for x in signals:
        want.append(finish(shared.stream(), x))
    got: list[Any] = [None] * count

    def work(first: int) -> None:
        mine = range(first, first + 4)
        streams = {k: shared.stream() for k in mine}
        pieces: dict[int, list[Any]] = {k: [] for k in mine}
        for t in range(50 + count):
            for k in mine:
                pieces[k] += streams[k].push({"x": signals[k][:, :, t : t + 1]}).values()
        for k in mine:
            pieces[k] += streams[k].flush().values()
            got[k] = np.concatenate(pieces[k], 2)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(0, count, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(a.tobytes() == b.tobytes() for a, b in zip(got, want, strict=True))
