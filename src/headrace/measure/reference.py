"""Runtimes that were not written here, as the authority on what a model computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.artifact.ports import Array, numpy_dtype
from headrace.errors import Error

if TYPE_CHECKING:
    import onnx

Run = Callable[[Mapping[str, Array]], dict[str, Array]]
NAMES = ("onnxruntime", "onnx")


class ReferenceFailed(Error):
    """The reference runtime is missing, or cannot run this model or these inputs."""


def open_reference(name: str, model: onnx.ModelProto, outputs: Sequence[str] | None = None) -> Run:
    """A function that runs the model once: every input by name to every output (or those named) by name.

    name: "onnxruntime" (one thread, graph optimisations off, so that the model is computed as it is
    written) or "onnx" (onnx.reference). Raises ValueError for another name, ReferenceFailed when the
    runtime is not installed or refuses the model; the function raises ReferenceFailed for refused inputs.
    """
    if name == "onnxruntime":
        return _onnxruntime(model, outputs)
    if name == "onnx":
        return _onnx(model, outputs)
    raise ValueError(f"unknown reference {name!r}; there are {', '.join(NAMES)}, or a Program")


def version(name: str) -> str:
    """The name with the version of the runtime."""
    from importlib.metadata import version as installed

    return f"onnx.reference {installed('onnx')}" if name == "onnx" else f"{name} {installed(name)}"


def _onnxruntime(model: onnx.ModelProto, outputs: Sequence[str] | None) -> Run:
    try:
        import onnxruntime
    except ImportError:
        raise ReferenceFailed(
            "onnxruntime is not installed: pip install onnxruntime, or use reference='onnx'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ReferenceFailed(
            f"onnxruntime {onnxruntime.__version__} refuses the model ({_line(error)}); try reference='onnx'"
        ) from error
    listed = {port.name: port.type for port in session.get_outputs()}
    names = list(listed if outputs is None else outputs)
    types = {p.name: p.type for p in (*session.get_inputs(), *session.get_overridable_initializers())}
    foreign = any(_is_foreign(kind) for kind in (*types.values(), *listed.values()))

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        given = {name: value for name, value in feeds.items() if name in types}
        try:
            values = _run_wrapped(session, names, given) if foreign else session.run(names, given)
        except Exception as error:
            raise ReferenceFailed(f"onnxruntime refuses these inputs ({_line(error)})") from error
        return dict(zip(names, map(np.asarray, values), strict=True))

    return run


def _run_wrapped(session: Any, names: list[str], feeds: Mapping[str, Array]) -> list[Array]:
    """With types that NumPy itself lacks (bfloat16, float8), both ways."""
    import onnx
    import onnxruntime

    wrapped = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
            value, onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        )
        for name, value in feeds.items()
    }
    return [_unwrapped(value) for value in session.run_with_ort_values(names, wrapped)]


def _unwrapped(value: Any) -> Array:
    array, kind = np.asarray(value.numpy()), _element(value.data_type())
    return array.view(numpy_dtype(kind)) if _is_foreign(value.data_type()) else array


def _is_foreign(kind: str) -> bool:
    return _element(kind).startswith(("bfloat", "float8"))


def _element(kind: str) -> str:
    """tensor(bfloat16) -> bfloat16."""
    return kind.removeprefix("tensor(").removesuffix(")")


def _onnx(model: onnx.ModelProto, outputs: Sequence[str] | None) -> Run:
    from onnx.reference import ReferenceEvaluator

    try:
        evaluator = ReferenceEvaluator(model)
    except Exception as error:
        raise ReferenceFailed(f"onnx.reference refuses the model ({_line(error)})") from error
    names = list(outputs) if outputs is not None else list(evaluator.output_names)
    known = set(evaluator.input_names)

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        try:
            with np.errstate(all="ignore"):
                values = evaluator.run(names, {k: v for k, v in feeds.items() if k in known})
        except Exception as error:
            raise ReferenceFailed(f"onnx.reference refuses these inputs ({_line(error)})") from error
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}

    return run


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
