"""The passes between lowering and scheduling, in order. Each is Module → Module."""

from __future__ import annotations

from collections.abc import Callable

from headrace.program.fuse import fuse
from headrace.program.ir import Module
from headrace.program.pad import pad_guarded
from headrace.program.split import split_axes, split_guards

PASSES: tuple[Callable[[Module], Module], ...] = (
    fuse,
    pad_guarded,
    split_guards,
    split_axes,
)


def optimise(module: Module) -> Module:
    """Run all passes."""
    for run in PASSES:
        module = run(module)
    return module
