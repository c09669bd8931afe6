"""emx-onnx-cgen: ONNX to one C function, compiled by the preferred toolchain for this very processor."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from headrace.artifact.ports import Array
from headrace.errors import Error
from headrace.measure.peers.contestant import Case, Contestant
from headrace.targets.host import host_triple
from headrace.targets.link import library_name
from headrace.targets.toolchain import find_toolchain, run_compiler

FLAGS = ("-std=c11", "-O3", "-march=native", "-fPIC", "-shared", "-w")
LIMIT_S = 300
CTYPES = {"float": "float32", "double": "float64", "bool": "bool", "_Bool": "bool"}


def open(case: Case) -> Contestant:
    """Generate and compile; Error with the generator's own message."""
    with tempfile.TemporaryDirectory(prefix="headrace-emx-") as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(case.shaped.SerializeToString())
        command = [sys.executable, "-m", "emx_onnx_cgen", "compile", "model.onnx", "model.c", "--model-name", "model"]
        command += ["--color", "never", "--large-weight-threshold", "0"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        if done.returncode:
            raise Error((done.stderr or done.stdout).strip().splitlines()[-1])
        toolchain = find_toolchain(None, host_triple())
        library = library_name("model", host_triple())
        run_compiler(toolchain, (*FLAGS, "-o", library, "model.c", "-lm"), folder, LIMIT_S)
        function = ctypes.CDLL(str(folder / library)).model
        parameters = _parameters((folder / "model.c").read_text(encoding="utf-8"))
    outputs = [port.name for port in case.proto.graph.output]
    given = [np.ascontiguousarray(case.inputs[port.name]) for port in case.proto.graph.input]
    if len(parameters) != len(given) + len(outputs):
        raise Error(f"its function takes {len(parameters)} arrays, the model {len(given) + len(outputs)}")
    taken = [np.zeros(shape, dtype) for dtype, shape in parameters[len(given) :]]
    places = [ctypes.c_void_p(array.ctypes.data) for array in (*given, *taken)]
    function.restype = None

    def plain() -> list[Array]:
        fresh = [np.empty_like(array) for array in taken]
        function(*[ctypes.c_void_p(array.ctypes.data) for array in (*given, *fresh)])
        return fresh

    return Contestant(
        "emx-onnx-cgen",
        version("emx-onnx-cgen"),
        plain=plain,
        bound=lambda: function(*places),
        outputs=lambda: dict(zip(outputs, plain(), strict=True)),
    )


def _parameters(source: str) -> list[tuple[str, tuple[int, ...]]]:
    """dtype and shape of every array that the generated function takes."""
    head = re.search(r"^void model\((.*)\) \{$", source, re.MULTILINE)
    if head is None:
        raise Error("the generated C has no function `model`")
    found = []
    for text in head[1].split(", "):
        parts = re.fullmatch(r"(?:const )?(\w+) \w+((?:\[[^]]*\])*)", text)
        if parts is None:
            raise Error(f"its parameter {text!r} is no array of known shape")
        shape = tuple(int(e) for e in re.findall(r"(\d+)\]", parts[2]))
        found.append((CTYPES.get(parts[1], parts[1].removesuffix("_t")), shape))
    return found
