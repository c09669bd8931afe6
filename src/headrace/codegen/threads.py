"""Kernels in parts, in C: what shares them out among the caller's threads.

A kernel whose schedule has a Parallel step takes the number of a part as its last argument. NAME_kN_part
calls it with the arguments in a NAME_kN_call; NAME_share hands it to the caller's parallel_for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Argument(Protocol):
    """A parameter of a kernel: its C name and type."""

    @property
    def name(self) -> str: ...
    @property
    def ctype(self) -> str: ...


def declarations(name: str) -> list[str]:
    """Lines of NAME.h: the type of the member `threads` of NAME_inputs."""
    return [
        "/* Threads for large kernels. parallel_for(context, parts, part, call) calls part(call, n) once for each n",
        " * from 0 to parts - 1, in any order, on any threads, the caller's own among them, and returns when all of",
        " * these have returned. What they wrote must be visible to the caller then. Results do not depend on the",
        " * order, on the number of threads, or on their floating-point modes: parts run in the mode of the caller.",
        f" * {name}_pool.h has one on POSIX threads. */",
        f"typedef void {name}_part(void *call, size_t n);",
        "typedef struct {",
        f"    void (*parallel_for)(void *context, size_t parts, {name}_part *part, void *call);",
        "    void *context;",
        f"}} {name}_threads;",
        "",
    ]


def member(name: str) -> str:
    """The member of NAME_inputs."""
    return f"    const {name}_threads *threads; /* NULL: everything on the calling thread, with the same result */"


def part_function(kernel: str, arguments: Sequence[Argument]) -> str:
    """C text of KERNEL_call and KERNEL_part."""
    members = "".join(f"    {_plain(a.ctype)}{a.name};\n" for a in arguments)
    passed = "".join(f"c->{a.name}, " for a in arguments)
    return f"""\
typedef struct {{
{members}}} {kernel}_call;
static void {kernel}_part(void *call, size_t n)
{{
    const {kernel}_call *const c = (const {kernel}_call *)call;
    {kernel}({passed}(ptrdiff_t)n);
}}
"""


def _plain(ctype: str) -> str:
    """Type of a struct member that holds the argument."""
    pointer = ctype.replace("__restrict ", "")
    return pointer if "*" in pointer else pointer.removeprefix("const ")


def call(name: str, kernel: str, arguments: Sequence[str], parts: int) -> str:
    """C text of a call of a kernel in parts; {name}_share runs them."""
    return f"""\
    {{
        {kernel}_call call = {{{", ".join(arguments)}}};
        {name}_share(in->threads, {parts}, {kernel}_part, &call);
    }}"""


def share_function(name: str) -> str:
    """C text of NAME_share: parts by the caller's threads, in the floating-point mode of the caller."""
    return f"""\
#if defined(__x86_64__) || defined(__SSE__)
static inline uint64_t {name}_mode(void) {{ return __builtin_ia32_stmxcsr(); }}
static inline void {name}_set_mode(uint64_t mode)
{{
    __asm__ volatile("" ::: "memory");
    __builtin_ia32_ldmxcsr((unsigned)mode);
    __asm__ volatile("" ::: "memory");
}}
#elif defined(__aarch64__)
static inline uint64_t {name}_mode(void)
{{
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}}
static inline void {name}_set_mode(uint64_t mode)
{{
    __asm__ volatile("msr fpcr, %0" :: "r"(mode) : "memory");
}}
#else
static inline uint64_t {name}_mode(void) {{ return 0; }}
static inline void {name}_set_mode(uint64_t mode) {{ (void)mode; }}
#endif

typedef struct {{
    {name}_part *part;
    void *call;
    uint64_t mode;
}} {name}_job;

static void {name}_job_part(void *call, size_t n)
{{
    const {name}_job *const job = (const {name}_job *)call;
    const uint64_t own = {name}_mode();
    {name}_set_mode(job->mode);
    job->part(job->call, n);
    {name}_set_mode(own);
}}

static void {name}_share(const {name}_threads *threads, size_t parts, {name}_part *part, void *call)
{{
    if (threads) {{
        {name}_job job = {{part, call, {name}_mode()}};
        threads->parallel_for(threads->context, parts, {name}_job_part, &job);
        return;
    }}
    for (size_t n = 0; n < parts; n++) part(call, n);
}}"""
