"""What Headrace needs on this machine, what is there, and the command that mends what is not."""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import ToolchainError
from headrace.targets.link import compile_library, library_name
from headrace.targets.registry import native_target
from headrace.targets.toolchain import INSTALL, KINDS, Toolchain, find_toolchains

NEEDED = ("numpy", "onnx", "onnx-ir", "ml_dtypes", "rich")
OPTIONAL = {
    "onnxruntime": "the reference of verify and the peer of bench",
    "openvino": "a peer of bench",
    "tract": "a peer of bench",
}
_PIP = f"{Path(sys.executable).name} -m pip install"


@dataclass(frozen=True)
class Check:
    """One line of the report. found: version or fault; fix: a command, "" when nothing is wrong."""

    name: str
    ok: bool
    required: bool
    found: str
    fix: str = ""


def examine() -> tuple[Check, ...]:
    """Every check, in the order a person reads them."""
    toolchains = find_toolchains()
    return (
        Check("python", sys.version_info >= (3, 10), True, platform.python_version()),
        *(_package(name, True, f"{_PIP} {name}") for name in NEEDED),
        *(_compiler(kind, toolchains) for kind in KINDS),
        _compiles(toolchains),
        Check("native target", True, True, native_target().name),
        *(_package(name, False, f"{_PIP} {name}  # {why}") for name, why in OPTIONAL.items()),
    )


def healthy(checks: tuple[Check, ...]) -> bool:
    return all(check.ok for check in checks if check.required)


def _package(name: str, required: bool, fix: str) -> Check:
    try:
        return Check(name, True, required, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, required, "missing", fix)


def _compiler(kind: str, toolchains: tuple[Toolchain, ...]) -> Check:
    for toolchain in toolchains:
        if toolchain.kind == kind:
            return Check(kind, True, False, f"{toolchain.version} ({toolchain.command[0]})")
    return Check(kind, False, False, "missing", INSTALL if kind == "zig" else "")


def _compiles(toolchains: tuple[Toolchain, ...]) -> Check:
    """Whether the preferred compiler makes a library that this process can load."""
    if not toolchains:
        return Check("C compiler", False, True, "missing", INSTALL)
    triple = native_target().triple
    usable = [t for t in toolchains if t.builds_for(triple)]
    if not usable:
        return Check("C compiler", False, True, f"none builds for {triple}", INSTALL)
    with tempfile.TemporaryDirectory(prefix="headrace-doctor-") as name:
        folder, library = Path(name), library_name("probe", triple)
        (folder / "probe.c").write_text("int probe(void);\nint probe(void) { return 42; }\n", encoding="utf-8")
        try:
            compile_library(usable[0], triple, ("probe.c",), library, folder)
            works = ctypes.CDLL(str(folder / library)).probe() == 42
        except (ToolchainError, OSError) as error:
            return Check("C compiler", False, True, f"{usable[0]}: {error}", INSTALL)
    return Check("C compiler", works, True, f"{usable[0]} compiles and loads")
