"""NAME_bridge.c: calls of one argument for Python.

Passing five pointers through ctypes takes about 0.3 µs longer than passing one, so the library that
Python loads also holds functions that take the five from a struct. They refuse, at the price of one
atomic exchange, to run on an instance that is running already.
"""

from __future__ import annotations

import ctypes

BUSY = -1000  # returned when the instance is in use by another thread


class Call(ctypes.Structure):
    """The argument of the bridge: everything a run needs, as addresses."""

    _fields_ = (
        ("state", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("inputs", ctypes.c_void_p),
        ("outputs", ctypes.c_void_p),
        ("busy", ctypes.c_void_p),
    )

    state: int
    scratch: int
    weights: int
    inputs: int
    outputs: int
    busy: int


class StreamCall(ctypes.Structure):
    """The argument of the stream functions: a Call, frames of each time input, frames of each output."""

    _fields_ = (("call", Call), ("n", ctypes.c_void_p), ("n_out", ctypes.c_void_p))

    call: Call
    n: int
    n_out: int


def bridge_source(name: str, has_states: bool, has_stream: bool = False) -> str:
    """C text of NAME_bridge.c; with states also what reads and writes them in portable form."""
    return _calls(name) + _builtin(name) + (_states(name) if has_states else "") + (_stream(name) if has_stream else "")


def _calls(name: str) -> str:
    return f"""\
/* What headrace.open calls in the shared library. A C program needs {name}.c only. */
#include "{name}.h"
#include <stddef.h>

typedef struct {{
    void *state, *scratch;
    const void *weights;
    const {name}_inputs *inputs;
    const {name}_outputs *outputs;
    int *busy;
}} call;

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

EXPORT int {name}_bridge_run(const call *c);
EXPORT int {name}_bridge_init(const call *c);
EXPORT int {name}_bridge_fresh_run(const call *c);

static int enter(const call *c) {{ return __atomic_exchange_n(c->busy, 1, __ATOMIC_ACQUIRE); }}
static int leave(const call *c, int code) {{
    __atomic_store_n(c->busy, 0, __ATOMIC_RELEASE);
    return code;
}}

int {name}_bridge_run(const call *c) {{
    if (enter(c)) return {BUSY};
    return leave(c, {name}_run(c->state, c->scratch, c->weights, c->inputs, c->outputs));
}}

int {name}_bridge_init(const call *c) {{
    if (enter(c)) return {BUSY};
    return leave(c, {name}_init(c->state, c->weights));
}}

int {name}_bridge_fresh_run(const call *c) {{
    if (enter(c)) return {BUSY};
    int code = {name}_init(c->state, c->weights);
    if (code == 0) code = {name}_run(c->state, c->scratch, c->weights, c->inputs, c->outputs);
    return leave(c, code);
}}
"""


def _builtin(name: str) -> str:
    """builtin.py has the other side."""
    return f"""
/* A run as a built-in function of CPython: self is a tuple that begins with the address of a `bound`. */
typedef struct {{
    void *(*item)(void *, ptrdiff_t);
    void *(*as_pointer)(void *);
    void (*incref)(void *);
    void *(*call)(void *, const char *, ...);
    void *none;
}} interpreter;

typedef struct {{
    const call *call;
    void *fail;
}} bound;

EXPORT void {name}_bridge_interpreter(const interpreter *p);
EXPORT void *{name}_bridge_bound(void *self, void *unused);

static interpreter python;

void {name}_bridge_interpreter(const interpreter *p) {{ python = *p; }}

void *{name}_bridge_bound(void *self, void *unused) {{
    const bound *b = python.as_pointer(python.item(self, 0));
    int code = {name}_bridge_run(b->call);
    (void)unused;
    if (code) return python.call(b->fail, "i", code);
    python.incref(python.none);
    return python.none;
}}
"""


def _states(name: str) -> str:
    return f"""
/* The portable state lies where c->outputs points (get) or c->inputs points (set). */
EXPORT int {name}_bridge_get_state(const call *c);
EXPORT int {name}_bridge_set_state(const call *c);

int {name}_bridge_get_state(const call *c) {{
    if (enter(c)) return {BUSY};
    return leave(c, {name}_get_state(c->state, (void *)(size_t)c->outputs));
}}

int {name}_bridge_set_state(const call *c) {{
    if (enter(c)) return {BUSY};
    return leave(c, {name}_set_state(c->state, c->inputs));
}}
"""


def _stream(name: str) -> str:
    return f"""
typedef struct {{
    call base;
    const size_t *n;
    size_t *n_out;
}} stream_call;

EXPORT int {name}_bridge_push(const stream_call *c);
EXPORT int {name}_bridge_flush(const stream_call *c);

int {name}_bridge_push(const stream_call *c) {{
    const call *b = &c->base;
    if (enter(b)) return {BUSY};
    return leave(b, {name}_push_each(b->state, b->scratch, b->weights, b->inputs, c->n, b->outputs, c->n_out));
}}

int {name}_bridge_flush(const stream_call *c) {{
    const call *b = &c->base;
    if (enter(b)) return {BUSY};
    return leave(b, {name}_flush(b->state, b->scratch, b->weights, b->outputs, c->n_out));
}}
"""
