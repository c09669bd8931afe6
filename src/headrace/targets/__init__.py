"""Targets: instruction sets and their C, the machine's own facts, compilers and how to call them.

`headrace.targets` is this package and also the verb `headrace.targets()`, so the package can be called.
"""

import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.targets.registry import TargetInfo


class _CallablePackage(types.ModuleType):
    def __call__(self) -> "tuple[TargetInfo, ...]":
        """Every target: whether it can be built and run here, and what is missing."""
        from headrace.targets.registry import targets

        return targets()


sys.modules[__name__].__class__ = _CallablePackage
