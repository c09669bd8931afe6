"""Sums of products in tile registers: integers to the last bit, bf16 within its rounding, whatever the shape."""

from __future__ import annotations

import ctypes
import ctypes.util
import mmap
import os
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as hs

from headrace.codegen import generate
from headrace.errors import ToolchainError
from headrace.program.build import Builder, Tensor
from headrace.program.expr import Expr, binary, cast, const, maximum, minimum, select
from headrace.program.fuse import fuse
from headrace.program.interp import run
from headrace.program.ir import Define, Module
from headrace.program.optimise import optimise
from headrace.schedule import steps as st
from headrace.schedule.heuristic import Heuristic
from headrace.schedule.tile import candidates
from headrace.targets.host import tiles_allowed
from headrace.targets.registry import get_target
from headrace.targets.toolchain import find_toolchain, run_compiler
from tests.codegen.native import FLAGS, RUNNABLE, Fault, Native
from tests.codegen.random_schedules import random_tiles
from tests.emulate.build import emulated

BF16 = ml_dtypes.bfloat16
TARGET = "x86-64-avx512-amx"
ISA = get_target(TARGET).isa
Array = np.ndarray[Any, Any]
NUMPY = {"u8": np.uint8, "i8": np.int8, "bf16": BF16}
here = pytest.mark.skipif(TARGET not in RUNNABLE, reason="needs AMX, or gcc and AVX2")


