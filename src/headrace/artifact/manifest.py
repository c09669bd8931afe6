"""The manifest: everything an artifact states about itself, with hashes to check it by."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from headrace.artifact.package import MANIFEST, ORIGIN
from headrace.artifact.ports import check_ports
from headrace.codegen.generated import KernelInfo, Port, Symbol
from headrace.codegen.stream_plan import StreamFacts, parse, portable, portable_bytes
from headrace.errors import InvalidModel

SCHEMA = 1
SMALL = 1024  # arrays up to this many elements are written out
T = TypeVar("T")


@dataclass(frozen=True)
class Manifest:
    """Contents of manifest.json. Sizes in bytes; hashes are SHA-256 in hex; no paths and no times.

    name: C identifier and stem of the files; model: name and hash of the source; options: what the
    user chose; target: name, isa, triple; toolchain: kind, version, flags; files: name -> hash.
    code_bytes is None where the library's format is not ELF.
    """

    name: str
    version: str
    model: dict[str, str]
    options: dict[str, Any]
    target: dict[str, str]
    toolchain: dict[str, Any]
    files: dict[str, str]
    library: str
    align: int
    state_bytes: int
    scratch_bytes: int
    scratch_lower_bound: int
    weight_bytes: int
    code_bytes: int | None
    macs: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: tuple[Port, ...]
    symbols: tuple[Symbol, ...]
    kernels: tuple[KernelInfo, ...]
    facts: dict[str, Any]

    @property
    def weights(self) -> str:
        """File name of the weights."""
        return f"{self.name}.weights"

    @property
    def portable_bytes(self) -> int:
        """Size of the portable state that NAME_get_state writes."""
        if self.stream is not None:
            return portable_bytes(portable(self.stream, self.inputs, self.outputs, self.states))
        return max((p.offset + p.nbytes for p in self.states), default=0)

    @property
    def stream(self) -> StreamFacts | None:
        """What a step model says about time; None for other programs. InvalidModel where it is damaged."""
        data = self.facts.get("stream")
        try:
            return None if data is None else parse(data)
        except ValueError as error:
            raise InvalidModel(f"the manifest of {self.name}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the schema version and a digest over all the rest."""
        body = {"schema": SCHEMA, **plain(dataclasses.asdict(self))}
        return {**body, "digest": _digest(body)}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1) + "\n"


def plain(value: object) -> Any:
    """The same value as JSON can say it: tuples as lists, paths as text.

    Arrays become dtype, shape and values; those of more than 1024 elements a hash instead of values.
    Raises TypeError for what has no such form.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(v) for v in value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, np.ndarray):
        about = {"dtype": value.dtype.name, "shape": list(value.shape)}
        if value.size <= SMALL and value.dtype.kind in "biuf":
            return {**about, "values": value.ravel().tolist()}
        return {**about, "sha256": sha256(np.ascontiguousarray(value).tobytes())}
    raise TypeError(f"{type(value).__name__} cannot be written to a manifest")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hash of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read and check manifest.json of an artifact. Raises InvalidModel."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise InvalidModel(f"{folder} is no artifact: {'no folder' if folder.exists() else 'not found'}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidModel(f"{folder} is no artifact: it has no {MANIFEST}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidModel(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict) or "schema" not in value:
        raise InvalidModel(f"{path} is not the manifest of an artifact")
    if value["schema"] != SCHEMA:
        raise InvalidModel(
            f"{path} has schema {value['schema']!r}, this version reads {SCHEMA}; compile the model again"
        )
    digest = value.pop("digest", None)
    if digest != _digest(value):
        raise InvalidModel(f"{path} was changed after the artifact was built; compile the model again")
    del value["schema"]
    manifest = _parse(value, path)
    check_ports(manifest.inputs, manifest.outputs, manifest.symbols)
    check_ports(manifest.states, (), ())
    return manifest


def check_files(manifest: Manifest, folder: Path) -> None:
    """Raise InvalidModel naming the first file of the artifact that is missing or differs from its hash."""
    for name, expected in manifest.files.items():
        try:
            actual = sha256_file(folder / name)
        except OSError as error:
            reason = error.strerror or error
            raise InvalidModel(f"{folder / name} is missing or unreadable: {reason}") from error
        if actual != expected:
            raise InvalidModel(
                f"{folder / name} was changed after the artifact was built "
                f"(SHA-256 {actual[:12]}…, the manifest says {expected[:12]}…); compile the model again"
            )


def listed_files(folder: Path) -> frozenset[str]:
    """Names of the files that belong to the artifact in `folder`; empty when it is none."""
    try:
        manifest = read_manifest(folder)
    except InvalidModel:
        return frozenset()
    return frozenset(manifest.files) | {MANIFEST, ORIGIN}


def _digest(body: Mapping[str, Any]) -> str:
    return sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


def _parse(value: dict[str, Any], path: Path) -> Manifest:
    """Build a Manifest out of JSON values, whose types are checked here."""

    def field(name: str, kind: type[T]) -> T:
        item = value.get(name)
        if not isinstance(item, kind) or (kind is int and isinstance(item, bool)):
            raise InvalidModel(f"{path}: {name!r} should be {kind.__name__}, not {type(item).__name__}")
        if isinstance(item, int) and item < 0:
            raise InvalidModel(f"{path}: {name!r} is negative")
        return item

    def records(name: str, make: Callable[[dict[str, Any]], T]) -> tuple[T, ...]:
        try:
            return tuple(make(item) for item in field(name, list))
        except (TypeError, KeyError, AttributeError) as error:
            raise InvalidModel(f"{path}: {name!r} is malformed: {error}") from error

    files = field("files", dict)
    for name in (*files, value.get("library")):
        if not isinstance(name, str) or Path(name).name != name or not isinstance(files.get(name), str):
            raise InvalidModel(f"{path}: {name!r} is no file of this artifact")
    for key, wanted in (("target", ("name", "isa", "triple")), ("toolchain", ("kind", "version"))):
        if not all(isinstance(field(key, dict).get(item), str) for item in wanted):
            raise InvalidModel(f"{path}: {key!r} should state {', '.join(wanted)}")
    return Manifest(
        name=field("name", str),
        version=field("version", str),
        model=field("model", dict),
        options=field("options", dict),
        target=field("target", dict),
        toolchain=field("toolchain", dict),
        files=files,
        library=field("library", str),
        align=field("align", int),
        state_bytes=field("state_bytes", int),
        scratch_bytes=field("scratch_bytes", int),
        scratch_lower_bound=field("scratch_lower_bound", int),
        weight_bytes=field("weight_bytes", int),
        macs=field("macs", int),
        code_bytes=None if value.get("code_bytes") is None else field("code_bytes", int),
        inputs=records("inputs", _port),
        outputs=records("outputs", _port),
        states=records("states", _port),
        symbols=records("symbols", lambda item: Symbol(**item)),
        kernels=records("kernels", _kernel),
        facts=field("facts", dict),
    )


def _port(item: dict[str, Any]) -> Port:
    return Port(**{**item, "shape": tuple(item["shape"])})


def _kernel(item: dict[str, Any]) -> KernelInfo:
    return KernelInfo(**{**item, "nodes": tuple(item["nodes"]), "schedule": tuple(item["schedule"])})
