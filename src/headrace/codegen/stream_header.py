"""What NAME.h says about streams: the functions, the layout of pieces, error codes, portable state."""

from __future__ import annotations

from headrace.codegen.stream_driver import StreamLayout, comment, field_of, signature, ways
from headrace.codegen.stream_plan import (
    AHEAD_ERROR,
    BAD_STATE,
    ENDED,
    FULL,
    NO_MULTIPLE,
    NOT_BEGUN,
    TOO_SHORT,
    UNLIKE,
    StreamFacts,
    counter_names,
    queue_frames,
)


def stream_errors(facts: StreamFacts) -> dict[int, str]:
    """Error codes of push, flush and set_state beyond those of run."""
    codes = {ENDED: "the stream has ended or failed; call init", BAD_STATE: "the portable state is damaged"}
    if facts.min_length > 0:
        codes[TOO_SHORT] = f"flush: the signal is shorter than {facts.min_length} frames"
    if facts.multiple > 1:
        codes[NO_MULTIPLE] = f"flush: the length of the signal is no multiple of {facts.multiple}"
    if len(facts.inputs) > 1:
        codes[AHEAD_ERROR] = "push: an input is too far ahead of another; nothing was taken"
        codes[UNLIKE] = "flush: the inputs do not end at the same time"
    if any(lane.rate[0] % lane.rate[1] for lane in facts.inputs):
        codes[UNLIKE] = "the number of frames is no whole number for every input"
    if facts.max_past is not None:
        codes[FULL] = f"push: the stream is full after {facts.max_past} frames; nothing was taken"
    if facts.side:
        codes[NOT_BEGUN] = "flush: nothing was pushed, so that the side inputs are not known"
    return codes


def declarations(layout: StreamLayout) -> list[str]:
    """What NAME.h says about streams."""
    name, facts = layout.name, layout.facts
    upper = name.upper()
    lines = [
        "",
        "/* Streams. A stream is a state block, from init to flush; cut the signal into pieces of any length, also",
        f" * none. One step takes {facts.chunk} input frame(s); frames that do not fill a step wait in the state.",
        " * A piece is a dense row-major array of the shape below, n frames in it. Outputs are dense as well:",
        " * n_out[i] is the number of frames that came out of output i (in the order of the struct), and the",
        " * array has exactly that extent on its time axis. A push makes (queued + n) / frames steps, so that",
        " * room for ceil((queued + n) / frames) * frames of an output is always enough. A flush makes at most",
        f" * {facts.flush_steps} step(s). Nothing is allocated, and the work of a step is constant.",
        " *",
    ]
    for way in ways(layout, True):
        about = f"time axis {way.lane.axis}, {way.lane.frames} frames per step"
        lines.append(f" *   {way.field}  {comment(way.lane.name)}: {about}")
    for way in ways(layout, False):
        about = f"time axis {way.lane.axis}, {way.lane.frames} frames per step, delay {way.lane.delay}"
        lines.append(f" *   {way.field}  {comment(way.lane.name)}: {about}")
    for output in facts.finals:
        lines.append(f" *   {field_of(layout.outputs, output)}  {comment(output)}: written by flush, with n_out 1")
    for side in facts.side:
        if any(p.name == side for p in layout.inputs):
            lines.append(f" *   {field_of(layout.inputs, side)}  {comment(side)}: read at the first push after init")
    for own in (facts.position, facts.valid):
        if own:
            lines.append(f" *   {field_of(layout.inputs, own)}  {comment(own)}: set by push and flush; ignored")
    if len(facts.inputs) > 1:
        waits = ", ".join(f"{queue_frames(facts, lane)} of {comment(lane.name)}" for lane in facts.inputs)
        lines.append(f" * push_each takes a number of frames for each time input; frames that can wait: {waits}.")
    lines += [
        " * After flush, or an error of run, init comes next. Denormals are zero inside these calls. */",
        *(line for verb in ("push", "push_each", "flush") for line in declaration(name, verb)),
        f"#define {upper}_CHUNK {facts.chunk}",
        f"#define {upper}_FLUSH_STEPS {facts.flush_steps}",
    ]
    return lines


def declaration(name: str, verb: str) -> list[str]:
    *first, last = signature(name, verb)
    return [*first, f"{last};"]


def portable_comment(layout: StreamLayout) -> list[str]:
    """Lines about the portable state beyond the program's states."""
    lines = []
    for piece in layout.pieces:
        shape = "x".join(map(str, piece.shape)) or "scalar"
        if piece.kind == "counters":
            names = ", ".join(comment(n.replace(" ", "_")) for n in counter_names(layout.facts))
            lines.append(f" *   at {piece.offset}: int64 {shape}, counters: {names}")
        elif piece.kind != "state":
            lines.append(f" *   at {piece.offset}: {piece.dtype} {shape}, {piece.kind} {comment(piece.name)}")
    return lines
