"""The answer of onnxruntime, on one thread."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
import onnxruntime

Array = npt.NDArray[Any]


@lru_cache(maxsize=32)
def _file_session(path: Path) -> onnxruntime.InferenceSession:
    return session(path)


def session(source: Path | bytes | onnx.ModelProto, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session on the CPU; warnings about the model are not printed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = source.SerializeToString() if isinstance(source, onnx.ModelProto) else source
    return onnxruntime.InferenceSession(
        str(model) if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"]
    )


def onnxruntime_outputs(source: Path | bytes | onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Output name -> array for one run."""
    run = _file_session(source) if isinstance(source, Path) else session(source)
    names = [output.name for output in run.get_outputs()]
    return dict(zip(names, run.run(names, dict(feeds)), strict=True))
