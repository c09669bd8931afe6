"""A loaded model: a valid ONNX graph together with where it came from."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import onnx
import onnx_ir as ir

from headrace.errors import InvalidModel
from headrace.graph.facts import dtype_name
from headrace.spec import TensorSpec

PROTO_LIMIT = 2**31 - 2**20


@dataclass(frozen=True)
class Model:
    """A valid ONNX model. `ir` must not be changed; passes work on `ir.clone()`.

    source: the file it was read from; digest: SHA-256 of that file or of the given bytes.
    """

    ir: ir.Model
    source: Path | None = None
    digest: str | None = None
    external: tuple[Path, ...] = field(default=(), repr=False)

    @cached_property
    def inputs(self) -> dict[str, TensorSpec]:
        """Inputs that must be given at run time, in order. Those with a default are in `defaults`."""
        free = [v for v in self.ir.graph.inputs if (v.name or "") not in self.ir.graph.initializers]
        return _specs(free)

    @cached_property
    def defaults(self) -> dict[str, TensorSpec]:
        """Inputs that have an initializer: constants, unless the caller asks to keep them as inputs."""
        return _specs([v for v in self.ir.graph.inputs if (v.name or "") in self.ir.graph.initializers])

    @cached_property
    def outputs(self) -> dict[str, TensorSpec]:
        """Outputs in order."""
        return _specs(list(self.ir.graph.outputs))

    @property
    def metadata(self) -> dict[str, str]:
        """Key-value pairs stored in the model."""
        return dict(self.ir.metadata_props)

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return self.ir.opset_imports.get("", 1)

    @cached_property
    def sha256(self) -> str:
        """Hash of the model file and, where there are any, of its external data files."""
        main = self.digest or hashlib.sha256(self.proto.SerializeToString(deterministic=True)).hexdigest()
        if not self.external:
            return main
        total = hashlib.sha256(main.encode())
        for path in self.external:
            total.update(_file_hash(path).encode())
        return total.hexdigest()

    @property
    def proto(self) -> onnx.ModelProto:
        """The model as a protobuf with all weights inside. InvalidModel beyond 2 GB; use save() there."""
        if weight_bytes(self.ir) > PROTO_LIMIT:
            raise InvalidModel("the model has more than 2 GB of weights, too much for one protobuf; use save()")
        return ir.to_proto(_embedded(self.ir))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model, whole or not at all; beyond 2 GB its weights go to `<path>.data`."""
        target = Path(path)
        if not target.parent.is_dir():
            raise ValueError(f"cannot save to {target}: the folder {target.parent} does not exist")
        if weight_bytes(self.ir) > PROTO_LIMIT:
            ir.save(self.ir, target, external_data=f"{target.name}.data")
            return
        data = self.proto.SerializeToString(deterministic=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers of the main graph."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def _embedded(model: ir.Model) -> ir.Model:
    """The model with external tensors read into memory."""
    outside = [t for v in model.graph.initializers.values() if isinstance(t := v.const_value, ir.ExternalTensor)]
    if not outside:
        return model
    copy = model.clone()
    for value in copy.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = ir.Tensor(value.const_value.numpy(), dtype=value.const_value.dtype, name=value.name)
    return copy


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        total = hashlib.sha256()
        while block := file.read(1 << 22):
            total.update(block)
    return total.hexdigest()


def _specs(values: list[ir.Value]) -> dict[str, TensorSpec]:
    return {value.name or "": spec(value) for value in values}


def spec(value: ir.Value) -> TensorSpec:
    """Type and shape of a value; an unnamed unknown dim is called `<value>_d<axis>`."""
    dtype = dtype_name(value.dtype)
    if value.shape is None:
        return TensorSpec(dtype, ("...",))
    return TensorSpec(dtype, tuple(_dim(value, axis, dim) for axis, dim in enumerate(value.shape)))


def _dim(value: ir.Value, axis: int, dim: int | ir.SymbolicDim) -> int | str:
    if isinstance(dim, int):
        return dim
    return dim.value or f"{value.name}_d{axis}"
