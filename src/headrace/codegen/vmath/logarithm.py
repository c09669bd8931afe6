"""Logarithms and inverse hyperbolic functions: sources over a type (see headrace.targets.expand)."""

from __future__ import annotations

# u = m * 2**e with m in [sqrt(1/2), sqrt(2)), f = m - 1. Adding 2**(width-2) keeps the shifted bits positive.
_SPLIT = """\
$U b = cast$U$T({u}) + splat$U($LOG_OFFSET);
$T e = cast$T$U((b >> $P) + splat$U($MAGIC_BITS)) - $LOG_MAGIC{scale};
$T f = cast$T$U((b & splat$U($MANTISSA)) + splat$U($SQRT_HALF_BITS)) - 1.0$f;"""

# subnormal numbers are scaled up first
_SPLIT_ALL = (
    "$T u = select_lt$(x, splat$($MIN_NORMAL), x * $LOG_SCALE, x);\n"
    + _SPLIT.format(u="u", scale=" - select_lt$(x, splat$($MIN_NORMAL), splat$($LOG_SHIFT), splat$(0.0$f))")
    + "\n$T y = log_tail$(f);"
)
_SPECIAL = """\
l = select_lt$(x, splat$($INF), l, x);
return select_lt$(splat$(0.0$f), x, l, select$(eq$(x, splat$(0.0$f)), splat$(-$INF), splat$($NAN)));"""

# log(1 + f) - f for f in [sqrt(1/2) - 1, sqrt(2) - 1]
LOG_TAIL_F32 = """\
$T z = f * f;
poly p = LOG(f)
return fma$(f * z, p, -0.5f * z);"""
# s = f/(2 + f), log(1 + f) = 2 atanh(s); f**2/2 is kept apart because it is exact enough
LOG_TAIL_F64 = """\
$T s = f / (f + 2.0), z = s * s, h = 0.5 * f * f;
poly p = LOGS(z)
return s * fma$(z, p, h) - h;"""

LOG = f"""\
{_SPLIT_ALL}
$T l = fma$(e, splat$($LN2_HI), f + fma$(e, splat$($LN2_LO), y));
{_SPECIAL}"""

LOG2 = f"""\
{_SPLIT_ALL}
$T l = e + fma$(f, splat$($LOG2E), fma$(y, splat$($LOG2E), f * $LOG2E_LO));
{_SPECIAL}"""

LOG10 = f"""\
{_SPLIT_ALL}
$T l = fma$(e, splat$($LG2_LO), fma$(y, splat$($LOG10E), f * $LOG10E_LO));
l = fma$(e, splat$($LG2_HI), fma$(f, splat$($LOG10E), l));
{_SPECIAL}"""

# u = 1 + x rounded; c is what the rounding lost, as a change of log(u)
LOG1P = f"""\
$T u = x + 1.0$f;
$T c = select_lt$(x, splat$(1.0$f), x - (u - 1.0$f), 1.0$f - (u - x)) / u;
{_SPLIT.format(u="u", scale="")}
$T l = fma$(e, splat$($LN2_HI), f + (c + fma$(e, splat$($LN2_LO), log_tail$(f))));
l = select_lt$(x, splat$($INF), l, x);
l = select_lt$(abs$(x), splat$($TINY), x, l);
return select_lt$(splat$(-1.0$f), x, l, select$(eq$(x, splat$(-1.0$f)), splat$(-$INF), splat$($NAN)));"""

# above LARGE, log(2a) = log1p(a - 1) + log 2
ASINH = """\
$T a = abs$(x), z = a * a;
$T y = select_lt$(a, splat$($LARGE), a + z / (sqrt$(z + 1.0$f) + 1.0$f), a - 1.0$f);
return copysign$(log1p$(y) + select_lt$(a, splat$($LARGE), splat$(0.0$f), splat$($LN2)), x);"""

ACOSH = """\
$T t = x - 1.0$f;
$T y = select_lt$(x, splat$($LARGE), t + sqrt$(t * (t + 2.0$f)), t);
y = log1p$(y) + select_lt$(x, splat$($LARGE), splat$(0.0$f), splat$($LN2));
return select_lt$(x, splat$(1.0$f), splat$($NAN), y);"""

ATANH = """\
$T a = abs$(x);
return copysign$(0.5$f * log1p$((a + a) / (1.0$f - a)), x);"""
