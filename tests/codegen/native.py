"""Modules run as native code, for comparison with the interpreter.

The C of a module is compiled without the artifact around it; arrays lie between guard bytes, so that a
store beyond the end of one is found, and so that what lies beyond is no polite zero. Instruction sets that
this processor lacks are emulated where that is possible (tests/emulate).
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headrace.artifact.build import write_sources
from headrace.codegen import Generated, Variant, generate
from headrace.codegen.kernels import ScheduleFn
from headrace.program import interp
from headrace.program.dtypes import numpy_dtype
from headrace.program.ir import Module
from headrace.targets.registry import get_target
from headrace.targets.toolchain import Toolchain, find_toolchain, run_compiler
from tests.emulate.build import EVERYDAY, HERE, KIND, NATIVE, RUNNABLE, emulated, flags_for

GUARD = 256  # bytes
__all__ = ["EVERYDAY", "HERE", "NATIVE", "RUNNABLE", "Native"]
FLAGS = (
    "-std=c11",
    "-O1",
    "-g0",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fPIC",
    "-shared",
    "-Wall",
    "-Wextra",
    "-Werror",
)
Array = np.ndarray[Any, Any]
Order = Callable[[int], Iterable[int]]
PART = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)
PARALLEL_FOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p)


class Threads(ctypes.Structure):
    """NAME_threads."""

    _fields_ = (("parallel_for", PARALLEL_FOR), ("context", ctypes.c_void_p))


class Fault(Exception):
    """The program returned an error code."""


class Native:
    """A compiled module with one instance.

    order: the parts of a kernel in the order in which they are to run, for a program of several threads.
    Entries of a program of several instruction sets that this processor lacks are emulated.
    """

    def __init__(
        self, module: Module, target: str = "native", schedule: ScheduleFn | None = None, flags: Sequence[str] = FLAGS,
        kind: str | None = None, threads: int = 1, order: Order | None = None,
    ) -> None:  # fmt: skip
        self.module, wanted = module, get_target(target)
        self.generated: Generated = generate(
            module, "net", wanted, schedule, threads=threads, wider=[Variant(isa, module) for isa in wanted.wider]
        )
        self.cut = 0  # kernels that ran in parts
        self.threads = None if order is None else self._threads(order)
        widest = (wanted.isa, *wanted.wider)[-1]
        toolchain: Toolchain = find_toolchain(kind or (KIND if emulated(widest) else None), wanted.triple)
        with tempfile.TemporaryDirectory(prefix="headrace-native-") as name:
            folder = Path(name)
            write_sources(folder, self.generated)
            more = (*toolchain.flags_for(wanted.triple), *(flags_for(widest) if kind in (None, KIND) else ()))
            run_compiler(toolchain, (*more, *flags, "-o", "net.so", "net.c"), folder)
            self.library = ctypes.CDLL(str(folder / "net.so"))
        g = self.generated
        self.state, self.scratch = Block(g.state_bytes, g.align), Block(g.scratch_bytes, g.align)
        self.weights = Block(len(g.weights), g.align, g.weights)
        self.check(self.library.net_init(self.state.pointer, self.weights.pointer))

    @staticmethod
    def check(code: int) -> None:
        if code:
            raise Fault(f"error code {code}")

    def _threads(self, order: Order) -> Threads:
        """A parallel_for that runs the parts on this thread, in an order of its own."""

        def parallel_for(context: int, parts: int, part: int, call: int) -> None:
            self.cut += 1
            for n in order(parts):
                PART(part)(call, n)

        return Threads(PARALLEL_FOR(parallel_for), None)

    def run(self, feeds: Mapping[str, Array], entry: str = "run") -> dict[str, Array]:
        """Outputs by name, of one run on the instance's state; Fault for an error code."""
        symbols = interp.bind_symbols(self.module, feeds)
        inputs = [Block(feeds[b.name].nbytes, 1, feeds[b.name].tobytes()) for b in self.module.inputs]
        shapes = [tuple(interp.extent_value(e, symbols) for e in b.shape) for b in self.module.outputs]
        sizes = [
            int(np.prod(s)) * numpy_dtype(b.dtype).itemsize for s, b in zip(shapes, self.module.outputs, strict=True)
        ]
        outputs = [Block(n, 1) for n in sizes]
        self.scratch.scribble()
        extents = [symbols[s] for s in self.module.symbols]
        threads = 0 if self.threads is None else ctypes.addressof(self.threads)
        given = (ctypes.c_int64 * (len(inputs) + len(extents) + 1))(*(b.address for b in inputs), *extents, threads)
        taken = (ctypes.c_int64 * (len(outputs) + 1))(*(b.address for b in outputs))
        function = getattr(self.library, f"net_{entry}")
        self.check(function(self.state.pointer, self.scratch.pointer, self.weights.pointer, given, taken))
        for block in (self.state, self.scratch, self.weights, *inputs, *outputs):
            block.unharmed()
        return {
            b.name: o.bytes().view(numpy_dtype(b.dtype)).reshape(s).copy()
            for b, o, s in zip(self.module.outputs, outputs, shapes, strict=True)
        }


class Block:
    """Memory between guards."""

    def __init__(self, size: int, align: int, data: bytes | None = None) -> None:
        self.size = size
        self.memory = np.random.default_rng(size).integers(0, 256, size + 2 * GUARD + 64, np.uint8)
        self.memory[::7] = 0xFF  # also NaN, as any float
        start = self.memory.ctypes.data + GUARD
        self.start = GUARD + (-start % max(align, 8))
        if data is not None:
            self.memory[self.start : self.start + size] = np.frombuffer(data, np.uint8)
        self.address = self.memory.ctypes.data + self.start
        self.pointer = ctypes.c_void_p(self.address)
        self.guards = self._guards()

    def _guards(self) -> bytes:
        return self.memory[: self.start].tobytes() + self.memory[self.start + self.size :].tobytes()

    def scribble(self) -> None:
        self.memory[self.start : self.start + self.size] = 0xFF

    def unharmed(self) -> None:
        assert self._guards() == self.guards, "the program wrote outside of its memory"

    def bytes(self) -> Array:
        return self.memory[self.start : self.start + self.size]
