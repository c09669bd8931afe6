"""What a model says about time: read from the metadata of a step model, or stated by hand for one made elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from headrace.errors import InvalidModel
from headrace.graph.model import Model

STREAM = "headrace.stream"
Shape = tuple[int | str, ...]


def stream_data(model: Model) -> dict[str, Any] | None:
    """The `headrace.stream` object of a step model; None for a model that is none. InvalidModel if damaged."""
    text = model.metadata.get(STREAM)
    if text is None:
        return None
    try:
        data = json.loads(text)
        return {**data, "state": [[str(a), str(b)] for a, b in data["state"]]}
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidModel(f"damaged headrace.stream metadata: {error!r}") from error


def state_pairs(data: Mapping[str, Any]) -> dict[str, str]:
    """State input -> state output."""
    return dict(data["state"])


def by_hand(
    axes: Mapping[str, int], state: Mapping[str, str], inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]
) -> dict[str, Any]:
    """The same object for a program with state that takes a fixed number of frames and gives its answer at once.

    axes: the time axis of every input and output that has one. Other inputs are constant from reset to
    reset, other outputs come at the flush. The clock ticks once for every frame of the first time input.
    The signal is whole steps. Raises ValueError.
    """
    for name, axis in axes.items():
        shape = inputs.get(name, outputs.get(name))
        if shape is None:
            there = ", ".join(map(repr, (*inputs, *outputs)))
            raise ValueError(f"axes names {name!r}, which is no input or output of the program; there are {there}")
        if not 0 <= axis < len(shape) or not isinstance(shape[axis], int) or shape[axis] == 0:
            raise ValueError(f"axes: {name!r} has shape {shape}, in which axis {axis} has no fixed number of frames")
    timed = {name: int(shape[axes[name]]) for name, shape in inputs.items() if name in axes}
    if not timed:
        raise ValueError(f"axes names no time input; inputs are {', '.join(map(repr, inputs))}")
    chunk = next(iter(timed.values()))
    made = {name: int(shape[axes[name]]) for name, shape in outputs.items() if name in axes}
    return {
        "version": 1, "chunk": chunk, "min_length": 0, "multiple": chunk,
        "position": None, "valid": None, "steady": 0, "absolute": False, "max_past": None,
        "state": [list(pair) for pair in state.items()],
        "initial": [],
        "side": [name for name in inputs if name not in timed],
        "inputs": {name: _lane(axes[name], frames, chunk) for name, frames in timed.items()},
        "outputs": {
            name: {**_lane(axes[name], frames, chunk), "delay": 0, "length": [0] * chunk, "ready": [0] * chunk,
                   "latency": 0, "lookahead": 0, "receptive_field": None}
            for name, frames in made.items()
        },
        "finals": {
            name: [{"frames": chunk, "delay": 0, "length": [0] * chunk}] for name in outputs if name not in made
        },
    }  # fmt: skip


def _lane(axis: int, frames: int, chunk: int) -> dict[str, Any]:
    from math import gcd

    common = gcd(frames, chunk)
    return {"axis": axis, "rate": [frames // common, chunk // common], "frames": frames}
