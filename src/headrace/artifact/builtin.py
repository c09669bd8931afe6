"""A run as a built-in function of CPython: a call takes some 50 ns instead of the 200 of ctypes.

ctypes prepares every call anew. A function made by PyCFunction_NewEx is called as Python calls its own
built-ins. The library needs no header of Python's for it: what it calls of the interpreter (all of the
stable ABI) is handed to it as addresses, once.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

METH_NOARGS = 0x0004
NAMES = ("PyTuple_GetItem", "PyLong_AsVoidPtr", "Py_IncRef", "PyObject_CallFunction")


class Interpreter(ctypes.Structure):
    """The functions of the interpreter that a bridge calls, as addresses, and its None."""

    _fields_ = (*((name, ctypes.c_void_p) for name in NAMES), ("none", ctypes.c_void_p))


class MethodDef(ctypes.Structure):
    """PyMethodDef, from the reference of the C API."""

    _fields_ = (
        ("ml_name", ctypes.c_char_p),
        ("ml_meth", ctypes.c_void_p),
        ("ml_flags", ctypes.c_int),
        ("ml_doc", ctypes.c_char_p),
    )


class Bound(ctypes.Structure):
    """What NAME_bridge_bound needs of one bound call: the address of its Call, and whom to tell an error code."""

    _fields_ = (("call", ctypes.c_void_p), ("fail", ctypes.py_object))


def is_possible() -> bool:
    return sys.implementation.name == "cpython" and hasattr(ctypes, "pythonapi")


def interpreter() -> Interpreter:
    addresses = [ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value for name in NAMES]
    return Interpreter(*addresses, id(None))


def builtin(entry: int, call: ctypes.Structure, fail: Callable[[int], Any], *owners: object) -> Callable[[], None]:
    """A function without arguments that runs NAME_bridge_bound, at `entry`, on `call`.

    fail(code) raises the exception of an error code. The function keeps `call` and `owners` alive, until
    its last use of the library.
    """
    bound = Bound(ctypes.addressof(call), fail)
    method = MethodDef(b"bound", entry, METH_NOARGS, b"Run on the bound arrays.")
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    # An interpreter that frees a function lets go of this tuple last, so the method may lie in it.
    held = (ctypes.addressof(bound), bound, method, call, *owners)
    function: Callable[[], None] = new(ctypes.addressof(method), held, None)
    return function
