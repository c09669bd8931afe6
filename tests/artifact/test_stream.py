"""Live streams against the offline model in onnxruntime."""

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
from tests.artifact import stepmodels
from tests.artifact.stepmodels import ALL, Offline, close, cut, cuts


@functools.cache
def case(name: str) -> Offline:
    return getattr(stepmodels, name)()  # type: ignore[no-any-return]


@functools.cache
def program(name: str, chunk: int | None = None) -> hr.Program:
    return hr.compile(case(name).step(chunk))


@functools.cache
def rates(max_past: int | None = None) -> hr.Program:
    return hr.compile(stepmodels.two_rates(max_past))


def collect(offline: Offline, stream: hr.Stream, pieces: list[Any]) -> dict[str, Any]:
    """Push all, flush, and join what came."""
    got = [stream.push(piece) for piece in pieces] + [stream.flush()]
    joined = {k: np.concatenate([g[k] for g in got], axis) for k, axis in offline.out_axes.items()}
    return {**got[-1], **joined}


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("name", ALL)
def test_any_cutting_is_the_offline_model(name: str, chunk: int | None) -> None:
    offline, rng = case(name), np.random.default_rng(3)
    stream = program(name, chunk).stream(offline.given)
    for frames in (stream._facts.min_length, 9, 10, 37, 64):
        signal = offline.signal(frames, seed=frames)
        want = offline.run(signal)
        for sizes in ([frames], [1] * frames, cuts(frames, rng), cuts(frames, rng)):
            got = collect(offline, stream, cut(signal, offline.axes, sizes))
            assert got.keys() == want.keys()
            for key, value in want.items():
                close(got[key], value)
            stream.reset()


