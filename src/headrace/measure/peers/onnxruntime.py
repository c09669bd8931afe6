"""onnxruntime on the CPU, all graph optimisations on; bound calls use its I/O binding."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from headrace.artifact.ports import Array
from headrace.measure.peers.contestant import Case, Contestant


def open(case: Case) -> Contestant:
    """Load the model; raises what onnxruntime raises."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(case.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = dict(case.inputs)
    names = [output.name for output in session.get_outputs()]

    def outputs() -> dict[str, Array]:
        return dict(zip(names, map(np.asarray, session.run(names, feeds)), strict=True))

    binding = session.io_binding()
    given = {n: onnxruntime.OrtValue.ortvalue_from_numpy(v) for n, v in feeds.items()}
    taken = {n: onnxruntime.OrtValue.ortvalue_from_numpy(v) for n, v in outputs().items()}
    for name, value in given.items():
        binding.bind_ortvalue_input(name, value)
    for name, value in taken.items():
        binding.bind_ortvalue_output(name, value)
    run_bound = session.run_with_iobinding

    return Contestant(
        "onnxruntime",
        version("onnxruntime"),
        plain=lambda: session.run(None, feeds),
        bound=lambda: run_bound(binding),
        outputs=outputs,
    )
