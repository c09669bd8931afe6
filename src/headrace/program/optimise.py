"""The passes between lowering and scheduling, in order. Each is Module → Module."""

from __future__ import annotations

from collections.abc import Callable

from headrace.program.fuse import fuse
from headrace.program.ir import Module

PASSES: tuple[Callable[[Module], Module], ...] = (fuse,)


def optimise(module: Module) -> Module:
    """Run all passes."""
    for run in PASSES:
        module = run(module)
    return module
