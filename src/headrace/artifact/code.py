"""The native code of an artifact in this process: functions of the shared library, mapped weights."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headrace.artifact.bridge import BUSY, Call
from headrace.artifact.builtin import builtin, interpreter, is_possible
from headrace.artifact.manifest import Manifest
from headrace.artifact.pool import Pools
from headrace.errors import Error, InvalidModel

Function = Callable[[Any], int]
SHORT_CYCLES = 100_000  # expected of a run: some tens of µs


class Code:
    """Loaded code and weights of one artifact, shared by all its instances; unloaded with the last of them.

    run, init, fresh_run (init, then run), get_state, set_state take a byref to a bridge.Call and
    return 0 or an error code. weights is the address of the weights, aligned to a page.
    """

    run: Function
    init: Function
    fresh_run: Function
    get_state: Function
    set_state: Function
    push: Function  # takes a byref to a bridge.StreamCall
    flush: Function
    weights: int

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Raises InvalidModel when the library cannot be loaded or is not the one the manifest describes."""
        self.name = manifest.name
        self._library = _load(folder / manifest.library)
        library = self._library
        threads = manifest.facts.get("threads", 1)
        self._entries = manifest.facts.get("entries", [])
        self._pools = Pools(self.name, threads, lambda name: _symbol(library, name))
        weakref.finalize(self, _unload, library._handle, self._pools).atexit = False
        check_sizes(self._library, manifest)
        is_short = threads == 1 and _is_short(manifest)
        held = _without_release(library) if is_short else library
        self._bound = self._built_in() if is_short and is_possible() else 0
        self.run = self._function("run", held)
        self.init = self._function("init")
        self.fresh_run = self._function("fresh_run", held)
        streams = manifest.stream is not None
        if streams:
            self.push = self._function("push")
            self.flush = self._function("flush")
        if manifest.states or streams:
            self.get_state = self._function("get_state")
            self.set_state = self._function("set_state")
        self._mapping = _map(folder / manifest.weights, manifest.weight_bytes)
        self.weights = self._mapping.__array_interface__["data"][0]
        self._errors = manifest.facts.get("error_codes")

    def bound(self, call: Call, *owners: object) -> Callable[[], None]:
        """A function that runs on `call`; it raises what failure() returns, and keeps call and owners alive."""
        if self._bound:
            return builtin(self._bound, call, self._fail, self, *owners)
        function, argument = self.run, ctypes.byref(call)

        def bound() -> None:
            code = function(argument)
            if code:
                raise held[0].failure(code)

        held = (self, owners)  # they live as long as bound(), which refers to them
        return bound

    def _built_in(self) -> int:
        """Address of NAME_bridge_bound, ready to be called by this interpreter; 0 in libraries from before it."""
        table, ready = interpreter(), getattr(self._library, f"{self.name}_bridge_interpreter", None)
        if ready is None:
            return 0
        ready(ctypes.byref(table))
        return ctypes.cast(_symbol(self._library, f"{self.name}_bridge_bound"), ctypes.c_void_p).value or 0

    def _fail(self, code: int) -> None:
        raise self.failure(code)

    def isa(self) -> str | None:
        """The instruction set that a program of several has chosen here; None for a program of one."""
        if not self._entries:
            return None
        function = _symbol(self._library, f"{self.name}_isa")
        function.restype = ctypes.c_char_p
        return bytes(function()).decode()

    def threads(self) -> int:
        """Address of the NAME_threads of a running pool; 0 for a program compiled for one thread."""
        return self._pools.running()

    def _function(self, verb: str, library: ctypes.CDLL | None = None) -> Function:
        function: Function = _symbol(library or self._library, f"{self.name}_bridge_{verb}")
        return function

    @property
    def entry(self) -> int:
        """Address of NAME_run."""
        return ctypes.cast(_symbol(self._library, f"{self.name}_run"), ctypes.c_void_p).value or 0

    def failure(self, code: int) -> Exception:
        """The exception for a non-zero code."""
        if code == BUSY:
            return RuntimeError("this instance is running in another thread; give every thread an instance of its own")
        meaning = self._errors.get(str(code)) if isinstance(self._errors, dict) else None
        return Error(f"{self.name} returned error {code}: {meaning or f'see {self.name}.h'}")


def check_sizes(library: ctypes.CDLL, manifest: Manifest) -> None:
    """Raise InvalidModel unless the library states the same sizes as the manifest."""
    for what in ("state_bytes", "scratch_bytes", "align"):
        function = _symbol(library, f"{manifest.name}_{what}")
        function.restype = ctypes.c_size_t
        got, wanted = function(), getattr(manifest, what)
        if got != wanted:
            raise InvalidModel(f"{manifest.library} has {what} {got}, its manifest says {wanted}")


def _symbol(library: ctypes.CDLL, name: str) -> Any:
    try:
        return getattr(library, name)
    except AttributeError:
        file = Path(library._name).name
        raise InvalidModel(f"{file} has no function {name}; compile the model again") from None


def _is_short(manifest: Manifest) -> bool:
    """Whether a run ends so soon that other Python threads lose nothing by waiting for it."""
    cycles = sum(sum(kernel.cycles.values()) for kernel in manifest.kernels)
    return 0 < cycles < SHORT_CYCLES


def _without_release(library: ctypes.CDLL) -> ctypes.CDLL:
    """The same library, whose functions keep the interpreter's lock: a call takes half as long."""
    return ctypes.PyDLL(library._name, handle=library._handle)


def _load(path: Path) -> ctypes.CDLL:
    with _unique_name(path) as name:
        try:
            library = ctypes.CDLL(str(name))
        except OSError as error:
            raise InvalidModel(f"{path} cannot be loaded: {error}") from error
    library._name = str(path)
    return library


@contextlib.contextmanager
def _unique_name(path: Path) -> Iterator[Path]:
    """A name of `path` that was never loaded before.

    The loader of glibc takes a name it knows for the file it loaded under it, even when another
    artifact has replaced that file since; under a new name it compares the files themselves.
    """
    if os.name != "posix":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="headrace-load-") as folder:
        link = Path(folder) / path.name
        link.symlink_to(path.resolve())
        yield link


def _unload(handle: int, pools: Pools) -> None:
    pools.stop()
    if os.name == "posix":
        import _ctypes

        _ctypes.dlclose(handle)


def _map(path: Path, size: int) -> np.ndarray[Any, Any]:
    """The file as read-only memory; the array keeps the mapping alive."""
    try:
        with path.open("rb") as file:
            actual = os.fstat(file.fileno()).st_size
            if actual != size:
                raise InvalidModel(f"{path} has {actual} bytes, its manifest says {size}")
            if size == 0:
                return np.zeros(mmap.PAGESIZE, np.uint8)
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except OSError as error:
        raise InvalidModel(f"{path} cannot be mapped: {error.strerror or error}") from error
