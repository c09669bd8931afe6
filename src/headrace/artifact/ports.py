"""Arrays against ports: the checks that every array passes before its address goes to native code."""

from __future__ import annotations

import ctypes
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headrace.codegen.generated import Port, Symbol
from headrace.codegen.shapes import extent_number
from headrace.errors import InvalidModel
from headrace.spec import TensorSpec

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
_BYTE = ctypes.c_char


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The dtype of that name, also bfloat16, float8_* and int4 of ml_dtypes. Raises InvalidModel."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        scalar = getattr(ml_dtypes, name, None)
        if isinstance(scalar, type):
            return np.dtype(scalar)
    raise InvalidModel(f"no NumPy dtype is called {name!r}")


def spec_of(port: Port) -> TensorSpec:
    return TensorSpec(port.dtype, port.shape)


def bound_shape(port: Port, symbols: Mapping[str, int]) -> Shape:
    """The shape of a port with a value for every symbol."""
    return tuple([dim if isinstance(dim, int) else extent_number(dim, symbols) for dim in port.shape])


def check_names(given: Mapping[str, object], ports: Sequence[Port], role: str) -> None:
    """Raise ValueError unless the keys of `given` are exactly the names of `ports`; TypeError for no mapping."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{role}s must be a dict of arrays by name, not {type(given).__name__}")
    known = [port.name for port in ports]
    names = list(given)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"unknown {role} {name!r}; {hint}expected {_listing(ports)}")
    for port in ports:
        if port.name not in names:
            raise ValueError(f"missing {role} {port.name!r}; expected {_listing(ports)}")


def conform(value: object, port: Port, dtype: np.dtype[Any], role: str) -> Array:
    """`value` as a C-contiguous aligned array in native byte order, copied only where it is not one already.

    Raises ValueError when dtype or shape differ from what `port` states; nothing is cast.
    """
    array = np.asarray(value)
    native = array.dtype == dtype
    if not native:
        _check_dtype(array, port, dtype, role)
    if array.shape != port.shape:
        check_shape(array.shape, port, role)
    flags = array.flags
    if native and flags.c_contiguous and flags.aligned:
        return array
    return np.array(array, dtype=dtype, order="C")  # same type in another byte order, or strided


def conform_in_place(value: object, port: Port, dtype: np.dtype[Any], role: str, write: bool) -> Array:
    """`value` itself, when native code can use it where it lies; ValueError says what is in the way."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{role} {port.name!r} must be a NumPy array, not {type(value).__name__}")
    _check_dtype(value, port, dtype, role)
    check_shape(value.shape, port, role)
    faults = (
        (value.dtype != dtype, "in native byte order"),
        (not value.flags.c_contiguous, "C-contiguous"),
        (not value.flags.aligned, "aligned"),
        (write and not value.flags.writeable, "writeable"),
    )
    for broken, wanted in faults:
        if broken:
            raise ValueError(f"{role} {port.name!r} must be {wanted} to be used in place")
    return value


def check_overlap(inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
    """Raise ValueError when an output shares memory with an input or another output."""
    done = [(f"input {name!r}", array) for name, array in inputs.items()]
    for name, array in outputs.items():
        for other, held in done:
            if np.may_share_memory(array, held):
                raise ValueError(f"output {name!r} overlaps {other}; give it memory of its own")
        done.append((f"output {name!r}", array))


def check_shape(shape: Shape, port: Port, role: str) -> None:
    """Raise ValueError unless `shape` has the rank and the fixed dims of `port`."""
    if len(shape) != len(port.shape):
        raise ValueError(
            f"{role} {port.name!r} has rank {len(shape)} (shape {shape}), "
            f"expected rank {len(port.shape)}: {spec_of(port)}"
        )
    for axis, (got, wanted) in enumerate(zip(shape, port.shape, strict=True)):
        if isinstance(wanted, int) and got != wanted:
            raise ValueError(
                f"{role} {port.name!r} has {got} at axis {axis} (shape {shape}), expected {wanted}: {spec_of(port)}"
            )


def read_symbols(arrays: Mapping[str, Array], ports: Sequence[Port], symbols: Sequence[Symbol]) -> dict[str, int]:
    """The value of every symbol, from the shapes of the inputs.

    Raises ValueError when two inputs disagree, or a value is outside 1 … bound or no multiple of the divisor.
    """
    values: dict[str, int] = {}
    origin: dict[str, str] = {}
    for port in ports:
        for axis, dim in enumerate(port.shape):
            if isinstance(dim, str):
                here, got = f"axis {axis} of input {port.name!r}", arrays[port.name].shape[axis]
                if values.setdefault(dim, got) != got:
                    raise ValueError(f"{dim} is {values[dim]} at {origin[dim]} but {got} at {here}")
                origin.setdefault(dim, here)
    for symbol in symbols:
        got = values[symbol.name]
        where = f"{symbol.name} is {got} at {origin[symbol.name]}"
        if not 1 <= got <= symbol.bound:
            raise ValueError(f"{where}; allowed are 1 to {symbol.bound}")
        if got % symbol.divisor:
            raise ValueError(f"{where}; must be a multiple of {symbol.divisor}")
    return values


def check_ports(inputs: Sequence[Port], outputs: Sequence[Port], symbols: Sequence[Symbol]) -> None:
    """Raise InvalidModel unless names are unique, dtypes known, sizes right and symbols given by inputs."""
    known = {symbol.name: symbol.bound for symbol in symbols}
    given = {dim for port in inputs for dim in port.shape if isinstance(dim, str)}
    for symbol in known:
        if symbol not in given:
            raise InvalidModel(f"extent {symbol!r} appears in no input, so no call could give its value")
    for ports in (inputs, outputs):
        names = [port.name for port in ports]
        if len(set(names)) != len(names):
            raise InvalidModel(f"two ports have the same name: {', '.join(map(repr, names))}")
        for port in ports:
            derived = [dim for dim in port.shape if isinstance(dim, str) and dim not in known]
            if derived and ports is inputs:
                raise InvalidModel(f"{port.name!r} has extent {derived[0]!r}, which no symbol declares")
            size = nbytes(bound_shape(port, known), numpy_dtype(port.dtype))
            if port.nbytes < size or (port.nbytes > size and not derived):
                raise InvalidModel(f"{port.name!r} should take {size} bytes ({spec_of(port)}), not {port.nbytes}")


def address(array: Array) -> int:
    """Where the elements of an array lie."""
    memory: Any = array
    try:
        return ctypes.addressof(_BYTE.from_buffer(memory))  # a fifth of the time of the line below
    except (TypeError, ValueError):  # read-only, empty, or of a type that the buffer protocol does not know
        return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


def nbytes(shape: Shape, dtype: np.dtype[Any]) -> int:
    total = dtype.itemsize
    for dim in shape:
        total *= dim
    return total


def _check_dtype(array: Array, port: Port, dtype: np.dtype[Any], role: str) -> None:
    if array.dtype != dtype and array.dtype.newbyteorder("=") != dtype:
        raise ValueError(
            f"{role} {port.name!r} has dtype {array.dtype.name}, expected {port.dtype}; "
            f"convert it first, for example with .astype({port.dtype!r})"
        )


def _listing(ports: Sequence[Port]) -> str:
    return ", ".join(f"{port.name!r}: {spec_of(port)}" for port in ports) or "none"
