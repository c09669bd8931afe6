"""Several instruction sets in one C file: each entry gives the bits of a program for that one alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from headrace.codegen.dispatch import entry_names
from headrace.codegen.section import own_name
from headrace.errors import TargetError, ToolchainError
from headrace.program.optimise import optimise
from headrace.targets.cpuid import FEATURES, ask_functions, level_function
from headrace.targets.registry import TARGETS, Target, get_target
from headrace.targets.simd import ISAS, Isa
from headrace.targets.toolchain import find_toolchain, run_compiler
from tests.codegen.native import FLAGS, NATIVE, RUNNABLE, Native
from tests.program.random_tensors import feeds_of, random_tensors

DISPATCH = [t for t in TARGETS.values() if t.wider and not t.wider[-1].tiles]
SINGLE = {t.isa.name: t.name for t in TARGETS.values() if not t.wider}
COMPILERS = [("gcc", "c", "c11"), ("clang", "c", "c11"), ("zig", "c", "c11"), ("gcc", "c++", "c++17"),
             ("clang", "c++", "c++17")]  # fmt: skip


@pytest.mark.parametrize("target", [pytest.param(t, id=t.name) for t in DISPATCH])
@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 40))])
def test_entries_give_the_bits_of_their_instruction_set(target: Target, seed: int) -> None:
    if target.name not in RUNNABLE:
        pytest.skip(target.missing_here())
    module = optimise(random_tensors(seed, 10, every=seed % 2 == 0), 16)
    feeds = feeds_of(module, seed)
    several, isas = Native(module, target.name), (target.isa, *target.wider)
    with np.errstate(all="ignore"):
        for isa, entry in zip(isas, entry_names(isas), strict=True):
            if SINGLE[isa.name] not in RUNNABLE:
                continue
            wanted = Native(module, SINGLE[isa.name]).run(feeds)
            for name, array in several.run(feeds, entry).items():
                assert array.tobytes() == wanted[name].tobytes(), (isa.name, name)
        assert chosen(several, isas).name == [i.name for i in isas if SINGLE[i.name] in NATIVE][-1]
        taken = several.run(feeds, "run_" + own_name(chosen(several, isas)))
        for name, array in several.run(feeds).items():
            assert array.tobytes() == taken[name].tobytes()


def chosen(net: Native, isas: tuple[Isa, ...]) -> Isa:
    """The instruction set that the program says it took."""
    import ctypes

    net.library.net_isa.restype = ctypes.c_char_p
    return next(isa for isa in isas if isa.name == net.library.net_isa().decode())


@pytest.mark.parametrize(("kind", "language", "standard"), COMPILERS)
def test_no_warnings(kind: str, language: str, standard: str) -> None:
    target = get_target("x86-64-dispatch")
    try:
        find_toolchain(kind, target.triple)
    except ToolchainError as e:
        pytest.skip(str(e))
    if target.name not in RUNNABLE:
        pytest.skip(target.missing_here())
    module = optimise(random_tensors(7, 12, every=False), 16)
    flags = (f"-std={standard}", "-x", language, *(f for f in FLAGS if not f.startswith("-std=")))
    Native(module, target.name, flags=flags, kind=kind, threads=2)


NEEDS = {isa.name: set(isa.features) for isa in ISAS.values() if isa.header == "immintrin.h"}
AVX, AVX512, TILES = 0x7, 0xE7, 0x600E7
CASES = [
    (set(), True, 0, 0),
    (NEEDS["avx2"], True, AVX, 1),
    (NEEDS["avx2"], False, AVX, 0),  # an operating system that does not keep the registers
    (NEEDS["avx2"], True, 0x3, 0),
    (NEEDS["avx2"] - {"fma"}, True, AVX, 0),
    (NEEDS["avx512"], True, AVX512, 2),
    (NEEDS["avx512"], True, AVX, 1),
    (NEEDS["avx512"] - {"avx512vl"}, True, AVX512, 1),
    (NEEDS["avx512"] - {"f16c"}, True, AVX512, 0),
    (NEEDS["avx512vnni"], True, AVX512, 3),
    (NEEDS["avx512vnni"] - {"avx512bw"}, True, AVX512, 1),
    (NEEDS["avx512bf16"], True, AVX512, 4),
    (NEEDS["avx512bf16"] - {"avx512vnni"}, True, AVX512, 2),
    (NEEDS["avx512amx"], True, TILES, 5),
    (NEEDS["avx512amx"], True, AVX512, 4),
    (NEEDS["avx512amx"], True, 0x200E7, 4),
    *((NEEDS["avx512amx"] - {f}, True, TILES, 4) for f in ("amx-tile", "amx-int8", "amx-bf16")),
]

MAIN = """
#include <stdint.h>
static uint32_t words[8][2][4], kept;
static int allowed = 1, asked;
static int p_tiles(void) { asked++; return allowed; }
static void p_cpuid(uint32_t leaf, uint32_t part, uint32_t *r)
{
    for (int i = 0; i < 4; i++) r[i] = words[leaf][part][i];
}
static uint32_t p_kept(void) { return kept; }
LEVEL
int main(void) { SET; return p_level() + 10 * (p_level() - p_level()) + 100 * (asked > 1); }
"""


@pytest.mark.parametrize(("features", "osxsave", "kept", "level"), CASES)
def test_what_a_processor_runs(features: set[str], osxsave: bool, kept: int, level: int, tmp_path: Path) -> None:
    assert answer(features, osxsave, kept, tmp_path) == level


def test_leaves_that_are_not_there_are_not_believed(tmp_path: Path) -> None:
    everything = NEEDS["avx512bf16"]
    assert answer(everything, True, AVX512, tmp_path, last_part=0) == 3
    assert answer(everything, True, AVX512, tmp_path, last_leaf=6) == 0


def test_a_system_that_refuses_tiles_gets_the_entry_before(tmp_path: Path) -> None:
    everything = NEEDS["avx512amx"]
    assert answer(everything, True, TILES, tmp_path, more="allowed = 0") == 4
    assert answer(everything - {"amx-int8"}, True, TILES, tmp_path, more="allowed = 0") == 4


def answer(
    features: set[str], osxsave: bool, kept: int, tmp_path: Path, last_leaf: int = 7, last_part: int = 1, more: str = ""
) -> int:
    """The level that a made-up processor is given, by the words that it would answer."""
    isas = [ISAS[n] for n in ("x86-64", "avx2", "avx512", "avx512vnni", "avx512bf16", "avx512amx")]
    words = [(1, 0, "c", 27)] if osxsave else []
    words += [FEATURES[f] for f in sorted(features)]
    sets = [f"words[{leaf}][{part}][{'abcd'.index(register)}] |= 1u << {bit}" for leaf, part, register, bit in words]
    sets.append(f"words[0][0][0] = {last_leaf}; words[7][0][0] = {last_part}")
    sets += [more] if more else []
    text = MAIN.replace("LEVEL", level_function("p", isas)).replace("SET", "; ".join([*sets, f"kept = {kept}"]))
    (tmp_path / "main.c").write_text(text)
    compiler = find_toolchain(None, get_target("native").triple)
    run_compiler(compiler, ("-Wall", "-Wextra", "-Werror", "-o", "main", "main.c"), tmp_path)
    assert "cpuid" in ask_functions("p")
    return subprocess.run([str(tmp_path / "main")], check=False, timeout=10).returncode


def test_an_unknown_feature_is_refused() -> None:
    with pytest.raises(TargetError, match="amx-fp8"):
        level_function("p", [ISAS["x86-64"], Isa("future", 16, ("amx-fp8",), "immintrin.h", True, 32)])


def test_every_instruction_set_of_a_target_can_be_asked_for() -> None:
    for target in (t for t in TARGETS.values() if t.wider):
        before: set[str] = set()
        for isa in (target.isa, *target.wider):
            assert before <= set(isa.features) <= set(FEATURES), isa.name
            before = set(isa.features)
