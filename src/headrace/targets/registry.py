"""The targets code can be generated for, and what this machine can do with each."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from headrace.errors import TargetError
from headrace.targets.host import host_arch, host_features, host_triple, tiles_allowed
from headrace.targets.simd import ISAS, Isa
from headrace.targets.toolchain import INSTALL, find_toolchains


@dataclass(frozen=True)
class Target:
    """A processor family to generate code for. arch is "" where any will do; triple as compilers spell it.

    wider: further instruction sets, each with all features of those before it, that a program of this target
    holds beside `isa` and takes where the processor has them; without those that would change nothing in it.
    """

    name: str
    isa: Isa
    arch: str
    wider: tuple[Isa, ...] = ()

    @property
    def isa_names(self) -> str:
        """Every instruction set that programs of this target may hold: "x86-64, avx2, avx512"."""
        return ", ".join(isa.name for isa in (self.isa, *self.wider))

    @property
    def triple(self) -> str:
        """This machine's own triple where the architecture fits, otherwise the one of Linux with glibc."""
        if self.arch in ("", host_arch()):
            return host_triple()
        return f"{self.arch}-linux-gnu"

    def missing_here(self) -> str:
        """What this machine lacks to run programs of this target; "" when it can."""
        if self.arch not in ("", host_arch()):
            return f"a machine with {self.arch} (this one is {host_arch()})"
        here = {f.replace("_", "") for f in host_features()}  # Linux writes avx512_vnni, compilers avx512vnni
        lacking = [f for f in self.isa.features if f.replace("-", "") not in here]
        if lacking:
            return f"a processor with {', '.join(lacking)}"
        return "a system that allows tile registers" if self.isa.tiles and not tiles_allowed() else ""


@dataclass(frozen=True)
class TargetInfo:
    """One row of `headrace.targets()`. missing: why it cannot be built or run here, "" when both work."""

    name: str
    isa: str
    can_build: bool
    can_run: bool
    missing: str


_DISPATCH = tuple(ISAS[n] for n in ("avx2", "avx512", "avx512vnni", "avx512bf16"))
TARGETS = {
    target.name: target
    for target in (
        Target("x86-64", ISAS["x86-64"], "x86_64"),
        Target("x86-64-avx2", ISAS["avx2"], "x86_64"),
        Target("x86-64-avx2-vnni", ISAS["avx2vnni"], "x86_64"),
        Target("x86-64-avx512", ISAS["avx512"], "x86_64"),
        Target("x86-64-avx512-vnni", ISAS["avx512vnni"], "x86_64"),
        Target("x86-64-avx512-bf16", ISAS["avx512bf16"], "x86_64"),
        Target("x86-64-avx512-fp16", ISAS["avx512fp16"], "x86_64"),
        Target("x86-64-avx512-amx", ISAS["avx512amx"], "x86_64"),
        Target("x86-64-dispatch", ISAS["x86-64"], "x86_64", _DISPATCH),
        Target("x86-64-dispatch-amx", ISAS["x86-64"], "x86_64", (*_DISPATCH, ISAS["avx512amx"])),
        Target("aarch64", ISAS["neon"], "aarch64"),
        Target("generic", ISAS["generic"], ""),
    )
}


def get_target(name: str | Target) -> Target:
    """The target of that name; "native" is the widest one that this machine runs.

    Raises TargetError, naming close matches, when there is none.
    """
    if isinstance(name, Target):
        return name
    if not isinstance(name, str):
        raise TypeError(f"target must be a name such as 'native', not {type(name).__name__}")
    if name == "native":
        return native_target()
    if name in TARGETS:
        return TARGETS[name]
    close = difflib.get_close_matches(name.lower(), ["native", *TARGETS], n=2, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(['native', *TARGETS])}"
    raise TargetError(f"unknown target {name!r}; {hint}")


def native_target() -> Target:
    """The target with the widest registers, and then the most extensions, among those that run here.

    generic on an unknown architecture. Tile registers have to be asked for by name, as long as their code has been
    tested by emulation only.
    """
    own = [t for t in TARGETS.values() if t.arch == host_arch() and not t.isa.tiles and not t.missing_here()]
    return max(own, key=lambda t: (t.isa.lanes, len(t.isa.features)), default=TARGETS["generic"])


def targets() -> tuple[TargetInfo, ...]:
    """Every target: whether this machine can build for it and run the result, and what is missing."""
    rows = [_describe(target, target.name) for target in TARGETS.values()]
    return (_describe(native_target(), "native"), *rows)


def _describe(target: Target, name: str) -> TargetInfo:
    can_build = any(t.builds_for(target.triple) for t in find_toolchains())
    to_run = target.missing_here()
    missing = []
    if not can_build:
        missing.append(f"to build: a compiler for {target.triple} ({INSTALL})")
    if to_run:
        missing.append(f"to run: {to_run}")
    isa = target.isa_names if name != "native" else f"{target.isa.name} ({target.name})"
    return TargetInfo(name, isa, can_build, not to_run, "; ".join(missing))
