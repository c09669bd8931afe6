"""Every vector primitive as a C kernel over arrays, and what NumPy says it should give."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from headrace.targets import simd
from headrace.targets.host import host_triple
from headrace.targets.link import compile_library, library_name
from headrace.targets.primitives import SIGNATURES, Signature
from headrace.targets.toolchain import Toolchain
from headrace.targets.vector_types import ELEMS, Elem, VType
from tests.emulate.build import flags_for

Array = npt.NDArray[Any]
N = 256  # elements of a test array; a multiple of every number of lanes
SHIFT = 3

MEMORY = {
    "load",
    "store",
    "load_n",
    "store_n",
    "load_strided",
    "store_strided",
    "load_transposed",
    "gather",
    "lo",
    "hi",
    "cat",
    "iota",
}


def dtype(elem: Elem) -> np.dtype[Any]:
    """NumPy type of an element as stored."""
    kind = {"f": "f", "i": "i", "u": "u", "h": "u"}[elem.kind]
    return np.dtype(f"{kind}{elem.bits // 8}")


def names(op: Signature, lanes: int) -> Iterable[tuple[str, VType, VType | None]]:
    """Every function of an operation with that many lanes."""
    for e in ELEMS.values():
        if e.kind not in op.kinds:
            continue
        t = VType(e, lanes)
        if op.types == 1:
            yield f"hr_{op.op}_{t.name}", t, None
            continue
        for s in ELEMS.values():
            if exists(op.op, e, s):
                yield f"hr_{op.op}_{t.name}_{VType(s, lanes).name}", t, VType(s, lanes)


def exists(op: str, to: Elem, source: Elem) -> bool:
    """Which pairs of elements a conversion is for."""
    if op == "cast":
        return to.bits == source.bits and source.kind != "h"
    if op == "near":
        return (to.name, source.name) == ("i32", "f32")
    if op == "cvt":
        return to == source or ("h" not in to.kind + source.kind) or {to.kind, source.kind} == {"f", "h"}
    return source.kind != "h"


def kernel(name: str, op: Signature, t: VType, s: VType | None) -> str:
    """void k_<name>(const void *a, *b, *c, *d, void *r): the operation on arrays of N elements."""
    lanes = t.lanes
    loaded, declared = [], []
    for i, param in enumerate(op.params.split(", ")):
        kind, array = param.split()[0], "abcd"[i]
        if kind == "int":
            loaded.append(str(SHIFT))
            continue
        of = {"T": t, "S": s or t, "M": t.of("i"), "E": t.with_lanes(1), "J": VType(ELEMS["i32"], lanes)}[kind]
        of = VType(ELEMS["u16"], of.lanes) if of.elem.kind == "h" else of
        declared.append(f"const {of.elem.c} *{array}_ = (const {of.elem.c} *){array};")
        loaded.append(f"{array}_[i]" if kind == "E" else f"hr_load_{of.name}({array}_ + i)")
    result = {"T": t, "M": t.of("i"), "E": t.with_lanes(1), "int": VType(ELEMS["i32"])}[op.returns]
    result = VType(ELEMS["u16"], result.lanes) if result.elem.kind == "h" else result
    call = f"{name}({', '.join(loaded)})"
    store = f"hr_store_{result.name}(r_ + i, {call})" if op.returns in "TM" else f"r_[i / {lanes}] = {call}"
    return (
        f"void k_{name}(const void *a, const void *b, const void *c, const void *d, void *r) {{\n"
        f"    {' '.join(declared)} {result.elem.c} *r_ = ({result.elem.c} *)r;\n"
        f"    (void)a; (void)b; (void)c; (void)d;\n"
        f"    for (int i = 0; i < {N}; i += {lanes}) {store};\n}}"
    )


def memory_kernels(t: VType) -> str:
    """m_<what>_<type> for loads, stores and halves."""
    e, n, lanes = t.elem.c, t.name, t.lanes
    texts = [
        f"void m_tail_{n}(const {e} *a, {e} *r, int n) {{ hr_store_n_{n}(r, n, hr_load_n_{n}(a, n)); }}",
        f"void m_load_n_{n}(const {e} *a, {e} *r, int n) {{ hr_store_{n}(r, hr_load_n_{n}(a, n)); }}",
        f"void m_from_{n}(const {e} *a, {e} *r, int n) {{ hr_store_{n}(r, hr_load_strided_{n}(a, n)); }}",
        f"void m_to_{n}(const {e} *a, {e} *r, int n) {{ hr_store_strided_{n}(r, n, hr_load_{n}(a)); }}",
        f"void m_turn_{n}(const {e} *a, {e} *r, int n) {{ {t.c} t[{lanes}];\n"
        f"    hr_load_transposed_{n}(a, n, t);\n"
        f"    for (int i = 0; i < {lanes}; i++) hr_store_{n}(r + i * {lanes}, t[i]); }}",
        f"void m_gather_{n}(const {e} *a, {e} *r, const int32_t *i) {{\n    hr_store_{n}(r, hr_gather_{n}(a, i)); }}",
        f"void m_iota_{n}(const {e} *a, {e} *r, int n) {{ (void)a; (void)n;\n    hr_store_{n}(r, hr_iota_{n}()); }}",
    ]
    x, y = f"hr_load_{n}(a)", f"hr_load_{n}(a + {lanes})"
    mixed = f"hr_copysign_{n}(y, x)"
    if t.elem.kind != "f":
        mask = f"hr_splat_{n}(15)"
        mixed = f"hr_or_{n}(hr_and_{n}(y, {mask}), hr_and_{n}(x, hr_not_{n}({mask})))"
    texts.append(
        f"void m_mix_{n}(const {e} *a, {e} *r, int n) {{\n"
        f"    {t.c} x = {x}, y = {y};\n    {t.of('i').c} m = hr_gt_{n}(x, hr_splat_{n}(3));\n"
        f"    (void)n;\n    hr_store_{n}(r, hr_select_{n}(m, {mixed}, x));\n}}"
    )
    if lanes > 1:
        half = t.with_lanes(lanes // 2).name
        texts.append(
            f"void m_swap_{n}(const {e} *a, {e} *r, int n) {{ (void)n;\n"
            f"    hr_store_{n}(r, hr_cat_{n}(hr_hi_{n}(hr_load_{n}(a)), hr_lo_{n}(hr_load_{n}(a))));\n"
            f"    hr_store_{half}(r + {lanes}, hr_hi_{n}(hr_load_{n}(a))); }}"
        )
    return "\n".join(texts)


def source(isa: simd.Isa, lanes: int) -> str:
    """C file with a kernel for every primitive at that many lanes."""
    from headrace.codegen import vmath

    texts = [memory_kernels(VType(e, lanes)) for e in ELEMS.values() if e.kind != "h"]
    for op in SIGNATURES.values():
        if op.op not in MEMORY:
            texts += [kernel(name, op, t, s) for name, t, s in names(op, lanes)]
    code = "\n".join(texts).replace("\nvoid ", f"\n{isa.target_attribute}\nvoid ")
    prototypes = "\n".join(line.split(" {")[0] + ";" for line in code.splitlines() if line.startswith("void "))
    return vmath.support(isa, code) + prototypes + f"\n{isa.target_attribute}\n" + code + "\n"


def library(isa: simd.Isa, lanes: int, toolchain: Toolchain, folder: Path) -> ctypes.CDLL:
    """The file of `source`, compiled and loaded."""
    name = f"simd_{isa.name}_{lanes}"
    (folder / f"{name}.c").write_text(source(isa, lanes))
    sources = [*flags_for(isa), f"{name}.c"]
    compile_library(toolchain, host_triple(), sources, library_name(name, host_triple()), folder)
    return ctypes.CDLL(str(folder / library_name(name, host_triple())))


def inputs(elem: Elem, rng: np.random.Generator) -> Array:
    """N values of an element type, the edges of its range among them."""
    d = dtype(elem)
    if elem.kind == "f":
        info = np.finfo(d)
        edges = [
            0.0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, np.inf, -np.inf, np.nan, info.max, -info.max,
            info.tiny, info.smallest_subnormal, 127.5, 128, -128.5, 255.5, 32767.5, -32769, 65535.9, 65536,
            2.0**31, -(2.0**31), 2.0**31 - 128, 2.0**32, 2.0**63, -(2.0**63), 2.0**64, 8388607.5,
            4503599627370495.5, 1e300,
        ]  # fmt: skip
        values = np.concatenate([edges, rng.normal(0, 100, N // 2), np.exp(rng.uniform(-30, 30, N))])[:N]
        return rng.permutation(values.astype(d))
    info_i = np.iinfo(d)
    edges_i = np.array([info_i.min, info_i.max, info_i.min + 1, info_i.max - 1, 0, 1, 2, info_i.max // 2], d)
    if elem.kind == "h":
        return rng.integers(0, 65536, N, dtype=d)
    small = rng.integers(max(info_i.min, -9), 9, N // 2, dtype=d)
    return rng.permutation(
        np.concatenate([edges_i, edges_i, small, rng.integers(info_i.min, info_i.max, N, dtype=d)])[:N]
    )


def masks(a: Array) -> Array:
    """A boolean array as lanes of all bits or none, as wide as nothing in particular."""
    return -a.astype(np.int64)


def _python_ints(f: Callable[[int, int], int]) -> Callable[..., Array]:
    def apply(a: Array, b: Array, *_: Array) -> Array:
        wide = [f(int(x), int(y)) for x, y in zip(a, b, strict=True)]
        bits = 8 * a.dtype.itemsize
        return np.array([w & ((1 << bits) - 1) for w in wide], np.uint64).astype(f"u{bits // 8}").view(a.dtype)

    return apply


def _quotient(a: int, b: int) -> int:
    return 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _float_or_int(f: Callable[..., Array], i: Callable[[int, int], int]) -> Callable[..., Array]:
    return lambda a, *rest: f(a, *rest) if a.dtype.kind == "f" else _python_ints(i)(a, rest[0] if rest else a)


def _dot4(a: Array, b: Array, c: Array) -> Array:
    size = a.dtype.itemsize
    products = a.view(np.uint8).astype(object) * b.view(np.int8).astype(object)
    total = products.reshape(-1, size).sum(1) + c.astype(object)
    return np.array([int(t) % (1 << 8 * size) for t in total], np.uint64).astype(f"u{size}").view(a.dtype)


def _nearest_shift(left: bool) -> Callable[..., Array]:
    def shift(a: Array, s: Array, *_: Array) -> Array:
        bits = 8 * a.dtype.itemsize
        moved = [
            (int(x) << min(int(k), 99) if left else int(x) >> min(int(k), 99)) % (1 << bits)
            for x, k in zip(a, s, strict=True)
        ]
        return np.array(moved, np.uint64).astype(a.dtype)

    return shift


ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "splat": lambda a, *_: a,
    "add": _float_or_int(lambda a, b, *_: a + b, lambda a, b: a + b),
    "sub": _float_or_int(lambda a, b, *_: a - b, lambda a, b: a - b),
    "mul": _float_or_int(lambda a, b, *_: a * b, lambda a, b: a * b),
    "neg": _float_or_int(lambda a, *_: -a, lambda a, b: -a),
    "abs": _float_or_int(lambda a, *_: np.abs(a), lambda a, b: abs(a)),
    "div": _float_or_int(lambda a, b, *_: a / b, _quotient),
    "rem": _python_ints(lambda a, b: a - _quotient(a, b) * b),
    "mod": _python_ints(lambda a, b: a % b if b else a),
    "dot4": lambda a, b, c, *_: _dot4(a, b, c),
    "min": lambda a, b, *_: np.minimum(a, b),
    "max": lambda a, b, *_: np.maximum(a, b),
    "min_fast": lambda a, b, *_: np.where(a < b, a, b),
    "max_fast": lambda a, b, *_: np.where(a > b, a, b),
    "copysign": lambda a, b, *_: np.copysign(a, b),
    "sqrt": lambda a, *_: np.sqrt(a),
    "floor": lambda a, *_: np.floor(a),
    "ceil": lambda a, *_: np.ceil(a),
    "trunc": lambda a, *_: np.trunc(a),
    "round": lambda a, *_: np.rint(a),
    "ldexp": lambda a, n, *_: np.ldexp(a, n.astype(np.int32)),
    "lt": lambda a, b, *_: masks(a < b),
    "le": lambda a, b, *_: masks(a <= b),
    "gt": lambda a, b, *_: masks(a > b),
    "ge": lambda a, b, *_: masks(a >= b),
    "eq": lambda a, b, *_: masks(a == b),
    "ne": lambda a, b, *_: masks(a != b),
    "select": lambda m, a, b, *_: np.where(m != 0, a, b),
    "select_lt": lambda x, y, a, b: np.where(x < y, a, b),
    "and": lambda a, b, *_: a & b,
    "or": lambda a, b, *_: a | b,
    "xor": lambda a, b, *_: a ^ b,
    "not": lambda a, *_: ~a,
    "shl": lambda a, *_: a << SHIFT,
    "shr": lambda a, *_: a >> SHIFT,
    "shlv": _nearest_shift(True),
    "shrv": _nearest_shift(False),
}
HORIZONTAL: dict[str, Callable[[Array], Array]] = {
    "hsum": lambda a: a.sum(axis=1, dtype=a.dtype),
    "hprod": lambda a: a.prod(axis=1, dtype=a.dtype),
    "hmin": lambda a: a.min(axis=1),
    "hmax": lambda a: a.max(axis=1),
    "any": lambda a: (a != 0).any(axis=1).astype(np.int32),
    "all": lambda a: (a != 0).all(axis=1).astype(np.int32),
}


def fused(a: float, b: float, c: float, d: type[np.floating[Any]]) -> Any:
    """a * b + c rounded once; NaN and infinities as the separate operations give them."""
    plain = d(d(a) * d(b)) + d(c)
    if not all(np.isfinite(v) for v in (a, b, c)):
        return plain
    value = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    if value == 0:
        return plain if Fraction(float(a)) * Fraction(float(b)) == 0 or c == 0 else d(0)
    return nearest(value, d)


def nearest(value: Fraction, d: type[np.floating[Any]]) -> Any:
    """The float of type d nearest to a rational number, ties to even; overflow gives an infinity."""
    info = np.finfo(d)
    size = abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    unit = Fraction(2) ** (max(exponent, int(info.minexp)) - int(info.nmant))
    rounded = round(size / unit) * unit
    result = d(np.inf) if rounded >= Fraction(2) ** int(info.maxexp) else d(float(rounded))
    return -result if value < 0 else result


def converted(op: str, t: Elem, s: Elem, a: Array) -> tuple[Array, Array]:
    """(what may be passed, what must come out) of hr_cvt, hr_sat or hr_cast for inputs a."""
    to = dtype(t)
    if op == "cast":
        return a, a.view(to)
    if t == s:
        return a, a
    if s.kind == "h":
        view = a.view(np.float16 if s.name == "f16" else ml_dtypes.bfloat16)
        return a, view.astype(to)
    if t.kind == "h":
        if s.name == "f64" and t.name == "bf16":
            a = a.astype(np.float32).astype(np.float64)  # ml_dtypes rounds twice otherwise
        return a, a.astype(np.float16 if t.name == "f16" else ml_dtypes.bfloat16).view(np.uint16)
    if op == "cvt" and t.kind != "f" and s.kind == "f":
        info = np.iinfo(to)
        low, high = (
            float(info.min),
            np.nextafter(a.dtype.type(2.0 ** (info.bits - (t.kind == "i"))), a.dtype.type(0)),
        )
        a = np.clip(np.nan_to_num(a, nan=0, posinf=0, neginf=0), low, high).astype(a.dtype)
    if op == "cvt":
        return a, a.astype(to)
    info = np.iinfo(to)
    whole = [0 if v != v else v if np.isinf(v) else int(v) for v in a.tolist()]
    return a, np.array([int(min(max(v, info.min), info.max)) for v in whole], object).astype(to)
