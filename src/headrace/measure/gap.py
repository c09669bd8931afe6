"""Why a kernel takes longer than its limit: the causes that the cost model counts, in words."""

from __future__ import annotations

from headrace.codegen.generated import KernelInfo
from headrace.targets.machine import Machine

SMALL = 0.1  # share of the gap below which a cause is not worth a word
TINY_US = 0.1


def reasons(kernel: KernelInfo, us: float, computing_us: float, reading_us: float, machine: Machine) -> tuple[str, ...]:
    """What explains the time beyond the limit, the largest cause first; () where there is nothing to explain.

    computing_us, reading_us: what arithmetic and reading take at least, of which the larger is the limit.
    """
    limit = max(computing_us, reading_us)
    gap = us - limit
    if gap <= SMALL * us:
        return ()
    parts = {name: cycles / machine.ghz / 1000 for name, cycles in kernel.cycles.items() if name != "arithmetic"}
    parts["caches"] = max(0.0, parts.get("caches", 0.0) - (limit - computing_us))
    expected = sum(parts.values())
    found = sorted(((value, name) for name, value in parts.items() if value > SMALL * gap), reverse=True)
    out = [_words(name, kernel, value) for value, name in found]
    if gap > 2 * expected and gap - expected > SMALL * us:
        out.append(f"{gap - expected:.2g} µs that the cost model does not explain")
    return tuple(out)


def _words(name: str, kernel: KernelInfo, us: float) -> str:
    cycles = kernel.cycles
    text = {
        "latency": "too few sums at a time: each waits for the one before",
        "loads": "more loads and stores than arithmetic beside them",
        "strides": "strided or gathered loads, lane by lane",
        "registers": "more sums than registers",
        "caches": "reading from outer caches, beside the arithmetic or again",
        "loops": "tiny: the call and the loops around" if us < TINY_US else "beginning and ending loops and tiles",
    }.get(name)
    if name == "lanes":
        full = cycles["arithmetic"] / (cycles["arithmetic"] + cycles["lanes"]) if cycles.get("arithmetic") else 0.0
        text = f"vectors {100 * full:.0f} % full" if full > 0.15 else "no vectors"
    elif name == "instructions":
        several = "operations of several instructions (max, min, division, comparison)"
        text = f"{kernel.functions:,} values of exp, tanh or their like" if kernel.functions else several
    return f"{text} ({us:.2g} µs)"
