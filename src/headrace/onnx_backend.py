"""`onnx.backend.base.Backend`, so that the public ONNX conformance suite runs on Headrace unchanged.

    import headrace.onnx_backend as backend
    outputs = backend.run_model(model, [x])

Headrace compiles for known shapes, so a model is compiled when its inputs arrive, once per signature.
An input that the operator reads as a parameter (axes, shape, pads, …) is compiled in, as `constants=` of
headrace.compile() would do, when the general program is refused.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep

from headrace.errors import UnsupportedOperator
from headrace.frontends.onnx import load
from headrace.graph.model import Model
from headrace.ops.lowering import lower
from headrace.ops.registry import native
from headrace.passes.prepare import prepare as prepare_graph
from headrace.program import interp
from headrace.program.verify import verify

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Array]
Runner = Callable[[Feeds], Mapping[str, Array]]

ENGINES = ("interpreter", "native")

# Formal parameters of ONNX operators whose values decide shapes or loop nests.
PARAMETERS = frozenset(
    (
        "axes", "axis", "depth", "dft_length", "ends", "frame_length", "frame_step", "hop_length", "image_shape",
        "block_shape", "k", "K", "limit", "max_output_boxes_per_class", "num_mel_bins", "output_shape", "pads",
        "repeats", "roi", "sample_rate", "lower_edge_hertz", "upper_edge_hertz", "scales", "shape", "size",
        "sizes", "split", "start", "starts", "steps", "delta", "M", "training_mode", "ratio",
    )
)  # fmt: skip


class HeadraceBackend(Backend):
    """Runs models on the CPU."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", engine: str = "interpreter", **_: Any) -> HeadraceRep:
        """Read and check a model.

        engine: "interpreter" runs the loop nests with NumPy, "native" the compiled code.
        Raises InvalidModel, UnsupportedOperator, ValueError for another device or engine.
        """
        if not cls.supports_device(device):
            raise ValueError(f"device {device!r}: only CPU is supported")
        if engine not in ENGINES:
            raise ValueError(f"engine {engine!r}: choose one of {', '.join(ENGINES)}")
        return HeadraceRep(load(model), engine)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run one node of the newest opset, or of `opset_version`."""
        version = int(kwargs.pop("opset_version", onnx.defs.onnx_opset_version()))
        names = [n for n in node.input if n]
        arrays = [np.asarray(x) for x in inputs]
        if len(names) != len(arrays):
            raise ValueError(f"the node has {len(names)} inputs, {len(arrays)} are given")
        infos = [
            onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for n, x in zip(names, arrays, strict=True)
        ]
        outs = [onnx.helper.make_empty_tensor_value_info(n) for n in node.output if n]
        model = onnx.helper.make_model(
            onnx.helper.make_graph([node], "node", infos, outs),
            opset_imports=[onnx.helper.make_opsetid(node.domain, version)],
        )
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, data_prop=True)
        return cls.prepare(inferred, device, **kwargs).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.split(":")[0] == "CPU"


@dataclass
class HeadraceRep(BackendRep):
    """A model with the programs compiled for the signatures seen so far."""

    model: Model
    engine: str
    _compiled: dict[Any, tuple[Runner, frozenset[str]]] = field(default_factory=dict)

    def run(self, inputs: Any, **_: Any) -> tuple[Any, ...]:
        """Outputs in the model's order. inputs: arrays in the model's order, or a mapping by name."""
        feeds = self._feeds(inputs)
        runner, fixed = self._runner(feeds)
        results = runner({name: x for name, x in feeds.items() if name not in fixed})
        names = list(self.model.outputs)
        outputs = namedtuple("Outputs", names, rename=True)  # type: ignore[misc]
        return tuple.__new__(outputs, [results[name] for name in names])

    def _feeds(self, inputs: Any) -> dict[str, Array]:
        names = list(self.model.inputs)
        if isinstance(inputs, Mapping):
            given = dict(inputs)
        else:
            values = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
            if len(values) > len(names):
                raise ValueError(f"the model has {len(names)} inputs, {len(values)} are given")
            given = dict(zip(names, values, strict=False))
        for name, value in given.items():
            if value is None or isinstance(value, (list, dict)):
                raise UnsupportedOperator("", name, "run", "only tensors are supported as inputs")
        return {name: np.asarray(value) for name, value in given.items()}

    def _runner(self, feeds: Feeds) -> tuple[Runner, frozenset[str]]:
        parameters = frozenset(self._parameters() & feeds.keys())
        signature = (
            tuple((name, x.dtype.str, x.shape) for name, x in sorted(feeds.items())),
            tuple(feeds[name].tobytes() for name in sorted(parameters)),
        )
        found = self._compiled.get(signature)
        if found is None:
            try:
                found = self._compile(feeds, frozenset()), frozenset()
            except UnsupportedOperator:
                if not parameters:
                    raise
                found = self._compile(feeds, parameters), parameters
            self._compiled[signature] = found
        return found

    def _compile(self, feeds: Feeds, fixed: frozenset[str]) -> Runner:
        shapes = {name: x.shape for name, x in feeds.items() if name not in fixed}
        constants = {name: feeds[name] for name in fixed}
        if self.engine == "native":
            from headrace.verbs import compile as compile_native

            return compile_native(self.model, shapes=shapes, constants=constants).run
        prepared = prepare_graph(self.model, shapes=shapes, constants=constants, native=native)
        module = lower(prepared)
        verify(module)
        return lambda arrays: interp.run(module, arrays)

    def _parameters(self) -> set[str]:
        """Inputs that nodes read as parameters only."""
        roles: dict[str, set[bool]] = {}
        for node in self.model.proto.graph.node:
            formal: list[str] = []
            version = next((o.version for o in self.model.proto.opset_import if o.domain == node.domain), 1)
            if onnx.defs.has(node.op_type, version, node.domain):
                formal = [p.name for p in onnx.defs.get_schema(node.op_type, version, node.domain).inputs]
            for n, name in enumerate(node.input):
                roles.setdefault(name, set()).add(n < len(formal) and formal[n] in PARAMETERS)
        return {name for name, seen in roles.items() if seen == {True} and name in self.model.inputs}


prepare = HeadraceBackend.prepare
run_model = HeadraceBackend.run_model
run_node = HeadraceBackend.run_node
supports_device = HeadraceBackend.supports_device
is_compatible = HeadraceBackend.is_compatible
