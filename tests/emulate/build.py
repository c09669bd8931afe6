"""How tests compile code for instruction sets that this processor lacks: with intrinsics in plain C."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.targets.host import host_arch, host_features
from headrace.targets.registry import TARGETS
from headrace.targets.simd import Isa
from headrace.targets.toolchain import find_toolchains

HEADER = Path(__file__).parent / "avx512.h"
FLAGS = (
    "-O1",
    "-mavx2",
    "-mfma",
    "-mf16c",
    "-include",
    str(HEADER),
    "-Wno-psabi",
    "-Werror=implicit-function-declaration",
)
KIND = "gcc"
NEEDS = {"avx2", "fma", "f16c"}
BEYOND = ("avx512", "avxvnni", "amx")  # how the features begin that the header stands in for


def lacking(isa: Isa) -> set[str]:
    """Features of an instruction set that this processor has not."""
    here = {f.replace("_", "") for f in host_features()}  # Linux writes avx512_vnni, compilers avx512vnni
    return {f for f in isa.features if f.replace("-", "") not in here}


def emulated(isa: Isa) -> bool:
    """Whether code for it runs here with `FLAGS`, and only so."""
    missing = lacking(isa)
    if isa.header != "immintrin.h" or not missing or not all(f.startswith(BEYOND) for f in missing):
        return False
    gcc = any(t.kind == KIND for t in find_toolchains())
    return gcc and host_arch() == "x86_64" and host_features() >= NEEDS


def flags_for(isa: Isa) -> tuple[str, ...]:
    """Further arguments of the compiler, where it emulates."""
    return FLAGS if emulated(isa) else ()


NATIVE = [t.name for t in TARGETS.values() if not t.missing_here()]
_EMULATED = [t.name for t in TARGETS.values() if t.name not in NATIVE and emulated(t.isa)]
RUNNABLE = [*NATIVE, *_EMULATED]
# of those that are emulated the richest, whose code holds that of the others but for tiles, which have tests of
# their own
EVERYDAY = [*(t for t in NATIVE if not t.endswith("amx")), *(t for t in _EMULATED if t == "x86-64-avx512-fp16")]
HERE = [pytest.param(t, marks=[] if t in EVERYDAY else [pytest.mark.slow]) for t in RUNNABLE]
