"""Hand-written C that keeps the contract of generated C, for tests of everything after code generation."""

from __future__ import annotations

import numpy as np

from headrace.codegen.generated import Generated, KernelInfo, Port, Symbol

WEIGHTS = np.arange(1, 9, dtype=np.float32)


def running_sum(name: str = "demo", scale: float = 1.0) -> Generated:
    """sum += x; y = scale * weights * sum, over 8 floats; the sum is the state."""
    source = f"""\
#include "{name}.h"
#include <string.h>

size_t {name}_state_bytes(void) {{ return {name.upper()}_STATE_BYTES; }}
size_t {name}_scratch_bytes(void) {{ return {name.upper()}_SCRATCH_BYTES; }}
size_t {name}_align(void) {{ return {name.upper()}_ALIGN; }}

int {name}_init(void *state, const void *weights) {{
    if (((uintptr_t)weights | (uintptr_t)state) % 64) return 2;
    memset(state, 0, 32);
    return 0;
}}

int {name}_run(void *state, void *scratch, const void *weights,
    const {name}_inputs *in, const {name}_outputs *out) {{
    float *sum = (float *)state, *t = (float *)scratch;
    const float *w = (const float *)weights;
    for (int i = 0; i < 8; i++) sum[i] += in->x[i];
    for (int i = 0; i < 8; i++) t[i] = w[i] * {float(scale)!r}f;
    for (int i = 0; i < 8; i++) out->y[i] = t[i] * sum[i];
    return in->x[0] > 1e30f ? 7 : 0;
}}

int {name}_get_state(const void *state, void *portable) {{ memcpy(portable, state, 32); return 0; }}
int {name}_set_state(void *state, const void *portable) {{ memcpy(state, portable, 32); return 0; }}
"""
    more = f"""
int {name}_get_state(const void *state, void *portable);
int {name}_set_state(void *state, const void *portable);
"""
    return Generated(
        name=name,
        source=source,
        header=_header(name, 32, 32, "const float *x;", "float *y;", more),
        weights=WEIGHTS.tobytes(),
        align=64,
        state_bytes=32,
        scratch_bytes=32,
        inputs=(Port("x:0", "float32", (1, 8), "x", nbytes=32),),
        outputs=(Port("y:0", "float32", (1, 8), "y", nbytes=32),),
        states=(Port("sum", "float32", (1, 8), "", offset=0, nbytes=32),),
        kernels=(KernelInfo(f"{name}_k0", ("add", "mul"), 8, 24, 32, 64),),
        macs=8,
        scratch_lower_bound=32,
        facts={"error_codes": {"7": "the input is too large"}},
    )


def doubled_rows(name: str = "rows", bound: int = 6, divisor: int = 2) -> Generated:
    """y[T, 3] = 2 * x[T, 3], with T known at run time; n[1] counts the values."""
    source = f"""\
#include "{name}.h"

size_t {name}_state_bytes(void) {{ return 0; }}
size_t {name}_scratch_bytes(void) {{ return 0; }}
size_t {name}_align(void) {{ return 64; }}

int {name}_init(void *state, const void *weights) {{ (void)state; (void)weights; return 0; }}

int {name}_run(void *state, void *scratch, const void *weights,
    const {name}_inputs *in, const {name}_outputs *out) {{
    (void)state; (void)scratch; (void)weights;
    for (int64_t i = 0; i < 3 * in->T; i++) out->y[i] = 2 * in->x[i];
    out->n[0] = 3 * in->T;
    return 0;
}}
"""
    return Generated(
        name=name,
        source=source,
        header=_header(name, 0, 0, "const float *x; int64_t T;", "float *y; int64_t *n;"),
        weights=b"",
        align=64,
        state_bytes=0,
        scratch_bytes=0,
        inputs=(Port("x", "float32", ("T", 3), "x", nbytes=12 * bound),),
        outputs=(
            Port("y", "float32", ("T", 3), "y", nbytes=12 * bound),
            Port("n", "int64", (), "n", nbytes=8),
        ),
        symbols=(Symbol("T", "T", bound, divisor),),
    )


def copied(dtype: str, c_type: str, itemsize: int, count: int = 4, name: str = "copy") -> Generated:
    """y = x for `count` elements of one dtype; large counts do not fit the staging memory."""
    source = f"""\
#include "{name}.h"
#include <string.h>

size_t {name}_state_bytes(void) {{ return 0; }}
size_t {name}_scratch_bytes(void) {{ return 0; }}
size_t {name}_align(void) {{ return 64; }}
int {name}_init(void *state, const void *weights) {{ (void)state; (void)weights; return 0; }}
int {name}_run(void *state, void *scratch, const void *weights,
    const {name}_inputs *in, const {name}_outputs *out) {{
    (void)state; (void)scratch; (void)weights;
    memcpy(out->y, in->x, {count * itemsize});
    return 0;
}}
"""
    ports = (Port("x", dtype, (count,), "x", nbytes=count * itemsize),)
    return Generated(
        name=name,
        source=source,
        header=_header(name, 0, 0, f"const {c_type} *x;", f"{c_type} *y;"),
        weights=b"",
        align=64,
        state_bytes=0,
        scratch_bytes=0,
        inputs=ports,
        outputs=(Port("y", dtype, (count,), "y", nbytes=count * itemsize),),
    )


def _header(name: str, state: int, scratch: int, inputs: str, outputs: str, more: str = "") -> str:
    return f"""\
#ifndef {name.upper()}_H
#define {name.upper()}_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define {name.upper()}_STATE_BYTES {state}
#define {name.upper()}_SCRATCH_BYTES {scratch}
#define {name.upper()}_ALIGN 64
size_t {name}_state_bytes(void);
size_t {name}_scratch_bytes(void);
size_t {name}_align(void);
extern const unsigned char {name}_weights[];
typedef struct {{ {inputs} }} {name}_inputs;
typedef struct {{ {outputs} }} {name}_outputs;
int {name}_init(void *state, const void *weights);
int {name}_run(void *state, void *scratch, const void *weights,
    const {name}_inputs *in, const {name}_outputs *out);
{more}
#ifdef __cplusplus
}}
#endif
#endif
"""


def waits(name: str) -> Generated:
    """Sets y to 1, then returns when flag is not 0: to be in the middle of a run."""
    source = f"""\
#include "{name}.h"

size_t {name}_state_bytes(void) {{ return 0; }}
size_t {name}_scratch_bytes(void) {{ return 0; }}
size_t {name}_align(void) {{ return 64; }}
int {name}_init(void *state, const void *weights) {{ (void)state; (void)weights; return 0; }}
int {name}_run(void *state, void *scratch, const void *weights,
    const {name}_inputs *in, const {name}_outputs *out) {{
    (void)state; (void)scratch; (void)weights;
    *(volatile int32_t *)out->y = 1;
    while (!*(const volatile int32_t *)in->flag) {{ }}
    return 0;
}}
"""
    return Generated(
        name=name,
        source=source,
        header=_header(name, 0, 0, "const int32_t *flag;", "int32_t *y;"),
        weights=b"",
        align=64,
        state_bytes=0,
        scratch_bytes=0,
        inputs=(Port("flag", "int32", (1,), "flag", nbytes=4),),
        outputs=(Port("y", "int32", (1,), "y", nbytes=4),),
    )
