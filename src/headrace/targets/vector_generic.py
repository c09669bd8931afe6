"""Bodies of the vector primitives in portable C: GNU vectors and plain scalars, no intrinsics.

A body is a template (see headrace.targets.expand); besides the type letters it uses $L the lanes, $B the bits
of an element, $P its mantissa bits, $f the suffix of its float literals, and $W, an unsigned type in which
products of $U do not overflow.
"""

from __future__ import annotations

from headrace.targets.vector_types import ELEMS, VType

_MANTISSA = {"f32": 24, "f64": 53}


def body(op: str, t: VType, s: VType | None) -> str | None:
    """C statements of hr_<op>_<t>[_<s>]; None when the operation does not exist for the type."""
    if op == "cvt" and s is not None:
        return _convert(t, s)
    if op == "sat" and s is not None:
        return _saturate(t, s)
    if op == "near" and s is not None:
        return _near(t, s)
    if op in _MEMORY:
        return _MEMORY[op](t)
    if op in ("lo", "hi", "cat"):
        return None if t.lanes < 2 else _halves(op, t)
    if op in ("hsum", "hprod", "hmin", "hmax"):
        return _reduce(op[1:], t)
    if op in ("any", "all"):
        return _mask_test(op, t)
    if op in _DIVISION and t.elem.kind in "iu" and t.lanes == 1:
        return _DIVISION[op][t.elem.kind == "i"]
    if op == "abs" and t.elem.kind == "u":
        return "return a;"
    if op == "sqrt" and t.lanes == 1:
        return _SQRT32 if t.elem.name == "f32" else _SQRT64
    if t.elem.kind == "h":
        return _HALF_ARITHMETIC.get(op)
    if t.elem.kind == "f":
        text = (_FLOAT_SCALAR if t.lanes == 1 else _FLOAT_VECTOR).get(op) or _FLOAT.get(op)
    else:
        text = (_INT_SCALAR if t.lanes == 1 else _INT_VECTOR).get(op) or _INT.get(op)
    text = text or (_SCALAR if t.lanes == 1 else _VECTOR).get(op) or _ANY.get(op)
    return _lanewise(text) if text and text.startswith("LANES ") else text


def _lanewise(text: str) -> str:
    """`LANES <expression in [i]>` spelled as a loop over the lanes."""
    return f"$T r = a;\nfor (int i = 0; i < $L; i++) r[i] = {text.removeprefix('LANES ')};\nreturn r;"


_ANY = {
    "add": "return a + b;",
    "sub": "return a - b;",
    "mul": "return a * b;",
    "neg": "return -a;",
}

_SCALAR = {
    "splat": "return a;",
    "iota": "return 0;",
    "lt": "return -($M)(a < b);",
    "le": "return -($M)(a <= b);",
    "gt": "return -($M)(a > b);",
    "ge": "return -($M)(a >= b);",
    "eq": "return -($M)(a == b);",
    "ne": "return -($M)(a != b);",
    "select": "return m ? a : b;",
    "min_fast": "return a < b ? a : b;",
    "max_fast": "return a > b ? a : b;",
    "cast": "$T r;\n__builtin_memcpy(&r, &a, sizeof r);\nreturn r;",
}

_VECTOR = {
    "lt": "return ($M)(a < b);",
    "le": "return ($M)(a <= b);",
    "gt": "return ($M)(a > b);",
    "ge": "return ($M)(a >= b);",
    "eq": "return ($M)(a == b);",
    "ne": "return ($M)(a != b);",
    "select": "return ($T)((m & ($M)a) | (~m & ($M)b));",
    "min_fast": "return select$(lt$(a, b), a, b);",
    "max_fast": "return select$(gt$(a, b), a, b);",
    "cast": "return ($T)a;",
}

