"""One running copy of a program: its own state and scratch memory."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from headrace.artifact.bridge import Call
from headrace.artifact.code import Code, Function
from headrace.artifact.manifest import Manifest
from headrace.artifact.ports import (
    Array,
    address,
    bound_shape,
    check_names,
    check_overlap,
    conform,
    conform_in_place,
    nbytes,
    numpy_dtype,
    read_symbols,
)
from headrace.codegen.generated import Port

# Below this many bytes an array it is cheaper to copy all to fixed places than to ask NumPy for their addresses.
STAGED_BYTES = 32768


class Instance:
    """State and scratch of a program. One thread at a time may use it; a second one gets a RuntimeError.

    Made by `Program.instance()`; starts from the initial state.
    """

    def __init__(self, code: Code, manifest: Manifest) -> None:
        self._code = code
        self._manifest = manifest
        ports = (*manifest.inputs, *manifest.outputs, *manifest.states)
        self._dtypes = {p.name: numpy_dtype(p.dtype) for p in ports}
        self._input_struct = struct_of(manifest.inputs, [s.c_field for s in manifest.symbols], code.threads())
        self._output_struct = struct_of(manifest.outputs)
        self._state = block_of(manifest.state_bytes, manifest.align)
        self._scratch = block_of(manifest.scratch_bytes, manifest.align)
        self._blocks = (address(self._state), address(self._scratch))
        self._output_shapes = {p.name: bound_shape(p, {}) for p in manifest.outputs} if not manifest.symbols else {}
        self._busy = ctypes.c_int(0)
        self._using = threading.Lock()
        self._stage()
        self.reset()

    def run(self, inputs: Mapping[str, object], out: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """One run from the present state; returns every output by name.

        inputs: an array for every input. out: arrays to write some or all outputs to; they must be
        C-contiguous, of the right dtype and shape, and apart from the inputs. Raises ValueError.
        """
        return self._run(self._code.run, inputs, out)

    def run_fresh(self, inputs: Mapping[str, object]) -> dict[str, Array]:
        """The same from the initial state."""
        return self._run(self._code.fresh_run, inputs, None)

    def reset(self) -> None:
        """Back to the initial state."""
        self._invoke(self._code.init, self._call())

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Callable[[], None]:
        """A function that runs on these very arrays, without copies or checks.

        Arrays must be C-contiguous, of the right dtype and shape, and outputs apart from everything
        else; they are kept alive by the function. Raises ValueError or TypeError.
        """
        return self._code.bound(self.arguments(inputs, outputs), self)

    def arguments(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Call:
        """The addresses that NAME_run takes for these arrays; bind() says what they must be.

        It keeps the arrays alive, but not the instance.
        """
        manifest = self._manifest
        check_names(inputs, manifest.inputs, "input")
        check_names(outputs, manifest.outputs, "output")
        given = {p.name: self._in_place(inputs[p.name], p, "input") for p in manifest.inputs}
        symbols = read_symbols(given, manifest.inputs, manifest.symbols)
        ports = [self._fixed(p, symbols) for p in manifest.outputs]
        taken = {p.name: self._in_place(outputs[p.name], p, "output") for p in ports}
        check_overlap(given, taken)
        call = self._call(given, taken, symbols)
        call.arrays = (given, taken)
        return call

    @property
    def entry(self) -> int:
        """Address of NAME_run, which takes the addresses in arguments()."""
        return self._code.entry

    def state(self) -> dict[str, Array]:
        """A copy of the state, by the names of the model's state inputs; empty where there is none."""
        block, arrays = self._portable()
        if arrays:
            self._invoke(self._code.get_state, self._call(outputs_at=address(block)))
        return arrays

    def restore(self, state: Mapping[str, object]) -> None:
        """Set the state to one that `state()` returned, here or on another target. Raises ValueError."""
        ports = self._manifest.states
        check_names(state, ports, "state")
        block, arrays = self._portable()
        for port in ports:
            arrays[port.name][...] = conform(state[port.name], port, self._dtypes[port.name], "state")
        if arrays:
            self._invoke(self._code.set_state, self._call(inputs_at=address(block)))

    def _run(
        self, function: Function, inputs: Mapping[str, object], out: Mapping[str, Array] | None
    ) -> dict[str, Array]:
        if not self._using.acquire(False):
            raise RuntimeError("this instance is in use by another thread; give every thread its own")
        try:
            if self._is_staged:
                return self._run_staged(function, inputs, out)
            check_names(inputs, self._manifest.inputs, "input")
            return self._run_in_place(function, inputs, out or {})
        finally:
            self._using.release()

    def _run_staged(
        self, function: Function, inputs: Mapping[str, object], out: Mapping[str, Array] | None
    ) -> dict[str, Array]:
        """Small arrays of static shape: copied to and from fixed memory."""
        if type(inputs) is not dict or len(inputs) != len(self._staged_inputs):
            check_names(inputs, self._manifest.inputs, "input")
        for name, dtype, shape, stage, port in self._staged_inputs:
            array: Any = inputs.get(name)
            if type(array) is not np.ndarray or array.dtype != dtype or array.shape != shape:
                check_names(inputs, self._manifest.inputs, "input")
                array = conform(array, port, dtype, "input")
            stage[...] = array
        taken = self._checked_out(out, self._manifest.outputs) if out else {}
        if function is self._code.run:
            self._staged_run()
        else:
            self._invoke(function, self._staged_call)
        if not out:
            return {name: stage.copy() for name, stage in self._staged_outputs}
        for name, stage in self._staged_outputs:
            taken.setdefault(name, stage)[...] = stage
        return {name: stage.copy() if taken[name] is stage else taken[name] for name, stage in self._staged_outputs}

    def _run_in_place(
        self, function: Function, inputs: Mapping[str, object], out: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Large arrays, and shapes known only now: native code works on the arrays themselves."""
        manifest, dtypes = self._manifest, self._dtypes
        given = {p.name: conform(inputs[p.name], p, dtypes[p.name], "input") for p in manifest.inputs}
        symbols = read_symbols(given, manifest.inputs, manifest.symbols) if manifest.symbols else {}
        taken: dict[str, Array] = {}
        if out:
            taken = self._checked_out(out, [self._fixed(p, symbols) for p in manifest.outputs])
            check_overlap(given, taken)
        shapes = {p.name: bound_shape(p, symbols) for p in manifest.outputs} if symbols else self._output_shapes
        results = {
            name: taken[name] if name in taken else np.empty(shape, dtypes[name]) for name, shape in shapes.items()
        }
        self._invoke(function, self._call(given, results, symbols))
        return results

    def _checked_out(self, out: Mapping[str, Array], ports: Sequence[Port]) -> dict[str, Array]:
        """The arrays of `out` by name, each fit to be written to and apart from the others."""
        arrays = {p.name: self._in_place(out[p.name], p, "output") for p in ports if p.name in out}
        if len(arrays) != len(out):
            check_names(out, [p for p in ports if p.name in out] or ports, "output")
        if len(arrays) > 1:
            check_overlap({}, arrays)
        return arrays

    def _stage(self) -> None:
        """Fixed memory for small inputs and outputs of static shape, with everything a run needs prepared."""
        manifest = self._manifest
        ports = (*manifest.inputs, *manifest.outputs)
        self._is_staged = not manifest.symbols and sum(p.nbytes for p in ports) <= STAGED_BYTES * len(ports)
        if not self._is_staged:
            return
        given, taken = ({p.name: self._new(p) for p in side} for side in (manifest.inputs, manifest.outputs))
        self._staged_inputs = [
            (p.name, self._dtypes[p.name], tuple(p.shape), given[p.name], p) for p in manifest.inputs
        ]
        self._staged_outputs = list(taken.items())
        self._staged_call = self._call(given, taken, {})
        self._staged_run = self._code.bound(self._staged_call)

    def _call(
        self,
        inputs: Mapping[str, Array] | None = None,
        outputs: Mapping[str, Array] | None = None,
        symbols: Mapping[str, int] | None = None,
        inputs_at: int = 0,
        outputs_at: int = 0,
    ) -> Call:
        """The argument of a bridge function. The caller keeps the arrays alive, the Call keeps the rest."""
        call = Call(*self._blocks, self._code.weights, inputs_at, outputs_at, ctypes.addressof(self._busy))
        if inputs is not None and outputs is not None:
            manifest = self._manifest
            into = [address(inputs[p.name]) for p in manifest.inputs]
            values = [symbols[s.name] for s in manifest.symbols] if symbols else []
            taken = self._input_struct(*into, *values)
            given = self._output_struct(*[address(outputs[p.name]) for p in manifest.outputs])
            call.inputs, call.outputs = ctypes.addressof(taken), ctypes.addressof(given)
            call.keep = (taken, given)
        return call

    def _invoke(self, function: Function, call: Call) -> None:
        code = function(ctypes.byref(call))
        if code:
            raise self._code.failure(code)

    def _in_place(self, value: object, port: Port, role: str) -> Array:
        return conform_in_place(value, port, self._dtypes[port.name], role, write=role == "output")

    def _fixed(self, port: Port, symbols: Mapping[str, int]) -> Port:
        """The same port with numbers for its symbols."""
        if not symbols:
            return port
        return Port(port.name, port.dtype, bound_shape(port, symbols), port.c_field)

    def _new(self, port: Port) -> Array:
        return np.zeros(bound_shape(port, {}), self._dtypes[port.name])

    def _portable(self) -> tuple[Array, dict[str, Array]]:
        """Memory for the portable state, and each state as a view of it."""
        block = np.zeros(self._manifest.portable_bytes, np.uint8)
        arrays = {}
        for port in self._manifest.states:
            dtype, shape = self._dtypes[port.name], bound_shape(port, {})
            piece = block[port.offset : port.offset + nbytes(shape, dtype)]
            arrays[port.name] = piece.view(dtype).reshape(shape)
        return block, arrays


def struct_of(ports: Sequence[Port], extents: Sequence[str] = (), threads: int = 0) -> type[ctypes.Structure]:
    """NAME_inputs or NAME_outputs: pointers in port order, then one int64_t per symbol.

    threads: address of the NAME_threads that every new struct points to; 0 for programs without threads.
    """
    fields: list[tuple[str, Any]] = [(port.c_field, ctypes.c_void_p) for port in ports]
    fields += [(field, ctypes.c_int64) for field in extents]
    if not threads:
        return type("Pointers", (ctypes.Structure,), {"_fields_": fields})

    def init(self: ctypes.Structure, *values: int) -> None:
        ctypes.Structure.__init__(self, *values, threads=threads)

    return type(
        "Pointers", (ctypes.Structure,), {"_fields_": [*fields, ("threads", ctypes.c_void_p)], "__init__": init}
    )


def block_of(size: int, align: int) -> Array:
    """`size` bytes of zeros at an aligned address; at least one, so that there always is an address."""
    memory = np.zeros(max(size, 1) + align, np.uint8)
    start = -address(memory) % align
    return memory[start : start + max(size, 1)]
