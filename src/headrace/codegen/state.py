"""The state of a program in C: how it starts, and as arrays that do not depend on how it lies inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from headrace.codegen.driver import Layout, ask_for_tiles, head_at
from headrace.codegen.generated import Port
from headrace.program.dtypes import size_of
from headrace.program.ir import StatePair
from headrace.program.ring import laid_out

GET, SET = "get", "set"


def init_function(layout: Layout, more: Sequence[str] = (), tiles: bool = False) -> str:
    """NAME_init: the initial state. more: statements for what lies behind it, at `s`; tiles: ask for tile registers."""
    name = layout.name
    lines = [f"int {name}_init(void *state, const void *weights)", "{"]
    moves = []
    for pair in layout.module.states:
        at, size = layout.plan.state[pair.buffer], pair.buffer.nbytes
        start = np.ascontiguousarray(_start(pair))
        if size == 0:
            continue
        if not start.view(np.uint8).any():
            moves.append((f"    memset(s + {at}, 0, {size});", False))
        else:
            place = layout.weights.bytes(start.tobytes())
            moves.append((f"    memcpy(s + {at}, (const unsigned char *)weights + {place}, {size});", True))
    moves += [(text, False) for text in (*_first_heads(layout), *more)]
    lines.append("    unsigned char *const s = (unsigned char *)state;" if moves else "    (void)state;")
    if not any(used for _, used in moves):
        lines.append("    (void)weights;")
    asked = [ask_for_tiles(name)] if tiles else []
    return "\n".join([*lines, *asked, *(text for text, _ in moves), "    return 0;", "}"])


def state_functions(layout: Layout, more: Callable[[str], list[str]] = lambda verb: []) -> str:
    """NAME_get_state and NAME_set_state: the portable state, one array after the other.

    more(GET), more(SET): statements that come first, for what lies behind the program's own state.
    """
    return "\n\n".join(_state_function(layout, verb, more(verb)) for verb in (GET, SET))


def _state_function(layout: Layout, verb: str, more: list[str]) -> str:
    args = "const void *state, void *portable" if verb == GET else "void *state, const void *portable"
    const = ("const ", "") if verb == GET else ("", "const ")
    body = _first_heads(layout) if verb == SET else []
    for pair, port in zip(layout.module.states, layout.states, strict=True):
        if pair.ring is not None:
            body += _ring(layout, pair, port, verb)
            continue
        here, there = f"s + {layout.plan.state[pair.buffer]}", f"p + {port.offset}"
        to, at = (there, here) if verb == GET else (here, there)
        body.append(f"    memcpy({to}, {at}, {port.nbytes});")
    names = [
        f"    {kind}unsigned char *const {short} = ({kind}unsigned char *){name};"
        for kind, short, name in zip(const, "sp", ("state", "portable"), strict=True)
        if body
    ]
    unused = [] if body or more else ["    (void)state;", "    (void)portable;"]
    return "\n".join([
        f"int {layout.name}_{verb}_state({args})", "{", *more, *names, *unused, *body, "    return 0;", "}",
    ])  # fmt: skip


def _start(pair: StatePair) -> np.ndarray:
    """What the buffer of a state holds before the first run."""
    return pair.initial if pair.ring is None else laid_out(pair.initial, pair.ring, pair.ring.head.bound)


def _first_heads(layout: Layout) -> list[str]:
    """Statements that let every ring begin with its first frame."""
    return [f"    *{head_at('int64_t', at)} = {head.bound};" for head, at in layout.plan.heads.items()]


def _ring(layout: Layout, pair: StatePair, port: Port, verb: str) -> list[str]:
    """Loops over the elements of a ring, or over as many at a time as lie together on both sides."""
    assert pair.ring is not None
    order, shape, item = pair.ring.order, pair.initial.shape, size_of(pair.buffer.dtype)
    together = 0  # dimensions at the end that are the same on both sides
    while together < len(order) - 1 and order[-1 - together] == len(order) - 1 - together:
        together += 1
    run = item * prod(shape[len(shape) - together :])
    inside = {d: item * prod(shape[k] for k in order[n + 1 :]) for n, d in enumerate(order)}
    outside = {d: item * prod(shape[d + 1 :]) for d in range(len(shape))}
    size, frames = pair.ring.head.bound, order[0]
    head = f"*{head_at('const int64_t', layout.plan.heads[pair.ring.head])}"
    slot = f"(size_t)(({head} + i{frames}) % {size})" if verb == GET else f"(size_t)(i{frames} % {size})"
    loops = [d for d in order[: len(order) - together] if shape[d] > 1 or d == frames]
    here = [f"{slot if d == frames else f'(size_t)i{d}'} * {inside[d]}" for d in loops]
    there = [f"(size_t)i{d} * {outside[d]}" for d in loops]
    mine = " + ".join([f"s + {layout.plan.state[pair.buffer]}", *here])
    theirs = " + ".join([f"p + {port.offset}", *there])
    to, at = (theirs, mine) if verb == GET else (mine, theirs)
    pads = ["    " * (n + 1) for n in range(len(loops) + 1)]
    heads = [f"{pad}for (int64_t i{d} = 0; i{d} < {shape[d]}; ++i{d})" for pad, d in zip(pads, loops, strict=False)]
    return [*heads, f"{pads[-1]}memcpy({to}, {at}, {run});"]