_FLOAT = {
    "div": "return a / b;",
    "fma": "return a * b + c;",
    "fnma": "return c - a * b;",
    "min": "return select$(ne$(a, a), a, min_fast$(a, b));",
    "max": "return select$(ne$(a, a), a, max_fast$(a, b));",
    "abs": "return cast$T$U(cast$U$T(a) & splat$U($MAX));",
    # the upper halves first, as the instruction has them
    "dot2": """\
$K x = cast$K$J(a), y = cast$K$J(b), high = splat$K(0xffff0000u);
$T r = fma$(cvt$T$F(cast$F$K(x & high)), cvt$T$F(cast$F$K(y & high)), c);
return fma$(cvt$T$F(cast$F$K(x << 16)), cvt$T$F(cast$F$K(y << 16)), r);""",
    "copysign": "return cast$T$U((cast$U$T(a) & splat$U($MAX)) | (cast$U$T(b) & ~splat$U($MAX)));",
    "select_lt": "return select$(lt$(x, y), a, b);",
    "trunc": "return copysign$(floor$(abs$(a)), a);",
    "floor": "$T r = round$(a);\nreturn r - select$(gt$(r, a), splat$(1), splat$(0));",
    "ceil": "$T r = round$(a);\nreturn copysign$(r + select$(lt$(r, a), splat$(1), splat$(0)), a);",
    "round": "$T m = splat$($TWO_P), x = abs$(a);\nreturn select_lt$(x, m, copysign$((x + m) - m, a), a);",
    # two factors 2**h and 2**(n - h), whose exponents come from the low bits after adding 1.5 * 2**(p-1)
    "ldexp": """\
$T t = n * 0.5$f + $ROUNDER, h = (n - (t - $ROUNDER)) + $ROUNDER;
$T p = cast$T$U((cast$U$T(t) << $P) + splat$U($ONE)), q = cast$T$U((cast$U$T(h) << $P) + splat$U($ONE));
return a * p * q;""",
}

_FLOAT_SCALAR = {
    "min": "return a < b || a != a ? a : b;",
    "max": "return a > b || a != a ? a : b;",
    "select_lt": "return x < y ? a : b;",
}

_FLOAT_VECTOR = {
    "sqrt": "LANES sqrt$E(a[i])",
}

# Square roots without an instruction: a bit-level first guess of 1/sqrt, Newton steps in double, and for
# double itself one correction with the exact residual a - s*s (Dekker's product).
_SQRT32 = """\
double x = (double)a, y;
uint64_t b;
if (!(a > 0) || a == __builtin_inff()) return a < 0 ? __builtin_nanf("") : a;
__builtin_memcpy(&b, &x, sizeof b);
b = UINT64_C(0x5fe6eb50c7b537a9) - (b >> 1);
__builtin_memcpy(&y, &b, sizeof y);
for (int i = 0; i < 4; i++) y = y * (1.5 - 0.5 * x * y * y);
y = x * y;
return (float)(0.5 * (y + x / y));"""
_SQRT64 = """\
double s, y, h, l, c, d, x = a, k = 1;
uint64_t b;
if (!(a > 0) || a == __builtin_inf()) return a < 0 ? __builtin_nan("") : a;
if (a < 0x1p-900) x = a * 0x1p128, k = 0x1p-64;
if (a > 0x1p900) x = a * 0x1p-128, k = 0x1p64;
__builtin_memcpy(&b, &x, sizeof b);
b = UINT64_C(0x5fe6eb50c7b537a9) - (b >> 1);
__builtin_memcpy(&y, &b, sizeof y);
for (int i = 0; i < 4; i++) y = y * (1.5 - 0.5 * x * y * y);
s = x * y;
c = 134217729.0 * s;
h = c - (c - s);
l = s - h;
d = ((x - h * h) - 2 * h * l) - l * l;
return (s + 0.5 * d * y) * k;"""

_INT = {
    "min": "return min_fast$(a, b);",
    "max": "return max_fast$(a, b);",
    "and": "return ($T)(a & b);",
    "or": "return ($T)(a | b);",
    "xor": "return ($T)(a ^ b);",
    "not": "return ($T)~a;",
    "add": "return ($T)(($W)a + ($W)b);",
    "sub": "return ($T)(($W)a - ($W)b);",
    "mul": "return ($T)(($W)a * ($W)b);",
    "neg": "return ($T)(splat$U(0) - ($U)a);",
    "shl": "return ($T)(($U)a << s);",
    "shr": "return a >> s;",
}

_INT_SCALAR = {
    "dot4": """\
$W r = ($W)c;
for (int s = 0; s < $B; s += 8)
    r += (($W)a >> s & 255) * ($W)(int8_t)(uint8_t)(($W)b >> s);
return ($T)r;""",
    "abs": "return a < 0 ? ($T)(0 - ($W)a) : a;",
    "neg": "return ($T)(0 - ($W)a);",
    "shl": "return ($T)(($W)a << s);",
    "shr": "return ($T)(a >> s);",
    "shlv": "return s < $B ? ($T)(($W)a << s) : 0;",
    "shrv": "return s < $B ? ($T)(a >> s) : 0;",
}

