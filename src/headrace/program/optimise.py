"""The passes between lowering and scheduling, in order. Each is Module → Module."""

from __future__ import annotations

from collections.abc import Callable

from headrace.program.byte_dot import dot_bytes
from headrace.program.clip import clip_windows, clipped, may_be_clipped, may_lie_in_vectors
from headrace.program.fold import fold_constants
from headrace.program.forward import forward_copies
from headrace.program.fuse import fuse
from headrace.program.guard import guard_narrow
from headrace.program.ir import Define, Module
from headrace.program.layout import choose_layout
from headrace.program.merge import merge_axes
from headrace.program.pad import pad_guarded
from headrace.program.pair_dot import dot_pairs
from headrace.program.pitch import space_rows
from headrace.program.requantise import requantise
from headrace.program.ring import use_rings
from headrace.program.split import split_axes, split_guards
from headrace.program.symmetric import fold_symmetric
from headrace.program.verify import verify
from headrace.program.winograd import filter_minimally


def optimise(module: Module, lanes: int = 16, dots: bool = False, pairs: bool = False) -> Module:
    """All passes on the only module of a program for one instruction set: simplify, rings, specialise."""
    (ringed,) = use_rings([simplify(module)])
    return specialise(ringed, lanes, dots, pairs)


def simplify(module: Module) -> Module:
    """The passes that are the same for every target.

    The module is verified before: Malformed means a defect of Headrace, never of a model.
    """
    verify(module)
    module = fold_constants(module)
    module = requantise(fold_constants(fuse(module)))
    module = fold_symmetric(module)
    module = split_axes(module)
    module = pad_guarded(guard_narrow(module), leave=may_be_clipped)
    module = split_guards(module)
    return forward_copies(module)


def specialise(module: Module, lanes: int = 16, dots: bool = False, pairs: bool = False) -> Module:
    """The passes for one instruction set, and the verifier after them.

    lanes: f32 elements of a vector of the target; dots: whether it multiplies bytes in fours; pairs: bf16 in twos.
    """
    module = filter_minimally(module, lanes)
    module = _padded(module, lambda s: may_lie_in_vectors(s, lanes))
    module = choose_layout(module, lanes)
    module = space_rows(_padded(clip_windows(module, lanes), clipped))
    module = merge_axes(module)
    if dots:
        module = dot_bytes(module)
    if pairs:
        module = dot_pairs(module)
    verify(module)
    return module


def _padded(module: Module, leave: Callable[[Define], object]) -> Module:
    """What pad_guarded() left and this target does not take: padded like the rest."""
    after = pad_guarded(module, leave)
    return module if after.body == module.body else forward_copies(split_guards(after))
