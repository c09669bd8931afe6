"""ONNX operator schemas. The stubs of the onnx package lag behind the module, hence the Any."""

from __future__ import annotations

from typing import Any

import onnx


def find(op_type: str, version: int, domain: str = "") -> Any | None:
    """The schema (onnx.defs.OpSchema) that is in force at this opset version, or None."""
    try:
        return onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None


def get(op_type: str, version: int, domain: str = "") -> Any:
    """The schema of an operator that is known to exist."""
    return onnx.defs.get_schema(op_type, version, domain)


def is_deterministic(schema: Any) -> bool:
    """Whether equal inputs give equal outputs."""
    return bool(schema.node_determinism == onnx.defs.OpSchema.NodeDeterminism.Deterministic)
