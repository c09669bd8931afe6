"""Signatures of the vector primitives: one entry per operation, in the order of the documentation.

In `returns` and `params`: T the type itself, E its element, M its mask, U the unsigned type of the same
shape, J i32 of as many lanes, S the second (source) type of the name, H the type of half the lanes. In a
scalar type T is E.
`kinds` are the element kinds it exists for: f floats, i signed, u unsigned, h 16-bit floats held as bits.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Signature:
    op: str
    returns: str
    params: str
    kinds: str
    doc: str
    types: int = 1  # how many type suffixes the name has


def _table(*rows: Signature) -> dict[str, Signature]:
    return {row.op: row for row in rows}


_S = Signature
SIGNATURES = _table(
    _S("load", "T", "const E *p", "fiu", "L elements from p, which needs only element alignment"),
    _S("store", "void", "E *p, T a", "fiu", "L elements to p"),
    _S(
        "load_n",
        "T",
        "const E *p, int n",
        "fiu",
        "first n (0 ≤ n ≤ L) elements, the rest 0; reads nothing beyond",
    ),
    _S("store_n", "void", "E *p, int n, T a", "fiu", "first n (0 ≤ n ≤ L) lanes; writes nothing beyond"),
    _S("load_strided", "T", "const E *p, ptrdiff_t step", "fiu", "lane i from p[i * step]"),
    _S("store_strided", "void", "E *p, ptrdiff_t step, T a", "fiu", "lane i to p[i * step]"),
    _S(
        "load_transposed",
        "void",
        "const E *p, ptrdiff_t step, T *out",
        "fiu",
        "lane i of out[j] from p[i * step + j], for 0 ≤ i, j < L",
    ),
    _S("gather", "T", "const E *p, const int32_t *index", "fiu", "lane i from p[index[i]]"),
    _S("splat", "T", "E a", "fiu", "a in every lane"),
    _S("iota", "T", "void", "fiu", "0, 1, 2, …"),
    _S("lo", "H", "T a", "fiu", "lower half of the lanes (vectors)"),
    _S("hi", "H", "T a", "fiu", "upper half of the lanes (vectors)"),
    _S("cat", "T", "H lo, H hi", "fiu", "two halves joined (vectors)"),
    _S("add", "T", "T a, T b", "fiuh", "a + b; integers wrap"),
    _S("sub", "T", "T a, T b", "fiuh", "a - b; integers wrap"),
    _S("mul", "T", "T a, T b", "fiuh", "a * b; integers wrap"),
    _S("neg", "T", "T a", "fiu", "-a; integers wrap"),
    _S("abs", "T", "T a", "fiu", "|a|; the least integer stays itself"),
    _S("div", "T", "T a, T b", "fiuh", "a / b; integers truncate, x / 0 is 0, least / -1 is least"),
    _S("rem", "T", "T a, T b", "iu", "a - div(a, b) * b, sign of a; a rem 0 is a"),
    _S("mod", "T", "T a, T b", "iu", "remainder with the sign of b; a mod 0 is a"),
    _S("fma", "T", "T a, T b, T c", "fh", "a * b + c; one rounding exactly where Isa.fma, else two"),
    _S("fnma", "T", "T a, T b, T c", "fh", "c - a * b; one rounding exactly where Isa.fma, else two"),
    _S(
        "dot4",
        "T",
        "T a, T b, T c",
        "i",
        "c + the sum over a lane of unsigned byte of a * signed byte of b; wraps",
    ),
    _S("dot2", "T", "J a, J b, T c", "f", "c + the sum over a lane of bf16 of a * bf16 of b, both in 32 bits"),
    _S("min", "T", "T a, T b", "fiu", "smaller; NaN if either is NaN"),
    _S("max", "T", "T a, T b", "fiu", "larger; NaN if either is NaN"),
    _S("min_fast", "T", "T a, T b", "fiu", "a < b ? a : b, so b if either is NaN"),
    _S("max_fast", "T", "T a, T b", "fiu", "a > b ? a : b, so b if either is NaN"),
    _S("copysign", "T", "T a, T b", "f", "|a| with the sign bit of b"),
    _S("sqrt", "T", "T a", "f", "correctly rounded (f64 without an instruction: within 0.51 ULP)"),
    _S("floor", "T", "T a", "f", "towards minus infinity"),
    _S("ceil", "T", "T a", "f", "towards plus infinity"),
    _S("trunc", "T", "T a", "f", "towards zero"),
    _S("round", "T", "T a", "f", "nearest, ties to even"),
    _S(
        "ldexp",
        "T",
        "T a, T n",
        "f",
        "a * 2**n, one rounding if 0.5 ≤ |a| < 4; only for whole n, |n| ≤ 252 (f32), |n| ≤ 2044 (f64)",
    ),
    _S("lt", "M", "T a, T b", "fiu", "a < b as a mask: every bit of the lane set, or none"),
    _S("le", "M", "T a, T b", "fiu", "a <= b"),
    _S("gt", "M", "T a, T b", "fiu", "a > b"),
    _S("ge", "M", "T a, T b", "fiu", "a >= b"),
    _S("eq", "M", "T a, T b", "fiu", "a == b"),
    _S("ne", "M", "T a, T b", "fiu", "a != b; ne(a, a) is the NaN test"),
    _S("select", "T", "M m, T a, T b", "fiu", "lane of a where the mask is set, else of b"),
    _S("select_lt", "T", "T x, T y, T a, T b", "f", "select(lt(x, y), a, b) in fewer instructions"),
    _S("and", "T", "T a, T b", "iu", "a & b"),
    _S("or", "T", "T a, T b", "iu", "a | b"),
    _S("xor", "T", "T a, T b", "iu", "a ^ b"),
    _S("not", "T", "T a", "iu", "~a"),
    _S("shl", "T", "T a, int s", "iu", "every lane << s, 0 ≤ s < width"),
    _S("shr", "T", "T a, int s", "iu", "every lane >> s, 0 ≤ s < width; arithmetic for signed"),
    _S("shlv", "T", "T a, T s", "u", "lane << its own s; 0 when s ≥ width"),
    _S("shrv", "T", "T a, T s", "u", "lane >> its own s; 0 when s ≥ width"),
    _S("any", "int", "T m", "i", "1 if any lane of a mask is set"),
    _S("all", "int", "T m", "i", "1 if every lane of a mask is set"),
    _S("hsum", "E", "T a", "fiu", "sum of the lanes, halves folded onto each other; integers wrap"),
    _S("hprod", "E", "T a", "fiu", "product of the lanes, same order; integers wrap"),
    _S("hmin", "E", "T a", "fiu", "smallest lane; NaN if any is NaN"),
    _S("hmax", "E", "T a", "fiu", "largest lane; NaN if any is NaN"),
    _S("cast", "T", "S a", "fiu", "the same bits as another type of the same size", 2),
    _S(
        "cvt",
        "T",
        "S a",
        "fiuh",
        "to T from S as C converts: integers wrap, floats round to nearest even; float to "
        "integer only inside the range of T; 16-bit floats f16, bf16 to and from f32, f64",
        2,
    ),
    _S(
        "sat",
        "T",
        "S a",
        "iu",
        "to T from S, truncated towards zero and clamped to the range of T; NaN is 0",
        2,
    ),
    _S(
        "near",
        "T",
        "S a, E low, E high",
        "i",
        "i32 from f32: nearest, ties to even, within low … high; NaN is 0; -2**22 ≤ low ≤ 0 ≤ high ≤ 2**22",
        2,
    ),
    _S(
        "quotient",
        "T",
        "T a, E b, E high, E low",
        "f",
        "a / b; high + low is near 1 / b, and where Isa.fma it is a * low + a * high",
    ),
)
