"""The models that are measured and tested, each with its options and with inputs, random and real."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union

import numpy as np
import onnx

import headrace as hr
from headrace.graph.model import Model
from zoo import build, catalog, light, mlperf_tiny, nets

Feeds = Mapping[str, np.ndarray[Any, Any]]
REAL_STEPS = 12  # consecutive steps of the clip that a test runs, from the start of the first sentence
HEAVY = (
    "light-squeezenet", "light-resnet50", "light-shufflenet", "light-densenet121", "light-inception-v1", "mobilenet-v2",
    "transformer-128",
    "transformer-512", "gemm-960x1024x1024",
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A model under one set of options.

    options: for headrace.compile; random(seed): inputs of one run, states included; real(): inputs of
    consecutive runs on real data (pictures: coloured patches), without states. trained: whether its
    file has to be installed.
    """

    name: str
    source: Callable[[], Union[Path, onnx.ModelProto]]
    random: Callable[[int], Feeds]
    real: Callable[[], list[Feeds]]
    options: dict[str, Any] = field(default_factory=dict)
    trained: bool = False

    @property
    def is_heavy(self) -> bool:
        """Whether compiling and comparing takes more than some seconds."""
        return self.name in HEAVY

    def load(self) -> Model:
        return hr.load(self.source())

    def compile(self, **more: Any) -> hr.Program:
        """Compile for this machine."""
        return hr.compile(self.load(), **self.options, **more)


def subjects() -> dict[str, Subject]:
    """Every subject by name; a variant other than the first has its label in brackets."""
    trained = [
        _trained(name, label)
        for name in catalog.ONNX_NAMES
        for label in catalog.model(name).variants
        if (name, label) != ("silero-seq", "N=1")
    ]
    vision = [_seeded(name, light.build) for name in LIGHT]
    tiny = [_seeded(name, mlperf_tiny.build) for name in mlperf_tiny.NAMES]
    more = [_seeded(name, nets.build) for name in NETS]
    return {subject.name: subject for subject in (*trained, *vision, *tiny, *more)}


NETS = ("mobilenet-v2", "transformer-16", "transformer-128", "transformer-512", "gemm-960x1024x1024")
LIGHT = (
    "light-squeezenet",
    "light-shufflenet",
    "light-inception-v1",
    "light-densenet121",
    "light-resnet50",
)


def _trained(name: str, label: str) -> Subject:
    entry = catalog.model(name)
    variant = entry.variant(label)
    options = {"shapes": variant.shapes, "constants": variant.constants, "state": variant.state}
    return Subject(
        name if len(entry.variants) == 1 else f"{name}[{label}]",
        lambda: catalog.path(name),
        lambda seed: catalog.feeds(name, seed, label),
        lambda: _steps(name, label),
        {key: value for key, value in options.items() if value},
        trained=True,
    )


def _steps(name: str, label: str) -> list[Feeds]:
    """Some consecutive steps from where speech begins; the states of a sequence model start at zero."""
    variant = catalog.model(name).variant(label)
    steps = list(catalog.real_steps(name, label))
    start = min(len(steps) // 8, max(len(steps) - REAL_STEPS, 0))
    zeros = {k: v for k, v in catalog.initial_state(variant).items() if k not in variant.state}
    return [{**step, **zeros} for step in itertools.islice(steps, start, start + REAL_STEPS)]


def _seeded(name: str, make: Callable[[str], onnx.ModelProto]) -> Subject:
    def normal(seed: int) -> Feeds:
        rng = np.random.default_rng(seed)
        like = build.feeds(make(name))
        return {key: rng.standard_normal(value.shape, dtype=np.float32) for key, value in like.items()}

    return Subject(name, lambda: make(name), normal, lambda: [build.feeds(make(name), seed) for seed in (0, 1)])