# (unsigned, signed); the quotient of the least integer and -1 does not fit
_DIVISION = {
    "div": ("return b == 0 ? 0 : ($T)(a / b);", "return b == 0 ? 0 : b == -1 ? neg$(a) : ($T)(a / b);"),
    "rem": ("return b == 0 ? a : ($T)(a % b);", "return b == 0 ? a : b == -1 ? 0 : ($T)(a % b);"),
    "mod": (
        "return rem$(a, b);",
        "$T r = rem$(a, b);\nreturn r != 0 && b != 0 && (r < 0) != (b < 0) ? ($T)(r + b) : r;",
    ),
}

_INT_VECTOR = {
    "dot4": """\
$U r = ($U)c;
for (int s = 0; s < $B; s += 8)
    r += (($U)a >> s & splat$U(255)) * ($U)((($I)(($U)b << ($B - 8 - s))) >> ($B - 8));
return ($T)r;""",
    "abs": "return select$(lt$(a, splat$(0)), neg$(a), a);",
    "div": "LANES div$E(a[i], b[i])",
    "rem": "LANES rem$E(a[i], b[i])",
    "mod": "LANES mod$E(a[i], b[i])",
    "shlv": "return select$(lt$(s, splat$($B)), a << (s & splat$($B - 1)), splat$(0));",
    "shrv": "return select$(lt$(s, splat$($B)), a >> (s & splat$($B - 1)), splat$(0));",
}


def constants(t: VType) -> dict[str, str]:
    """Text of the placeholders that depend on the element only."""
    elem, bits = t.elem, t.elem.bits
    precision = _MANTISSA.get(elem.name, 0)
    wide = t.of("u").c if t.lanes > 1 else f"uint{max(bits, 32)}_t"
    return {
        "$TWO_P": f"0x1p{precision - 1}{'f' if bits == 32 else ''}",
        "$ROUNDER": f"0x1.8p{precision - 1}{'f' if bits == 32 else ''}",
        "$ONE": {"f32": "0x3f800000u", "f64": "UINT64_C(0x3ff0000000000000)"}.get(elem.name, ""),
        "$MAX": f"0x{(1 << (bits - 1)) - 1:x}u" if bits <= 32 else f"UINT64_C(0x{(1 << 63) - 1:x})",
        "$P": str(precision - 1),
        "$W": wide,
        "$B": str(bits),
        "$L": str(t.lanes),
        "$f": "f" if elem.name == "f32" else "",
    }


def _splat(t: VType) -> str:
    return f"$T r = {{{', '.join(['a'] * t.lanes)}}};\nreturn r;"


def _iota(t: VType) -> str:
    return f"$T r = {{{', '.join(map(str, range(t.lanes)))}}};\nreturn r;"


def _unaligned(t: VType) -> str:
    size = t.elem.bits // 8
    return f"typedef $E u __attribute__((vector_size({t.bytes}), aligned({size}), may_alias));\n"


_SCALAR_MEMORY = {
    "load": "return *p;",
    "store": "*p = a;",
    "load_n": "return n > 0 ? *p : 0;",
    "store_n": "if (n > 0) *p = a;",
    "load_strided": "(void)step;\nreturn *p;",
    "store_strided": "(void)step;\n*p = a;",
    "load_transposed": "(void)step;\n*out = *p;",
    "gather": "return p[*index];",
    "splat": "return a;",
    "iota": "return 0;",
}


def _memory(op: str, t: VType) -> str:
    if t.lanes == 1:
        return _SCALAR_MEMORY[op]
    lanes = range(t.lanes)
    match op:
        case "load":
            return _unaligned(t) + "return ($T) * (const u *)p;"
        case "store":
            return _unaligned(t) + "*(u *)p = a;"
        case "load_n":
            return "$T r = {0};\nfor (int i = 0; i < n; i++) r[i] = p[i];\nreturn r;"
        case "store_n":
            return "for (int i = 0; i < n; i++) p[i] = a[i];"
        case "load_strided":
            values = ", ".join("p[0]" if i == 0 else "p[step]" if i == 1 else f"p[{i} * step]" for i in lanes)
            return f"$T r = {{{values}}};\nreturn r;"
        case "store_strided":
            return "\n".join(f"p[{i} * step] = a[{i}];" for i in lanes)
        case "load_transposed":
            return "\n".join(f"out[{i}] = load_strided$(p + {i}, step);" for i in lanes)
        case "gather":
            return f"$T r = {{{', '.join(f'p[index[{i}]]' for i in lanes)}}};\nreturn r;"
        case "splat":
            return _splat(t)
        case _:
            return _iota(t)


