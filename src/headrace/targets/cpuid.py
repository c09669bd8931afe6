"""C that asks an x86-64 processor, without any library, for the instruction sets it has, and Linux for tiles."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.errors import TargetError
from headrace.targets.host import ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA
from headrace.targets.simd import Isa

# feature, as compilers name it → (leaf, part, register, bit) of cpuid
FEATURES = {
    "fma": (1, 0, "c", 12), "f16c": (1, 0, "c", 29), "avx2": (7, 0, "b", 5), "avx512f": (7, 0, "b", 16),
    "avx512dq": (7, 0, "b", 17), "avx512bw": (7, 0, "b", 30), "avx512vl": (7, 0, "b", 31),
    "avx512vnni": (7, 0, "c", 11), "avx512fp16": (7, 0, "d", 23), "avxvnni": (7, 1, "a", 4),
    "avx512bf16": (7, 1, "a", 5), "amx-bf16": (7, 0, "d", 22), "amx-tile": (7, 0, "d", 24),
    "amx-int8": (7, 0, "d", 25),
}  # fmt: skip
_OSXSAVE = 27
_AVX, _AVX512, _TILES = 0x6, 0xE6, 0x60000  # registers that the operating system must keep, in XCR0


def ask_functions(name: str) -> str:
    """C text of `NAME_cpuid(leaf, part, r)`, which gives the registers a to d, and of `NAME_kept()`, XCR0."""
    return f"""\
static void {name}_cpuid(uint32_t leaf, uint32_t part, uint32_t *r)
{{
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(part));
}}
static uint32_t {name}_kept(void)
{{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}}"""


def tiles_function(name: str) -> str:
    """C text of `static int NAME_tiles(void)`: whether this process may use the tile registers of AMX.

    Linux (since 5.16) gives them to a process that has asked, and ends one that has not at its first tile
    instruction. Elsewhere, and without a system, whoever compiles the program says so: -DHR_TILES=1.
    """
    return f"""\
/* Whether this process may use tile registers, which Linux is asked once: arch_prctl(ARCH_REQ_XCOMP_PERM,
 * XFEATURE_XTILEDATA). Compile with -DHR_TILES=1 where they need no asking. */
static int {name}_tiles(void)
{{
#if defined(HR_TILES)
    return HR_TILES;
#elif defined(__linux__) && defined(__x86_64__)
    static int known = -1;
    int allowed = __atomic_load_n(&known, __ATOMIC_RELAXED);
    int64_t answer = {ARCH_PRCTL};
    if (allowed >= 0) return allowed;
    __asm__ volatile("syscall" : "+a"(answer) : "D"((int64_t){REQUEST_PERMISSION:#x}), "S"((int64_t){TILE_DATA})
                     : "rcx", "r11", "memory");
    allowed = answer == 0;
    __atomic_store_n(&known, allowed, __ATOMIC_RELAXED);
    return allowed;
#else
    return 0;
#endif
}}"""


def level_function(name: str, isas: Sequence[Isa]) -> str:
    """C text of `static int NAME_level(void)`: the place in `isas` of the widest that runs here.

    isas: x86 instruction sets, each with all features of those before it; the first needs none. One with tile
    registers runs here if NAME_tiles() says so too.
    Raises TargetError for a feature that is in no table.
    """
    places = ", ".join(f"{n} {isa.name}" for n, isa in enumerate(isas))
    checks = "\n".join(f"    {_has(isa, name)} level = {n};" for n, isa in enumerate(isas) if n)
    return f"""\
/* The instruction set that this processor runs, asked once: {places}. */
static int {name}_level(void)
{{
    static int known = -1;
    int level = __atomic_load_n(&known, __ATOMIC_RELAXED);
    uint32_t last[4], r10[4], r70[4] = {{0}}, r71[4] = {{0}}, kept;
    if (level >= 0) return level;
    level = 0;
    {name}_cpuid(0, 0, last);
    {name}_cpuid(1, 0, r10);
    if (last[0] >= 7) {name}_cpuid(7, 0, r70);
    if (last[0] >= 7 && r70[0] >= 1) {name}_cpuid(7, 1, r71);
    kept = r10[2] >> {_OSXSAVE} & 1 ? {name}_kept() : 0;
{checks}
    (void)r71;
    __atomic_store_n(&known, level, __ATOMIC_RELAXED);
    return level;
}}"""


def _has(isa: Isa, name: str) -> str:
    """C text of an if whose condition is that everything `isa` needs is there."""
    masks: dict[str, int] = {}
    for feature in isa.features:
        if feature not in FEATURES:
            raise TargetError(f"no way is known to ask a processor for {feature}, which {isa.name} needs")
        leaf, part, register, bit = FEATURES[feature]
        word = f"r{leaf}{part}[{'abcd'.index(register)}]"
        masks[word] = masks.get(word, 0) | 1 << bit
    masks["kept"] = _AVX512 if any(f.startswith("avx512") for f in isa.features) else _AVX
    conditions = [f"{name}_tiles()"] if isa.tiles else []
    masks["kept"] |= _TILES if isa.tiles else 0
    conditions[:0] = [f"({word} & {mask:#x}u) == {mask:#x}u" for word, mask in masks.items()]
    return f"if ({' && '.join(conditions)})"
