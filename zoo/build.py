"""Builds small ONNX models layer by layer, with seeded weights, and feeds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20  # what current exporters write; LayerNormalization and Gelu are in it
F32 = npt.NDArray[np.float32]
Ports = Mapping[str, Sequence[int | str]]


@dataclass
class Builder:
    """Collects nodes and weights; every method adds one node and returns the name of its output."""

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Any operator with one output."""
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, value: npt.ArrayLike, dtype: type[np.generic] = np.float32) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def normal(self, shape: tuple[int, ...], fan_in: int, gain: float = 2.0) -> str:
        """A weight with variance gain / fan_in; gain 2 (He) keeps the scale through a ReLU."""
        return self.constant(np.sqrt(gain / fan_in) * self.rng.standard_normal(shape))

    def conv(
        self,
        x: str,
        shape: tuple[int, ...],
        stride: int = 1,
        pads: Sequence[int] = (),
        groups: int = 1,
        dilation: int = 1,
        bias: bool = False,
        gain: float = 2.0,
    ) -> str:
        """shape is [out, in / groups, *kernel]; pads as ONNX has them (all begins, then all ends)."""
        rank = len(shape) - 2
        inputs = [x, self.normal(shape, int(np.prod(shape[1:])), gain)]
        if bias:
            inputs.append(self.constant(0.1 * self.rng.standard_normal(shape[0])))
        return self.op(
            "Conv",
            *inputs,
            kernel_shape=shape[2:],
            strides=[stride] * rank,
            dilations=[dilation] * rank,
            pads=list(pads) or [0] * (2 * rank),
            group=groups,
        )

    def batch_norm(self, x: str, channels: int) -> str:
        """With seeded statistics near zero mean and unit variance."""
        scale, variance = (self.rng.uniform(0.5, 1.5, channels) for _ in range(2))
        shift, mean = (0.1 * self.rng.standard_normal(channels) for _ in range(2))
        return self.op(
            "BatchNormalization", x, *(self.constant(v) for v in (scale, shift, mean, variance)), epsilon=1e-3
        )

    def dense(self, x: str, inputs: int, outputs: int, gain: float = 2.0) -> str:
        """Gemm on [N, inputs] with a bias."""
        bias = self.constant(0.1 * self.rng.standard_normal(outputs))
        return self.op("Gemm", x, self.normal((outputs, inputs), inputs, gain), bias, transB=1)

    def model(self, name: str, inputs: Ports, outputs: Ports) -> onnx.ModelProto:
        """A checked float32 model; `outputs` names values that exist, with their shapes."""
        graph = helper.make_graph(self.nodes, name, _ports(inputs), _ports(outputs), self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model


def _ports(ports: Ports) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(k, TensorProto.FLOAT, list(v)) for k, v in ports.items()]


def same_pads(size: Sequence[int], kernel: Sequence[int], stride: int) -> list[int]:
    """Explicit pads of TensorFlow's SAME: output = ceil(size / stride), the odd one at the end."""
    total = [max(0, (-(-n // stride) - 1) * stride + k - n) for n, k in zip(size, kernel, strict=True)]
    return [t // 2 for t in total] + [t - t // 2 for t in total]


def feeds(model: onnx.ModelProto, seed: int = 0) -> dict[str, F32]:
    """Random values for every (float32) input that is not an initializer, by its static shape.

    Standard normal, except images [N, 3, H, W]: those are patches of colour under noise, because networks
    that end in a mean over the image answer nearly the same to all white noise.
    """
    rng = np.random.default_rng(seed)
    constants = {t.name for t in model.graph.initializer}
    values = {}
    for given in model.graph.input:
        kind = given.type.tensor_type
        if given.name in constants:
            continue
        if kind.elem_type != TensorProto.FLOAT or any(d.dim_param for d in kind.shape.dim):
            raise ValueError(f"input {given.name!r} is not a float32 array of fixed shape")
        shape = tuple(d.dim_value for d in kind.shape.dim)
        noise: F32 = rng.standard_normal(shape, dtype=np.float32)
        values[given.name] = _patches(shape, rng) + np.float32(0.3) * noise if _is_image(shape) else noise
    return values


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[1] == 3


def _patches(shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """A 4x4 grid of random colours, stretched over the image, around a random mean colour."""
    coarse = rng.standard_normal((*shape[:2], 4, 4)) + rng.standard_normal((*shape[:2], 1, 1))
    rows, columns = (np.arange(n) * 4 // n for n in shape[2:])
    return coarse[:, :, rows[:, None], columns].astype(np.float32)
