"""tract; it always returns tensors of its own, so a bound call only saves the conversion of arrays."""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from headrace.artifact.ports import Array
from headrace.measure.peers.contestant import Case, Contestant

TYPES = {"float32": "f32", "float64": "f64", "float16": "f16", "bool": "bool"}


def open(case: Case) -> Contestant:
    """Load the model; raises what tract raises."""
    import tract

    with tempfile.TemporaryDirectory(prefix="headrace-tract-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(case.proto.SerializeToString())
        model = tract.onnx().load(path)
    names = [model.input_name(i) for i in range(model.input_count())]
    results = [port.name for port in case.proto.graph.output]  # tract knows them by their nodes
    for index, name in enumerate(names):
        model.set_input_fact(index, fact(case.inputs[name]))
    state = model.into_model().into_runnable().spawn_state()
    arrays = [np.ascontiguousarray(case.inputs[name]) for name in names]
    tensors = [tract.Tensor.from_numpy(array) for array in arrays]

    def plain() -> list[Array]:
        return [tensor.to_numpy() for tensor in state.run(arrays)]

    return Contestant(
        "tract",
        version("tract"),
        plain=plain,
        bound=lambda: state.run(tensors),
        outputs=lambda: dict(zip(results, plain(), strict=True)),
    )


def fact(array: Array) -> str:
    """How tract writes a shape and type: "1,576,f32"."""
    kind = array.dtype.name
    short = TYPES.get(kind) or kind.replace("uint", "u").replace("int", "i")
    return ",".join([*map(str, array.shape), short])
