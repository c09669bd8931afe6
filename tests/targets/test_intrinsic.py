"""Every intrinsic is its loop nest: the C, on this processor or emulated, against the interpreter."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.program import interp
from headrace.program.dtypes import numpy_dtype
from headrace.program.verify import verify
from headrace.targets import simd
from headrace.targets.host import host_triple
from headrace.targets.intrinsic import INTRINSICS, Intrinsic, find
from headrace.targets.toolchain import CFLAGS, find_toolchain, run_compiler
from headrace.targets.vector_types import ELEMS, VType
from tests.emulate.build import KIND, emulated, flags_for, lacking

Array = np.ndarray[Any, Any]
BLOCKS = 200
CASES = [pytest.param(i, w, id=f"{i.call.split('(')[0]}-{w}") for i in INTRINSICS for w in i.widths]


def isa_of(i: Intrinsic) -> simd.Isa:
    """The narrowest instruction set that has it."""
    return next(isa for isa in simd.ISAS.values() if i.feature in isa.features)


def values(rng: np.random.Generator, dtype: str, count: int, special: bool) -> Array:
    """Any bits of an integer; of a float normal numbers of all sizes that products keep apart from the ends."""
    d = numpy_dtype(dtype)
    if dtype[0] in "iu":
        info = np.iinfo(d)
        anything = rng.integers(info.min, info.max, count, dtype=d, endpoint=True)
        return np.where(rng.random(count) < 0.4, rng.choice(np.array([info.min, info.max, 0, 1], d), count), anything)
    x = rng.normal(0, 1, count) * 2.0 ** rng.integers(-5, 6, count)
    ends = [np.inf, -np.inf, np.nan, 0.0, -0.0, 1.0]
    return np.where(rng.random(count) < (0.3 if special else 0), rng.choice(ends, count), x).astype(d)


def library(i: Intrinsic, width: int, folder: Path) -> ctypes.CDLL:
    isa = isa_of(i)
    if lacking(isa) and not emulated(isa):
        pytest.skip(f"needs a processor with {', '.join(sorted(lacking(isa)))}, or gcc and AVX2")
    lanes = width * 8 // ELEMS[i.sums].bits
    t = VType(ELEMS[i.sums], lanes)
    word = t.c if i.terms == 1 else f"i32x{lanes}"
    text = simd.prelude(isa, {f"hr_{i.op}_{t.name}"}, {t.c, word})
    assert i.text(width) in text, "the prelude uses it"
    (folder / "x.c").write_text(
        f"{text}\n{isa.target_attribute}\nvoid f(const char *a, const char *b, const char *c, char *d, long n) {{\n"
        f"    for (long i = 0; i < n; i++, a += {width}, b += {width}, c += {width}, d += {width}) {{\n"
        f"        {word} x, y; {t.c} z;\n"
        f"        __builtin_memcpy(&x, a, {width}); __builtin_memcpy(&y, b, {width});\n"
        f"        __builtin_memcpy(&z, c, {width});\n"
        f"        z = hr_{i.op}_{t.name}(x, y, z);\n        __builtin_memcpy(d, &z, {width});\n    }}\n}}\n"
    )
    flags = (*CFLAGS, *flags_for(isa), "-fPIC", "-shared", "-o", "x.so", "x.c")
    run_compiler(find_toolchain(KIND if emulated(isa) else None, host_triple()), flags, folder)
    return ctypes.CDLL(str(folder / "x.so"))


@pytest.mark.parametrize(("i", "width"), CASES)
@pytest.mark.parametrize("special", [False, True])
def test_the_instruction_is_its_loop_nest(i: Intrinsic, width: int, special: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(width)
    lanes = BLOCKS * width * 8 // ELEMS[i.sums].bits
    feeds = {
        "a": values(rng, i.left, lanes * i.terms, special), "b": values(rng, i.right, lanes * i.terms, special),
        "c": values(rng, i.sums, lanes, special),
    }  # fmt: skip
    module = i.meaning(lanes)
    verify(module)
    with np.errstate(all="ignore"):
        want = interp.run(module, feeds)["d"]
    got = np.zeros_like(want)
    pointers = [ctypes.c_void_p(x.ctypes.data) for x in (*feeds.values(), got)]
    library(i, width, tmp_path).f(*pointers, ctypes.c_long(BLOCKS))
    if i.exact:
        assert (got == want).all()
        return
    assert i.rounding
    a, b = (feeds[n].astype(np.float64) for n in "ab")
    with np.errstate(all="ignore"):
        size = np.abs(a * b).reshape(-1, i.terms).sum(1) + np.abs(feeds["c"].astype(np.float64))
        x, y = got.astype(np.float64), want.astype(np.float64)
        near = np.abs(x - y) <= i.terms * np.finfo(numpy_dtype(i.sums)).eps * size
    assert (near | (x == y) | (np.isnan(x) & np.isnan(y))).all()
    assert near.sum() > lanes / 3


def test_what_is_found() -> None:
    i32, f32, f64 = (VType(ELEMS[e], 16) for e in ("i32", "f32", "f64"))
    wide, narrow = simd.ISAS["avx512bf16"].features, simd.ISAS["avx2vnni"].features
    for op, t, features in (("dot2", f32, wide), ("dot4", i32, wide)):
        found = find(op, t, features)
        assert found is not None and found.op == op and found.feature in features
    assert find("dot2", f32, simd.ISAS["avx512vnni"].features) is None
    assert find("dot2", f64, wide) is None and find("dot4", i32, narrow) is None
    assert find("dot4", i32.with_lanes(8), narrow) is not None and find("dot4", i32.with_lanes(1), wide) is None
