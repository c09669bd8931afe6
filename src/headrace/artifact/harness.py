"""A program run as an executable of its own, under AddressSanitizer and UndefinedBehaviorSanitizer.

Every block the generated C gets (state, scratch, weights, inputs, outputs) is a separate allocation of
exactly the promised size, so that the first access outside of one stops the program.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headrace.artifact.build import has_threads, write_sources
from headrace.artifact.ports import (
    Array,
    bound_shape,
    check_names,
    conform,
    nbytes,
    numpy_dtype,
    read_symbols,
)
from headrace.codegen.generated import Generated
from headrace.errors import Error
from headrace.targets.link import compile_sanitized
from headrace.targets.toolchain import Toolchain


class SanitizerError(Error):
    """Generated code touched memory that is not its own, or did what C leaves undefined."""


def run_sanitized(
    generated: Generated,
    toolchain: Toolchain,
    steps: Sequence[Mapping[str, object]],
    timeout_s: float = 300.0,
) -> list[dict[str, Array]]:
    """Compile with sanitizers, then init and one run for each of `steps`; the outputs of each.

    All steps must have the same extents. Raises SanitizerError with the report, ToolchainError.
    """
    arrays = [_conformed(generated, step) for step in steps]
    symbols = read_symbols(arrays[0], generated.inputs, generated.symbols)
    outputs = {p.name: (bound_shape(p, symbols), numpy_dtype(p.dtype)) for p in generated.outputs}
    with tempfile.TemporaryDirectory(prefix="headrace-sanitize-") as name:
        folder = Path(name)
        write_sources(folder, generated)
        (folder / "harness.c").write_text(harness_source(generated, symbols), encoding="utf-8")
        compile_sanitized(toolchain, (f"{generated.name}.c", "harness.c"), "program", folder)
        given = b"".join(step[p.name].tobytes() for step in arrays for p in generated.inputs)
        result = _execute(folder, given, len(steps), timeout_s)
    return _split(result, outputs, len(steps))


def harness_source(generated: Generated, symbols: Mapping[str, int]) -> str:
    """C text of a main() that reads the inputs of every step from stdin and writes the outputs to stdout."""
    name = generated.name
    sides = (("in", generated.inputs), ("out", generated.outputs))
    sizes = {
        f"{side}.{p.c_field}": nbytes(bound_shape(p, symbols), numpy_dtype(p.dtype))
        for side, ports in sides
        for p in ports
    }
    inputs, outputs = ([place for place in sizes if place.startswith(f"{side}.")] for side, _ in sides)
    allocate = [f"    {place} = block({size}, 1);" for place, size in sizes.items()]
    extents = [f"    in.{s.c_field} = {symbols[s.name]};" for s in generated.symbols]
    extents += ["    in.threads = NULL;"] if has_threads(generated) else []
    read = [_transfer("fread", f"(void *){place}", sizes[place], "stdin") for place in inputs]
    write = [_transfer("fwrite", place, sizes[place], "stdout") for place in outputs]
    release = [f"    free((void *){place});" for place in sizes]
    body = "\n".join
    return f"""\
#define _POSIX_C_SOURCE 200112L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "{name}.h"

static void *block(size_t size, size_t align) {{
    void *memory = NULL;
    if (align < sizeof(void *)) return malloc(size);
    if (posix_memalign(&memory, align, size)) exit(90);
    return memory;
}}

int main(int argc, char **argv) {{
    long steps = argc > 1 ? atol(argv[1]) : 1;
    void *state = block({generated.state_bytes}, {generated.align});
    void *scratch = block({generated.scratch_bytes}, {generated.align});
    void *weights = block({len(generated.weights)}, {generated.align});
    FILE *file = fopen("{name}.weights", "rb");
    if (!file || fread(weights, 1, {len(generated.weights)}, file) != {len(generated.weights)}) return 91;
    fclose(file);
    {name}_inputs in;
    {name}_outputs out;
{body(allocate + extents)}
    int code = {name}_init(state, weights);
    for (long step = 0; step < steps && code == 0; step++) {{
        memset(scratch, 0xa5, {generated.scratch_bytes});
{body(read)}
        code = {name}_run(state, scratch, weights, &in, &out);
{body(write)}
    }}
{body(release)}
    free(state); free(scratch); free(weights);
    if (code) fprintf(stderr, "error code %d\\n", code);
    return code ? 93 : 0;
}}
"""


def _transfer(function: str, pointer: str, size: int, stream: str) -> str:
    return f"        if ({function}({pointer}, 1, {size}, {stream}) != {size}) return 92;"


def _conformed(generated: Generated, step: Mapping[str, object]) -> dict[str, Array]:
    check_names(step, generated.inputs, "input")
    return {p.name: conform(step[p.name], p, numpy_dtype(p.dtype), "input") for p in generated.inputs}


def _execute(folder: Path, given: bytes, steps: int, timeout_s: float) -> bytes:
    environment = {**os.environ, "ASAN_OPTIONS": "abort_on_error=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    try:
        done = subprocess.run(
            [str(folder / "program"), str(steps)],
            input=given,
            capture_output=True,
            cwd=folder,
            env=environment,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Error(f"the sanitized program did not finish within {timeout_s:g} s") from None
    if done.returncode != 0:
        report = done.stderr.decode(errors="replace").strip()
        raise SanitizerError(report or f"the sanitized program ended with status {done.returncode}")
    return done.stdout


def _split(
    data: bytes, outputs: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]], steps: int
) -> list[dict[str, Array]]:
    results = []
    start = 0
    for _ in range(steps):
        step = {}
        for name, (shape, dtype) in outputs.items():
            size = nbytes(shape, dtype)
            step[name] = np.frombuffer(data[start : start + size], dtype).reshape(shape).copy()
            start += size
        results.append(step)
    return results
