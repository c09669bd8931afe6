"""Small C functions that generated code calls beside the vector primitives: division of indices, where a
divisor of zero gives 0 and leaves the dividend as the rest, as for other integers; integer powers. Each is
written out only where its name occurs."""

from __future__ import annotations

import re

from headrace.codegen.scalar import CTYPES
from headrace.program.dtypes import INTEGERS, SIGNED

_INDEX = {
    "fetch_ahead": """\
static inline __attribute__((always_inline, unused)) void fetch_ahead(const void *p, size_t bytes)
{
    __builtin_prefetch((const void *)((uintptr_t)p + bytes), 0, 2);
}
""",
    "keep_apart": """\
static inline __attribute__((always_inline, unused)) void keep_apart(void)
{
    __asm__ volatile("" ::: "memory");
}
""",
    "load_word": """\
static inline __attribute__((always_inline, unused)) int32_t load_word(const uint8_t *p, int n)
{
    if (n == 4) return (int32_t)((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
    return (int32_t)((uint32_t)p[0] | (n > 1 ? (uint32_t)p[1] << 8 : 0) | (n > 2 ? (uint32_t)p[2] << 16 : 0));
}
""",
    "index_div": """\
static inline ptrdiff_t index_div(ptrdiff_t a, ptrdiff_t b)
{
    if (b == 0) return 0;
    return b == -1 ? (ptrdiff_t)(0 - (size_t)a) : a / b;
}
""",
    "index_floordiv": """\
static inline ptrdiff_t index_floordiv(ptrdiff_t a, ptrdiff_t b)
{
    if (b == 0) return 0;
    if (b == -1) return (ptrdiff_t)(0 - (size_t)a);
    ptrdiff_t q = a / b;
    return q - (a % b != 0 && (a % b < 0) != (b < 0));
}
""",
    "index_mod": """\
static inline ptrdiff_t index_mod(ptrdiff_t a, ptrdiff_t b)
{
    if (b == 0) return a;
    if (b == -1) return 0;
    ptrdiff_t r = a % b;
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
""",
}


def helpers(code: str) -> str:
    """C text of the helpers that `code` calls."""
    names = set(re.findall(r"\b(index_\w+|power_\w+|load_word|fetch_ahead|keep_apart)\(", code))
    texts = [text for name, text in _INDEX.items() if name in names]
    texts += [_power(dtype) for dtype in INTEGERS if f"power_{dtype}" in names]
    return "".join(texts)


def _power(dtype: str) -> str:
    """Wrapping power by squaring; with a negative exponent the power rounded toward zero, 0 for the base 0."""
    c, u = CTYPES[dtype], "uint64_t"
    negative = f"    if (y < 0) return ({c})(x == 1 ? 1 : x == -1 ? (y & 1 ? -1 : 1) : 0);\n" if dtype in SIGNED else ""
    return f"""\
static inline {c} power_{dtype}({c} x, {c} y)
{{
    {u} result = 1, base = ({u})x;
{negative}    for ({u} n = ({u})y; n != 0; n >>= 1, base *= base) {{
        if (n & 1) result *= base;
    }}
    return ({c})result;
}}
"""
