"""IREE on the CPU: compiled ahead for this very processor, run on the calling thread."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from headrace.artifact.ports import Array
from headrace.errors import Error
from headrace.measure.peers.contestant import Case, Contestant

LIMIT_S = 300
OPSET = "17"  # models are brought to it; older ones import badly
FLAGS = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=host",
    "--iree-opt-level=O3",
)


def open(case: Case) -> Contestant:
    """Import, compile and load; Error with the compiler's own message."""
    from iree import runtime

    with tempfile.TemporaryDirectory(prefix="headrace-iree-") as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(case.shaped.SerializeToString())
        importer = [sys.executable, "-m", "iree.compiler.tools.import_onnx", "model.onnx", "-o", "model.mlir"]
        if max(entry.version for entry in case.proto.opset_import if entry.domain == "") < int(OPSET):
            importer += ["--opset-version", OPSET]
        _call(importer, folder)
        _call([_tool(), "model.mlir", "-o", "model.vmfb", *FLAGS], folder)
        code = (folder / "model.vmfb").read_bytes()
    device = runtime.get_device("local-sync")
    config = runtime.Config(device=device)
    context = runtime.SystemContext(config=config)
    context.add_vm_module(runtime.VmModule.copy_buffer(config.vm_instance, code))
    module = context.modules.module if hasattr(context.modules, "module") else next(iter(context.modules.values()))
    function = module[case.proto.graph.name] if case.proto.graph.name in dir(module) else _only(module)
    names = [port.name for port in case.proto.graph.output]
    given = [np.ascontiguousarray(case.inputs[port.name]) for port in case.proto.graph.input]
    bound = [runtime.asdevicearray(device, array) for array in given]

    def plain() -> list[Array]:
        results = function(*given)
        return [np.asarray(r) for r in (results if isinstance(results, (tuple, list)) else (results,))]

    return Contestant(
        "iree",
        version("iree-base-runtime"),
        plain=plain,
        bound=lambda: function(*bound),
        outputs=lambda: dict(zip(names, plain(), strict=True)),
    )


def _only(module: Any) -> Any:
    """The function of a module that has one."""
    names = [name for name in module.vm_module.function_names if not name.startswith("__") and "$" not in name]
    if len(names) != 1:
        raise Error(f"the compiled module has the functions {', '.join(names)}")
    return module[names[0]]


def _tool() -> str:
    import iree.compiler.tools.binaries as binaries

    return str(binaries.find_tool("iree-compile"))


def _call(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or done.stderr.splitlines()
        raise Error(lines[0].strip() if lines else f"{command[0]} ended with status {done.returncode}")
