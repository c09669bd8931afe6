"""Vision architectures of the ONNX project ("light" models) with weights worth computing with.

The files in onnx/backend/test/data/light hold only the structure: every weight is the constant 0.02. `build`
replaces the weights by seeded He-normal arrays, the batch-norm statistics by seeded positive ones, and ends
the model at the logits before its softmax, because a softmax of large logits hides almost every error.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

FILES = {
    "light-alexnet": "light_bvlc_alexnet",
    "light-densenet121": "light_densenet121",
    "light-inception-v1": "light_inception_v1",
    "light-inception-v2": "light_inception_v2",
    "light-resnet50": "light_resnet50",
    "light-shufflenet": "light_shufflenet",
    "light-squeezenet": "light_squeezenet",
    "light-vgg19": "light_vgg19",
    "light-zfnet512": "light_zfnet512",
}
NAMES = tuple(FILES)
_VIEWS = ("Unsqueeze", "Reshape")  # between a weight and the layer that uses it
F32 = npt.NDArray[np.float32]


def build(name: str, seed: int = 0) -> onnx.ModelProto:
    """The model, input [1, 3, 224, 224] float32; the same seed gives the same bytes."""
    if name not in FILES:
        raise ValueError(f"no light model {name!r}; there are {', '.join(NAMES)}")
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = onnx.load(folder / f"{FILES[name]}.onnx")
    _end_at_logits(model.graph)
    _replace_weights(model.graph, np.random.default_rng(seed))
    model.ir_version = 8  # from 4 on an initializer need not be an input
    onnx.checker.check_model(model)
    return model


def _replace_weights(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
    """Turns every float constant that a layer uses into a seeded array of the same shape."""
    shapes = {t.name: tuple(t.dims) for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    sizes = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.data_type == TensorProto.INT64}
    makers = [n for n in graph.node if n.op_type == "ConstantOfShape"]
    shapes |= {n.output[0]: tuple(int(d) for d in sizes[n.input[0]]) for n in makers}
    source = {n.output[0]: n.input[0] for n in graph.node if n.op_type in _VIEWS}
    arrays: dict[str, F32] = {}
    for node in graph.node:
        for position, given in enumerate(node.input):
            weight = source.get(given, given)
            if weight in shapes and weight not in arrays and node.op_type not in _VIEWS:
                arrays[weight] = _weight(node.op_type, position, shapes[weight], rng)
    for node in makers:
        graph.node.remove(node)
    _keep_used(graph, without=set(arrays))
    for key, value in arrays.items():
        graph.initializer.add().CopyFrom(numpy_helper.from_array(value, key))


def _weight(op: str, position: int, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """Values for input `position` of an operator, by its role there."""
    match op, position:
        case ("Conv" | "Gemm", 1):
            fan_in = shape[-1] if op == "Gemm" else np.prod(shape[1:])  # these files have transB = 1
            return np.float32(np.sqrt(2 / fan_in)) * rng.standard_normal(shape, dtype=np.float32)
        case ("BatchNormalization", 1 | 4) | ("Mul", _):
            return rng.uniform(0.5, 1.5, shape).astype(np.float32)
        case ("Conv" | "Gemm", 2) | ("BatchNormalization", 2 | 3) | ("Add", _):
            return np.float32(0.1) * rng.standard_normal(shape, dtype=np.float32)
    raise ValueError(f"no weights are known for input {position} of {op}")


def _end_at_logits(graph: onnx.GraphProto) -> None:
    """Removes a softmax in the end; its input becomes the output."""
    last = graph.node[-1]
    if last.op_type == "Softmax":
        graph.node.remove(last)
        graph.output[0].name = last.input[0]  # a softmax keeps type and shape


def _keep_used(graph: onnx.GraphProto, without: set[str]) -> None:
    """Drops initializers that nothing reads or that are in `without`, and all of them from the inputs."""
    used = {given for node in graph.node for given in node.input}
    inputs = [i for i in graph.input if i.name in used - without - {t.name for t in graph.initializer}]
    initializers = [t for t in graph.initializer if t.name in used - without]
    del graph.input[:], graph.initializer[:]
    graph.input.extend(inputs)
    graph.initializer.extend(initializers)
