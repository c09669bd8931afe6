"""Element types of buffers and scalars, by short name.

"index" is the type of loop variables and extents; it computes like a 64-bit signed integer.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

FLOATS = ("f16", "bf16", "f32", "f64")
SIGNED = ("i8", "i16", "i32", "i64")
UNSIGNED = ("u8", "u16", "u32", "u64")
INTEGERS = SIGNED + UNSIGNED

_NUMPY: dict[str, np.dtype] = {
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "i8": np.dtype(np.int8),
    "i16": np.dtype(np.int16),
    "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64),
    "u8": np.dtype(np.uint8),
    "u16": np.dtype(np.uint16),
    "u32": np.dtype(np.uint32),
    "u64": np.dtype(np.uint64),
    "bool": np.dtype(np.bool_),
    "index": np.dtype(np.int64),
}
_SHORT = {v.name: k for k, v in _NUMPY.items() if k != "index"}


def numpy_dtype(dtype: str) -> np.dtype:
    """The NumPy type that stores `dtype`."""
    return _NUMPY[dtype]


def short_name(dtype: object) -> str:
    """ "f32" for numpy.float32, "float32" or dtype("float32"); KeyError for types without one."""
    return _SHORT[np.dtype(dtype).name if not isinstance(dtype, str) else dtype]  # type: ignore[call-overload]


def supported(dtype_name: str) -> bool:
    """Whether a NumPy dtype name has a short name here."""
    return dtype_name in _SHORT


def size_of(dtype: str) -> int:
    """Bytes per element."""
    return _NUMPY[dtype].itemsize


def is_float(dtype: str) -> bool:
    return dtype in FLOATS


def is_int(dtype: str) -> bool:
    return dtype in INTEGERS or dtype == "index"


def int_range(dtype: str) -> tuple[int, int]:
    """Smallest and largest value of an integer type."""
    info = np.iinfo(_NUMPY[dtype])
    return int(info.min), int(info.max)


def is_dtype(name: str) -> bool:
    """Whether this is the short name of an element type ("index" too)."""
    return name in _NUMPY
