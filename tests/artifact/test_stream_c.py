"""The C functions of streams under sanitizers, with every block exactly as large as the header says."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.codegen.stream_plan import parse
from headrace.targets.link import compile_sanitized
from headrace.targets.registry import get_target
from headrace.targets.toolchain import Toolchain, find_toolchain
from tests.artifact import stepmodels
from tests.artifact.stepmodels import ALL, Offline, close, cuts

MAIN = """\
#define _POSIX_C_SOURCE 200112L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "NAME.h"

static void *block(size_t size, size_t align) {{
    void *memory = NULL;
    if (posix_memalign(&memory, align, size ? size : 1)) exit(90);
    memset(memory, 0x7f, size);
    return memory;
}}

/* Moves the stream to a new block by its portable state. */
static void *moved(void *old) {{
    void *portable = malloc({portable}), *fresh = block(NAME_STATE_BYTES, NAME_ALIGN);
    if (NAME_get_state(old, portable) || NAME_set_state(fresh, portable)) exit(94);
    free(old); free(portable);
    return fresh;
}}

int main(void) {{
    void *state = block(NAME_STATE_BYTES, NAME_ALIGN);
    void *scratch = block(NAME_SCRATCH_BYTES, NAME_ALIGN), *weights = block({weights}, NAME_ALIGN);
    FILE *file = fopen("NAME.weights", "rb");
    if (!file || fread(weights, 1, {weights}, file) != {weights}) return 91;
    fclose(file);
    NAME_inputs in;
    NAME_outputs out;
    size_t n, n_out[{outputs}], queued = 0;
    if (NAME_init(state, weights)) return 92;
    memset(&in, 0, sizeof in);
{given}
    while (fread(&n, sizeof n, 1, stdin) == 1) {{
        void *piece = malloc(n * {in_frame});
        if (fread(piece, 1, n * {in_frame}, stdin) != n * {in_frame}) return 93;
        size_t steps = (queued + n + {chunk} - 1) / {chunk};
        in.{x} = (const float *)piece;
{room_for_push}
        int code = NAME_push(state, scratch, weights, &in, n, &out, n_out);
        if (code) {{ fprintf(stderr, "push: %d\\n", code); return 95; }}
        queued = (queued + n) % {chunk};
{write}
        free(piece);
        memset(scratch, 0x7f, NAME_SCRATCH_BYTES);
        state = moved(state);
    }}
    size_t steps = NAME_FLUSH_STEPS;
{room_for_flush}
    int code = NAME_flush(state, scratch, weights, &out, n_out);
    if (code) {{ fprintf(stderr, "flush: %d\\n", code); return 96; }}
{write}
    if (NAME_flush(state, scratch, weights, &out, n_out) != 5) return 97;
    if (NAME_push(state, scratch, weights, &in, 0, &out, n_out) != 5) return 98;
    free(state); free(scratch); free(weights);
    return 0;
}}
"""


def toolchain() -> Toolchain:
    return find_toolchain(None, get_target("native").triple)


def source(manifest: dict[str, Any], offline: Offline) -> str:
    """C text of a main that reads pieces from stdin and writes the frames of every output to stdout."""
    facts = parse(manifest["facts"]["stream"])
    ins, outs = ({p["name"]: p for p in manifest[side]} for side in ("inputs", "outputs"))
    lanes = {o.name: o for o in facts.outputs}
    push: list[str] = []
    flush: list[str] = []
    write: list[str] = []
    for i, (name, port) in enumerate(outs.items()):
        field, size = port["c_field"], port["nbytes"]
        frame = size // lanes[name].frames if name in lanes else size
        for lines, room in ((push, f"steps * {size}" if name in lanes else "1"),
                            (flush, f"steps * {size}" if name in lanes else f"{size}")):  # fmt: skip
            lines.append(f"        out.{field} = (float *)malloc({room});")
        write.append(f"        fwrite(&n_out[{i}], sizeof(size_t), 1, stdout);")
        write.append(f"        fwrite(out.{field}, {frame}, n_out[{i}], stdout);")
        write.append(f"        free(out.{field}); out.{field} = NULL;")
    given = []
    for name, value in offline.given.items():
        if name in ins:
            numbers = ", ".join(repr(float(v)) for v in value.ravel())
            given.append(f"    static const float {name}[] = {{{numbers}}}; in.{ins[name]['c_field']} = {name};")
    (lane,) = facts.inputs
    last = max(p.offset + p.nbytes for p in pieces_of(manifest))
    text = MAIN.format(
        portable=last, weights=manifest["weight_bytes"], outputs=len(outs), given="\n".join(given),
        in_frame=ins[lane.name]["nbytes"] // lane.frames, chunk=facts.chunk, x=ins[lane.name]["c_field"],
        room_for_push="\n".join(push), room_for_flush="\n".join(flush), write="\n".join(write),
    )  # fmt: skip
    for macro in ("STATE_BYTES", "SCRATCH_BYTES", "ALIGN", "FLUSH_STEPS"):
        text = text.replace(f"NAME_{macro}", f"{manifest['name'].upper()}_{macro}")
    return text.replace("NAME", manifest["name"])


def pieces_of(manifest: dict[str, Any]) -> Any:
    from headrace.codegen.generated import Port
    from headrace.codegen.stream_plan import portable

    sides = [[Port(**{**p, "shape": tuple(p["shape"])}) for p in manifest[s]] for s in ("inputs", "outputs", "states")]
    return portable(parse(manifest["facts"]["stream"]), *sides)


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("name", [n for n in ALL if n != "recurrent"])
def test_exact_blocks(name: str, chunk: int | None, tmp_path: Path) -> None:
    offline = ALL[name]()
    program = hr.compile(offline.step(chunk), out=tmp_path / "p")
    manifest = program.info.manifest
    (tmp_path / "p" / "main.c").write_text(source(manifest, offline))
    compile_sanitized(toolchain(), (f"{manifest['name']}.c", "main.c"), "program", tmp_path / "p")
    signal, (x,) = offline.signal(27), list(offline.axes)
    want, rng = offline.run(signal), np.random.default_rng(4)
    sizes = cuts(27, rng)
    data, start = b"", 0
    for size in sizes:
        piece = np.take(signal[x], range(start, start + size), offline.axes[x])
        data += np.uint64(size).tobytes() + np.ascontiguousarray(piece).tobytes()
        start += size
    done = subprocess.run(
        [str(tmp_path / "p" / "program")], input=data, capture_output=True, cwd=tmp_path / "p", timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    got: dict[str, list[Any]] = {k: [] for k in want}
    at = 0
    for _ in range(len(sizes) + 1):
        for key, axis in offline.out_axes.items():
            (count,) = np.frombuffer(done.stdout[at : at + 8], np.uint64).tolist()
            shape = list(want[key].shape)
            shape[axis] = count
            size = 4 * int(np.prod(shape))
            got[key].append(np.frombuffer(done.stdout[at + 8 : at + 8 + size], np.float32).reshape(shape))
            at += 8 + size
    assert at == len(done.stdout)
    for key, axis in offline.out_axes.items():
        close(np.concatenate(got[key], axis), want[key])


def test_the_header_states_the_contract(tmp_path: Path) -> None:
    program = hr.compile(stepmodels.two_rates(6), out=tmp_path / "p")
    text = (tmp_path / "p" / f"{program.info.manifest['name']}.h").read_text()
    for part in (
        "frames that can wait: 9 of x, 4 of z",
        "the stream is full after 6 frames",
        "no multiple of 2",
        "queue x",
        "counters: position, ended, begun, queued_x, queued_z",
        "written by flush",
    ):
        assert part in text, part
