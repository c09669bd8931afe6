"""What a race needs to know of a runtime, and what a runtime is given to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.artifact.ports import Array
from headrace.graph.model import Model

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Case:
    """A model with every input fixed.

    inputs: an array for every run-time input, states included; constants: inputs with one value for
    good. Runtimes get these as weights and the shapes as static, so that they can optimise for them.
    """

    model: Model
    inputs: Mapping[str, Array]
    constants: Mapping[str, Array]

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The source model with static input shapes and the constants inside.

        What the file says of inner and output shapes is left out: it may name dims that are numbers now.
        """
        import onnx

        proto = onnx.ModelProto()
        proto.CopyFrom(self.model.proto)
        kept = [port for port in proto.graph.input if port.name not in self.constants]
        for port in kept:
            if port.name in self.inputs:
                _fix_shape(port, self.inputs[port.name].shape)
        del proto.graph.value_info[:]
        for port in proto.graph.output:
            port.type.tensor_type.ClearField("shape")
        del proto.graph.input[:]
        proto.graph.input.extend(kept)
        given = [onnx.numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        weights = [tensor for tensor in proto.graph.initializer if tensor.name not in self.constants]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend([*weights, *given])
        return proto

    @cached_property
    def shaped(self) -> onnx.ModelProto:
        """`proto` with the shapes of inner values and outputs as far as onnx infers them, for compilers."""
        import onnx

        return onnx.shape_inference.infer_shapes(self.proto, data_prop=True)

    @property
    def source(self) -> Path | None:
        """The file of the model."""
        return self.model.source


@dataclass(frozen=True)
class Contestant:
    """A runtime with the model loaded.

    plain: a call as a user writes it, arrays in, arrays out. bound: a call on arrays that were bound
    beforehand; None where the runtime has no such thing. outputs: the results for the case's inputs.
    """

    name: str
    version: str
    plain: Callable[[], object]
    bound: Callable[[], object] | None
    outputs: Callable[[], dict[str, Array]]


def _fix_shape(port: Any, shape: tuple[int, ...]) -> None:
    dims = port.type.tensor_type.shape.dim
    del dims[:]
    for extent in shape:
        dims.add().dim_value = extent
