"""ONNX in: from a path, bytes, a protobuf, an onnx_ir model or a Model. Checked before anything uses it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from headrace.errors import Error, InvalidModel
from headrace.graph import validate
from headrace.graph.model import Model


def load(source: str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model | Model) -> Model:
    """Read and check a model.

    Raises FileNotFoundError or ValueError for a path that is no file, InvalidModel for a damaged or
    inconsistent model, UnsupportedOperator for an operator its opset does not have, TypeError for
    any other kind of source.
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, onnx.ModelProto):
        return _from_proto(source, None, None)
    if isinstance(source, ir.Model):
        return _from_ir(source)
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        return _from_proto(_parse(data, "the given bytes"), None, hashlib.sha256(data).hexdigest())
    if isinstance(source, str | os.PathLike):
        return _from_file(Path(source))
    raise TypeError(f"cannot load a {type(source).__name__}: give a path, bytes, ModelProto or onnx_ir.Model")


def _from_file(path: Path) -> Model:
    if "\0" in str(path):
        raise ValueError(f"not a usable path: {str(path)!r}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the .onnx file inside it")
    if not path.exists():
        raise FileNotFoundError(f"no such model file: {path}")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    proto = _parse(data, str(path))
    del data
    return _from_proto(proto, path.absolute(), digest)


def _parse(data: bytes, origin: str) -> onnx.ModelProto:
    if not data:
        raise InvalidModel(f"{origin}: empty; was the download or export interrupted?")
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except (DecodeError, UnicodeDecodeError):
        raise InvalidModel(f"{origin}: not an ONNX protobuf, or cut off") from None
    return proto


def _from_proto(proto: onnx.ModelProto, path: Path | None, digest: str | None) -> Model:
    folder = path.parent if path else None
    try:
        validate.check_model(proto, folder)
        if _needs_sorting(proto.graph):
            proto = onnx.ModelProto.FromString(proto.SerializeToString())
            _sort(proto.graph)
        model = ir.from_proto(proto)
    except Error as error:
        raise _named(error, path) from None
    except RecursionError:
        raise InvalidModel(f"{path or 'the model'}: nested too deeply") from None
    except Exception as error:
        raise InvalidModel(f"{path or 'the model'}: {_first_line(error)}") from error
    external = _locate_external(model, folder) if folder else ()
    return Model(model, path, digest, external)


def _named(error: Error, path: Path | None) -> Error:
    if path is None or not isinstance(error, InvalidModel):
        return error
    return InvalidModel(f"{path}: {error}")


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _needs_sorting(graph: onnx.GraphProto) -> bool:
    produced = {name for node in graph.node for name in node.output if name}
    seen: set[str] = set()
    for node in graph.node:
        if any(name in produced and name not in seen for name in validate.outer_reads(node)):
            inner = {name for sub in validate.nested_nodes(node) for name in sub.output}
            if any(n in produced and n not in seen and n not in inner for n in validate.outer_reads(node)):
                return True
        seen.update(node.output)
    return False


def _sort(graph: onnx.GraphProto) -> None:
    listed = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    producers = {name: i for i, node in enumerate(listed) for name in node.output if name}
    order = validate.sorted_nodes(listed, producers)
    del graph.node[:]
    graph.node.extend(listed[i] for i in order)


def _locate_external(model: ir.Model, folder: Path) -> tuple[Path, ...]:
    """Point external tensors at their files, whose place and size `validate` has checked.

    onnx_ir refuses hard links, which package installers use; the containment check has been made.
    """
    paths: set[Path] = set()

    def located(tensor: Any) -> Any:
        if not isinstance(tensor, ir.ExternalTensor):
            return tensor
        path = (folder / tensor.location).resolve()
        paths.add(path)
        return ir.ExternalTensor(
            str(path), tensor.offset, tensor.length, tensor.dtype, shape=tensor.shape, name=tensor.name
        )

    for graph in model.graphs():
        for value in graph.initializers.values():
            value.const_value = located(value.const_value)
        for node in graph:
            for name, attr in list(node.attributes.items()):
                if attr.type == ir.AttributeType.TENSOR and isinstance(attr.value, ir.ExternalTensor):
                    node.attributes[name] = ir.AttrTensor(name, located(attr.value))
    return tuple(sorted(paths))


def _from_ir(model: ir.Model) -> Model:
    """Check a model made in memory without copying its weights."""
    try:
        copy = model.clone()
    except Exception as error:
        raise InvalidModel(f"the onnx_ir model is inconsistent: {_first_line(error)}") from error
    graph = copy.graph
    given = {id(value) for value in graph.inputs}
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None:
            raise InvalidModel(f"initializer {value.name!r} has no content")
        value.shape = ir.Shape(tensor.shape.numpy())
        value.dtype = tensor.dtype
        del graph.initializers[value.name or ""]
        if id(value) not in given:
            graph.inputs.append(value)
    try:
        proto = ir.to_proto(copy)
    except Exception as error:
        raise InvalidModel(f"the onnx_ir model cannot be serialised: {_first_line(error)}") from error
    validate.check_model(proto, None)
    return Model(model)
