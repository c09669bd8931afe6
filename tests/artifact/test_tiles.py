"""Artifacts that use tile registers: what they say of themselves, and what they do where there are none."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import headrace as hr
from headrace.errors import TargetError
from headrace.targets.host import host_arch, tiles_allowed
from headrace.targets.registry import get_target

TARGET = "x86-64-avx512-amx"
ROWS, K, COLUMNS = 48, 200, 40
WEIGHTS = np.random.default_rng(0).integers(-128, 128, (K, COLUMNS)).astype(np.int8)
pytestmark = pytest.mark.skipif(host_arch() != "x86_64", reason="needs a compiler for x86-64")


def model() -> onnx.ModelProto:
    """y = (x - 7) · w in integers."""
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [ROWS, K])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [ROWS, COLUMNS])
    constants = [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(np.array(7, np.uint8), "z")]
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["x", "w", "z"], ["y"])], "net", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def test_dispatch_has_an_entry_and_runs_anywhere() -> None:
    program = hr.compile(model(), "x86-64-dispatch-amx")
    assert program.info.manifest["facts"]["entries"][-1] == "avx512amx"
    assert (program.info.isa == "avx512amx") == (not get_target(TARGET).missing_here())
    x = np.random.default_rng(1).integers(0, 256, (ROWS, K)).astype(np.uint8)
    assert (program.run({"x": x})["y"] == (x.astype(np.int32) - 7) @ WEIGHTS.astype(np.int32)).all()


def test_a_program_for_tiles_alone(tmp_path: Path) -> None:
    """Python refuses it by type; its functions return an error, and are no illegal instruction."""
    program = hr.compile(model(), TARGET, out=tmp_path / "net")
    assert "Tensorize" in str(program.info.manifest["kernels"][0]["schedule"])
    assert "tile registers" in program.info.manifest["facts"]["error_codes"]["11"]
    library = ctypes.CDLL(str(next((tmp_path / "net").glob("libnet.*"))))
    weights = np.fromfile(tmp_path / "net" / "net.weights", np.uint8)
    code = 0 if tiles_allowed() else 11
    assert library.net_init(None, ctypes.c_void_p(weights.ctypes.data)) == code
    if code:
        assert library.net_run(None, None, ctypes.c_void_p(weights.ctypes.data), None, None) == code
    if get_target(TARGET).missing_here():
        with pytest.raises(TargetError, match="needs a"):
            program.run({"x": np.zeros((ROWS, K), np.uint8)})
