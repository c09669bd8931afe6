"""Settle the signature: extents from `shapes`, fixed inputs from `constants`, symbols from `bounds`."""

from __future__ import annotations

import keyword
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Union

import numpy as np
import onnx_ir as ir

from headrace.graph.facts import Facts, dtype_name
from headrace.graph.model import spec
from headrace.graph.symbolic import Dim, Symbol, product, symbol

Bound = Union[int, tuple[int, int], tuple[int, int, int]]


def fix_inputs(
    graph: ir.Graph,
    facts: Facts,
    shapes: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, Any],
    bounds: Mapping[str, Bound],
    keep_inputs: Collection[str],
) -> dict[str, np.ndarray[Any, Any]]:
    """Give every input known or bounded extents; ValueError names what is missing or contradictory.

    Inputs with an initializer become constants unless kept. Returns the defaults of the kept ones.
    """
    names = [value.name or "" for value in graph.inputs]
    for given, what in ((shapes, "shapes"), (constants, "constants"), (keep_inputs, "state")):
        for name in given:
            if name not in names:
                raise ValueError(f"{what} names {name!r}, which is no input of the model; inputs: {_list(names)}")
    for name in shapes:
        if name in constants:
            raise ValueError(f"input {name!r} is in shapes and in constants; leave it out of one")
    _declare(bounds, facts)
    known: dict[str, tuple[Dim, str]] = {}
    for name, shape in shapes.items():
        _unify(graph.inputs[names.index(name)], shape, known, facts)
    arrays = {name: _array(graph.inputs[names.index(name)], value) for name, value in constants.items()}
    for name, array in arrays.items():
        _unify(graph.inputs[names.index(name)], array.shape, known, facts)
    defaults = _settle_defaults(graph, facts, set(keep_inputs), set(arrays))
    for value in list(graph.inputs):
        if value.name in arrays:
            _fix(graph, value, arrays[value.name], facts)
        elif isinstance(value.type, ir.TensorType):
            facts.set_dims(value, _resolve(value, shapes.get(value.name or ""), known, facts))
    _refuse_unused(bounds, graph, facts)
    return defaults


