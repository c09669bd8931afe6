"""Static memory plan: an offset for every scratch and state buffer, and the copies that remain.

    p = plan(module)
    p.scratch_bytes, p.lower_bound      # peak, and what no placement can go below
    p.place(buffer)                     # ("scratch" | "state", byte offset)
    p.carries[loop.carry]               # copies to make, in this order, after each pass of a loop
    p.commit                            # copies to make, in this order, at the end of a run

What generated code must keep to: every point of a Define is evaluated once, and makes its stores after all
of its loads (no partial sums in the memory of a result, no tail computed twice); the statements run in
their order; carries and commits happen by the listed copies only. Buffers of different types take turns
in the same memory, also inside one Loop: the C compiler must be told (`may_alias`, no `restrict` where
`overlap` holds).
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.program.expr import Sym
from headrace.program.inplace import same_element, shared_memory
from headrace.program.ir import Buffer, Define, Loop, Module
from headrace.program.lifetime import Copies, Lifetimes, lifetimes, planned
from headrace.program.place import Piece, place
from headrace.program.plan_check import PlanError, check

HEAD_BYTES = 8

__all__ = ["Plan", "PlanError", "check", "plan"]


@dataclass(frozen=True)
class Plan:
    """Byte offsets in the scratch block and in the state block, all multiples of `align`.

    scratch: every buffer whose memory is in the scratch block (temporaries of `commit` and `carries`
    included). scratch_bytes: size of that block. lower_bound: the most bytes in use at one point; no
    placement of the same buffers with the same sharing needs less. state: the state buffers in the order
    of the module's pairs, and the scratch buffers that lie over one; heads: behind them, an int64 for each
    head of rings. alias: buffer → the buffer whose
    memory it shares. commit: (destination, source) copies in order. carries: the same for each loop, by
    its `carry`. Copies that would move nothing are not listed.
    """

    scratch: dict[Buffer, int]
    scratch_bytes: int
    lower_bound: int
    state: dict[Buffer, int]
    state_bytes: int
    heads: dict[Sym, int]
    alias: dict[Buffer, Buffer]
    commit: Copies
    carries: dict[Copies, Copies]
    align: int

    def place(self, b: Buffer) -> tuple[str, int]:
        """("scratch" or "state", byte offset); KeyError for a buffer that is not planned."""
        return ("state", self.state[b]) if b in self.state else ("scratch", self.scratch[b])

    def overlap(self, a: Buffer, b: Buffer) -> bool:
        """Whether two planned buffers have bytes in common (at whatever times): no `restrict` for these."""
        if not (planned(a) and planned(b)):
            return a is b
        (block, low), (other, first) = self.place(a), self.place(b)
        return block == other and max(low, first) < min(low + a.nbytes, first + b.nbytes)

    def moves_nothing(self, s: Define) -> bool:
        """Whether the statement only copies elements onto themselves, so that no code is needed."""
        for st in s.stores:
            v = st.value
            if v.op != "load" or st.combiner is not None or not (planned(v.arg) and planned(st.buffer)):
                return False
            if self.place(v.arg) != self.place(st.buffer) or v.dtype != st.buffer.dtype:
                return False
            if not same_element(v.arg, v.args, st.buffer, st.index):
                return False
        return True


def plan(module: Module, align: int = 64) -> Plan:
    """Plan the memory of `module`; extents count at their bounds.

    align: a power of two. Raises ValueError for a state or carry whose two buffers differ in size, or a
    state buffer without a pair.
    """
    if align < 1 or align & (align - 1):
        raise ValueError(f"align must be a power of two, not {align}")
    lives = lifetimes(module)
    _check_pairs(module, lives)
    root = shared_memory(module, lives)
    moves, swaps = _moves(lives, root, {b.name for b in module.buffers()})
    state, heads_at = _place_state(module, align)
    heads = {head: heads_at + HEAD_BYTES * n for n, head in enumerate(module.heads)}
    state_bytes = heads_at + _rounded(HEAD_BYTES * len(heads), align)
    scratch, scratch_bytes, lower_bound = _place_scratch(lives, root, swaps, align)
    commit = lives.points[-1].copies
    return Plan(
        scratch=scratch,
        scratch_bytes=scratch_bytes,
        lower_bound=lower_bound,
        state=state | {b: state[r] for b, r in root.items() if r in state},
        state_bytes=state_bytes,
        heads=heads,
        alias={b: r for b, r in root.items() if b is not r},
        commit=moves[commit],
        carries={
            p.statement.carry: moves[p.copies]
            for p in lives.points
            if isinstance(p.statement, Loop) and p.kind == "carry"
        },
        align=align,
    )


def _check_pairs(module: Module, lives: Lifetimes) -> None:
    states = {p.buffer for p in module.states}
    for b in lives.buffers:
        if b.space == "state" and b not in states:
            raise ValueError(f"{b!r} is in the state space, but no state pair of the module holds it")
    if len(states) != len(module.states):
        raise ValueError("two state pairs of the module hold one buffer")
    for p in lives.points:
        for dst, src in p.copies:
            if dst.dtype != src.dtype or dst.nbytes != src.nbytes:
                raise ValueError(f"{p.kind} copies {src!r} to {dst!r}, which differs in type or size")
        if len({dst for dst, _ in p.copies}) != len(p.copies):
            raise ValueError(f"{p.kind} copies two values to one buffer: {p.copies}")


def _moves(
    lives: Lifetimes, root: dict[Buffer, Buffer], names: set[str]
) -> tuple[dict[Copies, Copies], dict[Buffer, int]]:
    """Copies of every carry and commit point in order, and the temporaries with the points (as bits)."""
    moves: dict[Copies, Copies] = {}
    swaps: dict[Buffer, int] = {}
    made: dict[Copies, list[Buffer]] = {}
    for n, p in enumerate(lives.points):
        if p.kind not in ("carry", "commit"):
            continue
        if p.copies not in moves:
            moves[p.copies], made[p.copies] = one_by_one(p.copies, root, names)
        for b in made[p.copies]:
            swaps[b] = swaps.get(b, 0) | 1 << n
    return moves, swaps


def one_by_one(copies: Copies, root: dict[Buffer, Buffer], names: set[str]) -> tuple[Copies, list[Buffer]]:
    """Simultaneous copies as a sequence, and the temporary buffers that it needs.

    A copy waits until nobody needs its destination any more. Where all wait for each other (a swap), one
    destination's old value is first put into a temporary. Copies within one piece of memory vanish.
    names: taken buffer names; those of the temporaries are added.
    """
    pending = [(dst, src) for dst, src in copies if root.get(dst, dst) is not root.get(src, src)]
    out: list[tuple[Buffer, Buffer]] = []
    temporaries: list[Buffer] = []
    while pending:
        needed = {root.get(src, src) for _, src in pending}
        ready = [c for c in pending if root.get(c[0], c[0]) not in needed]
        if ready:
            out += ready
            pending = [c for c in pending if c not in ready]
            continue
        blocked = pending[0][0]
        temporary = Buffer(_free_name(names), blocked.dtype, blocked.shape)
        temporaries.append(temporary)
        out.append((temporary, blocked))
        here = root.get(blocked, blocked)
        pending = [(dst, temporary if root.get(src, src) is here else src) for dst, src in pending]
    return tuple(out), temporaries


def _free_name(names: set[str]) -> str:
    n = 0
    while f"swap{n}" in names:
        n += 1
    names.add(f"swap{n}")
    return f"swap{n}"


def _place_state(module: Module, align: int) -> tuple[dict[Buffer, int], int]:
    offsets: dict[Buffer, int] = {}
    end = 0
    for pair in module.states:
        offsets[pair.buffer] = end
        end += _rounded(pair.buffer.nbytes, align)
    return offsets, end


def _place_scratch(
    lives: Lifetimes, root: dict[Buffer, Buffer], swaps: dict[Buffer, int], align: int
) -> tuple[dict[Buffer, int], int, int]:
    """Offsets of everything in the scratch block, its size, and the most bytes in use at one point."""
    used = {r: 0 for b, r in root.items() if r.space == "scratch"}
    for n in range(len(lives.points)):
        for b in lives.occupied(n):
            if root[b] in used:
                used[root[b]] |= 1 << n
    used |= swaps
    sizes = {b: _rounded(b.nbytes, align) for b in used}
    lower_bound = _most_in_use(sizes, used, len(lives.points))
    offsets, total = place([Piece(sizes[b], u) for b, u in used.items()], lower_bound)
    at = dict(zip(used, offsets, strict=True))
    scratch = {b: at[r] for b, r in root.items() if r in at} | {b: at[b] for b in swaps}
    return scratch, total, lower_bound


def _most_in_use(sizes: dict[Buffer, int], used: dict[Buffer, int], points: int) -> int:
    """Largest sum of sizes over the points."""
    totals = [0] * points
    for b, bits in used.items():
        while bits:
            totals[(bits & -bits).bit_length() - 1] += sizes[b]
            bits &= bits - 1
    return max(totals, default=0)


def _rounded(n: int, align: int) -> int:
    return (n + align - 1) // align * align
