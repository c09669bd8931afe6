"""Headrace compiles neural networks to proven, tuned, dependency-free C."""

import importlib
from typing import TYPE_CHECKING

from headrace.errors import (
    Error,
    InvalidModel,
    NotStreamable,
    StreamFull,
    TargetError,
    ToolchainError,
    UnsupportedOperator,
)
from headrace.spec import TensorSpec

if TYPE_CHECKING:
    from headrace.artifact.instance import Instance
    from headrace.artifact.package import OutputError
    from headrace.artifact.program import Program
    from headrace.artifact.stream import Stream
    from headrace.graph.model import Model
    from headrace.streaming.model import StepModel
    from headrace.verbs import bench, compile, inspect, load, open, profile, stream, verify

__all__ = [
    "Error",
    "Instance",
    "InvalidModel",
    "Model",
    "NotStreamable",
    "OutputError",
    "Program",
    "StepModel",
    "Stream",
    "StreamFull",
    "TargetError",
    "TensorSpec",
    "ToolchainError",
    "UnsupportedOperator",
    "bench",
    "compile",
    "inspect",
    "load",
    "open",
    "profile",
    "stream",
    "targets",
    "verify",
]

_HOME = {
    "Instance": "headrace.artifact.instance",
    "Model": "headrace.graph.model",
    "OutputError": "headrace.artifact.package",
    "Program": "headrace.artifact.program",
    "StepModel": "headrace.streaming.model",
    "Stream": "headrace.artifact.stream",
    **dict.fromkeys(("bench", "compile", "inspect", "load", "open", "profile", "stream", "verify"), "headrace.verbs"),
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use, so that `import headrace` takes milliseconds."""
    if name == "targets":  # a package that can be called
        return importlib.import_module("headrace.targets")
    if name not in _HOME:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
