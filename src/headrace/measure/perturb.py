"""Which output frames change with one input frame: the receptive field as it is, beside what is stated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from headrace.artifact.ports import Array
from headrace.codegen.stream_plan import Lane, StreamFacts

PLACES = 8
CHANGED = 1e-6  # of the largest element


def perturbed(
    facts: StreamFacts,
    told: Mapping[str, Any],
    signal: Mapping[str, Array],
    run: Callable[[dict[str, Array]], dict[str, Array]],
    seed: int,
) -> tuple[str, str]:
    """Change one frame at a time of the offline model's input; (what is wrong or "", what was seen)."""
    rng, base = np.random.default_rng(seed), run(dict(signal))
    ahead, behind = dict.fromkeys(told, -1), dict.fromkeys(told, -1)
    for lane in facts.inputs:
        count = signal[lane.name].shape[lane.axis]
        for t in rng.integers(count // 4, max(count // 4 + 1, 3 * count // 4), PLACES).tolist():
            changed = {**signal, lane.name: _changed(signal[lane.name], lane.axis, t, rng)}
            other = run(changed)
            first, last = t * lane.rate[1] // lane.rate[0], ((t + 1) * lane.rate[1] - 1) // lane.rate[0]
            for out in facts.outputs:
                frames = _differing(base[out.name], other[out.name], out.axis)
                if frames:
                    fault = _outside(out, told[out.name], frames, first, last, facts.chunk)
                    if fault:
                        return f"changing frame {t} of {lane.name!r}: {fault}", ""
                    ahead[out.name] = max(ahead[out.name], first - own(out, frames[0]))
                    behind[out.name] = max(behind[out.name], own(out, frames[-1]) - last)
    return "", "; ".join(_seen(name, told[name], ahead[name], behind[name]) for name in told)


def own(out: Lane, frame: int) -> int:
    """The input frame at the end of an output frame's own time."""
    p, q = out.rate
    return -(-(frame + 1) * q // p) - 1


def _outside(out: Lane, told: Mapping[str, Any], frames: list[int], first: int, last: int, chunk: int) -> str:
    """What contradicts the stated look-ahead or receptive field."""
    lookahead, field = told["lookahead"], told["receptive_field"]
    if first > own(out, frames[0]) + lookahead:
        return f"frame {frames[0]} of {out.name!r} changes, more than {lookahead} input frames before"
    slack = 0 if out.rate == (1, 1) else chunk  # frames of one period reach differently far
    if field is not None and last < own(out, frames[-1]) + lookahead - field + 1 - slack:
        return f"frame {frames[-1]} of {out.name!r} changes, beyond a receptive field of {field}"
    return ""


def _seen(name: str, told: Mapping[str, Any], ahead: int, behind: int) -> str:
    if ahead < 0 and behind < 0:
        return f"{name}: no frame changed anything"
    field = told["receptive_field"]
    stated = "unbounded" if field is None else str(field)
    seen = f"look-ahead {max(0, ahead)} seen, {told['lookahead']} stated"
    return f"{name}: {seen}; field {ahead + behind + 1} seen, {stated} stated"


def _changed(array: Array, axis: int, frame: int, rng: np.random.Generator) -> Array:
    """The array with one frame replaced."""
    copy = array.copy()
    place = (slice(None),) * axis + (frame,)
    old = copy[place]
    if array.dtype.kind == "f":
        copy[place] = (old + 1 + rng.random(old.shape)).astype(array.dtype)
    elif array.dtype.kind == "b":
        copy[place] = ~old
    else:
        copy[place] = np.where(old == old.max(initial=0), old.min(initial=0), old.max(initial=0))
    return copy


def _differing(a: Array, b: Array, axis: int) -> list[int]:
    """Frames in which two outputs differ."""
    if a.dtype.kind in "biu":
        unlike = a != b
    else:
        limit = CHANGED * float(np.abs(a[np.isfinite(a)]).max(initial=0))
        unlike = ~((np.abs(a - b) <= limit) | (a == b) | (np.isnan(a) & np.isnan(b)))
    other = tuple(i for i in range(a.ndim) if i != axis)
    return np.flatnonzero(unlike.any(axis=other)).tolist()
