"""NAME.h: what a C programmer needs to call the program."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.codegen import dispatch
from headrace.codegen import threads as threading
from headrace.codegen.driver import ERRORS, NO_TILES, NO_TILES_TEXT, Layout, shape_text
from headrace.codegen.generated import Port
from headrace.codegen.stream_driver import StreamLayout
from headrace.codegen.stream_header import declarations, portable_comment, stream_errors
from headrace.targets.simd import Isa

_C = {
    "float32": "float", "float64": "double", "float16": "uint16_t", "bfloat16": "uint16_t", "bool": "uint8_t",
    **{f"{u}int{n}": f"{u}int{n}_t" for u in ("", "u") for n in (8, 16, 32, 64)},
}  # fmt: skip


def header(
    layout: Layout,
    state_bytes: int,
    scratch_bytes: int,
    align: int,
    stream: StreamLayout | None = None,
    isas: Sequence[Isa] = (),
    tiles: bool = False,
) -> str:
    """Text of NAME.h; sizes with what a stream needs beside the program. isas: the instruction sets in it; tiles:
    whether it uses tile registers."""
    name, upper = layout.name, layout.name.upper()
    lines = [
        f"/* {name}: a neural network as C. Link {name}.c, and {name}_weights.S or your own copy of {name}.weights.",
        " *",
        " * State and scratch are blocks of memory that the caller owns, aligned to ALIGN bytes. One state block for",
        " * each instance, kept from run to run; a scratch block is free for other use between calls. Weights are",
        " * only read. Instances may run at the same time on different state and scratch blocks. Arrays are dense and",
        " * row-major, aligned to their element; outputs must not overlap each other, inputs, state or scratch.",
        " * Nothing is allocated and no other function is called, but memcpy and memset.",
        *([" * The first call asks Linux, by a system call, for the tile registers of AMX."] if tiles else []),
        " *",
        " * Every function returns 0, or an error code:",
        *(f" *   {code}  {text}" for code, text in sorted(errors(layout, stream, tiles).items())),
        " */",
        f"#ifndef {upper}_H",
        f"#define {upper}_H",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"#define {upper}_STATE_BYTES {state_bytes}",
        f"#define {upper}_SCRATCH_BYTES {scratch_bytes}",
        f"#define {upper}_ALIGN {align}",
        *(f"size_t {name}_{what}(void);" for what in ("state_bytes", "scratch_bytes", "align")),
        "",
        f"extern const unsigned char {name}_weights[];",
        "",
        *(threading.declarations(name) if layout.threads > 1 else []),
        *_struct(layout, "inputs", layout.inputs, "const "),
        *_struct(layout, "outputs", layout.outputs, ""),
        "/* The initial state; also the reset of an instance. */",
        f"int {name}_init(void *state, const void *weights);",
        f"int {name}_run(void *state, void *scratch, const void *weights, const {name}_inputs *in, "
        f"const {name}_outputs *out);",
        *(dispatch.declarations(name, isas) if len(isas) > 1 else []),
        *(declarations(stream) if stream else []),
        *_states(layout, stream),
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def errors(layout: Layout, stream: StreamLayout | None = None, tiles: bool = False) -> dict[int, str]:
    """Error codes of the functions."""
    codes = ERRORS | (stream_errors(stream.facts) if stream else {})
    if layout.symbols:
        codes[2] = "a run-time extent is outside its bound"
    if tiles:
        codes[NO_TILES] = NO_TILES_TEXT
    return codes


def _struct(layout: Layout, which: str, ports: tuple[Port, ...], qualifier: str) -> list[str]:
    lines = ["typedef struct {"]
    for p in ports:
        lines.append(f"    {qualifier}{_C[p.dtype]} *{p.c_field}; /* {p.dtype} {shape_text(p.shape)} */")
    if which == "inputs":
        for s in layout.symbols:
            lines.append(f"    int64_t {s.c_field}; /* 1 to {s.bound}, a multiple of {s.divisor} */")
        if layout.threads > 1:
            lines.append(threading.member(layout.name))
    if len(lines) == 1:
        lines.append("    char unused;")
    return [*lines, f"}} {layout.name}_{which};", ""]


def _states(layout: Layout, stream: StreamLayout | None) -> list[str]:
    pieces = stream.pieces if stream else layout.states
    if not pieces:
        return []
    total = max(p.offset + p.nbytes for p in pieces)
    return [
        "",
        f"/* The state as arrays, independent of how it lies inside: {total} bytes, in this order:",
        *(f" *   at {p.offset}: {p.dtype} {shape_text(p.shape)}" for p in layout.states),
        *(portable_comment(stream) if stream else []),
        " */",
        f"int {layout.name}_get_state(const void *state, void *portable);",
        f"int {layout.name}_set_state(void *state, const void *portable);",
    ]
