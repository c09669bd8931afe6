"""Offsets for pieces of memory whose times of use are known: offline best fit, several orders tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_ROUNDS = 24  # reorderings that put the pieces at the peak first


@dataclass(frozen=True)
class Piece:
    """size: bytes, a multiple of the alignment. used: bit n is set if point n needs it."""

    size: int
    used: int


def place(pieces: Sequence[Piece], lower_bound: int) -> tuple[list[int], int]:
    """Offsets such that pieces used at the same point do not overlap, and the bytes in all.

    Stops as soon as a plan reaches `lower_bound`. Deterministic.
    """
    rivals = _rivals(pieces)
    best: list[int] = [0] * len(pieces)
    peak = -1
    for order in _orders(pieces, rivals):
        offsets = _best_fit(pieces, rivals, order)
        top = _peak(pieces, offsets)
        if peak < 0 or top < peak:
            best, peak = offsets, top
        if peak <= lower_bound:
            return best, max(peak, 0)
    for order in _lift_peak(pieces, rivals, best, peak):
        offsets = _best_fit(pieces, rivals, order)
        top = _peak(pieces, offsets)
        if top < peak:
            best, peak = offsets, top
        if peak <= lower_bound:
            break
    return best, max(peak, 0)


def _rivals(pieces: Sequence[Piece]) -> list[list[int]]:
    """For each piece those that are in use at the same time."""
    out: list[list[int]] = [[] for _ in pieces]
    for i, a in enumerate(pieces):
        for j in range(i):
            if a.used & pieces[j].used and a.size and pieces[j].size:
                out[i].append(j)
                out[j].append(i)
    return out


def _orders(pieces: Sequence[Piece], rivals: list[list[int]]) -> list[list[int]]:
    span = [p.used.bit_length() - ((p.used & -p.used).bit_length() - 1) for p in pieces]
    start = [(p.used & -p.used).bit_length() for p in pieces]
    crowd = [sum(pieces[j].size for j in rivals[i]) + p.size for i, p in enumerate(pieces)]
    everyone = range(len(pieces))
    return [
        sorted(everyone, key=lambda i: (-pieces[i].size, -span[i], start[i])),
        sorted(everyone, key=lambda i: (-pieces[i].size * span[i], start[i])),
        sorted(everyone, key=lambda i: (-crowd[i], -pieces[i].size, start[i])),
        sorted(everyone, key=lambda i: (-span[i], -pieces[i].size, start[i])),
        sorted(everyone, key=lambda i: (start[i], -pieces[i].size)),
    ]


def _lift_peak(pieces: Sequence[Piece], rivals: list[list[int]], offsets: list[int], peak: int) -> list[list[int]]:
    """Orders that first place one piece at the top of the best plan, then its rivals, then the rest."""
    by_size = sorted(range(len(pieces)), key=lambda i: (-pieces[i].size, i))
    top = [i for i in by_size if offsets[i] + pieces[i].size == peak]
    high = sorted(by_size, key=lambda i: -(offsets[i] + pieces[i].size))
    out = []
    for i in (top + [j for j in high if j not in top])[:_ROUNDS]:
        near = set(rivals[i])
        out.append([i] + [j for j in by_size if j in near] + [j for j in by_size if j not in near and j != i])
    return out


def _best_fit(pieces: Sequence[Piece], rivals: list[list[int]], order: list[int]) -> list[int]:
    """Each piece goes into the smallest gap between its placed rivals that holds it, else above them."""
    offsets = [-1] * len(pieces)
    for i in order:
        size, end, chosen, smallest = pieces[i].size, 0, -1, -1
        for low, j in sorted((offsets[j], j) for j in rivals[i] if offsets[j] >= 0):
            gap = low - end
            if gap >= size and (smallest < 0 or gap < smallest):
                chosen, smallest = end, gap
            end = max(end, low + pieces[j].size)
        offsets[i] = end if chosen < 0 else chosen
    return offsets


def _peak(pieces: Sequence[Piece], offsets: list[int]) -> int:
    return max((o + p.size for p, o in zip(pieces, offsets, strict=True)), default=0)