def _list(names: Collection[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _declare(bounds: Mapping[str, Bound], facts: Facts) -> None:
    for name, bound in bounds.items():
        most, divisor, *rest = bound if isinstance(bound, tuple) else (bound, 1)
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"bounds: {name!r} is not an identifier; give the dim another name through shapes")
        if isinstance(most, bool) or not isinstance(most, int) or not isinstance(divisor, int) or divisor < 1:
            raise ValueError(f"bounds: {name!r} needs an integer or (bound, divisor), not {bound!r}")
        if most < divisor or most % divisor:
            raise ValueError(f"bounds: the bound {most} of {name!r} must be a positive multiple of {divisor}")
        facts.symbols[name] = Symbol(most, divisor, max(divisor, *rest) if rest else divisor)
        facts.streamed |= {name} if rest else set()


def _as_dim(item: int | str, where: str, facts: Facts) -> Dim:
    """An extent, a symbol, or a whole multiple of one: 3, "T", "4*T"."""
    if isinstance(item, str):
        times, star, name = item.partition("*")
        if star and times.isdecimal() and name in facts.symbols:
            return product(int(times), symbol(name))
        if item not in facts.symbols:
            raise ValueError(f"{where}: symbol {item!r} has no bound; add it to bounds")
        return symbol(item)
    if isinstance(item, bool) or not isinstance(item, int | np.integer) or item < 0:
        raise ValueError(f"{where}: {item!r} is not an extent")
    return int(item)


def _unify(value: ir.Value, shape: Sequence[int | str], known: dict[str, tuple[Dim, str]], facts: Facts) -> None:
    declared = spec(value).shape
    where = f"shape of input {value.name!r}"
    if isinstance(shape, int | str):
        raise ValueError(f"{where}: give a tuple, not {shape!r}")
    if declared == ("...",):
        return
    if len(shape) != len(declared):
        raise ValueError(f"{where}: {tuple(shape)} has {len(shape)} dims, the model declares {declared}")
    for axis, (item, dim) in enumerate(zip(shape, declared, strict=True)):
        given = _as_dim(item, where, facts)
        if isinstance(dim, int):
            if given != dim:
                raise ValueError(f"{where}: dim {axis} is {dim} in the model, not {item}")
            continue
        before, origin = known.setdefault(dim, (given, value.name or ""))
        if before != given:
            raise ValueError(f"{where}: dim {dim!r} is {before} in input {origin!r} and {given} here")


def _array(value: ir.Value, given: Any) -> np.ndarray[Any, Any]:
    array = np.asarray(given)
    if not isinstance(value.type, ir.TensorType):
        raise ValueError(f"constant for {value.name!r}: only tensors can be fixed, it is {value.type}")
    if value.type.dtype == ir.DataType.STRING:
        return array.astype(object)
    try:
        cast = array.astype(value.type.dtype.numpy())
        exact = cast.dtype == array.dtype or bool(np.all((cast == array) | ((cast != cast) & (array != array))))
        close = array.dtype.kind == "f" and cast.dtype.kind not in "iub"
    except (TypeError, ValueError):
        exact = close = False
        cast = array
    if not (exact or close):
        raise ValueError(f"constant for {value.name!r}: {given!r} is not of type {dtype_name(value.dtype)}")
    declared = spec(value).shape
    if cast.ndim == 0 and declared == (1,):
        return cast.reshape(1)
    return cast


def _settle_defaults(graph: ir.Graph, facts: Facts, kept: set[str], fixed: set[str]) -> dict[str, np.ndarray[Any, Any]]:
    defaults = {}
    for value in list(graph.inputs):
        name = value.name or ""
        if name not in graph.initializers:
            continue
        if name in kept and value.const_value is not None:
            defaults[name] = np.asarray(value.const_value.numpy())
        if name in kept or name in fixed:
            del graph.initializers[name]
            value.const_value = None
        else:
            graph.inputs.remove(value)
            if value.const_value is not None:
                value.type = ir.TensorType(value.const_value.dtype)
                facts.set_dims(value, tuple(value.const_value.shape.numpy()))
    return defaults


def _fix(graph: ir.Graph, value: ir.Value, array: np.ndarray[Any, Any], facts: Facts) -> None:
    graph.inputs.remove(value)
    value.const_value = ir.Tensor(array, dtype=value.dtype)
    facts.set_dims(value, array.shape)
    graph.register_initializer(value)
    shown = array.tolist() if array.size <= 8 else f"an array of shape {array.shape}"
    facts.decide(f"input {value.name!r} fixed to {shown}")


def _resolve(
    value: ir.Value,
    given: Sequence[int | str] | None,
    known: Mapping[str, tuple[Dim, str]],
    facts: Facts,
) -> tuple[Dim, ...]:
    declared = spec(value).shape
    if declared == ("...",):
        if given is None:
            raise ValueError(f"input {value.name!r} has no declared shape: pass shapes={{{value.name!r}: (…)}}")
        declared = tuple(given)
    dims: list[Dim] = []
    for axis, dim in enumerate(declared):
        if isinstance(dim, int):
            dims.append(dim)
        elif dim in known:
            dims.append(known[dim][0])
        elif dim in facts.symbols:
            dims.append(symbol(dim))
        else:
            raise ValueError(
                f"dim {dim!r} (axis {axis} of input {value.name!r}, declared {declared}) is not known: pass "
                f"shapes={{{value.name!r}: (…)}} with integers, or bound it: bounds={{{dim!r}: 512}}"
            )
    if any(isinstance(d, str) for d in declared) or given is not None:
        facts.decide(f"input {value.name!r} has shape ({', '.join(map(str, dims))})")
    return tuple(dims)


def _refuse_unused(bounds: Mapping[str, Bound], graph: ir.Graph, facts: Facts) -> None:
    used: set[str] = set()
    for value in graph.inputs:
        for dim in facts.dims.get(value, ()):
            used |= set() if isinstance(dim, int) else dim.symbols
    for name in bounds:
        if name not in used:
            raise ValueError(f"bounds names {name!r}, which is no dim of an input")
