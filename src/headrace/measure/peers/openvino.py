"""OpenVINO on the CPU in float32; plain calls share arrays, bound calls run on tensors set beforehand."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np

from headrace.artifact.ports import Array
from headrace.measure.peers.contestant import Case, Contestant


def open(case: Case) -> Contestant:
    """Load the model; raises what OpenVINO raises."""
    import openvino

    core = openvino.Core()
    model = core.read_model(case.proto.SerializeToString())
    settings = {
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(model, "CPU", settings)
    feeds = dict(case.inputs)
    plain, bound = compiled.create_infer_request(), compiled.create_infer_request()
    for name, value in feeds.items():
        bound.set_tensor(name, openvino.Tensor(np.ascontiguousarray(value), shared_memory=True))
    for port in compiled.outputs:
        bound.set_tensor(port, openvino.Tensor(port.element_type, port.shape))

    def run() -> Any:
        return plain.infer(feeds, share_inputs=True, share_outputs=True)

    def outputs() -> dict[str, Array]:
        results = run()
        return {name: np.array(results[port]) for port in compiled.outputs for name in port.names}

    return Contestant(
        "openvino",
        version("openvino"),
        plain=run,
        bound=lambda: bound.infer(),
        outputs=outputs,
    )
