"""Vector math in generated C: exp, tanh, sin, pow, … for f32 and f64, scalars and vectors, without libm.

    from headrace.codegen import vmath
    from headrace.targets import simd
    isa = simd.ISAS["avx512"]

    text = vmath.support(isa, kernel_source)     # all that the C text needs: prelude, then math functions
    # or in parts
    needed = {("exp", "f32x16"), ("tanh", "f32")}
    text = simd.prelude(isa, vmath.primitives(isa, needed)) + vmath.emit(isa, needed)

C functions: hr_<name>_<type>(T x), hr_pow/hr_fmod/hr_mod_<type>(T x, T y), for the types f32, f64, f32xL,
f64xL of headrace.targets.simd, under the same rules (always inlined, target attribute, macros for types wider
than a register). sqrt, fma, floor, min, … are primitives (headrace.targets.simd); `emit` passes over them and
`primitives` returns them, so ("sqrt", "f32x16") may stand in `needed` too. f16 and bf16 compute in f32.
Every function is defined for every argument: ±0, ±inf, NaN, subnormal numbers; none reads or sets
floating-point modes. Two instruction sets with the same Isa.fma give the same bits, for any number of lanes,
scalars included (but for NaN payloads).
FUNCTIONS lists all with the largest error measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from headrace.codegen.vmath.catalogue import FUNCTIONS, PARTS, Function
from headrace.codegen.vmath.coefficients import COEFFICIENTS
from headrace.codegen.vmath.constants import CONSTANTS
from headrace.targets import simd, vector_generic
from headrace.targets.expand import expand, function, letters
from headrace.targets.vector_types import FUNCTION, VType, parse

__all__ = ["FUNCTIONS", "Function", "emit", "primitives", "support"]

_POLY = re.compile(r"^poly (\w+) = ([A-Z0-9]+)\((\w+)\)$", re.MULTILINE)


def emit(isa: simd.Isa, needed: Iterable[tuple[str, str]]) -> str:
    """C text of the functions (name, type) and the math functions they use, in order; not of primitives.

    ValueError for a name or type that does not exist.
    """
    return "\n".join(_collected(isa, needed).values()) + "\n"


def primitives(isa: simd.Isa, needed: Iterable[tuple[str, str]]) -> set[str]:
    """Full names of the primitives that the text of `emit` calls."""
    needed = set(needed)
    names = _calls(emit(isa, needed)) | {f"hr_{name}_{suffix}" for name, suffix in needed}
    return {name for name in names if simd.is_primitive(name)}


def support(isa: simd.Isa, code: str) -> str:
    """C text to put before `code`: the prelude and every math function and vector type that it uses.

    ValueError for a call of hr_… that neither module knows.
    """
    calls = _calls(code)
    math = {name: _split(name) for name in calls if not simd.is_primitive(name)}
    text = emit(isa, math.values()) if math else ""
    basic = {name for name in calls | _calls(text) if simd.is_primitive(name)}
    return simd.prelude(isa, basic, simd.vector_types(code + text)) + text


def _calls(code: str) -> set[str]:
    defined = set(re.findall(r"#define (hr_\w+)\(", code))
    return {n for n in simd.used(code) if n not in {f"{d}_" for d in defined}}


def _split(name: str) -> tuple[str, str]:
    match = FUNCTION.match(name)
    if match is None or match[3] is not None:
        raise ValueError(f"{name!r} is neither a vector primitive nor a math function")
    return match[1], match[2]


def _collected(isa: simd.Isa, needed: Iterable[tuple[str, str]]) -> dict[str, str]:
    texts: dict[str, str] = {}

    def add(name: str, suffix: str) -> None:
        full = f"hr_{name}_{suffix}"
        if full in texts:
            return
        text = _definition(isa, name, parse(suffix))
        for inner in sorted(_calls(text) - {full}):
            if not simd.is_primitive(inner):
                add(*_split(inner))
        texts[full] = text

    for name, suffix in sorted(needed):
        if not simd.is_primitive(f"hr_{name}_{suffix}"):
            add(name, suffix)
    return texts


def _definition(isa: simd.Isa, name: str, t: VType) -> str:
    entry = FUNCTIONS.get(name) or PARTS.get(name)
    if entry is None or t.elem.kind != "f":
        raise ValueError(f"no math function {name!r} for type {t.name!r}")
    double = parse("f64").with_lanes(t.lanes)
    wide = bool(simd.wide_types(isa, double))
    source = entry.source if isinstance(entry.source, str) else entry.source(t, isa.fma, wide)
    source = _POLY.sub(lambda m: _horner(m[1], COEFFICIENTS[m[2], t.elem.name], m[3]), source)
    body = expand(source, t, None, {**CONSTANTS[t.elem.name], **vector_generic.constants(t)})
    named = letters(t)
    params = re.sub(r"\b[TU]\b", lambda m: named[m[0]].c, entry.params)
    returns = named[entry.returns].c if entry.returns in named else entry.returns
    attribute = "HR_INLINE"
    if entry.cold:
        attribute = f"static __attribute__((noinline, unused)) {isa.target_attribute}".rstrip()
    wide_types = simd.wide_types(isa, *named.values())
    return function(f"hr_{name}_{t.name}", returns, params, body, attribute, wide_types)


def _horner(name: str, coefficients: tuple[str, ...], x: str) -> str:
    *lower, top = coefficients
    steps = [f"{name} = fma$({name}, {x}, splat$({c}));" for c in reversed(lower)]
    return "\n".join([f"$T {name} = splat$({top});", *steps])
