"""The passes between lowering and scheduling, in order. Each is Module → Module."""

from __future__ import annotations

from headrace.program.byte_dot import dot_bytes
from headrace.program.fold import fold_constants
from headrace.program.forward import forward_copies
from headrace.program.fuse import fuse
from headrace.program.guard import guard_bytes
from headrace.program.ir import Module
from headrace.program.layout import choose_layout
from headrace.program.merge import merge_axes
from headrace.program.pad import pad_guarded
from headrace.program.split import split_axes, split_guards
from headrace.program.symmetric import fold_symmetric
from headrace.program.verify import verify
from headrace.program.winograd import filter_minimally


def optimise(module: Module, lanes: int = 16, dots: bool = False) -> Module:
    """Run all passes. lanes: f32 elements of a vector of the target; dots: whether it multiplies bytes in fours.

    The module is verified before and after: Malformed means a defect of Headrace, never of a model.
    """
    verify(module)
    module = fold_constants(module)
    module = fold_constants(fuse(module))
    module = fold_symmetric(module)
    module = split_axes(module)
    module = pad_guarded(guard_bytes(module))
    module = split_guards(module)
    module = forward_copies(module)
    module = filter_minimally(module, lanes)
    module = choose_layout(module, lanes)
    module = merge_axes(module)
    if dots:
        module = dot_bytes(module)
    verify(module)
    return module
