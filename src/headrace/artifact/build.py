"""From generated C to an artifact: a folder with source, header, weights, shared library and manifest."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.artifact.bridge import bridge_source
from headrace.artifact.elf import code_bytes, undefined_symbols
from headrace.artifact.manifest import Manifest, plain, sha256_file
from headrace.artifact.package import MANIFEST, ORIGIN, written_folder
from headrace.artifact.ports import check_ports
from headrace.artifact.weights import weights_assembly
from headrace.codegen import pool
from headrace.codegen.generated import Generated
from headrace.errors import ToolchainError
from headrace.targets.link import compile_library, library_flags, library_name
from headrace.targets.registry import Target
from headrace.targets.toolchain import Toolchain

MAX_ALIGN = 4096  # weights are mapped at page boundaries
EXTERNAL = frozenset(("memcpy", "memset", "memmove", "memcmp"))  # what freestanding C takes for granted


@dataclass(frozen=True)
class Source:
    """The model an artifact is made from. path: where its file lies, None for a model without file.

    sha256: hash of the model. The path is kept in origin.json, outside the manifest, because the
    same model gives the same artifact wherever it lies.
    """

    name: str
    sha256: str
    path: Path | None = None


def build(
    generated: Generated,
    target: Target,
    toolchain: Toolchain,
    out: Path | None = None,
    *,
    source: Source,
    options: Mapping[str, object] | None = None,
) -> Path:
    """Compile `generated` and write the artifact to `out`, or to a new temporary folder; returns the folder.

    Equal arguments give equal bytes in every file but origin.json. Raises ToolchainError, or
    OutputError where `out` cannot be written; then what was at `out` before is still there.
    """
    check_generated(generated)
    if out is None:
        return _build_temporary(generated, target, toolchain, source, options)
    with written_folder(out) as folder:
        sources = write_sources(folder, generated)
        library = library_name(generated.name, target.triple)
        threads = has_threads(generated)
        compile_library(toolchain, target.triple, sources, library, folder, threads)
        _check_library(folder / library, target.triple, EXTERNAL | pool.EXTERNAL if threads else EXTERNAL)
        manifest = describe(generated, target, toolchain, folder, library, source, options or {})
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        if source.path is not None:
            origin = json.dumps({"model": str(source.path.absolute())})
            (folder / ORIGIN).write_text(origin + "\n", encoding="utf-8")
    return out


def _build_temporary(
    generated: Generated,
    target: Target,
    toolchain: Toolchain,
    source: Source,
    options: Mapping[str, object] | None,
) -> Path:
    out = Path(tempfile.mkdtemp(prefix="headrace-"))
    try:
        return build(generated, target, toolchain, out, source=source, options=options)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def check_generated(generated: Generated) -> None:
    """Raise InvalidModel when generated facts contradict each other."""
    check_ports(generated.inputs, generated.outputs, generated.symbols)
    check_ports(generated.states, (), ())
    if generated.align < 1 or generated.align & (generated.align - 1) or generated.align > MAX_ALIGN:
        raise ValueError(f"align must be a power of two up to {MAX_ALIGN}, not {generated.align}")


def write_sources(folder: Path, generated: Generated) -> tuple[str, ...]:
    """Write C, header, weights, NAME_weights.S, NAME_bridge.c, with threads NAME_pool; returns what is compiled."""
    name, streams = generated.name, "stream" in generated.facts
    texts = {
        f"{name}.c": generated.source,
        f"{name}.h": generated.header,
        f"{name}_weights.S": weights_assembly(name, generated.align),
        f"{name}_bridge.c": bridge_source(name, bool(generated.states) or streams, streams),
    }
    if has_threads(generated):
        texts[f"{name}_pool.h"] = pool.pool_header(name, int(str(generated.facts["threads"])))
        texts[f"{name}_pool.c"] = pool.pool_source(name)
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8", newline="\n")
    (folder / f"{name}.weights").write_bytes(generated.weights)
    if not has_threads(generated):
        return f"{name}.c", f"{name}_bridge.c"
    return f"{name}.c", f"{name}_bridge.c", f"{name}_pool.c"


def has_threads(generated: Generated) -> bool:
    """Whether the program may run on several threads, so that a pool belongs to it."""
    return generated.facts.get("threads", 1) != 1


def _check_library(library: Path, triple: str, external: frozenset[str]) -> None:
    """Raise ToolchainError when there is no library, or it calls anything but the functions of `external`."""
    needed = undefined_symbols(library.read_bytes()) if library.is_file() else None
    if needed is None and ("linux" in triple or not library.is_file()):
        raise ToolchainError(f"the compiler reported success, but {library.name} is no shared library")
    foreign = sorted((needed or frozenset()) - external)
    if foreign:
        raise ToolchainError(f"generated code must not call into libraries, but needs {', '.join(foreign)}")


def version() -> str:
    """Version of the installed headrace; "0" when it runs from a source tree that is not installed."""
    try:
        return importlib.metadata.version("headrace")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def describe(
    generated: Generated,
    target: Target,
    toolchain: Toolchain,
    folder: Path,
    library: str,
    source: Source,
    options: Mapping[str, object],
) -> Manifest:
    """The manifest of the files that lie in `folder`."""
    flags = (*toolchain.flags_for(target.triple), *library_flags(target.triple, has_threads(generated)))
    return Manifest(
        name=generated.name,
        version=version(),
        model={"name": source.name, "sha256": source.sha256},
        options=plain(options),
        target={"name": target.name, "isa": _isas(generated, target), "triple": target.triple},
        toolchain={"kind": toolchain.kind, "version": toolchain.version, "flags": list(flags)},
        files={path.name: sha256_file(path) for path in sorted(folder.iterdir())},
        library=library,
        align=generated.align,
        state_bytes=generated.state_bytes,
        scratch_bytes=generated.scratch_bytes,
        scratch_lower_bound=generated.scratch_lower_bound,
        weight_bytes=len(generated.weights),
        code_bytes=code_bytes((folder / library).read_bytes()),
        macs=generated.macs,
        inputs=generated.inputs,
        outputs=generated.outputs,
        states=generated.states,
        symbols=generated.symbols,
        kernels=generated.kernels,
        facts=plain(generated.facts),
    )


def _isas(generated: Generated, target: Target) -> str:
    """The instruction sets that the program holds code for."""
    entries = generated.facts.get("entries")
    return ", ".join(map(str, entries)) if isinstance(entries, list) else target.isa.name
