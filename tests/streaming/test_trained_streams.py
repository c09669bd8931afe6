"""Trained models as compiled streams: frame by frame equal to offline, and to the step models people ship."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import headrace as hr
from headrace.measure.contract_report import ContractReport
from headrace.streaming.reference import ReferenceStream
from tests.streaming import deepfilter
from tests.streaming.onestream import check, close, offline
from zoo import catalog, features

pytestmark = pytest.mark.models


def frame_by_frame(program: hr.Program, signal: dict[str, Any], axes: dict[str, int], given: Any = None) -> Any:
    """Every output, joined; `given` are initial states."""
    stream, facts = program.stream(given), program.info.manifest["facts"]["stream"]
    frames = min(signal[name].shape[axis] for name, axis in axes.items())
    got = [stream.push({k: np.take(signal[k], [t], axis) for k, axis in axes.items()}) for t in range(frames)]
    last = stream.flush()
    joined = {n: np.concatenate([*(g[n] for g in got), last[n]], o["axis"]) for n, o in facts["outputs"].items()}
    return {**last, **joined}


def compare(program: hr.Program, proto: onnx.ModelProto, signal: Any, axes: Any, tol: float) -> None:
    session = offline(proto)
    want = dict(zip([v.name for v in session.get_outputs()], session.run(None, signal), strict=True))
    got = frame_by_frame(program, signal, axes)
    assert got.keys() == want.keys()
    for name, value in want.items():
        close(value, got[name], name, tol)


def test_deepfilternet_looks_two_frames_ahead() -> None:
    """Its three causal graphs in one model, with the shift of the real pipeline."""
    step = check(deepfilter.pipeline(), deepfilter.AXES, (1, 2, 3, 5, 20), chunks=(None, 3), tol=1e-4)
    assert step.chunk == 1
    assert step.latency == step.lookahead == {"enhanced": 2, "lsnr": 2}


@pytest.mark.slow
def test_deepfilternet_compiled() -> None:
    proto, signal = deepfilter.pipeline(), speech_features()
    program = hr.compile(hr.stream(proto, deepfilter.AXES))
    compare(program, proto, signal, deepfilter.AXES, 2e-5)


def speech_features() -> dict[str, Any]:
    """Features and spectra of two seconds of speech."""
    clip = features.clip()
    levels, low = features.dfn3_features(clip[: 2 * 16000])
    spectrum = np.random.default_rng(0).standard_normal((1, len(levels), deepfilter.BINS, 2)).astype(np.float32)
    return {"feat_erb": levels[None, None], "feat_spec": low[None], "spec": spectrum}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dfn3-enc", "dfn3-erb", "dfn3-df"])
def test_deepfilternet_graph_by_graph(name: str) -> None:
    """Purely causal: every output of every graph comes with its own frame."""
    path, axes = catalog.path(name), GRAPHS[name]
    signal, proto = catalog.feeds(name, variant="S=100"), onnx.load(path)
    step = hr.stream(path, axes)
    assert step.chunk == 1 and set(step.latency.values()) == {0}
    compare(hr.compile(step), proto, signal, axes, 2e-5)


GRAPHS = {
    "dfn3-enc": {"feat_erb": 2, "feat_spec": 2},
    "dfn3-erb": {"emb": 1, "e3": 2, "e2": 2, "e1": 2, "e0": 2},
    "dfn3-df": {"emb": 1, "c0": 2},
}


@pytest.mark.slow
def test_deepfilternet_keeps_the_contract() -> None:
    proto = deepfilter.pipeline()
    report = hr.verify(hr.stream(proto, deepfilter.AXES), model=proto, cuttings=2)
    assert isinstance(report, ContractReport) and report.ok, report.table()


def silero_step(frames: Any, h: Any, c: Any) -> tuple[Any, Any]:
    """Probabilities and the last state of the step model that is shipped, in onnxruntime."""
    session, state, found = offline(onnx.load(catalog.path("silero-step"))), np.concatenate([h, c]), []
    for frame in frames:
        probability, state = session.run(None, {"input": frame[None], "state": state})
        found.append(probability[0, 0])
    return np.array(found, np.float32), state


@pytest.mark.parametrize("driver", ["compiled", "onnxruntime"])
def test_silero_streamed_is_the_step_model_that_is_shipped(driver: str) -> None:
    """silero-seq streamed frame by frame, from a state of its own; hn and cn come at the flush."""
    frames = features.silero_frames(features.clip())[:100]
    rng = np.random.default_rng(0)
    h, c = (0.1 * rng.standard_normal((1, 1, 128)).astype(np.float32) for _ in range(2))
    want, state = silero_step(frames, h, c)
    step = hr.stream(catalog.path("silero-seq"), {"input": 0})
    assert set(step.spec.initial) == {"h", "c"} and set(step.spec.finals) == {"hn", "cn"}
    stream: Any = ReferenceStream(step) if driver == "onnxruntime" else hr.compile(step).stream({"h": h, "c": c})
    if driver == "onnxruntime":
        stream.reset(h=h, c=c)
    got = [stream.push({"input": frame[None]})["speech_probs"] for frame in frames]
    assert all(g.shape == (1,) for g in got)
    last = stream.flush()
    close(want, np.concatenate([*got, last["speech_probs"]]), "probabilities", 1e-6)
    close(state[:1], last["hn"], "hn", 1e-6)
    close(state[1:], last["cn"], "cn", 1e-6)
    assert want.max() > 0.5 > want.min()


@pytest.mark.parametrize("driver", ["compiled", "onnxruntime"])
def test_nsnet2_over_ten_seconds_of_speech(driver: str) -> None:
    """1000 frames of 10 ms, one at a time."""
    path = catalog.path("nsnet2")
    x = features.nsnet2_features(features.clip())
    x = np.concatenate([x] * -(-1000 // len(x)))[None, :1000]
    (want,) = offline(onnx.load(path)).run(None, {"input": x})
    step = hr.stream(path, {"input": 1})
    stream: Any = ReferenceStream(step) if driver == "onnxruntime" else hr.compile(step).stream()
    got = [stream.push({"input": x[:, t : t + 1]})["output"] for t in range(1000)]
    close(want, np.concatenate([*got, stream.flush()["output"]], 1), "nsnet2", 2e-6)
