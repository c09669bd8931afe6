"""What this machine is: architecture, operating system, C library and instruction-set extensions."""

from __future__ import annotations

import ctypes
import functools
import platform
import subprocess
import sys
from pathlib import Path

# Linux on x86-64, asm/unistd_64.h and asm/prctl.h: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA = 158, 0x1023, 18


@functools.lru_cache(maxsize=1)
def host_arch() -> str:
    """Architecture as compilers spell it: "x86_64", "aarch64", or what the system calls it."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


@functools.lru_cache(maxsize=1)
def host_triple() -> str:
    """Architecture, system and C library as compilers spell them: "x86_64-linux-gnu"."""
    return f"{host_arch()}-{_system()}"


@functools.lru_cache(maxsize=1)
def host_features() -> frozenset[str]:
    """Instruction-set extensions in the spelling of /proc/cpuinfo ("avx2", "fma", "avx512bw").

    Empty where the system does not tell; the caller then keeps to the baseline of the architecture.
    """
    if sys.platform == "darwin":
        return _features_from_sysctl()
    try:
        return features_from_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return frozenset()


def features_from_cpuinfo(text: str) -> frozenset[str]:
    """The features that every processor listed in a /proc/cpuinfo text has."""
    common: frozenset[str] | None = None
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            words = frozenset(value.split())
            common = words if common is None else common & words
    return common or frozenset()


@functools.lru_cache(maxsize=1)
def tiles_allowed() -> bool:
    """Whether Linux lets this process use the tile registers of AMX, for which it must be asked once."""
    if not sys.platform.startswith("linux") or host_arch() != "x86_64":
        return False
    library = ctypes.CDLL(None)
    return bool(library.syscall(*(ctypes.c_long(n) for n in (ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA))) == 0)


def _features_from_sysctl() -> frozenset[str]:
    names = ("machdep.cpu.features", "machdep.cpu.leaf7_features")
    words: set[str] = set()
    for name in names:
        try:
            done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.SubprocessError):
            continue
        words.update(word.lower() for word in done.stdout.split())
    return frozenset(words)


def _system() -> str:
    if sys.platform == "darwin":
        return "macos"
    if sys.platform == "win32":
        return "windows-gnu"
    glibc = platform.libc_ver()[0] == "glibc"
    return "linux-gnu" if glibc else "linux-musl"
