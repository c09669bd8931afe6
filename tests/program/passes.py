"""Passes run on modules and compared with the interpreter: equal results, and well-formed modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from headrace.program import interp
from headrace.program.ir import Define, Loop, Module, Statement, nested
from headrace.program.show import show
from headrace.program.verify import verify
from tests.program.compare import assert_close
from tests.program.random_tensors import feeds_of, random_tensors

Pass = Callable[[Module], Module]


def preserves(fn: Pass, module: Module, feeds: Mapping[str, Any] | None = None) -> Module:
    """Apply `fn`; what comes out is well-formed and computes the same. Returns it."""
    verify(module)
    given = feeds_of(module, 0) if feeds is None else feeds
    with np.errstate(all="ignore"):
        wanted = interp.run(module, given)
        after = fn(module)
        verify(after)
        got = interp.run(after, given)
    states, wanted_states = got.pop("state", {}), wanted.pop("state", {})
    assert_close({**got, **states}, {**wanted, **wanted_states}, 64, f"{show(after)}\n")
    return after


def preserves_random(
    fn: Pass, seed: int, before: Sequence[Pass] = (), kinds: Sequence[str] = (), every: bool = False
) -> None:
    """The same on a random module, after the passes `before`."""
    module = random_tensors(seed, 8, kinds, every)
    for p in before:
        module = p(module)
    preserves(fn, module, feeds_of(module, seed))


def defines(module: Module) -> list[Define]:
    """All definitions, in order, at any depth."""

    def visit(body: Sequence[Statement]) -> list[Define]:
        return [d for s in body for d in ([s] if isinstance(s, Define) else visit(nested(s)))]

    return visit(module.body)


def loops(module: Module) -> list[Loop]:
    return [s for s in module.body if isinstance(s, Loop)]
