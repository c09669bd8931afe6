"""Products of tiles: the emulated instructions against NumPy, their loop nests, and what the emulation refuses."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from headrace.program import interp
from headrace.program.verify import verify
from headrace.targets.host import host_triple
from headrace.targets.simd import ISAS
from headrace.targets.tile import ROWS, TILE_PRODUCTS, A, B, C, TileProduct, configuration, find
from headrace.targets.toolchain import CFLAGS, find_toolchain, run_compiler
from tests.emulate.build import HEADER, KIND, emulated, flags_for, lacking
from tests.targets.test_intrinsic import values

Array = np.ndarray[Any, Any]
ISA = ISAS["avx512amx"]
pytestmark = pytest.mark.skipif(bool(lacking(ISA)) and not emulated(ISA), reason="needs AMX, or gcc and AVX2")
SHAPES = [(16, 16), (1, 16), (16, 1), (7, 5), (13, 16)]


def compiled(body: str, folder: Path, more: tuple[str, ...] = ()) -> ctypes.CDLL:
    (folder / "x.c").write_text(f"#include <immintrin.h>\n#include <stdint.h>\n{ISA.target_attribute}\n{body}\n")
    flags = (*CFLAGS, *flags_for(ISA), *more, "-fPIC", "-shared", "-o", "x.so", "x.c")
    run_compiler(find_toolchain(KIND, host_triple()), flags, folder)
    return ctypes.CDLL(str(folder / "x.so"))


@pytest.mark.parametrize("p", TILE_PRODUCTS, ids=lambda p: p.call)
def test_the_instruction_is_its_loop_nest(p: TileProduct, tmp_path: Path) -> None:
    library = compiled(
        "void f(const void *shape, const void *a, const void *b, const void *c, void *d, long pitch) {\n"
        f"    _tile_loadconfig(shape); _tile_loadd({C[0][0]}, c, 64); _tile_loadd({A[0]}, a, pitch);\n"
        f"    _tile_loadd({B[0]}, b, 64); {p.text(C[0][0], A[0], B[0])} _tile_stored({C[0][0]}, d, 64);\n"
        "    _tile_release();\n}",
        tmp_path,
    )
    for rows, words in SHAPES:
        rng = np.random.default_rng(rows + words)
        module = p.meaning(rows, words)
        verify(module)
        shapes = {
            "a": (p.left, rows, words * p.terms),
            "b": (p.right, words, ROWS * p.terms),
            "c": (p.sums, rows, ROWS),
        }
        feeds = {n: values(rng, t, h * w, False).reshape(h, w) for n, (t, h, w) in shapes.items()}
        with np.errstate(all="ignore"):
            want = interp.run(module, feeds)["d"]
        got = np.zeros((rows, ROWS), want.dtype)
        shape = np.frombuffer(configuration((rows, 0), words), np.uint8).copy()
        pointers = [ctypes.c_void_p(x.ctypes.data) for x in (shape, *feeds.values(), got)]
        library.f(*pointers, ctypes.c_long(feeds["a"].strides[0]))
        if p.exact:
            assert (got == want).all()
            continue
        assert p.rounding
        assert (got == stepwise(**feeds)).all()
        a, b = (feeds[n].astype(np.float64) for n in "ab")
        size = np.abs(a) @ np.abs(b).reshape(words, ROWS, 2).swapaxes(1, 2).reshape(-1, ROWS) + np.abs(feeds["c"])
        assert (np.abs(got - want) <= 2 * words * np.finfo(np.float32).eps * size).all()


def stepwise(a: Array, b: Array, c: Array) -> Array:
    """TDPBF16PS on normal numbers: lower and upper products apart, one rounding for each."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    half = [np.zeros(c.shape, np.float32) for _ in range(2)]
    for k in range(b.shape[0]):
        for h in (0, 1):  # products of bf16 are exact in f64, and so is their sum with an f32 but for ties beyond
            half[h] = (x[:, 2 * k + h, None] * y[k, None, h::2] + half[h]).astype(np.float32)
    return np.asarray(c + (half[0] + half[1]))