@pytest.mark.parametrize("name", ALL)
def test_frames_come_as_soon_as_they_are_determined(name: str) -> None:
    offline = case(name)
    step = offline.step()
    stream = program(name).stream(offline.given)
    signal = offline.signal(23)
    count = dict.fromkeys(offline.out_axes, 0)
    for frames, piece in enumerate(cut(signal, offline.axes, [1] * 23), start=1):
        got = stream.push(piece)
        assert got.keys() == offline.out_axes.keys()
        for key, axis in offline.out_axes.items():
            count[key] += got[key].shape[axis]
            assert count[key] == step.ready(key, frames // step.chunk * step.chunk)
        assert stream.frames == frames


def test_strided_and_read_only_pieces() -> None:
    offline, stream = case("same"), program("same").stream()
    signal = offline.signal(30)["x"]
    backwards = np.ascontiguousarray(signal[:, :, ::-1])[:, :, ::-1]
    backwards.flags.writeable = False
    got = collect(offline, stream, [{"x": backwards[:, :, :11]}, {"x": backwards[:, :, 11:]}])
    close(got["y"], offline.run({"x": signal})["y"])


def test_pieces_are_typed_also_when_empty() -> None:
    stream = program("same").stream()
    got = stream.push({"x": np.zeros((1, 2, 0), np.float32)})
    assert got["y"].shape == (1, 3, 0) and got["y"].dtype == np.float32
    assert stream.push({"x": np.zeros((1, 2, 2), np.float32)})["y"].shape == (1, 3, 0)


def test_the_end() -> None:
    stream = program("causal").stream()
    piece = {"x": np.ones((1, 2, 4), np.float32)}
    first = stream.push(piece)["y"]
    assert stream.flush()["y"].shape == (1, 3, 0)
    calls: list[Any] = [lambda: stream.push(piece), stream.flush, stream.state]
    for call in calls:
        with pytest.raises(ValueError, match=r"ended.*reset"):
            call()
    stream.reset()
    np.testing.assert_array_equal(stream.push(piece)["y"], first)


def test_wrong_pieces_take_nothing() -> None:
    stream = program("causal").stream()
    wrong: dict[str, Any] = {
        "unknown time input 'y'": {"y": np.zeros((1, 2, 1), np.float32)},
        "missing time input 'x'": {},
        "has dtype float64, expected float32": {"x": np.zeros((1, 2, 1))},
        "has 3 at axis 1": {"x": np.zeros((1, 3, 1), np.float32)},
        "has rank 2": {"x": np.zeros((2, 1), np.float32)},
    }
    before = stream.state()
    for message, pieces in wrong.items():
        with pytest.raises(ValueError, match=message):
            stream.push(pieces)
    for key, value in stream.state().items():
        np.testing.assert_array_equal(value, before[key])


def test_side_inputs_and_initial_states() -> None:
    with pytest.raises(ValueError, match="missing side input 'gain'"):
        program("side").stream()
    stream = program("side").stream(case("side").given)
    with pytest.raises(ValueError, match="constant from reset to reset"):
        stream.push({"x": np.zeros((1, 2, 1), np.float32), "gain": case("side").given["gain"]})
    with pytest.raises(ValueError, match="neither a side input nor an initial state; there are 'gain'"):
        program("side").stream({"x": 1})
    offline = case("recurrent")
    signal, zero = offline.signal(8), program("recurrent").stream()
    changed = {"h0": np.zeros((1, 1, 3), np.float32)}
    want = Offline(offline.proto, offline.axes, offline.out_axes, given=changed).run(signal)
    close(collect(offline, zero, [signal])["hn"], want["hn"])
    zero.reset(offline.given)
    close(collect(offline, zero, [signal])["hn"], offline.run(signal)["hn"])
    zero.reset()
    close(collect(offline, zero, [signal])["hn"], offline.run(signal)["hn"])


def test_two_rates_share_one_clock() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 24, 3)).astype(np.float32)
    z = rng.standard_normal((1, 12, 3)).astype(np.float32)
    stream = rates().stream()
    for _ in range(5):
        ends, got = {"x": 0, "z": 0}, []
        while ends != {"x": 24, "z": 12}:
            a = min(24, ends["x"] + int(rng.integers(0, 4)), 2 * ends["z"] + 8)
            b = min(12, ends["z"] + int(rng.integers(0, 3)), a // 2 + 4)
            got.append(stream.push({"x": x[:, ends["x"] : a], "z": z[:, ends["z"] : b]})["y"])
            ends = {"x": a, "z": b}
        last = stream.flush()
        close(np.concatenate([*got, last["y"]], 1), x + np.repeat(z, 2, 1))
        close(last["total"], x.sum(1, keepdims=True))
        stream.reset()


def test_too_far_ahead_and_uneven_ends() -> None:
    stream = rates().stream()
    one = np.zeros((1, 0, 3), np.float32)
    with pytest.raises(ValueError, match="input 'x' is 10 frames ahead of the others, 9 can wait"):
        stream.push({"x": np.zeros((1, 10, 3), np.float32), "z": one})
    stream.push({"x": np.zeros((1, 9, 3), np.float32), "z": one})
    with pytest.raises(ValueError, match="do not end at the same time"):
        stream.flush()
    stream.push({"x": one, "z": np.zeros((1, 4, 3), np.float32)})
    with pytest.raises(ValueError, match="do not end at the same time"):
        stream.flush()
    stream.push({"x": np.zeros((1, 1, 3), np.float32), "z": np.zeros((1, 1, 3), np.float32)})
    stream.flush()


def test_too_short_and_no_multiple() -> None:
    stream = rates().stream()
    stream.push({"x": np.ones((1, 2, 3), np.float32), "z": np.ones((1, 1, 3), np.float32)})
    with pytest.raises(ValueError, match="2 frames; the model needs at least 4"):
        stream.flush()
    stream.push({"x": np.ones((1, 2, 3), np.float32), "z": np.ones((1, 1, 3), np.float32)})
    assert stream.flush()["total"].tolist() == [[[4.0, 4.0, 4.0]]]


def test_full() -> None:
    stream = rates(6).stream()
    four = {"x": np.ones((1, 4, 3), np.float32), "z": np.ones((1, 2, 3), np.float32)}
    stream.push(four)
    with pytest.raises(hr.StreamFull, match="full after 6 frames"):
        stream.push(four)
    stream.push({k: v[:, : v.shape[1] // 2] for k, v in four.items()})
    assert stream.flush()["total"].tolist() == [[[6.0, 6.0, 6.0]]]


@pytest.mark.parametrize(("before", "after"), [(None, None), (None, 4), (4, None), (4, 8)])
@pytest.mark.parametrize("name", ALL)
def test_state_goes_on_under_another_compile(name: str, before: int | None, after: int | None) -> None:
    offline = case(name)
    signal = offline.signal(41)
    want = offline.run(signal)
    for first in (0, 3, 17, 20):
        pieces = cut(signal, offline.axes, [first, 5, 36 - first])
        one = program(name, before).stream(offline.given)
        other = program(name, after).stream(offline.given)
        other.push(pieces[2])
        got = one.push(pieces[0])
        state = one.state()
        if any(state[n].shape != other.state()[n].shape for n in case(name).step(before).initial_state()):
            pytest.skip("the states of these two chunks differ")
        other.restore(state)
        assert {k: v.shape for k, v in other.state().items()} == {k: v.shape for k, v in state.items()}
        rest = collect(offline, other, pieces[1:])
        for key, axis in offline.out_axes.items():
            close(np.concatenate([got[key], rest[key]], axis), want[key])
        for key in want.keys() - offline.out_axes.keys():
            close(rest[key], want[key])


def test_state_in_another_process(tmp_path: Path) -> None:
    offline = case("same")
    hr.compile(offline.step(), out=tmp_path / "p")
    pieces = cut(offline.signal(30), {"x": 2}, [13, 17])
    stream = hr.open(tmp_path / "p").stream()
    got = stream.push(pieces[0])["y"]
    kept: Any = stream.state()
    np.savez(tmp_path / "state.npz", piece=pieces[1]["x"], **kept)
    code = (
        "import sys, numpy as np, headrace as hr\n"
        "kept = dict(np.load('state.npz'))\n"
        "s = hr.open('p').stream()\n"
        "piece = kept.pop('piece')\n"
        "s.restore(kept)\n"
        "np.save('rest.npy', np.concatenate([s.push({'x': piece})['y'], s.flush()['y']], 2))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=100)
    rest = np.concatenate([stream.push(pieces[1])["y"], stream.flush()["y"]], 2)
    np.testing.assert_array_equal(np.load(tmp_path / "rest.npy"), rest)
    close(np.concatenate([got, rest], 2), offline.run(offline.signal(30))["y"])


def test_wrong_states() -> None:
    stream = program("same").stream()
    state = stream.state()
    (clock,) = [k for k, v in state.items() if v.dtype == np.int64]
    with pytest.raises(ValueError, match=f"missing state '{clock}'"):
        stream.restore({k: v for k, v in state.items() if k != clock})
    with pytest.raises(ValueError, match="expected 0 or more"):
        stream.restore({**state, clock: np.array([-1])})
    with pytest.raises(ValueError, match="has 3 at axis 1"):
        stream.restore({**state, "x": np.zeros((1, 3, 0), np.float32)})


def test_position_passes_two_to_the_31() -> None:
    offline = case("same")
    pieces = cut(offline.signal(60), {"x": 2}, [40, 20])
    here, far = program("same").stream(), program("same").stream()
    here.push(pieces[0])
    for start in (2**31 - 5, 2**31, 2**40):
        state = here.state()
        (clock,) = [k for k, v in state.items() if v.dtype == np.int64]
        far.restore({**state, clock: np.array([start])})
        got = collect(offline, far, cut(pieces[1], {"x": 2}, [1] * 20))
        assert far.frames == start + 20
    want = collect(offline, here, [pieces[1]])
    np.testing.assert_array_equal(got["y"], want["y"])


def test_bound_arrays() -> None:
    offline, stream = case("same"), program("same").stream()
    x, y = np.zeros((1, 2, 4), np.float32), np.zeros((1, 3, 4), np.float32)
    signal = offline.signal(24)["x"]
    call, got = stream.bind({"x": x}, {"y": y}), []
    for start in range(0, 24, 4):
        x[...] = signal[:, :, start : start + 4]
        (count,) = call()
        got.append(y.reshape(-1)[: 3 * count].reshape(1, 3, count).copy())
    got.append(stream.flush()["y"])
    close(np.concatenate(got, 2), offline.run({"x": signal})["y"])
    with pytest.raises(ValueError, match="ended"):
        call()
    with pytest.raises(ValueError, match="output 'y' has 5"):
        stream.bind({"x": x}, {"y": np.zeros((1, 3, 5), np.float32)})
    with pytest.raises(ValueError, match="whole steps"):
        program("same", 4).stream().bind({"x": x[:, :, :3].copy()}, {"y": y})


def test_streams_in_threads_do_not_meet() -> None:
    offline, compiled = case("recurrent"), program("recurrent")
    signals = [offline.signal(200, seed) for seed in range(8)]
    want = [offline.run(s) for s in signals]
    results: list[Any] = [None] * 8

    def work(k: int) -> None:
        stream = compiled.stream(offline.given)
        results[k] = collect(offline, stream, cut(signals[k], offline.axes, [1] * 200))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for got, expected in zip(results, want, strict=True):
        close(got["y"], expected["y"])


def test_one_stream_in_two_threads_is_refused() -> None:
    stream = program("causal").stream()
    with stream._exclusive(), pytest.raises(RuntimeError, match="another thread"):
        stream.push({"x": np.zeros((1, 2, 1), np.float32)})


def test_denormals_are_zero_inside_and_only_there() -> None:
    stream = program("decay").stream()
    stream.push({"x": np.ones((1, 1, 1), np.float32)})
    faded = stream.push({"x": np.zeros((300, 1, 1), np.float32)})["ys"].ravel()
    tiny = np.finfo(np.float32).tiny
    assert np.all((faded >= tiny) | (faded == 0)) and faded[-1] == 0 and faded[100] > 0
    half = np.float32(tiny) * np.float32(0.5)
    assert half > 0


def test_a_program_without_time() -> None:
    with pytest.raises(ValueError, match="not a step model"):
        hr.compile(case("causal").proto, shapes={"x": (1, 2, 8)}).stream()


def test_a_step_model_made_elsewhere() -> None:
    import onnx
    from onnx import helper

    nodes = [helper.make_node("Add", ["x", "h"], ["y"]), helper.make_node("Identity", ["y"], ["next"])]
    proto = stepmodels.model_of(nodes, {"x": [1, 2], "h": [1, 2]}, ["y", "next"])
    assert isinstance(proto, onnx.ModelProto)
    compiled = hr.compile(proto, state={"h": "next"}, axes={"x": 0, "y": 0})
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    stream = compiled.stream()
    np.testing.assert_array_equal(stream.push({"x": x[:4]})["y"], np.cumsum(x, 0)[:4])
    np.testing.assert_array_equal(stream.push({"x": x[4:]})["y"], np.cumsum(x, 0)[4:])
    with pytest.raises(ValueError, match="axes names 'z'"):
        hr.compile(proto, state={"h": "next"}, axes={"z": 0})
