"""OpenVINO on the CPU in float32; bound calls run on tensors that were set beforehand."""

from __future__ import annotations

from importlib.metadata import version

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

    def outputs() -> dict[str, Array]:
        results = plain.infer(feeds)
        return {port.any_name: np.array(results[port]) for port in compiled.outputs}

    return Contestant(
        "openvino",
        version("openvino"),
        plain=lambda: plain.infer(feeds),
        bound=lambda: bound.infer(),
        outputs=outputs,
    )
