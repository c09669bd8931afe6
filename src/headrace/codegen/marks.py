"""The same C with a clock read after every kernel, for profiling.

Artifacts keep their C without any trace of this; `marked` works on its text, so that what is timed is what
was compiled.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from headrace.errors import Error

CALL = re.compile(r"\s+(?:\w+_share\(.* (\w+_k\d+)_part, .*|(\w+_k\d+)\(.*)\);$")
CLOCK = """\
#include <stdint.h>
#include <stddef.h>
#include <time.h>
static inline uint64_t hr_ticks(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_lfence();
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("isb\\n\\tmrs %0, cntvct_el0" : "=r"(ticks) :: "memory");
    return ticks;
#else
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
#endif
}
static uint64_t *hr_mark;
#define HR_MARK() (void)(*hr_mark++ = hr_ticks())
"""


def marked(source: str, name: str, kernels: Sequence[str], entry: str = "run") -> str:
    """NAME.c and behind it NAME_marked: NAME_<entry> once more with a mark after each of its kernels.

    entry: "run", or "steady" for the steps of a stream far from both ends; of several for different
    instruction sets, the one that calls `kernels`. Two functions use it:

    NAME_calls(run, state, scratch, weights, in, out, other, other_bytes, calls, marks, stamps): call NAME_marked,
    or without marks (marks is 2) `run`, or where that is NULL the entry of this text; stamps[calls][marks] gets
    the clock before, after each kernel and after each call; `other_bytes` of other memory are touched before.
    NAME_marks(count, stamps): marks without anything between. Error when the text does not call `kernels`.
    """
    lines = source.splitlines()
    head = re.compile(rf"(?:static )?int {name}_{entry}\w*(?=\(.*\)$)")
    for start, line in enumerate(lines):
        if head.match(line):
            stop = next((n for n in range(start, len(lines)) if lines[n] == "}"), len(lines))
            body, found = _marked([head.sub(f"static int {name}_marked", line), *lines[start + 1 : stop + 1]])
            if found == list(kernels):
                return "\n".join([CLOCK, *lines, "", *body, _calls(name, entry)])
    raise Error(f"{name}.c does not call its kernels as this version writes it; compile the model again")


def _marked(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """A function with marks after the calls of kernels, and the kernels in that order."""
    found, out = [], []
    for line in lines:
        out.append(line)
        call = CALL.match(line)
        if call:
            found.append(call[1] or call[2])
            out.append("    HR_MARK();")
    return out, found


def _calls(name: str, entry: str) -> str:
    return f"""
typedef int {name}_entry(void *, void *, const void *, const {name}_inputs *, const {name}_outputs *);

int {name}_calls({name}_entry *run, void *state, void *scratch, const void *weights, const {name}_inputs *in,
    const {name}_outputs *out, volatile unsigned char *other, size_t other_bytes, size_t calls, size_t marks,
    uint64_t *stamps)
{{
    {name}_entry *const called = marks > 2 ? {name}_marked : run ? run : {name}_{entry};
    for (size_t n = 0; n < calls; ++n, stamps += marks) {{
        for (size_t i = 0; i < other_bytes; i += 64) other[i] = (unsigned char)(other[i] + 1);
        hr_mark = stamps + 1;
        stamps[0] = hr_ticks();
        const int code = called(state, scratch, weights, in, out);
        stamps[marks - 1] = hr_ticks();
        if (code) return code;
    }}
    return 0;
}}

void {name}_marks(size_t count, uint64_t *stamps)
{{
    hr_mark = stamps;
    for (size_t n = 0; n < count; ++n) HR_MARK();
}}
"""