_MEMORY = {op: (lambda t, op=op: _memory(op, t)) for op in _SCALAR_MEMORY}


def _halves(op: str, t: VType) -> str:
    half = t.bytes // 2
    if t.lanes == 2:
        texts = {"lo": "return a[0];", "hi": "return a[1];", "cat": "$T r = {lo, hi};\nreturn r;"}
        return texts[op]
    if op == "cat":
        return (
            f"$T r;\n__builtin_memcpy(&r, &lo, {half});\n__builtin_memcpy((char *)&r + {half}, &hi, {half});\nreturn r;"
        )
    offset = "&a" if op == "lo" else f"(const char *)&a + {half}"
    return f"$H r;\n__builtin_memcpy(&r, {offset}, {half});\nreturn r;"


_COMBINE = {"sum": "add", "prod": "mul", "min": "min", "max": "max"}


def _reduce(op: str, t: VType) -> str:
    if t.lanes == 1:
        return "return a;"
    plain = {"sum": "({} + {})", "prod": "({} * {})"}.get(op) if t.elem.kind == "f" else None
    combine = (plain or f"{_COMBINE[op]}$E({{}}, {{}})").format
    if t.lanes == 2:
        return f"return {combine('a[0]', 'a[1]')};"
    if t.lanes == 4:
        return f"return {combine(combine('a[0]', 'a[2]'), combine('a[1]', 'a[3]'))};"
    return f"return h{op}$H({_COMBINE[op]}$H(lo$(a), hi$(a)));"


def _mask_test(op: str, t: VType) -> str:
    if t.lanes == 1:
        return "return m != 0;"
    join = "|" if op == "any" else "&"
    if t.lanes <= 4:
        return f"return ({f' {join} '.join(f'm[{i}]' for i in range(t.lanes))}) != 0;"
    return f"return {op}$H(lo$(m) {join} hi$(m));"


def _convert(t: VType, s: VType) -> str | None:
    if t.lanes != s.lanes:
        return None
    if t.elem == s.elem:
        return "return a;"
    if t.elem.kind == "h" or s.elem.kind == "h":
        return _half_float(t, s)
    number, other = (t, s) if t.elem.kind == "f" else (s, t)
    if t.lanes > 1 and number.elem.kind == "f" and other.elem.bits < 32:
        return "return cvt$T$J(cvt$J$S(a));"
    return "return ($T)a;" if t.lanes == 1 else "return __builtin_convertvector(a, $T);"


def _half_float(t: VType, s: VType) -> str | None:
    pair = (t.elem.name, s.elem.name)
    if pair in _HALF:
        return _HALF[pair]
    if t.elem.name == "f64" and s.elem.kind == "h":
        return "return cvt$T$F(cvt$F$S(a));"
    if s.elem.name == "f64" and t.elem.kind == "h":
        return _ODD
    return None


