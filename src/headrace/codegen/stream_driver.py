"""The driver of a stream in C: NAME_push, NAME_push_each, NAME_flush around NAME_run.

docs/design/streaming.md, section 4, says what they do. A block of a time input that lies in one piece in
the caller's array is read there, and a block of an output that belongs there in one piece is written
there; all others go through a block in scratch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from headrace.codegen.generated import Port
from headrace.codegen.scalar import CTYPES
from headrace.codegen.stream_plan import (
    AHEAD_ERROR,
    BAD_STATE,
    ENDED,
    FULL,
    NO_MULTIPLE,
    NOT_BEGUN,
    TOO_SHORT,
    UNLIKE,
    Lane,
    Piece,
    StreamFacts,
    portable,
    queue_frames,
)
from headrace.program.dtypes import short_name

POSITION, HAS_ENDED, HAS_BEGUN, QUEUED = 0, 1, 2, 3  # places of the counters


@dataclass(frozen=True)
class StreamLayout:
    """Where a stream keeps what beside the program's own state and scratch; offsets in bytes."""

    name: str
    facts: StreamFacts
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    pieces: tuple[Piece, ...]
    places: dict[tuple[str, str], int]  # (kind, name of a piece) → offset in the state block
    stages: dict[str, int]  # time input or output → offset in the scratch block
    state_bytes: int
    scratch_bytes: int
    has_steady: bool  # whether there is NAME_steady, for steps far from both ends


