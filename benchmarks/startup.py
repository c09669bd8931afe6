"""From opening to the first output in a process that has done nothing else: our library, other runtimes.

python -m benchmarks.startup SUBJECT PEERS    prints {peer: {"us", "bytes"} or {"error"}} as JSON
"""

from __future__ import annotations

import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import headrace as hr
from headrace.measure.peers import PACKAGES, open_peer
from headrace.measure.peers.contestant import Case
from headrace.targets.host import host_triple
from headrace.targets.toolchain import find_toolchain, run_compiler

RUNS = 9


def own(program: hr.Program) -> dict[str, float]:
    """Median µs of a C program that opens the library, maps the weights, starts an instance and runs once.

    bytes: what that adds to its resident memory.
    """
    manifest = program.info.manifest
    with tempfile.TemporaryDirectory(prefix="headrace-startup-") as name:
        folder = Path(name)
        (folder / "startup.c").write_text(_source(manifest), encoding="utf-8")
        flags = ("-std=gnu11", "-O2", f"-I{program.path}", "-o", "startup", "startup.c", "-ldl")
        run_compiler(find_toolchain(None, host_triple()), flags, folder)
        library, weights = program.path / manifest["library"], program.path / f"{manifest['name']}.weights"
        command = [str(folder / "startup"), str(library), str(weights)]
        found = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(RUNS)]
    return {key: statistics.median(run[key] for run in found) for key in ("us", "bytes")}


def _source(manifest: dict[str, Any]) -> str:
    name = manifest["name"]
    places = []
    for role, ports in (("in", manifest["inputs"]), ("out", manifest["outputs"])):
        places += [f"    {role}.{p['c_field']} = block({max(p['nbytes'], 1)});" for p in ports]
    places += [f"    in.{s['c_field']} = {s['bound']};" for s in manifest["symbols"]]
    return f"""\
#define _GNU_SOURCE
#include "{name}.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static void *block(size_t size)
{{
    void *p = aligned_alloc(64, (size + 63) / 64 * 64);
    if (p) memset(p, 0, size);
    return p;
}}

static double now(void)
{{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e6 * (double)t.tv_sec + 1e-3 * (double)t.tv_nsec;
}}

static long resident(void)
{{
    long total = 0, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%ld %ld", &total, &pages) != 2) pages = 0;
    if (f) fclose(f);
    return pages * sysconf(_SC_PAGESIZE);
}}

int main(int argc, char **argv)
{{
    {name}_inputs in;
    {name}_outputs out;
    memset(&in, 0, sizeof in);
    memset(&out, 0, sizeof out);
{chr(10).join(places)}
    const long before = resident();
    const double start = now();
    void *library = argc > 2 ? dlopen(argv[1], RTLD_NOW) : 0;
    if (!library) return 1;
    int (*init)(void *, const void *) = dlsym(library, "{name}_init");
    int (*run)(void *, void *, const void *, const {name}_inputs *, const {name}_outputs *) =
        dlsym(library, "{name}_run");
    const int file = open(argv[2], O_RDONLY);
    const size_t size = {max(manifest["weight_bytes"], 1)};
    const void *weights = {manifest["weight_bytes"]} ? mmap(0, size, PROT_READ, MAP_SHARED, file, 0) : "";
    void *state = aligned_alloc(64, {manifest["state_bytes"]} / 64 * 64 + 64);
    void *scratch = aligned_alloc(64, {manifest["scratch_bytes"]} / 64 * 64 + 64);
    if (weights == MAP_FAILED || !state || !scratch || init(state, weights)) return 1;
    if (run(state, scratch, weights, &in, &out)) return 1;
    const double us = now() - start;
    printf("{{\\"us\\": %.1f, \\"bytes\\": %ld}}\\n", us, resident() - before);
    return 0;
}}
"""


def rivals(name: str, peers: Sequence[str], timeout_s: float = 300) -> dict[str, Any]:
    """The same for other runtimes, without the import of their packages; each in the same new process."""
    command = [sys.executable, "-m", "benchmarks.startup", name, ",".join(peers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        return {peer: {"error": (done.stderr.strip().splitlines() or ["failed"])[-1]} for peer in peers}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    from benchmarks.subjects import subjects

    subject = subjects()[sys.argv[1]]
    case = case_of(subject.load(), subject.random(0), subject.options.get("constants", {}))
    case.proto.SerializeToString()
    found: dict[str, Any] = {}
    for peer in filter(None, sys.argv[2].split(",")):
        importlib.import_module(PACKAGES[peer])
        before, start = _resident(), time.perf_counter()
        try:
            opened = open_peer(peer, case)
            found[peer] = {"us": 1e6 * (time.perf_counter() - start), "bytes": _resident() - before}
            del opened
        except hr.Error as error:
            found[peer] = {"error": str(error)}
    print(json.dumps(found))


def case_of(model: Any, inputs: Any, constants: Any) -> Case:
    """The model with every input fixed."""
    known = {**model.inputs, **model.defaults}
    fixed = {}
    for key, value in constants.items():
        array = np.asarray(value, known[key].dtype)
        fixed[key] = array.reshape(1) if array.ndim == 0 and len(known[key].shape) == 1 else array
    return Case(model, inputs, fixed)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


if __name__ == "__main__":
    main()
