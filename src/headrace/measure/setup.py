"""The options a program was compiled with, and inputs made from them for the model it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.artifact.ports import Array, numpy_dtype
from headrace.artifact.program import Program
from headrace.errors import Error
from headrace.graph.model import Model
from headrace.spec import TensorSpec

SCALES = (1.0, 0.1, 1.0, 0.5)  # standard deviations of random inputs, one per run, then from the start
SMALL_INTEGERS = 8  # random integers that may be indices or counts stay below this


@dataclass(frozen=True)
class Setup:
    """Keyword arguments of compile() that decide what a program computes.

    symbols: name -> (bound, divisor) of every run-time extent.
    """

    shapes: dict[str, tuple[int | str, ...]]
    bounds: dict[str, int | tuple[int, int]]
    constants: dict[str, Any]
    state: dict[str, str]
    symbols: dict[str, tuple[int, int]]
    target: str
    toolchain: str

    @property
    def options(self) -> dict[str, Any]:
        """For compile(): the same program once more."""
        return {**self.variant_options, "constants": self.constants}

    @property
    def variant_options(self) -> dict[str, Any]:
        """For compile() of a prepared model, in which the constants are fixed already."""
        return {
            "shapes": self.shapes,
            "bounds": self.bounds,
            "state": self.state,
            "target": self.target,
            "toolchain": self.toolchain,
        }

    def feeds(self, inputs: Mapping[str, Array], model: Model) -> dict[str, Array]:
        """Every input that another runtime wants for the model: those given, and the fixed ones."""
        known = {**model.inputs, **model.defaults}
        fixed = {
            name: _constant(value, known[name].dtype, len(known[name].shape)) for name, value in self.constants.items()
        }
        return {**inputs, **fixed}


def setup_of(program: Program) -> Setup:
    """Read the options from the manifest. Error when a constant was too large to be written there."""
    manifest = program.info.manifest
    options = manifest["options"]
    return Setup(
        shapes={k: tuple(v) for k, v in options.get("shapes", {}).items()},
        bounds={k: tuple(v) if isinstance(v, list) else v for k, v in options.get("bounds", {}).items()},
        constants={k: _decoded(k, v) for k, v in options.get("constants", {}).items()},
        state=dict(options.get("state", {})),
        symbols={s["name"]: (s["bound"], s["divisor"]) for s in manifest["symbols"]},
        target=manifest["target"]["name"],
        toolchain=manifest["toolchain"]["kind"],
    )


def title(program: Program) -> str:
    """The name of the model that the program computes."""
    name: str = program.info.manifest["model"]["name"]
    return name


def random_inputs(program: Program, symbols: Mapping[str, tuple[int, int]], seed: int) -> dict[str, Array]:
    """One array per input of the program; the same seed gives the same arrays.

    Floats are normal (SCALES), 8-bit integers and booleans use their whole range, wider integers are
    below SMALL_INTEGERS. Run-time extents take their bound first, then their least value, then any.
    """
    rng = np.random.default_rng(seed)
    extents = {}
    for name, (bound, divisor) in symbols.items():
        count = bound // divisor
        extents[name] = divisor * (count, 1, int(rng.integers(1, count + 1)))[min(seed, 2)]
    return {
        name: random_array(spec.dtype, concrete(spec, extents), rng, SCALES[seed % len(SCALES)])
        for name, spec in program.inputs.items()
    }


def concrete(spec: TensorSpec, extents: Mapping[str, int]) -> tuple[int, ...]:
    """A shape with a number for every symbol."""
    return tuple(d if isinstance(d, int) else extents[d] for d in spec.shape)


def random_array(dtype_name: str, shape: tuple[int, ...], rng: np.random.Generator, scale: float) -> Array:
    """Random content fit for the dtype. Error for strings, which have no random content worth trying."""
    dtype = numpy_dtype(dtype_name) if dtype_name != "str" else np.dtype(object)
    if dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, shape)).astype(bool)
    if dtype.kind in "iu":
        least = -128 if dtype.kind == "i" else 0
        low, high = (least, least + 256) if dtype.itemsize == 1 else (0, SMALL_INTEGERS)
        return np.asarray(rng.integers(low, high, shape)).astype(dtype)
    if dtype.kind == "O":
        raise Error("there is no random content for strings; give inputs=")
    if dtype.kind == "c":
        return np.asarray(scale * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))).astype(dtype)
    if dtype_name in ("int4", "uint4", "int2", "uint2"):
        return np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    return np.asarray(scale * rng.standard_normal(shape)).astype(dtype)


def _decoded(name: str, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "values" not in value:
        raise Error(
            f"the constant {name!r} is too large to be recorded in the artifact; verify or measure the "
            "model itself with the same options, not the artifact"
        )
    return np.array(value["values"], numpy_dtype(value["dtype"])).reshape(value["shape"])


def _constant(value: Any, dtype: str, rank: int) -> Array:
    array = np.asarray(value, numpy_dtype(dtype))
    return array.reshape(1) if array.ndim == 0 and rank == 1 else array
