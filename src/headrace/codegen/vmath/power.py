"""pow, cube root, reciprocal root and remainders: sources over a type (see headrace.targets.expand)."""

from __future__ import annotations

RSQRT = "return 1.0$f / sqrt$(x);"

# |x|**y; float goes through double, where log2 and exp2 are far more exact than needed
POW_POSITIVE_F32 = """\
$D a = cvt$D$T(x), b = cvt$D$T(y);
return cvt$T$D(exp2$D(b * log2$D(a)));"""
POW_POSITIVE_F32_WIDE = "return cat$(pow_positive$H(lo$(x), lo$(y)), pow_positive$H(hi$(x), hi$(y)));"

# log2(x) as h + l with about 70 bits. s + sl = f/(2 + f) and c + cl = its cube in double-double,
# log m = 2 s + 2/3 s**3 + s**5 (…)
POW_POSITIVE_F64 = """\
$T u = select_lt$(x, splat$($MIN_NORMAL), x * $LOG_SCALE, x);
$U bits = cast$U$T(u) + splat$U($LOG_OFFSET);
$T e = cast$T$U((bits >> $P) + splat$U($MAGIC_BITS)) - $LOG_MAGIC;
e = e - select_lt$(x, splat$($MIN_NORMAL), splat$($LOG_SHIFT), splat$(0.0));
$T f = cast$T$U((bits & splat$U($MANTISSA)) + splat$U($SQRT_HALF_BITS)) - 1.0;
$T d = f + 2.0, s = f / d, p = s * d;
$T sl = (((f - p) - mul_rest$(s, d, p)) - s * (f - (d - 2.0))) / d;
$T z = s * s, zl = mul_rest$(s, s, z) + 2.0 * s * sl;
$T c = z * s, cl = mul_rest$(z, s, c) + z * sl + zl * s;
poly tail = LOGS2(z)
$T g = c * $TWO_THIRDS, gl = mul_rest$(c, splat$($TWO_THIRDS), g) + c * $TWO_THIRDS_LO + cl * $TWO_THIRDS;
$T h = 2.0 * s + g, l = (2.0 * s - h) + g + (gl + 2.0 * sl + c * z * tail);
$T k = h * $LOG2E, kl = mul_rest$(h, splat$($LOG2E), k) + h * $LOG2E_LO + l * $LOG2E;
h = e + k;
l = select_lt$(splat$(0.0), abs$(e), (e - h) + k, splat$(0.0)) + kl;
h = select_lt$(splat$(0.0), x, select_lt$(x, splat$($INF), h, x), splat$(-$INF));
y = min_fast$(splat$($POW_MAX), max_fast$(splat$(-$POW_MAX), y));
$T w = y * h, wl = mul_rest$(y, h, w) + y * l;
wl = select_lt$(abs$(w), splat$(1100.0), wl, splat$(0.0));
$T v = w + wl;
wl = (w - v) + wl;
v = min_fast$(splat$($EXP2_MAX), max_fast$(splat$($EXP2_MIN), v));
$T n = (v + $MAGIC) - $MAGIC, r = ((v - n) + select_lt$(abs$(w), splat$(1100.0), wl, splat$(0.0))) * $LN2;
poly q = EXPM1(r)
return ldexp$(fma$(q, r * r, r) + 1.0, n);"""

# a * b - p for p = a * b rounded: exact
MUL_REST_FMA = "return fma$(a, b, -p);"
MUL_REST = """\
$T c = a * 134217729.0, d = b * 134217729.0;
$T ah = c - (c - a), bh = d - (d - b), al = a - ah, bl = b - bh;
return ((ah * bh - p) + ah * bl + al * bh) + al * bl;"""

POW = """\
$T a = abs$(x), zero = splat$(0.0$f), one = splat$(1.0$f), nan = splat$($NAN), h = 0.5$f * y;
$T r = pow_positive$(a, y);
$I whole = eq$(floor$(y), y), odd = whole & ne$(floor$(h), h);
r = cast$T$U(cast$U$T(r) | (cast$U$T(x) & ~splat$U($MAX) & cast$U$I(odd)));
r = select$(~whole & lt$(x, zero) & lt$(a, splat$($INF)), nan, r);
r = select$(ne$(x, x) | ne$(y, y), nan, r);
return select$(eq$(y, zero) | eq$(x, one) | (eq$(a, one) & eq$(abs$(y), splat$($INF))), one, r);"""

# first guess by a third of the exponent, then Halley steps y (y**3 + 2 a) / (2 y**3 + a), the last one
# written as a correction
CBRT = """\
$T b = abs$(x), one = splat$(1.0$f), a = select_lt$(b, one, b * $CBRT_UP, b * $CBRT_DOWN);
$T g = cvt$T$I(cast$I$T(a)) * 0x1.555556p-2$f;
$T y = cast$T$I(cvt$I$T(g) + splat$I($CBRT_GUESS)), c;
CBRT_STEPS
c = y * y * y;
y = y - y * ((c - a) / (c + c + a));
y = y * select_lt$(b, one, splat$($CBRT_ROOT_DOWN), splat$($CBRT_ROOT_UP));
return select$(lt$(splat$(0.0$f), b) & lt$(b, splat$($INF)), copysign$(y, x), x);"""

# long division of the mantissas, one bit a step
FMOD_SCALAR = """\
$U a, b, sign, one = 1, top = one << $P;
__builtin_memcpy(&a, &x, sizeof a);
__builtin_memcpy(&b, &y, sizeof b);
sign = a & ~($U)$MAX;
a &= $MAX;
b &= $MAX;
if (b == 0 || a >= $INF_BITS || b > $INF_BITS) return $NAN;
if (a < b) return x;
int i = (int)(a >> $P), j = (int)(b >> $P);
a = i ? (a & (top - 1)) | top : a << 1;
b = j ? (b & (top - 1)) | top : b << 1;
for (; a < top; i--) a <<= 1;
for (; b < top; j--) b <<= 1;
for (; i > j; i--) {
    if (a >= b) a -= b;
    a <<= 1;
}
if (a >= b) a -= b;
for (; a && a < top; j--) a <<= 1;
if (a == 0) j = 0;
else if (j > 0) a = (a & (top - 1)) | ($U)j << $P;
else a = a >> (1 - j);
a |= sign;
__builtin_memcpy(&x, &a, sizeof x);
return x;"""
FMOD_VECTOR = "$T r = x;\nfor (int i = 0; i < $L; i++) r[i] = fmod$E(x[i], y[i]);\nreturn r;"

# remainder with the sign of y
MOD = """\
$T r = fmod$(x, y), zero = splat$(0.0$f);
$I apart = ne$(r, zero) & (lt$(r, zero) ^ lt$(y, zero));
return select$(eq$(r, zero), copysign$(r, y), select$(apart, r + y, r));"""
