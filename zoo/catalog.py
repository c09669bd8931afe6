"""The trained models by name: their files, and inputs for them, random or computed from the spoken clip.

path("nsnet2"); options = model("nsnet2").variant("T=100")
feeds("nsnet2", seed=0, variant="T=100"); real_feeds("nsnet2", "T=100"); real_steps("silero-step")
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo import features
from zoo.entries import MODELS, ONNX_NAMES, ROOT, Model, Variant
from zoo.reference import onnxruntime_outputs

__all__ = [
    "MODELS", "ONNX_NAMES", "Feeds", "Model", "ModelMissing", "Variant",
    "constants", "feeds", "initial_state", "model", "path", "real_feeds", "real_steps",
]  # fmt: skip

Feeds = dict[str, npt.NDArray[Any]]
_RECTIFIED = ("e0", "e1", "e2", "e3", "c0", "emb")  # DeepFilterNet's inner signals come out of a ReLU


class ModelMissing(FileNotFoundError):
    """A trained model is not installed; the message says which command installs it."""


def model(name: str) -> Model:
    """The entry with this name; ValueError lists the names."""
    if name not in MODELS:
        raise ValueError(f"no model {name!r}; there are {', '.join(MODELS)}")
    return MODELS[name]


def path(name: str) -> Path:
    """The installed file; ModelMissing says how to install it."""
    file = model(name).path
    if not file.is_file():
        raise ModelMissing(f"the model {name!r} is not installed; run `make models` in {ROOT}")
    return file


def feeds(name: str, seed: int = 0, variant: str = "") -> Feeds:
    """Random run-time inputs, states included, constants left out; the same seed gives the same arrays."""
    entry, rng = model(name), np.random.default_rng(seed)
    values: Feeds = {}
    for key, shape in entry.variant(variant).shapes.items():
        if entry.dtypes.get(key) == "int32":
            values[key] = rng.integers(0, 257, shape, dtype=np.int32)
        elif key in _RECTIFIED:
            values[key] = np.abs(rng.standard_normal(shape, dtype=np.float32))
        else:
            values[key] = _scale(name) * rng.standard_normal(shape, dtype=np.float32)
    return values


def real_feeds(name: str, variant: str = "") -> Feeds:
    """Run-time inputs for one call, taken from within the first sentence of the clip; states are zero."""
    steps = list(real_steps(name, variant))
    return {**initial_state(model(name).variant(variant)), **steps[len(steps) // 8]}


def real_steps(name: str, variant: str = "") -> Iterator[Feeds]:
    """All successive calls that the clip gives; state inputs are left to the caller, who carries them on."""
    options, signal = model(name).variant(variant), features.clip()
    match name:
        case "silero-step" | "silero-op15":
            yield from ({"input": frame[None]} for frame in features.silero_frames(signal))
        case "silero-seq":
            count = options.shapes["input"][0]
            yield from ({"input": x} for x in _pieces(features.silero_frames(signal), count, 0))
        case "nsnet2":
            count = options.shapes["input"][1]
            yield from ({"input": x[None]} for x in _pieces(features.nsnet2_features(signal), count, 0))
        case "dtln-1":
            yield from ({"input_2": x[None, None]} for x in features.dtln_magnitudes(signal))
        case "dtln-2":
            yield from ({"input_4": x[None, None]} for x in features.dtln_blocks(signal))
        case "pulsevad" | "pulsevad-int8" | "pulsevad-teacher":
            yield from ({"log_mel": x[None]} for x in features.pulsevad_windows(signal))
        case "dfn3-enc":
            yield from _dfn3_steps(options.shapes["feat_erb"][2])
        case "dfn3-erb" | "dfn3-df":
            wanted = options.shapes
            for step in _dfn3_steps(wanted["emb"][1]):
                inner = onnxruntime_outputs(path("dfn3-enc"), step)
                yield {key: inner[key] for key in wanted}
        case "magika":
            for file in ("zoo/features.py", "examples/speech.wav", "README.md", "pyproject.toml"):
                yield {"bytes": features.magika_bytes((ROOT / file).read_bytes())[None]}
        case _:
            raise ValueError(f"no real input is known for {name!r}")


def initial_state(options: Variant) -> Feeds:
    """Zeros for every state input: the inputs of `state`, and the `h` and `c` of a sequence model."""
    names = [k for k in options.shapes if k in options.state or k in ("h", "c")]
    return {k: np.zeros(options.shapes[k], np.float32) for k in names}


def constants(options: Variant) -> Feeds:
    """The inputs fixed at compile time as the scalar arrays that other runtimes want."""
    return {k: np.array(v, np.int64) for k, v in options.constants.items()}


def _scale(name: str) -> np.float32:
    """Standard deviation of random input: a waveform is small, features are near one."""
    return np.float32(0.1 if name.startswith("silero") or name == "dtln-2" else 1.0)


def _pieces(values: features.F32, count: int, axis: int) -> Iterator[features.F32]:
    """Full pieces of `count` along an axis; what is left over is dropped."""
    for start in range(0, values.shape[axis] - count + 1, count):
        yield np.take(values, range(start, start + count), axis)


def _dfn3_steps(count: int) -> Iterator[Feeds]:
    erb, spectrum = features.dfn3_features(features.clip())
    for a, b in zip(_pieces(erb, count, 0), _pieces(spectrum, count, 1), strict=True):
        yield {"feat_erb": a[None, None], "feat_spec": b[None]}
