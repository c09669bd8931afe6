"""Finding a C compiler and calling it: the system's gcc or clang, or zig cc from the ziglang wheel."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import ToolchainError

KINDS = ("gcc", "clang", "zig")
INSTALL = f"{Path(sys.executable).name} -m pip install ziglang"

# Value-preserving only: generated C writes fused multiply-adds where it wants them, and never reads
# errno or the floating-point exception flags. The last two are on by default in some distributions and
# would make the code call into libc.
CFLAGS = (
    "-std=c11",
    "-O3",
    "-g0",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-ident",
    "-fno-stack-protector",
    "-U_FORTIFY_SOURCE",
)
SANITIZE = ("-std=c11", "-O1", "-g", "-ffp-contract=off", "-fno-math-errno", "-fno-omit-frame-pointer")
SANITIZERS = ("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all")

_CLANG = "__clang__ __clang_major__ __clang_minor__ __clang_patchlevel__"
_PROBE = f"{_CLANG} __GNUC__ __GNUC_MINOR__ __GNUC_PATCHLEVEL__"
_DIAGNOSTIC = re.compile(r"(fatal )?error:|undefined (reference|symbol)|Error:|cannot find|No space left")


@dataclass(frozen=True)
class Toolchain:
    """One C compiler. machine: the triple it compiles for unless told otherwise."""

    kind: str  # "gcc", "clang" or "zig"
    version: str
    command: tuple[str, ...]
    machine: str

    def __str__(self) -> str:
        return f"{self.kind} {self.version}"

    def builds_for(self, triple: str) -> bool:
        """Whether this compiler can produce code for `triple`; zig can for every triple we name."""
        return self.kind == "zig" or _same_machine(self.machine, triple)

    def flags_for(self, triple: str) -> tuple[str, ...]:
        """What selects `triple`: zig would otherwise compile for the very processor it runs on."""
        return ("-target", triple) if self.kind == "zig" else ()


def find_toolchains() -> tuple[Toolchain, ...]:
    """Every compiler found here, the preferred one first; of each kind the first on PATH."""
    found: dict[str, Toolchain] = {}
    for command in _candidates():
        toolchain = _identify(command)
        if toolchain is not None:
            found.setdefault(toolchain.kind, toolchain)
    return tuple(found.values())


def find_toolchain(kind: str | None, triple: str) -> Toolchain:
    """The compiler of that kind, or for None the preferred one, that can build for `triple`.

    Raises ToolchainError saying what to install.
    """
    if kind is not None and kind not in KINDS:
        raise ToolchainError(f"unknown toolchain {kind!r}; known are {', '.join(KINDS)}")
    here = find_toolchains()
    fitting = [t for t in here if (kind is None or t.kind == kind) and t.builds_for(triple)]
    if fitting:
        return fitting[0]
    remedy = f"install one with: {INSTALL}" if kind != "gcc" else "install gcc, or leave toolchain unset"
    if not here:
        raise ToolchainError(f"no C compiler found (looked for cc, gcc, clang, zig); {remedy}")
    names = ", ".join(str(t) for t in here)
    if kind is not None and all(t.kind != kind for t in here):
        raise ToolchainError(f"no {kind} found (here: {names}); {remedy}")
    raise ToolchainError(f"no compiler for {triple} found (here: {names}); {remedy}")


def run_compiler(toolchain: Toolchain, arguments: Sequence[str], cwd: Path, timeout_s: float = 900.0) -> str:
    """Run the compiler in `cwd` and return what it printed on stderr (its warnings).

    Raises ToolchainError with the first diagnostic, or when it takes longer than timeout_s seconds.
    """
    try:
        code, text = _call((*toolchain.command, *arguments), cwd, timeout_s)
    except subprocess.TimeoutExpired:
        raise ToolchainError(f"{toolchain} did not finish within {timeout_s:g} s and was stopped") from None
    except OSError as error:
        raise ToolchainError(f"{toolchain} could not be started: {error}") from error
    if code == 0:
        return text
    if code < 0:
        name = signal.Signals(-code).name
        raise ToolchainError(f"{toolchain} was ended by {name} (out of memory?)\n{_tail(text)}")
    raise ToolchainError(f"{toolchain} failed: {first_diagnostic(text)}")


def first_diagnostic(stderr: str) -> str:
    """The first line that states an error, with the line after it when that belongs to it.

    >>> first_diagnostic("In file included from a.c:1:\\nb.h:2:5: error: unknown type name 'x'")
    "b.h:2:5: error: unknown type name 'x'"
    """
    for line in stderr.splitlines():
        if _DIAGNOSTIC.search(line):
            return line.strip()
    return _tail(stderr)


def _tail(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "(it printed nothing)"


def _candidates() -> Iterator[tuple[str, ...]]:
    for name in ("cc", "gcc", "clang"):
        path = shutil.which(name)
        if path is not None:
            yield (path,)
    yield from _zig()


def _zig() -> Iterator[tuple[str, ...]]:
    spec = importlib.util.find_spec("ziglang")
    if spec is not None:
        for folder in spec.submodule_search_locations or ():
            binary = Path(folder) / ("zig.exe" if os.name == "nt" else "zig")
            yield (str(binary), "cc") if binary.is_file() else (sys.executable, "-m", "ziglang", "cc")
    path = shutil.which("zig")
    if path is not None:
        yield (path, "cc")


@functools.lru_cache(maxsize=32)
def _identify(command: tuple[str, ...]) -> Toolchain | None:
    """Ask the preprocessor which compiler this is; None when it does not run or is neither gcc nor clang."""
    if command[-1] == "cc" and len(command) > 1:
        version = _ask((*command[:-1], "version"))
        return None if version is None else Toolchain("zig", version.strip(), command, _host_triple())
    answer = _ask((*command, "-E", "-P", "-x", "c", "-"), _PROBE)
    machine = _ask((*command, "-dumpmachine"))
    if answer is None or machine is None:
        return None
    words = answer.split()
    if len(words) != len(_PROBE.split()):
        return None
    clang, gcc = words[1:4], words[4:7]
    if words[0] != "__clang__":
        return Toolchain("clang", ".".join(clang), command, machine.strip())
    if gcc[0] != "__GNUC__":
        return Toolchain("gcc", ".".join(gcc), command, machine.strip())
    return None


def _ask(command: Sequence[str], stdin: str = "") -> str | None:
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 and done.stdout.strip() else None


def _call(command: Sequence[str], cwd: Path, timeout_s: float) -> tuple[int, str]:
    """Exit code and stderr. A compiler driver starts children, so a time-out ends the whole group."""
    environment = {**os.environ, "LC_ALL": "C"}
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=os.name == "posix",
    ) as process:
        try:
            _, text = process.communicate(timeout=timeout_s)
        except BaseException:
            _kill_group(process)
            raise
    return process.returncode, text


def _kill_group(process: subprocess.Popen[str]) -> None:
    if os.name == "posix":
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    else:
        process.kill()


def _host_triple() -> str:
    from headrace.targets.host import host_triple

    return host_triple()


def _same_machine(machine: str, triple: str) -> bool:
    """Whether two triples name one architecture and system: x86_64-pc-linux-gnu and x86_64-linux-gnu do."""
    return _arch_and_system(machine) == _arch_and_system(triple)


def _arch_and_system(triple: str) -> tuple[str, str]:
    arch = triple.split("-", 1)[0].replace("arm64", "aarch64").replace("amd64", "x86_64")
    system = next((s for s in ("linux", "windows", "wasi") if s in triple), None)
    if system is None:
        system = "macos" if "darwin" in triple or "macos" in triple else triple.rsplit("-", 1)[-1]
    return arch, system
