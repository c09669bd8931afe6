"""erf, erfc and gelu: sources over a type (see headrace.targets.expand)."""

from __future__ import annotations

from headrace.codegen.vmath.exponential import REDUCE, SCALE

# e**(t*t) erfc(t) is P(y) / (t + K), y = (t - K) / (t + K). t*t is split so that its rounding does not
# matter: h keeps the upper half of the bits of t, h*h is exact, t*t - h*h = (t - h)(t + h).
ERFC_POSITIVE = """\
t = min_fast$(splat$($ERFC_MAX), t);
$T k = 1.0$f / (t + $ERFCX_K), y = (t - $ERFCX_K) * k;
poly p = ERFCX(y)
$T h = cast$T$U(cast$U$T(t) & splat$U($UPPER));
return p * k * exp_sum$(-h * h, (h - t) * (h + t));"""

ERFC = """\
$T a = abs$(x), y = erfc_positive$(a), z = min_fast$(splat$(1.0$f), a * a);
poly p = ERF(z)
y = select_lt$(x, splat$(0.0$f), 2.0$f - y, y);
return select_lt$(a, splat$(0.5$f), 1.0$f - fma$(x, p, x), y);"""

ERF = """\
$T a = abs$(x), z = min_fast$(splat$(1.0$f), a * a);
poly p = ERF(z)
return copysign$(select_lt$(a, splat$(1.0$f), fma$(a, p, a), 1.0$f - erfc_positive$(a)), x);"""

# for f32, where e**(-t Q(t)) = erfc(t) may be as inexact as 1 - erfc(t) hides; from 4 on erf is 1
ERF_SINGLE = f"""\
$T a = abs$(x), z = min_fast$(splat$(1.0$f), a * a), c = min_fast$(splat$(4.0$f), a);
poly p = ERF(z)
poly w = ERFQ(c)
$T y = -c * w;
{REDUCE.format(x="y", lo="")}
{SCALE.format(one="$ONE_BITS")}
return copysign$(select_lt$(a, splat$(1.0$f), fma$(a, p, a), 1.0$f - fma$(s, em, s)), x);"""

# x Φ(x), the normal distribution function Φ(-t) in the same way as erfc
GELU = """\
$T v = max_fast$(splat$(-$PHI_MAX), x), t = min_fast$(splat$($PHI_MAX), abs$(v));
$T k = 1.0$f / (t + $PHI_K), y = (t - $PHI_K) * k;
poly p = PHI(y)
$T h = cast$T$U(cast$U$T(t) & splat$U($UPPER));
$T e = exp_sum$(-0.5$f * h * h, 0.5$f * (h - t) * (h + t)), c = p * k;
return select_lt$(v, splat$(0.0$f), v * c * e, v * (1.0$f - c * e));"""