def test_denormals_are_zero(tmp_path: Path) -> None:
    library = compiled(
        "void f(const void *shape, const void *a, const void *b, void *d) {\n"
        "    _tile_loadconfig(shape); _tile_zero(0); _tile_loadd(4, a, 4); _tile_loadd(6, b, 64);\n"
        "    _tile_dpbf16ps(0, 4, 6); _tile_stored(0, d, 64); _tile_release();\n}",
        tmp_path,
    )
    shape = np.frombuffer(configuration((1, 0), 1), np.uint8).copy()
    b, d = np.zeros((1, 32), ml_dtypes.bfloat16), np.ones(16, np.float32)
    b[0, :4] = [2.0**-127, 2.0**-10, 2.0**-120, 1.0]
    a = np.array([1.0, 2.0**-120], ml_dtypes.bfloat16)
    library.f(*(ctypes.c_void_p(x.ctypes.data) for x in (shape, a, b, d)))
    assert d[:2].tolist() == [0, np.float32(2.0**-120 + 2.0**-120)]


REFUSED = {
    "no configuration": "_tile_zero(0);",
    "a tile that is not there": "_tile_loadconfig(s); _tile_zero(2);",
    "another palette": "((uint8_t *)s)[0] = 2; _tile_loadconfig(s);",
    "too many rows": "((uint8_t *)s)[48] = 17; _tile_loadconfig(s);",
    "rows of too many bytes": "((uint8_t *)s)[16] = 65; _tile_loadconfig(s);",
    "a reserved byte": "((uint8_t *)s)[2] = 1; _tile_loadconfig(s);",
    "shapes that do not fit": "((uint8_t *)s)[54] = 3; _tile_loadconfig(s); _tile_dpbusd(0, 4, 6);",
    "one tile twice": "_tile_loadconfig(s); _tile_dpbusd(0, 4, 4);",
    "after release": "_tile_loadconfig(s); _tile_release(); _tile_zero(0);",
}


@pytest.mark.skipif(not emulated(ISA), reason="what the emulation does")
def test_the_emulation_is_strict(tmp_path: Path) -> None:
    shape = ", ".join(map(str, configuration((16, 0), 16)))
    cases = "\n".join(f"    case {n}: {code} break;" for n, code in enumerate(REFUSED.values()))
    fine = "_tile_loadconfig(s); _tile_zero(0); _tile_zero(4); _tile_zero(6); _tile_dpbusd(0, 4, 6);"
    (tmp_path / "x.c").write_text(
        f"#include <immintrin.h>\nint main(int n, char **v) {{\n    uint8_t s[64] = {{{shape}}}; (void)v;\n"
        f"    switch (n - 2) {{\n{cases}\n    default: {fine}\n    }}\n    return 0;\n}}\n"
    )
    run_compiler(find_toolchain(KIND, host_triple()), (*flags_for(ISA), "-o", "x", "x.c"), tmp_path)
    for n, why in enumerate(REFUSED):
        done = subprocess.run([str(tmp_path / "x"), *["x"] * (n + 1)], check=False, timeout=10, capture_output=True)
        assert done.returncode < 0, why
    assert subprocess.run([str(tmp_path / "x")], check=False, timeout=10).returncode == 0


def test_every_emulated_instruction_is_tested() -> None:
    text = (HEADER.parent / "amx.h").read_text()
    defined = set(re.findall(r"^(?:TILE |TILE_BYTES\()(_tile_\w+)", text, re.MULTILINE))
    rest = {"_tile_loadconfig", "_tile_loadd", "_tile_stored", "_tile_zero", "_tile_release"}
    assert defined == rest | {p.call for p in TILE_PRODUCTS}


def test_what_is_found() -> None:
    for p in TILE_PRODUCTS:
        assert find(p.op, p.left, p.right) is p
    assert find("dot4", "f32", "i8") is None and find("dot2", "u8", "i8") is None


def test_a_shape() -> None:
    shape = configuration((16, 3), 5)
    assert len(shape) == 64 and shape[0] == 1 and not any(shape[1:16])
    bytes_of = [int.from_bytes(shape[16 + 2 * n : 18 + 2 * n], "little") for n in range(16)]
    assert bytes_of == [64, 64, 64, 64, 20, 20, 64, 64] + 8 * [0]
    assert list(shape[48:]) == [16, 16, 3, 3, 16, 3, 5, 5] + 8 * [0]
