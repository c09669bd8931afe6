"""C that keeps a core as busy as it can be: multiply-adds, reading, a chain of dependent steps."""

from __future__ import annotations

from headrace.targets.host import host_arch, host_features
from headrace.targets.simd import Isa, prelude

NAMES = ("clock", "fma", "read", "int8")
BLOCK = 16  # vectors that one pass of the reading loop takes
STEPS = 32  # dependent additions, or rounds over all accumulators, per count


def accumulators(isa: Isa) -> int:
    """Independent sums that fill the pipelines and stay in registers."""
    return 24 if isa.vectors >= 32 else 12


def probe_source(isa: Isa) -> str:
    """C text of hr_probe_clock(n), hr_probe_fma(n), hr_probe_read(p, bytes, n) and maybe hr_probe_int8(n).

    Each does `n` times its piece of work: STEPS dependent additions; STEPS multiply-adds into each
    accumulator; one pass over `bytes` (a multiple of BLOCK vectors) at p; STEPS dot products of bytes.
    """
    vector = f"f32x{isa.lanes}"
    wanted = {f"hr_{op}_{vector}" for op in ("load", "splat", "fma", "add", "hsum")}
    parts = [prelude(isa, wanted), _clock(), _fma(isa, vector), _read(isa, vector)]
    return "\n".join([*parts, _int8() if has_int8(isa) else ""])


def has_int8(isa: Isa) -> bool:
    """Whether the probe of 8-bit dot products can be built and run here."""
    return isa.name.startswith("avx512") and host_arch() == "x86_64" and "avx512_vnni" in host_features()


def _clock() -> str:
    chain = " ".join(['x += y; __asm__ volatile("" : "+r"(x), "+r"(y));'] * STEPS)
    return (
        f"long hr_probe_clock(long n)\n{{\n    long x = n, y = n;\n    while (n--) {{ {chain} }}\n    return x;\n}}\n"
    )


def _fma(isa: Isa, vector: str) -> str:
    count = accumulators(isa)
    start = "\n".join(f"    {vector} a{j} = hr_splat_{vector}({j}.0f);" for j in range(count))
    step = "\n".join(f"            a{j} = hr_fma_{vector}(a{j}, x, y);" for j in range(count))
    total = " + ".join(f"a{j}" for j in range(count))
    return f"""\
{isa.target_attribute} float hr_probe_fma(long n)
{{
{start}
    {vector} x = hr_splat_{vector}(0.5f), y = hr_splat_{vector}(1.0f);
    __asm__ volatile("" : "+m"(x), "+m"(y));
    while (n--)
        for (int k = 0; k < {STEPS}; ++k) {{
{step}
        }}
    return hr_hsum_{vector}({total});
}}
"""


def _read(isa: Isa, vector: str) -> str:
    start = "\n".join(f"    {vector} a{j} = hr_splat_{vector}(0.0f);" for j in range(8))
    step = "\n".join(
        f"            a{j % 8} = hr_add_{vector}(a{j % 8}, hr_load_{vector}(p + i + {j * isa.lanes}));"
        for j in range(BLOCK)
    )
    total = " + ".join(f"a{j}" for j in range(8))
    return f"""\
{isa.target_attribute} float hr_probe_read(const float *p, long bytes, long n)
{{
{start}
    while (n--) {{
        for (long i = 0; i < bytes / 4; i += {BLOCK * isa.lanes}) {{
{step}
        }}
        __asm__ volatile("" ::: "memory");
    }}
    return hr_hsum_{vector}({total});
}}
"""


def _int8() -> str:
    start = "\n".join(f"    __m512i a{j} = _mm512_set1_epi32({j});" for j in range(24))
    # gcc 12 copies the accumulator of the intrinsic from register to register
    step = "\n".join(f'            __asm__("vpdpbusd %1, %1, %0" : "+v"(a{j}) : "v"(x));' for j in range(24))
    total = "a0"
    for j in range(1, 24):
        total = f"_mm512_add_epi32({total}, a{j})"
    return f"""\
__attribute__((target("avx512f,avx512bw,avx512vnni"))) int hr_probe_int8(long n)
{{
{start}
    __m512i x = _mm512_set1_epi32(0x01010101);
    __asm__ volatile("" : "+m"(x));
    while (n--)
        for (int k = 0; k < {STEPS}; ++k) {{
{step}
        }}
    return _mm512_reduce_add_epi32({total});
}}
"""