_HALF = {
    ("f32", "bf16"): "return cast$T$U(cvt$U$X(a) << 16);",
    ("bf16", "f32"): """\
$SU b = cast$SU$S(a), r = (b + splat$SU(0x7fff) + ((b >> 16) & splat$SU(1))) >> 16;
return cvt$X$SU(select$SU(ne$S(a, a), (b >> 16) | splat$SU(0x40), r));""",
    # (float)bits * 2^-24 is exact for f16 subnormals and needs no f32 subnormal
    ("f32", "f16"): """\
$U h = cvt$U$X(a), m = h & splat$U(0x7fff), s = (h & splat$U(0x8000)) << 16;
$U r = (m << 13) + splat$U(112u << 23);
r = select$U(lt$U(m, splat$U(0x0400)), cast$U$T(cvt$T$I(cast$I$U(m)) * splat$(0x1p-24f)), r);
r = select$U(lt$U(m, splat$U(0x7c00)), r, (m << 13) | splat$U(0x7f800000));
return cast$T$U(r | s);""",
    # below 2^-14 adding 0.5, whose last bit is worth 2^-24, rounds to the f16 subnormal grid
    ("f16", "f32"): """\
$SU b = cast$SU$S(a), x = b & splat$SU(0x7fffffff), s = (b >> 16) & splat$SU(0x8000);
$SU r = (x + splat$SU(0xfff) + ((x >> 13) & splat$SU(1)) - splat$SU(112u << 23)) >> 13;
$SU z = cast$SU$S(cast$S$SU(x) + splat$S(0.5f)) - splat$SU(0x3f000000);
r = select$SU(lt$SU(x, splat$SU(0x38800000)), z, r);
r = select$SU(lt$SU(x, splat$SU(0x477ff000)), r, splat$SU(0x7c00));
r = select$SU(gt$SU(x, splat$SU(0x7f800000)), ((x >> 13) & splat$SU(0x3ff)) | splat$SU(0x7e00), r);
return cvt$X$SU(r | s);""",
}
# f32 has more than twice the bits of either type, so the second rounding changes nothing
_HALF_ARITHMETIC = {
    "add": "return cvt$T$F(cvt$F$T(a) + cvt$F$T(b));",
    "sub": "return cvt$T$F(cvt$F$T(a) - cvt$F$T(b));",
    "mul": "return cvt$T$F(cvt$F$T(a) * cvt$F$T(b));",
    "div": "return cvt$T$F(cvt$F$T(a) / cvt$F$T(b));",
    "fma": "return add$(mul$(a, b), c);",
    "fnma": "return sub$(c, mul$(a, b));",
}
# f64 to f32 rounded to odd (truncated, last bit set when inexact), so that the next rounding is the only one
_ODD = """\
$F f = cvt$F$S(a);
$S d = cvt$S$F(f);
$FU b = cast$FU$F(f);
b = b - (cvt$FU$SU(cast$SU$SI(gt$S(abs$S(d), abs$S(a)))) & splat$FU(1));
b = b | (cvt$FU$SU(cast$SU$SI(ne$S(d, a))) & splat$FU(1));
return cvt$T$F(cast$F$FU(b));"""


def _limits(t: VType) -> tuple[int, int]:
    bits = t.elem.bits
    return (0, (1 << bits) - 1) if t.elem.kind == "u" else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def _integer(value: int, elem: str) -> str:
    """C spelling of an integer constant of an element type."""
    kind, bits = ELEMS[elem].kind, ELEMS[elem].bits
    if bits < 64:
        return f"{value}u" if kind == "u" else f"(-{-value - 1} - 1)" if value == -(1 << 31) else str(value)
    if value == -(1 << 63):
        return f"(-INT64_C({(1 << 63) - 1}) - 1)"
    return f"UINT64_C({value})" if kind == "u" else f"INT64_C({value})"


def _saturate(t: VType, s: VType) -> str | None:
    if t.lanes != s.lanes:
        return None
    low, high = _limits(t)
    if s.elem.kind != "f":
        source_low, source_high = _limits(s)
        text = "a"
        if source_high > high:
            text = f"min_fast$S({text}, splat$S({_integer(high, s.elem.name)}))"
        if source_low < low:
            text = f"max_fast$S({text}, splat$S({_integer(low, s.elem.name)}))"
        return f"return cvt$T$S({text});"
    precision = _MANTISSA[s.elem.name]
    excess = max(0, high.bit_length() - precision)
    top = (high >> excess) << excess  # largest value of S inside T
    suffix = "f" if s.elem.name == "f32" else ""
    lines = [
        "$S x = select$S(eq$S(a, a), a, splat$S(0));",
        f"$T r = cvt$T$S(max_fast$S(min_fast$S(x, splat$S({float(top).hex()}{suffix})), "
        f"splat$S({float(low).hex()}{suffix})));",
    ]
    if top == high:
        return lines[0] + "\n" + lines[1].replace("$T r =", "return")
    over = f"gt$S(x, splat$S({float(top).hex()}{suffix}))"
    mask = over if t.elem.bits == s.elem.bits else f"cvt$I$SI({over})"
    return "\n".join([*lines, f"return select$({mask}, splat$({_integer(high, t.elem.name)}), r);"])


def _near(t: VType, s: VType) -> str | None:
    """1.5 * 2**23 leaves the last bit of the sum worth 1, and the integer in its bits."""
    if (t.elem.name, s.elem.name) != ("i32", "f32") or t.lanes != s.lanes:
        return None
    clamp = "min_fast$S(max_fast$S(select$S(eq$S(a, a), a, splat$S(0)), splat$S((float)low)), splat$S((float)high))"
    return f"$S x = {clamp};\nreturn ($T)(cast$U$S(x + splat$S(0x1.8p23f)) - splat$U(0x4b400000u));"
