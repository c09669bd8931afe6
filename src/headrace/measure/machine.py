"""What this machine can do, measured once and remembered for its processor and compiler."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import json
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.measure.bench_report import machine as processor_name
from headrace.measure.probes import BLOCK, STEPS, accumulators, has_int8, probe_source
from headrace.targets.link import compile_library, library_name
from headrace.targets.machine import Machine
from headrace.targets.registry import Target
from headrace.targets.toolchain import Toolchain

VERSION = 1  # of the probes; other figures are not comparable
SAMPLE_NS = 300_000
ROUNDS = 25
LARGEST = 512 << 20
SIZES = (8, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 1536, 2048, 2560, 3072, 4096, 6144, 8192, 16384, 65536)


class Probes:
    """The probes compiled for a target; each call takes `count` and runs for as long as that says."""

    def __init__(self, target: Target, toolchain: Toolchain) -> None:
        self.isa = target.isa
        with tempfile.TemporaryDirectory(prefix="headrace-probes-") as name:
            folder = Path(name)
            (folder / "probes.c").write_text(probe_source(target.isa), encoding="utf-8")
            library = library_name("probes", target.triple)
            compile_library(toolchain, target.triple, ("probes.c",), library, folder)
            self._library = ctypes.CDLL(str(folder / library))
        self._memory = _pages(0)

    def function(self, name: str, *arguments: type[ctypes._SimpleCData[Any]]) -> Callable[..., object]:
        found = getattr(self._library, f"hr_probe_{name}")
        found.argtypes = [*arguments, ctypes.c_long]
        found.restype = ctypes.c_float if name in ("fma", "read") else ctypes.c_long
        return found  # type: ignore[no-any-return]

    def clock(self) -> Callable[[int], object]:
        """STEPS cycles per count."""
        return self.function("clock")

    def fma(self) -> tuple[Callable[[int], object], int]:
        """The call, and multiply-adds per count."""
        return self.function("fma"), STEPS * accumulators(self.isa) * self.isa.lanes

    def int8(self) -> tuple[Callable[[int], object], int] | None:
        """The call, and multiply-adds of bytes per count; None where there is no such instruction."""
        return (self.function("int8"), STEPS * 24 * 64) if has_int8(self.isa) else None

    def read(self, nbytes: int) -> tuple[Callable[[int], object], int]:
        """A call that reads about `nbytes` of memory of its own `count` times, and the exact number."""
        unit = BLOCK * self.isa.lanes * 4
        exact = max(unit, nbytes // unit * unit)
        if exact > len(self._memory):
            self._memory = _pages(exact)
        memory = self._memory
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        call = self.function("read", ctypes.c_void_p, ctypes.c_long)
        keep = (memory, self)
        return (lambda count: (keep, call(address, exact, count))), exact


def _pages(nbytes: int) -> mmap.mmap:
    """Zeros that lie in memory already, on pages of their own like the weights of a program."""
    memory = mmap.mmap(-1, max(nbytes, mmap.PAGESIZE))
    for at in range(0, nbytes, mmap.PAGESIZE):
        memory[at] = 1
    return memory


def best_ns(call: Callable[[int], object], sample_ns: int = SAMPLE_NS, rounds: int = ROUNDS) -> float:
    """Least time per count; a peak is what the quietest moment shows."""
    count = 1
    while (spent := _time(call, count)) < sample_ns:
        count = max(count + 1, min(count * 10, int(1.3 * count * sample_ns / max(spent, 1))))
    return min(_time(call, count) / count for _ in range(rounds))


def _time(call: Callable[[int], object], count: int) -> int:
    start = time.perf_counter_ns()
    call(count)
    return time.perf_counter_ns() - start


def measure(target: Target, toolchain: Toolchain) -> Machine:
    """Run the probes: about half a second. Raises ToolchainError, TargetError's kin when it cannot run here."""
    probes = Probes(target, toolchain)
    fma, per_fma = probes.fma()
    int8 = probes.int8()
    best_ns(fma)  # until the clock has settled for wide vectors
    caches = cache_sizes()
    outermost = caches[-1][1] if caches else 0
    sizes = [k << 10 for k in SIZES] + [min(max(2 * outermost, 128 << 20), LARGEST)]
    return Machine(
        name=processor_name(),
        ghz=STEPS / best_ns(probes.clock()),
        fma=per_fma / best_ns(fma),
        int8=int8[1] / best_ns(int8[0]) if int8 else None,
        read=tuple(_bandwidth(probes, size) for size in sorted(sizes, reverse=True))[::-1],
        caches=caches,
    )


def _bandwidth(probes: Probes, size: int) -> tuple[int, float]:
    call, exact = probes.read(size)
    rounds = ROUNDS if exact <= 16 << 20 else 5
    return exact, exact / best_ns(call, rounds=rounds)


def cache_sizes(cpu: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> tuple[tuple[str, int], ...]:
    """(name, bytes) of the caches for data that one core reaches; () where the system does not tell."""
    found = {}
    for folder in sorted(cpu.glob("index*")):
        try:
            kind, level, size = ((folder / f).read_text().strip() for f in ("type", "level", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            found[f"L{level}"] = int(size.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(size[-1], 0)
    return tuple(sorted(found.items()))


# --- remembered ------------------------------------------------------------------------------------


def this_machine(target: Target, toolchain: Toolchain, remeasure: bool = False) -> Machine:
    """The limits of this machine for one instruction set and compiler, measured now or before."""
    path = cache_folder() / f"machine-{_key(target, toolchain)}.json"
    found = None if remeasure else _read(path)
    if found is None:
        found = measure(target, toolchain)
        _write(path, found)
    return found


def cache_folder() -> Path:
    """Where this user's programs keep what can be made again."""
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "headrace"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "headrace" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "headrace"


def _key(target: Target, toolchain: Toolchain) -> str:
    parts = (str(VERSION), processor_name(), target.isa.name, str(toolchain), *map(str, cache_sizes()))
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


def _read(path: Path) -> Machine | None:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for key in ("read", "caches"):
            value[key] = tuple(tuple(pair) for pair in value[key])
        return Machine(**value)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _write(path: Path, machine: Machine) -> None:
    """Remember it; where that is not possible it will be measured again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps(dataclasses.asdict(machine), indent=1), encoding="utf-8")
        aside.replace(path)
    except OSError:
        return


@functools.lru_cache(maxsize=4)
def probes(target: Target, toolchain: Toolchain) -> Probes:
    """Compiled once in a process."""
    return Probes(target, toolchain)