def lay_out(
    name: str,
    facts: StreamFacts,
    inputs: tuple[Port, ...],
    outputs: tuple[Port, ...],
    states: tuple[Port, ...],
    state_bytes: int,
    scratch_bytes: int,
    align: int,
    has_steady: bool = False,
) -> StreamLayout:
    """Places behind the program's state and scratch. ValueError where ports and facts contradict each other."""
    _check(facts, inputs, outputs, states)
    pieces = portable(facts, inputs, outputs, states)
    places, stages = {}, {}
    for piece in pieces:
        if piece.kind != "state":
            places[piece.kind, piece.name] = state_bytes
            state_bytes += -(-piece.nbytes // align) * align
    for side, ports in ((facts.inputs, inputs), (facts.outputs, outputs)):
        for lane in side:
            port = next(p for p in ports if p.name == lane.name)
            stages[("in " if side is facts.inputs else "out ") + lane.name] = scratch_bytes
            scratch_bytes += -(-port.nbytes // align) * align
    return StreamLayout(name, facts, inputs, outputs, pieces, places, stages, state_bytes, scratch_bytes, has_steady)


def _check(facts: StreamFacts, inputs: tuple[Port, ...], outputs: tuple[Port, ...], states: tuple[Port, ...]) -> None:
    listed = {*facts.side, *(lane.name for lane in facts.inputs), facts.position, facts.valid} - {""}
    for port in inputs:
        if port.name not in listed:
            raise ValueError(f"headrace.stream: input {port.name!r} has no part in the stream")
    made = {*facts.finals, *(lane.name for lane in facts.outputs)}
    for port in outputs:
        if port.name not in made:
            raise ValueError(f"headrace.stream: output {port.name!r} has no part in the stream")
    if {p.name for p in states} != set(facts.states):
        raise ValueError(f"headrace.stream: its states {list(facts.states)} are not those of the program")
    if not facts.inputs:
        raise ValueError("headrace.stream: there is no time input")
    for lanes, ports in ((facts.inputs, inputs), (facts.outputs, outputs)):
        for lane in lanes:
            found = [p for p in ports if p.name == lane.name]
            if not found or not 0 <= lane.axis < len(found[0].shape):
                raise ValueError(f"headrace.stream: {lane.name!r} has no axis {lane.axis} in the program")
            if found[0].shape[lane.axis] != lane.frames or lane.frames < 1:
                raise ValueError(f"headrace.stream: {lane.name!r} should have {lane.frames} frames per step")


def stream_functions(layout: StreamLayout) -> str:
    """All functions of the stream, static and public."""
    texts = [_denormals(layout), _frames(layout), _step(layout), _push_each(layout), _push(layout), _flush(layout)]
    return "\n\n".join(text for text in texts if text)


def init_lines(layout: StreamLayout) -> list[str]:
    """Statements of NAME_init: no frames, nothing begun."""
    return [f"    memset(s + {layout.places['counters', '']}, 0, {layout.pieces[-1].nbytes});"]


def state_lines(layout: StreamLayout, verb: str) -> list[str]:
    """Statements of NAME_get_state (verb "get") and NAME_set_state for what the stream adds."""
    lines = _state_check(layout) if verb == "set" else []
    for piece in layout.pieces:
        if piece.kind == "state" or piece.nbytes == 0:
            continue
        mine, theirs = layout.places[piece.kind, piece.name], piece.offset
        if verb == "get":
            to, at = f"(unsigned char *)portable + {theirs}", f"(const unsigned char *)state + {mine}"
        else:
            to, at = f"(unsigned char *)state + {mine}", f"(const unsigned char *)portable + {theirs}"
        lines.append(f"    memcpy({to}, {at}, {piece.nbytes});")
    return lines


def _state_check(layout: StreamLayout) -> list[str]:
    """Refuse counters that no stream can have, before anything is written."""
    facts, counters = layout.facts, layout.pieces[-1]
    wrong = [f"c[{POSITION}] < 0", f"c[{POSITION}] > INT64_MAX / 4 / {_widest(facts)}"]
    wrong += [f"c[{POSITION}] % {facts.unit}"] if facts.unit > 1 else []
    wrong += [f"c[{n}] < 0 || c[{n}] > 1" for n in (HAS_ENDED, HAS_BEGUN)]
    for n, lane in enumerate(facts.inputs):
        wrong.append(f"c[{QUEUED + n}] < 0 || c[{QUEUED + n}] > {queue_frames(facts, lane)}")
    return [
        f"    int64_t c[{counters.shape[0]}];",
        f"    memcpy(c, (const unsigned char *)portable + {counters.offset}, {counters.nbytes});",
        *(f"    if ({text}) return {BAD_STATE};" for text in wrong),
    ]


def _widest(facts: StreamFacts) -> int:
    lanes = (*facts.inputs, *facts.outputs, *(p for group in facts.finals.values() for p in group))
    return max(lane.rate[0] for lane in lanes)


def _denormals(layout: StreamLayout) -> str:
    """Functions that make denormals zero, and give the caller back what was set before."""
    name = layout.name
    return f"""\
/* Denormal numbers are zero inside a push, so that silence costs no more than sound. */
#if defined(__x86_64__) || defined(__SSE__)
static inline uint64_t {name}_quiet(void)
{{
    const unsigned mode = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(mode | 0x8040u);
    __asm__ volatile("" ::: "memory");
    return mode;
}}
static inline void {name}_restore(uint64_t mode)
{{
    __asm__ volatile("" ::: "memory");
    __builtin_ia32_ldmxcsr((unsigned)mode);
}}
#elif defined(__aarch64__)
static inline uint64_t {name}_quiet(void)
{{
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("msr fpcr, %0" :: "r"(mode | (uint64_t)1 << 24) : "memory");
    return mode;
}}
static inline void {name}_restore(uint64_t mode)
{{
    __asm__ volatile("msr fpcr, %0" :: "r"(mode) : "memory");
}}
#else
static inline uint64_t {name}_quiet(void) {{ return 0; }}
static inline void {name}_restore(uint64_t mode) {{ (void)mode; }}
#endif"""


def _frames(layout: StreamLayout) -> str:
    return f"""\
/* Copies frames [first, first + count) of every row of one block to frame `at` of another. */
static inline void {layout.name}_frames(void *to, size_t to_frames, size_t at, const void *from, size_t from_frames,
    size_t first, size_t count, size_t rows, size_t size)
{{
    unsigned char *p = (unsigned char *)to + at * size;
    const unsigned char *q = (const unsigned char *)from + first * size;
    if (count == 1) {{
        for (size_t r = 0; r < rows; r++) memcpy(p + r * to_frames * size, q + r * from_frames * size, size);
        return;
    }}
    for (size_t r = 0; r < rows; r++) memcpy(p + r * to_frames * size, q + r * from_frames * size, count * size);
}}"""


@dataclass(frozen=True)
class Way:
    """C facts of one time input or output."""

    lane: Lane
    field: str
    ctype: str
    rows: int  # blocks of `frames` consecutive frames
    inner: int  # elements of one frame in a row
    size: int  # bytes of the same
    room: int  # frames in the queue
    queue: int
    stage: int

    def begin(self, at: str) -> str:
        """C text of the first frame of the block at `at` (a position), as int64_t."""
        p, q = self.lane.rate
        text = at if p == 1 else f"{at} * {p}"
        text = text if q == 1 else f"{text} / {q}"
        return f"{text} - {self.lane.delay}" if self.lane.delay else text


def ways(layout: StreamLayout, inputs: bool) -> Iterator[Way]:
    facts = layout.facts
    ports = {p.name: p for p in (layout.inputs if inputs else layout.outputs)}
    for lane in facts.inputs if inputs else facts.outputs:
        port = ports[lane.name]
        shape = [e for e in port.shape if isinstance(e, int)]
        inner = prod(shape[lane.axis + 1 :])
        item = port.nbytes // max(1, prod(shape))
        yield Way(
            lane, port.c_field, CTYPES[short_name(port.dtype)], prod(shape[: lane.axis]), inner, inner * item,
            queue_frames(facts, lane) if inputs else 0,
            layout.places["queue", lane.name] if inputs else 0,
            layout.stages[("in " if inputs else "out ") + lane.name],
        )  # fmt: skip


def _step(layout: StreamLayout) -> str:
    """One step: block k of queue and piece in, the frames that belong to the signal out."""
    name, facts = layout.name, layout.facts
    ins, outs = list(ways(layout, True)), list(ways(layout, False))
    lines = [
        "/* Step k of a call. n: frames of each piece; total: frames of each output in this call, of which",
        " * `written` are there; end: frames of each output in the whole signal, NULL while that is not known. */",
        f"static int {name}_step(unsigned char *s, unsigned char *t, const void *weights, const {name}_inputs *in,",
        f"    const size_t *n, const {name}_outputs *out, size_t k, int64_t valid, const int64_t *end,",
        "    const size_t *total, size_t *written)",
        "{",
        f"    int64_t *const c = (int64_t *)(void *)(s + {layout.places['counters', '']});",
        f"    {name}_inputs from = *in;",
        f"    {name}_outputs to = *out;",
        "    int error;",
    ]
    if facts.position:
        now = f"c[{POSITION}]"
        last = facts.last_position
        value = now if facts.absolute else f"{now} < {last} ? {now} : {last}"
        lines.append(f"    const int64_t position = {value};")
        lines.append(f"    from.{field_of(layout.inputs, facts.position)} = &position;")
    if facts.valid:
        lines.append(f"    from.{field_of(layout.inputs, facts.valid)} = &valid;")
    else:
        lines.append("    (void)valid;")
    for side in facts.side:
        port = next((p for p in layout.inputs if p.name == side), None)
        if port is not None:
            ctype = CTYPES[short_name(port.dtype)]
            at = f"(const void *)(s + {layout.places['side', side]})"
            lines.append(f"    from.{port.c_field} = (const {ctype} *){at};")
    for output in facts.finals:
        port = next(p for p in layout.outputs if p.name == output)
        place = layout.places["final", output]
        lines.append(f"    to.{port.c_field} = ({CTYPES[short_name(port.dtype)]} *)(void *)(s + {place});")
    for i, way in enumerate(ins):
        lines += _take(name, way, i)
    for j, way in enumerate(outs):
        lines += _aim(way, j)
    run = f"{name}_run(s, t, weights, &from, &to)"
    if layout.has_steady:
        far = f"!end && c[{POSITION}] >= {facts.last_position}"
        run = f"{far} ? {name}_steady(s, t, weights, &from, &to)\n        : {run}"
    lines.append(f"    error = {run};")
    for j, way in enumerate(outs):
        lines += _give(name, way, j)
    return "\n".join([*lines, f"    c[{POSITION}] += {facts.chunk};", "    return error;", "}"])


def _take(name: str, way: Way, i: int) -> list[str]:
    m, stage, piece = way.lane.frames, f"(t + {way.stage})", f"in->{way.field}"
    copy = f"{name}_frames({stage}, {m},"
    whole = f" && n[{i}] == {m}" if way.rows > 1 else ""
    queued = f"(size_t)c[{QUEUED + i}]" if way.room else "0"
    lines = [
        f"    {{ /* {comment(way.lane.name)} */",
        f"        const size_t queued = {queued}, first = k * {m};",
        f"        if (first >= queued && first - queued + {m} <= n[{i}]{whole}) {{",
        f"            from.{way.field} = in->{way.field} + (first - queued) * {way.inner};",
        "        } else {",
        f"            const size_t old = first < queued ? (queued - first < {m} ? queued - first : {m}) : 0;",
        "            const size_t at = first + old - queued;",
        f"            const size_t left = at < n[{i}] ? n[{i}] - at : 0, fresh = left < {m} - old ? left : {m} - old;",
        f"            if (old + fresh < {m}) memset({stage}, 0, {way.rows * m * way.size});",
    ]
    if way.room:
        queue = f"s + {way.queue}"
        lines.append(f"            if (old) {copy} 0, {queue}, {way.room}, first, old, {way.rows}, {way.size});")
    return [
        *lines,
        f"            if (fresh) {copy} old, {piece}, n[{i}], at, fresh, {way.rows}, {way.size});",
        f"            from.{way.field} = (const {way.ctype} *)(const void *){stage};",
        "        }",
        "    }",
    ]


def _aim(way: Way, j: int) -> list[str]:
    m = way.lane.frames
    whole = f" && total[{j}] == {m}" if way.rows > 1 else ""
    return [
        f"    const int64_t begin{j} = {way.begin(f'c[{POSITION}]')}; /* {comment(way.lane.name)} */",
        f"    const int64_t start{j} = begin{j} >= 0 ? 0 : begin{j} > -{m} ? -begin{j} : {m};",
        f"    const int64_t left{j} = end && end[{j}] - begin{j} < {m} ? end[{j}] - begin{j} : {m};",
        f"    const size_t count{j} = left{j} > start{j} ? (size_t)(left{j} - start{j}) : 0;",
        f"    if (count{j} == {m}{whole})",
        f"        to.{way.field} = out->{way.field} + written[{j}] * {way.inner};",
        "    else",
        f"        to.{way.field} = ({way.ctype} *)(void *)(t + {way.stage});",
    ]


def _give(name: str, way: Way, j: int) -> list[str]:
    m = way.lane.frames
    return [
        f"    if (count{j} && to.{way.field} == ({way.ctype} *)(void *)(t + {way.stage}))",
        f"        {name}_frames(out->{way.field}, total[{j}], written[{j}], t + {way.stage}, {m}, (size_t)start{j}, "
        f"count{j}, {way.rows}, {way.size});",
        f"    written[{j}] += count{j};",
    ]


def signature(name: str, verb: str) -> list[str]:
    """C text of a function's head: "push", "push_each" or "flush"."""
    frames = {"push": f"const {name}_inputs *in, size_t n, ", "flush": ""}
    given = frames.get(verb, f"const {name}_inputs *in, const size_t *n, ")
    return [
        f"int {name}_{verb}(void *state, void *scratch, const void *weights,",
        f"    {given}const {name}_outputs *out, size_t *n_out)",
    ]


def _push_each(layout: StreamLayout) -> str:
    name, facts = layout.name, layout.facts
    ins, outs = list(ways(layout, True)), list(ways(layout, False))
    lines = [
        *signature(name, "push_each"),
        "{",
        "    unsigned char *const s = (unsigned char *)state;",
        "    unsigned char *const t = (unsigned char *)scratch;",
        f"    int64_t *const c = (int64_t *)(void *)(s + {layout.places['counters', '']});",
        f"    size_t steps = ((size_t)c[{QUEUED}] + n[0]) / {ins[0].lane.frames};",
        f"    size_t total[{max(1, len(outs))}], written[{max(1, len(outs))}] = {{0}};",
        "    int error = 0;",
        f"    memset(n_out, 0, {len(layout.outputs)} * sizeof *n_out);",
        f"    if (c[{HAS_ENDED}]) return {ENDED};",
    ]
    for i, way in list(enumerate(ins))[1:]:
        some = f"((size_t)c[{QUEUED + i}] + n[{i}]) / {way.lane.frames}"
        lines.append(f"    if ({some} < steps) steps = {some};")
    for i, way in enumerate(ins):
        left = f"(size_t)c[{QUEUED + i}] + n[{i}] - steps * {way.lane.frames}"
        if len(ins) > 1:
            lines.append(f"    if ({left} > {way.room}) return {AHEAD_ERROR};")
        if facts.max_past is not None:
            p, q = way.lane.rate
            most = f"(uint64_t)c[{POSITION}] * {p} / {q} + (uint64_t)c[{QUEUED + i}] + n[{i}]"
            lines.append(f"    if ({most} > {facts.max_past * p // q}u) return {FULL};")
    lines += _begin(layout)
    if len(outs) == 0:
        lines.append("    total[0] = 0;")
    for j, way in enumerate(outs):
        lines += [
            f"    {{ /* {comment(way.lane.name)} */",
            f"        const int64_t begin = {way.begin(f'c[{POSITION}]')};",
            f"        const int64_t stop = begin + (int64_t)(steps * {way.lane.frames});",
            f"        total[{j}] = stop > 0 ? (size_t)(begin > 0 ? stop - begin : stop) : 0;",
            "    }",
        ]
    lines += [
        "    if (steps) {",
        f"        const uint64_t mode = {name}_quiet();",
        "        for (size_t k = 0; k < steps && !error; k++)",
        f"            error = {name}_step(s, t, weights, in, n, out, k, {facts.chunk}, NULL, total, written);",
        f"        {name}_restore(mode);",
        "    }",
    ]
    for i, way in enumerate(ins):
        lines += _keep(name, way, i)
    lines += [f"    if (error) c[{HAS_ENDED}] = 1;", *_counts(layout, outs), "    return error;", "}"]
    return "\n".join(lines)


def _begin(layout: StreamLayout) -> list[str]:
    """Side inputs are taken at the first push."""
    lines = []
    for side in layout.facts.side:
        port = next((p for p in layout.inputs if p.name == side), None)
        if port is not None:
            place = layout.places["side", side]
            lines.append(f"    if (!c[{HAS_BEGUN}]) memcpy(s + {place}, in->{port.c_field}, {port.nbytes});")
    return [*lines, f"    c[{HAS_BEGUN}] = 1;"]


def _keep(name: str, way: Way, i: int) -> list[str]:
    """Queue what is left over: at most `room` frames."""
    m = way.lane.frames
    if not way.room:
        return []
    return [
        f"    {{ /* {comment(way.lane.name)} */",
        f"        unsigned char *const queue = s + {way.queue};",
        f"        const size_t queued = (size_t)c[{QUEUED + i}], used = steps * {m};",
        "        const size_t old = used < queued ? queued - used : 0, at = used > queued ? used - queued : 0;",
        "        if (old && used)",
        f"            for (size_t r = 0; r < {way.rows}; r++)",
        "                for (size_t f = 0; f < old; f++)",
        f"                    memcpy(queue + (r * {way.room} + f) * {way.size}, "
        f"queue + (r * {way.room} + f + used) * {way.size}, {way.size});",
        f"        if (n[{i}] > at) {name}_frames(queue, {way.room}, old, in->{way.field}, n[{i}], at, n[{i}] - at, "
        f"{way.rows}, {way.size});",
        f"        c[{QUEUED + i}] = (int64_t)(old + n[{i}] - at);",
        "    }",
    ]


def _counts(layout: StreamLayout, outs: list[Way]) -> list[str]:
    names = [p.name for p in layout.outputs]
    return [f"    n_out[{names.index(way.lane.name)}] = written[{j}];" for j, way in enumerate(outs)]


def _push(layout: StreamLayout) -> str:
    """NAME_push: as many input frames for every time input."""
    name, facts = layout.name, layout.facts
    lines = [
        *signature(name, "push"),
        "{",
    ]
    counts = []
    for lane in facts.inputs:
        p, q = lane.rate
        if q > 1:
            lines.append(f"    if (n % {q}) return {UNLIKE};")
        counts.append("n" if p == q == 1 else f"n * {p} / {q}")
    return "\n".join(
        [
            *lines,
            f"    const size_t each[] = {{{', '.join(counts)}}};",
            f"    return {name}_push_each(state, scratch, weights, in, each, out, n_out);",
            "}",
        ]
    )


def _flush(layout: StreamLayout) -> str:
    name, facts = layout.name, layout.facts
    ins, outs = list(ways(layout, True)), list(ways(layout, False))
    p, q = ins[0].lane.rate
    ends = [(f"end[{j}]", way.lane) for j, way in enumerate(outs)]
    passing = [lane for group in facts.finals.values() for lane in group]
    ends += [(f"end[{len(outs) + j}]", lane) for j, lane in enumerate(passing)]
    lines = [
        *signature(name, "flush"),
        "{",
        f"    static const size_t none[{len(ins)}] = {{0}};",
        *_tables([lane for _, lane in ends]),
        "    unsigned char *const s = (unsigned char *)state;",
        "    unsigned char *const t = (unsigned char *)scratch;",
        f"    int64_t *const c = (int64_t *)(void *)(s + {layout.places['counters', '']});",
        f"    const int64_t rest = c[{QUEUED}]{f' * {q}' if q > 1 else ''}{f' / {p}' if p > 1 else ''};",
        f"    const int64_t frames = c[{POSITION}] + rest;",
        f"    size_t total[{max(1, len(outs))}], written[{max(1, len(outs))}] = {{0}};",
        f"    int64_t end[{max(1, len(ends))}];",
        f"    {name}_inputs in;",
        "    uint64_t mode;",
        "    int error = 0;",
        "    memset(&in, 0, sizeof in);",
        f"    memset(n_out, 0, {len(layout.outputs)} * sizeof *n_out);",
        f"    if (c[{HAS_ENDED}]) return {ENDED};",
    ]
    lines += _flush_checks(layout, ins)
    for (end, lane), number in zip(ends, range(len(ends)), strict=True):
        begin = Way(lane, "", "", 0, 0, 0, 0, 0, 0).begin(f"c[{POSITION}]")
        lines.append(f"    {end} = {begin} + {lane.delay} + length{number}[rest];")
        if number < len(outs):
            lines += [
                f"    total[{number}] = {end} > 0 ? (size_t){end} : 0;",
                f"    if ({begin} > 0) total[{number}] -= (size_t)({begin});",
            ]
    if not outs:
        lines.append("    total[0] = 0;")
    if not ends:
        lines.append("    end[0] = 0;")
    missing = [f"{Way(lane, '', '', 0, 0, 0, 0, 0, 0).begin(f'c[{POSITION}]')} < {end}" for end, lane in ends]
    if facts.finals:
        missing.append(f"c[{POSITION}] == 0")
    lines += [
        f"    c[{HAS_ENDED}] = 1;",
        f"    mode = {name}_quiet();",
        f"    for (size_t k = 0; !error && ({' || '.join(missing) or '0'}); k++)",
        f"        error = {name}_step(s, t, weights, &in, none, out, k, frames - c[{POSITION}], end, total, written);",
        f"    {name}_restore(mode);",
    ]
    names = [port.name for port in layout.outputs]
    for output in facts.finals:
        port = layout.outputs[names.index(output)]
        lines.append(f"    memcpy(out->{port.c_field}, s + {layout.places['final', output]}, {port.nbytes});")
        lines.append(f"    n_out[{names.index(output)}] = 1;")
    return "\n".join([*lines, *_counts(layout, outs), "    return error;", "}"])


def _tables(lanes: list[Lane]) -> list[str]:
    """Frames of each output beyond position·rate, by the number of input frames after the last step."""
    return [
        f"    static const int32_t length{j}[{len(lane.length)}] = {{{', '.join(map(str, lane.length))}}};"
        for j, lane in enumerate(lanes)
    ]


def _flush_checks(layout: StreamLayout, ins: list[Way]) -> list[str]:
    facts, lines = layout.facts, []
    for i, way in enumerate(ins):
        p, q = way.lane.rate
        if len(ins) > 1 or p > 1:
            lines.append(f"    if (c[{QUEUED + i}] * {q} != rest * {p}) return {UNLIKE};")
    if facts.side:
        lines.append(f"    if (!c[{HAS_BEGUN}]) return {NOT_BEGUN};")
    if facts.min_length > 0:
        lines.append(f"    if (frames < {facts.min_length}) return {TOO_SHORT};")
    if facts.multiple > 1:
        lines.append(f"    if (frames % {facts.multiple}) return {NO_MULTIPLE};")
    return lines


def field_of(ports: tuple[Port, ...], name: str) -> str:
    return next(p.c_field for p in ports if p.name == name)


def comment(name: str) -> str:
    """A name of the model as it may stand in a C comment."""
    return "".join(ch if ch.isalnum() or ch in "._-:" else "_" for ch in name)
