"""exp and what is built on e**x − 1: sources over a type (see headrace.targets.expand)."""

from __future__ import annotations

# n = round(x / ln 2) by adding 1.5 * 2**(p-1), whose last bit is worth 1; r = x - n ln 2 in two steps, the
# first exact because LN2_HI has zeros at its end; q = (e**r - 1 - r) / r**2; em = e**r - 1.
REDUCE = """\
$T t = fma$({x}, splat$($LOG2E), splat$($MAGIC)), n = t - $MAGIC;
$T r = fnma$(n, splat$($LN2_LO), fnma$(n, splat$($LN2_HI), {x})){lo};
poly q = EXPM1(r)
$T em = fma$(q, r * r, r);"""

# 2**(n + k) from the low bits of t, one instruction each for shift and add
SCALE = "$T s = cast$T$U((cast$U$T(t) << $P) + splat$U({one}));"

# e**(hi + lo) for a lo that is small against hi
EXP_SUM = f"""\
$T x = max_fast$(splat$($EXP_MIN), hi);
{REDUCE.format(x="x", lo=" + lo")}
return ldexp$(em + 1.0$f, n);"""

EXP = f"""\
x = min_fast$(splat$($EXP_MAX), max_fast$(splat$($EXP_MIN), x));
{REDUCE.format(x="x", lo="")}
return ldexp$(em + 1.0$f, n);"""

EXP2 = """\
x = min_fast$(splat$($EXP2_MAX), max_fast$(splat$($EXP2_MIN), x));
$T n = (x + $MAGIC) - $MAGIC;
$T r = (x - n) * $LN2;
poly q = EXPM1(r)
return ldexp$(fma$(q, r * r, r) + 1.0$f, n);"""

EXPM1 = f"""\
$T y = min_fast$(splat$($EXP_MAX), max_fast$(splat$($EXPM1_MIN), x));
{REDUCE.format(x="y", lo="")}
{SCALE.format(one="$HALF_BITS")}
return copysign$(2.0$f * fma$(s, em, s - 0.5$f), x);"""

# tanh |x| = (e**2|x| - 1) / (e**2|x| + 1)
TANH = f"""\
$T y = min_fast$(splat$($TANH_MAX), abs$(x));
y = y + y;
{REDUCE.format(x="y", lo="")}
{SCALE.format(one="$ONE_BITS")}
$T m = fma$(s, em, s - 1.0$f);
return copysign$(m / (m + 2.0$f), x);"""

# with e = exp(-|x|): 1 / (1 + e) for x ≥ 0, e / (1 + e) below
SIGMOID = f"""\
$T y = max_fast$(splat$($EXP_MIN), -abs$(x));
{REDUCE.format(x="y", lo="")}
$T e = ldexp$(em + 1.0$f, n);
return select_lt$(x, splat$(0.0$f), e, splat$(1.0$f)) / (e + 1.0$f);"""

# h = (e**|x| - 1) / 2; e**|x| itself would overflow too early
SINH = f"""\
$T y = min_fast$(splat$($SINH_MAX), abs$(x));
{REDUCE.format(x="y", lo="")}
{SCALE.format(one="$QUARTER_BITS")}
$T h = 2.0$f * fma$(s, em, s - 0.25$f);
return copysign$(h * (1.0$f + 1.0$f / (2.0$f * h + 1.0$f)), x);"""

COSH = f"""\
$T y = min_fast$(splat$($SINH_MAX), abs$(x));
{REDUCE.format(x="y", lo="")}
{SCALE.format(one="$QUARTER_BITS")}
$T h = 2.0$f * fma$(s, em, s);
return h + 0.25$f / h;"""

SOFTPLUS = "return max_fast$(x, splat$(0.0$f)) + log1p$(exp$(-abs$(x)));"

# x tanh(softplus(x)) = x w / (w + 2), w = e**2x + 2 e**x; far below 0 that is x e**x, scaled once so that
# nothing is lost when e**x is subnormal and x e**x is not
MISH = f"""\
$T v = max_fast$(splat$($EXP_MIN), x), y = min_fast$(splat$($MISH_MAX), v);
{REDUCE.format(x="y", lo="")}
$T p = em + 1.0$f, e = ldexp$(p, n), w = e * (e + 2.0$f);
return select_lt$(v, splat$($MISH_TAIL), ldexp$(v * p, n), v * (w / (w + 2.0$f)));"""
