"""The same C with a clock read after every kernel, for profiling.

Artifacts keep their C without any trace of this; `marked` works on its text, so that what is timed is what
was compiled.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from headrace.errors import Error

NOT_MARKED = -1001  # NAME_calls: the run did not come by the marks
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


def marked(source: str, name: str, kernels: Sequence[str]) -> str:
    """NAME.c with a mark after each kernel of NAME_run, or of that part of it for one instruction set whose
    kernels these are, and two functions that use them.

    NAME_calls(run, state, scratch, weights, in, out, other, other_bytes, calls, marks, stamps): call `run`,
    which is NAME_run of this text or of any other library; stamps[calls][marks] gets the clock before, after
    each kernel (this text only) and after each call; `other_bytes` of other memory are touched before.
    NAME_marks(count, stamps): marks without anything between. Error when the text does not call `kernels`.
    """
    lines = source.splitlines()
    for start, line in enumerate(lines):
        if line.startswith(f"int {name}_run"):
            stop = next((n for n in range(start, len(lines)) if lines[n] == "}"), len(lines))
            body, found = _marked(lines[start:stop])
            if found == list(kernels):
                return "\n".join([CLOCK, *lines[:start], *body, *lines[stop:], _calls(name)])
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


def _calls(name: str) -> str:
    return f"""
typedef int {name}_run_function(void *, void *, const void *, const {name}_inputs *, const {name}_outputs *);

int {name}_calls({name}_run_function *run, void *state, void *scratch, const void *weights, const {name}_inputs *in,
    const {name}_outputs *out, volatile unsigned char *other, size_t other_bytes, size_t calls, size_t marks,
    uint64_t *stamps)
{{
    for (size_t n = 0; n < calls; ++n, stamps += marks) {{
        for (size_t i = 0; i < other_bytes; i += 64) other[i] = (unsigned char)(other[i] + 1);
        hr_mark = stamps + 1;
        stamps[0] = hr_ticks();
        const int code = run ? run(state, scratch, weights, in, out) : {name}_run(state, scratch, weights, in, out);
        stamps[marks - 1] = hr_ticks();
        if (code) return code;
        if (!run && hr_mark != stamps + marks - 1) return {NOT_MARKED};
    }}
    return 0;
}}

void {name}_marks(size_t count, uint64_t *stamps)
{{
    hr_mark = stamps;
    for (size_t n = 0; n < count; ++n) HR_MARK();
}}
"""
