"""The driver in C: where every buffer lies, the order of the kernels, state, and the public functions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from headrace.codegen import threads as threading
from headrace.codegen.generated import Port, Symbol
from headrace.codegen.kernels import Kernel
from headrace.codegen.scalar import CTYPES, symbol_name
from headrace.program.ir import Buffer, Module
from headrace.program.plan import Plan

ALIGN = 64
ERRORS = {1: "an index was out of range"}
NO_TILES = 11  # beyond those of streams
NO_TILES_TEXT = "the system does not let this process use the tile registers of AMX; compile for another target"


@dataclass
class Weights:
    """The constants of a program in one block; equal contents lie there once."""

    def __post_init__(self) -> None:
        self.offsets: dict[Buffer, int] = {}
        self.by_content: dict[bytes, int] = {}
        self.blob = bytearray()

    def place(self, b: Buffer) -> int:
        """Offset in bytes, a multiple of ALIGN."""
        if b not in self.offsets:
            assert b.data is not None
            self.offsets[b] = self.bytes(np.ascontiguousarray(b.data).tobytes())
        return self.offsets[b]

    def bytes(self, raw: bytes) -> int:
        key = hashlib.sha256(raw).digest()
        if key not in self.by_content:
            self.blob.extend(b"\0" * (-len(self.blob) % ALIGN))
            self.by_content[key] = len(self.blob)
            self.blob.extend(raw)
        return self.by_content[key]


@dataclass(frozen=True)
class Layout:
    """C names and places of everything the driver passes to kernels. threads: the most that work on one kernel."""

    name: str
    module: Module
    plan: Plan
    weights: Weights
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: tuple[Port, ...]
    symbols: tuple[Symbol, ...]
    threads: int = 1

    def pointer(self, b: Buffer) -> str:
        """C text of the address of a buffer."""
        ctype = CTYPES[b.dtype]
        if b.space == "const":
            return f"(const {ctype} *)(const void *)(w + {self.weights.place(b)})"
        if b in self.module.inputs:
            return f"in->{self.inputs[self.module.inputs.index(b)].c_field}"
        if b in self.module.outputs:
            return f"out->{self.outputs[self.module.outputs.index(b)].c_field}"
        if b in self.plan.state:
            return f"({ctype} *)(void *)(s + {self.plan.state[b]})"
        if b in self.plan.scratch:
            return f"({ctype} *)(void *)(t + {self.plan.scratch[b]})"
        raise AssertionError(f"{b!r} has no place in memory")

    def call(self, kernel: Kernel) -> str:
        """C text of a call."""
        args = [
            self.pointer(a.buffer) if a.buffer is not None else symbol_name(a.symbol)  # type: ignore[arg-type]
            for a in kernel.arguments
        ]
        if kernel.can_fail:
            args.append("&error")
        if kernel.parts:
            return threading.call(self.name, kernel.name, args, kernel.parts)
        return f"    {kernel.name}({', '.join(args)});"


def ask_for_tiles(name: str) -> str:
    """C statement that ends a function where the system refuses tile registers."""
    return f"    if (!{name}_tiles()) return {NO_TILES};"


def run_function(
    layout: Layout, kernels: list[Kernel], entry: str = "run", linkage: str = "", tiles: bool = False
) -> str:
    """NAME_run, or another entry with the same parameters. tiles: whether kernels use tile registers."""
    name = layout.name
    body = [ask_for_tiles(name)] if tiles else []
    for sym, port in zip(layout.module.symbols, layout.symbols, strict=True):
        body.append(f"    const ptrdiff_t {symbol_name(sym)} = (ptrdiff_t)in->{port.c_field};")
        wrong = f"{symbol_name(sym)} < 1 || {symbol_name(sym)} > {sym.bound}"
        body.append(f"    if ({wrong}{f' || {symbol_name(sym)} % {sym.divisor}' if sym.divisor > 1 else ''}) return 2;")
    for head, at in layout.plan.heads.items():
        body.append(f"    const ptrdiff_t {symbol_name(head)} = (ptrdiff_t)*{head_at('int64_t', at)};")
    body += [layout.call(k) for k in kernels]
    for dst, src in layout.plan.commit:
        body.append(f"    memcpy({layout.pointer(dst)}, {layout.pointer(src)}, {dst.nbytes});")
    for head, ring in layout.module.heads.items():
        now, at = symbol_name(head), layout.plan.heads[head]
        body.append(f"    *{head_at('int64_t', at)} = {now} == {head.bound} ? {ring.step} : {now} + {ring.step};")
    text = "\n".join(body)
    opening = [
        f"{linkage}int {name}_{entry}(void *state, void *scratch, const void *weights, const {name}_inputs *in, "
        f"const {name}_outputs *out)",
        "{",
        _base("unsigned char *const s = (unsigned char *)state;", "(s + ", "state", text),
        _base("unsigned char *const t = (unsigned char *)scratch;", "(t + ", "scratch", text),
        _base("const unsigned char *const w = (const unsigned char *)weights;", "(w + ", "weights", text),
        *([] if "in->" in text else ["    (void)in;"]),
        *([] if "out->" in text else ["    (void)out;"]),
        "    int error = 0;",
    ]
    return "\n".join([*opening, text, "    return error;", "}"])


def head_at(ctype: str, at: int) -> str:
    """C text of where the head of a ring lies, in the state block at `s`."""
    const = "const " if ctype.startswith("const ") else ""
    return f"({ctype} *)({const}void *)(s + {at})"


def _base(declaration: str, marker: str, argument: str, text: str) -> str:
    return f"    {declaration}" if marker in text else f"    (void){argument};"


def sizes(layout: Layout) -> str:
    """The size functions."""
    upper, name = layout.name.upper(), layout.name
    return "\n".join(
        f"size_t {name}_{what}(void) {{ return {upper}_{what.upper()}; }}"
        for what in ("state_bytes", "scratch_bytes", "align")
    )


def shape_text(shape: tuple[int | str, ...]) -> str:
    return "x".join(str(e) for e in shape) or "scalar"
