"""Compiler calls: C files to a shared library, and C files to an executable with sanitizers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headrace.errors import ToolchainError
from headrace.targets.toolchain import CFLAGS, SANITIZE, SANITIZERS, Toolchain, run_compiler

LARGE = 600_000  # bytes of C from which -O3 costs a second or more and gains nothing


def library_name(name: str, triple: str) -> str:
    """File name of a shared library on the system of `triple`."""
    if "windows" in triple:
        return f"{name}.dll"
    return f"lib{name}.dylib" if "macos" in triple or "darwin" in triple else f"lib{name}.so"


def library_flags(triple: str, threads: bool = False) -> tuple[str, ...]:
    """Flags for a shared library without build id; what it leaves undefined beyond libc is an error."""
    if threads:
        return ("-pthread", *library_flags(triple))
    if "linux" in triple:
        return (*CFLAGS, "-fPIC", "-shared", "-Wl,--build-id=none", "-Wl,-z,defs", "-Wl,-z,noexecstack")
    return (*CFLAGS, "-fPIC", "-shared") if "windows" not in triple else (*CFLAGS, "-shared")


def compile_library(
    toolchain: Toolchain, triple: str, sources: Sequence[str], library: str, folder: Path, threads: bool = False
) -> None:
    """Compile `sources` to the shared library `library`; all are names in `folder`, where the compiler runs.

    Relative names keep the folder out of the result, so equal sources give equal bytes anywhere.
    Raises ToolchainError.
    """
    flags = (*toolchain.flags_for(triple), *library_flags(triple, threads))
    size = sum((folder / name).stat().st_size for name in sources if name.endswith(".c"))
    level = ("-O2",) if size > LARGE else ()  # the last level named counts
    run_compiler(toolchain, (*flags, *level, "-o", library, *sources), folder)


def compile_sanitized(toolchain: Toolchain, sources: Sequence[str], program: str, folder: Path) -> None:
    """Compile `sources` to an executable that stops at the first memory error or undefined behaviour.

    Raises ToolchainError; zig ships no AddressSanitizer runtime, so it is refused.
    """
    if toolchain.kind == "zig":
        raise ToolchainError("zig cc has no AddressSanitizer; use toolchain='gcc' or 'clang'")
    run_compiler(toolchain, (*SANITIZE, *SANITIZERS, "-o", program, *sources), folder)
