"""A compiled model: immutable, shared by threads; memory belongs to instances."""

from __future__ import annotations

import json
import os
import shutil
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.artifact.code import Code
from headrace.artifact.instance import Instance
from headrace.artifact.manifest import Manifest, check_files, read_manifest
from headrace.artifact.package import ORIGIN
from headrace.artifact.ports import Array, spec_of
from headrace.artifact.stream import Stream
from headrace.codegen.generated import KernelInfo
from headrace.errors import TargetError
from headrace.spec import TensorSpec
from headrace.targets.registry import get_target

if TYPE_CHECKING:
    from headrace.graph.model import Model


@dataclass(frozen=True)
class Info:
    """Facts about a program; sizes in bytes, work in multiply-accumulates per run.

    memory_bytes: what one instance takes in RAM, state and scratch; weights are shared and read-only.
    scratch_lower_bound: no memory plan for the same kernels can need less scratch than this.
    code_bytes: machine code, None where the library's format is unknown.
    isa: the instruction set that runs here; of a target with several, the widest that this machine has.
    kernels: of a target with several instruction sets, those of the widest it holds.
    """

    memory_bytes: int
    state_bytes: int
    scratch_bytes: int
    scratch_lower_bound: int
    weight_bytes: int
    code_bytes: int | None
    macs: int
    target: str
    isa: str
    toolchain: str
    kernels: tuple[KernelInfo, ...]
    manifest: dict[str, Any]


class Program:
    """A compiled model, opened. Safe to share between threads.

    inputs, outputs: name -> TensorSpec in order; path: the artifact's folder; model: the Model it was
    compiled from when that happened in this process.
    """

    def __init__(self, folder: Path, manifest: Manifest, model: Model | None = None, temporary: bool = False) -> None:
        self._manifest = manifest
        self._local = threading.local()
        self._loading = threading.Lock()
        self._code: Code | None = None
        self.path = folder
        self.model = model
        self.inputs: dict[str, TensorSpec] = {p.name: spec_of(p) for p in manifest.inputs}
        self.outputs: dict[str, TensorSpec] = {p.name: spec_of(p) for p in manifest.outputs}
        self.states: dict[str, TensorSpec] = {p.name: spec_of(p) for p in manifest.states}
        if temporary:
            weakref.finalize(self, _remove, folder, os.getpid())
        if not self._missing():
            self._loaded()

    def __repr__(self) -> str:
        return f"<headrace.Program {self._manifest.name} for {self._manifest.target['name']} in {self.path}>"

    def run(self, inputs: Mapping[str, object]) -> dict[str, Array]:
        """Run once from the initial state: an array for every input, an array for every output.

        Each thread that calls this has an instance of its own, made at its first call. Raises
        ValueError saying which name, dtype or shape is wrong and what was expected; nothing is cast.
        TargetError when the program was built for another machine.
        """
        try:
            instance = self._local.instance
        except AttributeError:
            instance = self._local.instance = self.instance()
        return instance.run_fresh(inputs)  # type: ignore[no-any-return]

    def instance(self) -> Instance:
        """A new instance with state and scratch of its own, in the initial state."""
        return Instance(self._loaded(), self._manifest)

    def stream(self, given: Mapping[str, object] | None = None) -> Stream:
        """A new live stream of a program compiled from a step model.

        given: side inputs, which stay constant, and initial states by name. Raises ValueError for a
        program that has no time, or where a side input is missing.
        """
        return Stream(self._loaded(), self._manifest, given)

    @property
    def info(self) -> Info:
        """Sizes, target, toolchain, kernels and the whole manifest."""
        m = self._manifest
        return Info(
            memory_bytes=m.state_bytes + m.scratch_bytes,
            state_bytes=m.state_bytes,
            scratch_bytes=m.scratch_bytes,
            scratch_lower_bound=m.scratch_lower_bound,
            weight_bytes=m.weight_bytes,
            code_bytes=m.code_bytes,
            macs=m.macs,
            target=m.target["name"],
            isa=(self._code.isa() if self._code is not None else None) or m.target["isa"],
            toolchain=f"{m.toolchain['kind']} {m.toolchain['version']}",
            kernels=m.kernels,
            manifest=m.to_dict(),
        )

    @property
    def origin(self) -> Path | None:
        """Where the model file lay when this was compiled on this machine; None when that is not known."""
        try:
            value = json.loads((self.path / ORIGIN).read_text(encoding="utf-8"))
            return Path(value["model"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _loaded(self) -> Code:
        with self._loading:
            if self._code is None:
                missing = self._missing()
                if missing:
                    name = self._manifest.target["name"]
                    raise TargetError(f"this program was built for {name} and needs {missing}")
                self._code = Code(self.path, self._manifest)
            return self._code

    def _missing(self) -> str:
        from headrace.targets.host import host_triple

        target = self._manifest.target
        lacking = get_target(target["name"]).missing_here()
        if lacking or target["triple"] == host_triple():
            return lacking
        return f"a system like {target['triple']} (this one is {host_triple()})"


def open_program(path: str | os.PathLike[str], *, model: Model | None = None, check: bool = True) -> Program:
    """Open an artifact. check: compare every file with its hash first.

    Raises InvalidModel for a folder that is no artifact, or one whose files were changed or are damaged.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    if check:
        check_files(manifest, folder)
    return Program(folder.resolve(), manifest, model)


def open_temporary(folder: Path, *, model: Model | None = None) -> Program:
    """Open an artifact just built, whose folder goes away together with the Program."""
    return Program(folder.resolve(), read_manifest(folder), model, temporary=True)


def _remove(folder: Path, owner: int) -> None:
    """Remove a temporary artifact, unless this is a fork of the process that made it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