def data(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Array:
    """Bytes with their extremes; of bf16 small integers, whose sums are exact in any order."""
    if dtype == "bf16":
        return rng.integers(-9, 10, shape).astype(BF16)
    info = np.iinfo(NUMPY[dtype])
    ends = rng.choice([info.min, info.max], shape)
    return np.where(rng.random(shape) < 0.2, ends, rng.integers(info.min, info.max + 1, shape)).astype(NUMPY[dtype])


def dense(b: Builder, rng: np.random.Generator, x: Tensor, columns: int, dtype: str, zero: int = 0) -> Tensor:
    """sum(r: (x[i, r] - zero) * w[r, j])."""
    rows, k = x.buffer.bound
    sums = "f32" if dtype == "bf16" else "i32"
    w = b.constant(data(rng, "bf16" if dtype == "bf16" else "i8", (k, columns)))

    def term(i: Expr, j: Expr, r: Expr) -> Expr:
        value = cast(x[i, r], sums)
        return (value - zero if zero else value) * cast(w[r, j], sums)

    return b.compute((rows, columns), lambda i, j: b.sum((k,), lambda r: term(i, j, r)))


def tensorize(pick: Callable[[int], int], threads: bool = False) -> Callable[[Define], st.Schedule]:
    """Tiles wherever they are legal, in a schedule of its own; else what the heuristic says."""
    return lambda define: random_tiles(define, pick, threads) or Heuristic(ISA).schedule(define)


def feeds(module: Module, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {b.name: data(rng, b.dtype, b.bound) for b in module.inputs}


def agree(module: Module, pick: Callable[[int], int], count: int, threads: bool = False) -> Native:
    """The program in tiles gives what the interpreter gives; `count` products at least are in tiles."""
    module = fuse(module)
    new = optimise(module, ISA.lanes, ISA.dots, ISA.pairs)
    order = (lambda n: range(n - 1, -1, -1)) if threads else None
    net = Native(new, TARGET, tensorize(pick, threads), threads=2 if threads else 1, order=order)
    used = sum("Tensorize" in text for k in net.generated.kernels for text in k.schedule)
    assert used >= count
    given = feeds(module, 5)
    wanted, got = run(module, given), net.run(given)
    for name, array in wanted.items():
        assert (got[name] == array).all(), name
    return net


def last(n: int) -> int:
    """Picks the largest block."""
    return n - 1


def picker(seed: int) -> Callable[[int], int]:
    rng = np.random.default_rng(seed)
    return lambda n: int(rng.integers(n))


@here
@settings(
    max_examples=15, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)  # no shrinking: it compiles
@given(
    hs.lists(
        hs.tuples(hs.integers(2, 70), hs.integers(4, 150), hs.integers(2, 70), hs.sampled_from(["u8", "i8", "bf16"]),
                  hs.integers(0, 1)),
        min_size=3, max_size=5,
    ),
    hs.integers(0, 999), hs.booleans(),
)  # fmt: skip
def test_any_shape(shapes: list[tuple[int, int, int, str, int]], seed: int, threads: bool) -> None:
    """Tails of rows, columns and words, of whole and of broken words, in one program."""
    b, rng = Builder(), np.random.default_rng(seed)
    for n, (rows, k, columns, dtype, zero) in enumerate(shapes):
        x = b.input(f"x{n}", dtype, (rows, k))
        b.output(f"y{n}", dense(b, rng, x, columns, dtype, 77 * zero * (dtype != "bf16")))
    agree(b.module(), picker(seed), len(shapes), threads)


EXACT = [(32, 64, 32), (64, 128, 64), (16, 64, 16), (33, 68, 33), (31, 60, 31), (2, 64, 16), (48, 132, 48)]


@here
def test_shapes_at_the_edge_of_tiles() -> None:
    b, rng = Builder(), np.random.default_rng(0)
    for n, (rows, k, columns) in enumerate(EXACT):
        for dtype in NUMPY:
            b.output(f"y{n}{dtype}", dense(b, rng, b.input(f"x{n}{dtype}", dtype, (rows, k)), columns, dtype))
    agree(b.module(), last, 3 * len(EXACT))


def requantised(b: Builder, total: Tensor, scale: float) -> Tensor:
    """round(relu(total + bias) * scale) as i8."""
    bias = b.constant(np.arange(-500, 500, dtype=np.int32)[: total.buffer.bound[1]])

    def element(i: Expr, j: Expr) -> Expr:
        value = maximum(total[i, j] + bias[j], 0)
        return cast(minimum(cast(value, "f32") * scale, 127.0), "i8", "round")

    return b.compute(total.buffer.bound, element)


@here
@pytest.mark.parametrize("seed", range(2))
def test_a_chain_of_quantised_layers(seed: int) -> None:
    """Bias, relu and requantisation behind each sum, several kernels in one program."""
    b, rng = Builder(), np.random.default_rng(seed)
    x = b.input("x", "u8", (37, 100))
    h = requantised(b, dense(b, rng, x, 70, "u8", 128), 0.0007)
    h = requantised(b, dense(b, rng, h, 45, "i8", -3), 0.002)
    b.output("y", requantised(b, dense(b, rng, h, 33, "i8"), 0.003))
    net = agree(b.module(), picker(seed), 3)
    assert len(net.generated.kernels) >= 3


@here
@pytest.mark.parametrize("seed", range(2))
def test_several_sums_in_one_value(seed: int) -> None:
    """Of different data, lengths, signs and types; some of them broken words."""
    b, rng = Builder(), np.random.default_rng(seed)
    x, z, h = b.input("x", "u8", (35, 68)), b.input("z", "i8", (35, 75)), b.input("h", "bf16", (35, 34))
    total, other = dense(b, rng, x, 36, "u8", 3), dense(b, rng, z, 36, "i8", -7)
    third = dense(b, rng, h, 36, "bf16")
    b.output("y", b.compute((35, 36), lambda i, j: cast(total[i, j] - other[i, j] * 3, "f32") * 0.5 + third[i, j]))
    net = agree(b.module(), picker(seed), 1)
    assert all(f"_tile_{name}(" in net.generated.source for name in ("dpbusd", "dpbssd", "dpbf16ps"))


@here
def test_inside_a_loop() -> None:
    """Tiles read what the statement before has written, pass after pass."""
    b, rng = Builder(), np.random.default_rng(4)
    x, start = b.input("x", "u8", (20, 64)), b.constant(np.zeros((20, 64), np.uint8))
    w = b.constant(rng.integers(-128, 128, (64, 64)).astype(np.int8))

    def step(_t: Expr, carried: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        (h,) = carried
        total = b.compute((20, 64), lambda i, j: b.sum((64,), lambda r: cast(h[i, r], "i32") * cast(w[r, j], "i32")))
        return [b.compute((20, 64), lambda i, j: cast(total[i, j] + cast(x[i, j], "i32"), "u8"))], []

    ((h,), _) = b.scan(5, [start], step)
    b.output("y", h)
    agree(b.module(), last, 1)


def test_extents_known_at_run_time_stay_in_vectors() -> None:
    b = Builder()
    t = b.symbol("T", 64)
    x, w = b.input("x", "u8", (t, 64)), b.constant(np.ones((64, 64), np.int8))
    sums = lambda i, j: b.sum((64,), lambda r: cast(x[i, r], "i32") * cast(w[r, j], "i32"))  # noqa: E731
    b.output("y", b.compute((t, 64), sums))
    (define,) = (d for d in optimise(fuse(b.module()), 16, True, True).body if isinstance(d, Define))
    assert not candidates(define)


@here
@pytest.mark.parametrize("dtype", list(NUMPY))
@pytest.mark.parametrize(("taps", "stride", "pad", "channels"), [(3, 1, 1, 64), (5, 2, 0, 36), (1, 1, 0, 20)])
def test_convolutions(dtype: str, taps: int, stride: int, pad: int, channels: int) -> None:
    b, rng, out, frames = Builder(), np.random.default_rng(taps), 40, 45
    sums = "f32" if dtype == "bf16" else "i32"
    x = b.input("x", dtype, (frames, channels))
    w = b.constant(data(rng, "bf16" if dtype == "bf16" else "i8", (out, taps, channels)))
    bias = b.constant(rng.integers(-99, 99, out).astype(np.float32 if sums == "f32" else np.int32))

    def tap(t: Expr, c: Expr) -> Expr:
        inside = binary("and", 0 <= t, t < frames)
        value = cast(x[t, c], sums)
        return select(inside, value, const(0, sums)) if pad else value

    def element(t: Expr, o: Expr) -> Expr:
        total = b.sum((taps, channels), lambda k, c: tap(t * stride + k - pad, c) * cast(w[o, k, c], sums))
        return maximum(total + bias[o], 0)

    b.output("y", b.compute(((frames + 2 * pad - taps) // stride + 1, out), element))
    agree(b.module(), picker(taps), 1)


@here
def test_bf16_of_any_size() -> None:
    """Within the bound that products by pairs keep: 1e-5 for each term of size 1."""
    b, rng, k = Builder(), np.random.default_rng(2), 300
    x = b.input("x", "bf16", (40, k))
    w = b.constant(rng.normal(0, 1, (k, 40)).astype(BF16))
    sums = lambda i, j: b.sum((k,), lambda r: cast(x[i, r], "f32") * cast(w[r, j], "f32"))  # noqa: E731
    b.output("y", b.compute((40, 40), sums))
    module = optimise(fuse(b.module()), 16, True, True)
    net = Native(module, TARGET, tensorize(last))
    assert "_tile_dpbf16ps" in net.generated.source
    given = rng.normal(0, 1, (40, k)).astype(BF16)
    given[3, 5], given[4, 299] = np.inf, np.nan
    got, want = net.run({"x": given})["y"], given.astype(np.float64) @ np.asarray(w.buffer.data).astype(np.float64)
    finite = np.isfinite(want)
    assert finite.sum() == 38 * 40 and np.allclose(got[finite], want[finite], rtol=0, atol=1e-5 * k)
    assert (got[3] == want[3]).all() and np.isnan(got[4]).all()


def plain(rows: int, k: int, columns: int, dtype: str = "u8") -> Module:
    b = Builder()
    b.output("y", dense(b, np.random.default_rng(1), b.input("x", dtype, (rows, k)), columns, dtype))
    return optimise(fuse(b.module()), 16, True, True)


@here
@pytest.mark.parametrize("dtype", list(NUMPY))
def test_nothing_is_read_beyond_the_end(dtype: str) -> None:
    """The input ends where memory ends."""
    module = plain(37, 77, 20, dtype)
    net, given = Native(module, TARGET, tensorize(last)), feeds(module, 1)
    raw = given["x"].tobytes()
    pages = -(-len(raw) // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    start = pages * mmap.PAGESIZE - len(raw)
    memory[start : start + len(raw)] = raw
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None).mprotect
    assert protect(ctypes.c_void_p(address + pages * mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
    out = np.zeros((37, 20), np.float32 if dtype == "bf16" else np.int32)
    inputs, outputs = (ctypes.c_int64 * 2)(address + start, 0), (ctypes.c_int64 * 2)(out.ctypes.data, 0)
    child = os.fork()
    if child == 0:
        os._exit(net.library.net_run(net.state.pointer, net.scratch.pointer, net.weights.pointer, inputs, outputs))
    assert os.waitpid(child, 0)[1] == 0


# --- what is chosen, and what is refused ----------------------------------------------------------


def schedule_of(module: Module, isa: str = "avx512amx") -> st.Schedule:
    from headrace.targets.simd import ISAS

    (define,) = (d for d in module.body if isinstance(d, Define))
    return Heuristic(ISAS[isa]).schedule(define)


def test_tiles_are_for_large_products() -> None:
    takes = lambda m, isa="avx512amx": any(isinstance(s, st.Tensorize) for s in schedule_of(m, isa))  # noqa: E731
    for dtype in NUMPY:
        assert takes(plain(256, 512, 256, dtype)) and takes(plain(64, 256, 64, dtype))
        assert not takes(plain(1, 512, 256, dtype)) and not takes(plain(3, 16, 3, dtype))
        assert not takes(plain(256, 512, 256, dtype), "avx512fp16")


def test_tiles_need_an_instruction_set_that_has_them() -> None:
    module = plain(64, 256, 64)
    with pytest.raises(ValueError, match="no tile registers"):
        generate(module, "net", get_target("x86-64-avx512-vnni"), lambda d: schedule_of(module))


@here
def test_what_the_operating_system_says() -> None:
    module = plain(64, 256, 64)
    refused = (*FLAGS, "-DHR_TILES=0")
    with pytest.raises(Fault, match="11"):
        Native(module, TARGET, flags=refused)
    net = Native(module, TARGET)
    text = "does not let this process use the tile registers"
    assert text in net.generated.header and text in net.generated.facts["error_codes"]["11"]  # type: ignore[index]
    asked = (*FLAGS, "-DEMU_ASK")
    if tiles_allowed():
        Native(module, TARGET, flags=asked).run(feeds(module, 1))
    else:
        with pytest.raises(Fault, match="11"):
            Native(module, TARGET, flags=asked)


def test_a_program_without_tiles_asks_nobody() -> None:
    made = generate(plain(2, 8, 3), "net", get_target(TARGET))
    assert "net_tiles" not in made.source and "11" not in made.facts["error_codes"]  # type: ignore[operator]


@here
def test_dispatch_takes_what_is_there() -> None:
    module = plain(64, 256, 64)
    net, given = Native(module, "x86-64-dispatch-amx"), feeds(module, 1)
    assert "net_run_avx512amx" in net.generated.source
    net.library.net_isa.restype = ctypes.c_char_p
    assert (net.library.net_isa() == b"avx512amx") == (not get_target(TARGET).missing_here())
    wanted = run(module, given)["y"]
    for entry in ("run", "run_avx512amx"):
        assert (net.run(given, entry)["y"] == wanted).all()
    refused = Native(module, "x86-64-dispatch-amx", flags=(*FLAGS, "-DHR_TILES=0"))
    assert (refused.run(given)["y"] == wanted).all()
    with pytest.raises(Fault, match="11"):
        refused.run(given, "run_avx512amx")


@pytest.mark.parametrize(("kind", "language"), [("gcc", "c"), ("zig", "c"), ("clang", "c"), ("gcc", "c++")])
@pytest.mark.parametrize("target", [TARGET, "x86-64-dispatch-amx"])
def test_compilers_take_the_intrinsics(kind: str, language: str, target: str, tmp_path: Any) -> None:
    """Not emulated: an object file, and the instructions in it."""
    from headrace.codegen import Variant

    b, rng = Builder(), np.random.default_rng(0)
    for dtype in NUMPY:
        b.output(f"y{dtype}", dense(b, rng, b.input(f"x{dtype}", dtype, (70, 200)), 70, dtype))
    module, wanted = optimise(fuse(b.module()), 16, True, True), get_target(target)
    try:
        toolchain = find_toolchain(kind, wanted.triple)
    except ToolchainError as e:
        pytest.skip(str(e))
    made = generate(module, "net", wanted, wider=[Variant(isa, module) for isa in wanted.wider])
    (tmp_path / "net.c").write_text(made.source)
    (tmp_path / "net.h").write_text(made.header)
    own = (f"-std={'c11' if language == 'c' else 'c++17'}", "-x", language)
    warn = ("-Wall", "-Wextra", "-Werror", "-O2", "-ffp-contract=off")
    run_compiler(toolchain, (*toolchain.flags_for(wanted.triple), *own, *warn, "-c", "-o", "net.o", "net.c"), tmp_path)
    code = (tmp_path / "net.o").read_bytes()
    # VEX.128.{none,F2,F3}.0F38.W0 5E (TDPBUUD …), 5C (TDPBF16PS): C4 E2 xx 5E/5C
    assert all(any(bytes((0xC4, 0xE2, v << 3 & 0x78 | p, op)) in code for v in range(16)) for p, op in KINDS)


KINDS = [(1, 0x5E), (3, 0x5E), (2, 0x5C)]  # TDPBUSD (66), TDPBSSD (F2), TDPBF16PS (F3)


def test_emulation_here() -> None:
    assert (TARGET in RUNNABLE) >= emulated(ISA)
