"""LiteRT with XNNPACK. It runs .tflite files only: the model's twin, which must lie beside it."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from headrace.artifact.ports import Array
from headrace.errors import Error
from headrace.measure.peers.contestant import Case, Contestant


def open(case: Case) -> Contestant:
    """Load the twin. Error when there is none, or its inputs are others; what LiteRT raises."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(twin(case.source)), num_threads=1)
    interpreter.allocate_tensors()
    places = {detail["name"]: detail for detail in interpreter.get_input_details()}
    inputs = {name: _place(places, name, value) for name, value in case.inputs.items()}
    results = {detail["name"]: detail["index"] for detail in interpreter.get_output_details()}

    def outputs() -> dict[str, Array]:
        for name, index in inputs.items():
            interpreter.set_tensor(index, case.inputs[name])
        interpreter.invoke()
        return {name: np.array(interpreter.get_tensor(index)) for name, index in results.items()}

    return Contestant(
        "ai-edge-litert",
        version("ai-edge-litert"),
        plain=outputs,
        bound=interpreter.invoke,
        outputs=outputs,
    )


def twin(source: Path | None) -> Path:
    """The .tflite file of the same name beside the model."""
    if source is None:
        raise Error("ai-edge-litert runs .tflite files, and this model is in memory only")
    path = source.with_suffix(".tflite")
    if not path.is_file():
        raise Error(f"ai-edge-litert runs .tflite files, and there is no {path.name} beside {source.name}")
    return path


def _place(places: dict[str, Any], name: str, value: Array) -> int:
    detail = places.get(name)
    if detail is None:
        raise Error(f"the .tflite file has no input {name!r}, only {', '.join(map(repr, places))}")
    if tuple(detail["shape"]) != value.shape or np.dtype(detail["dtype"]) != value.dtype:
        raise Error(f"input {name!r} of the .tflite file is {detail['dtype']} {list(detail['shape'])}")
    index: int = detail["index"]
    return index
