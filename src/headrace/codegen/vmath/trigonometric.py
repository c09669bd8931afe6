"""sin, cos, tan and their inverses: sources over a type (see headrace.targets.expand)."""

from __future__ import annotations

# n = round(x 2/π), r = x - n π/2; arguments from TRIG_MAX on take the slow way, lane by lane
_REDUCE = """\
$T t = fma$(x, splat$($TWO_OVER_PI), splat$($MAGIC));
$U q = cast$U$T(t);
$T r = trig_rest$(x, t - $MAGIC);
if (any$I(ge$(abs$(x), splat$($TRIG_MAX)))) {
    $T xs = x, rs = r;
    $U qs = q;
    trig_huge$(&xs, &rs, &qs);
    r = rs;
    q = qs;
}"""
_SIN_COS = f"""\
{_REDUCE}
$T z = r * r;
poly a = SIN(z)
poly b = COS(z)
$T s = fma$(r * z, a, r), c = fma$(z * z, b, 1.0$f - 0.5$f * z);"""

SIN = f"""\
{_SIN_COS}
$I odd = ne$U(q & splat$U(1), splat$U(0));
$T v = cast$T$U(cast$U$T(select$(odd, c, s)) ^ ((q & splat$U(2)) << ($B - 2)));
return select_lt$(abs$(x), splat$($TINY), x, v);"""

COS = f"""\
{_SIN_COS}
$I odd = ne$U(q & splat$U(1), splat$U(0));
return cast$T$U(cast$U$T(select$(odd, s, c)) ^ (((q + splat$U(1)) & splat$U(2)) << ($B - 2)));"""

TAN = f"""\
{_SIN_COS}
$I odd = ne$U(q & splat$U(1), splat$U(0));
$T v = select$(odd, -c, s) / select$(odd, s, c);
return select_lt$(abs$(x), splat$($TINY), x, v);"""

# n PIO2_1 and n PIO2_2 are exact: both constants have 33 bits
REST_F64 = "return fnma$(n, splat$($PIO2_3), fnma$(n, splat$($PIO2_2), fnma$(n, splat$($PIO2_1), x)));"
REST_F32_WIDE = "return cat$(trig_rest$H(lo$(x), lo$(n)), trig_rest$H(hi$(x), hi$(n)));"
REST_F32_PLAIN = """\
$D d = __builtin_convertvector(x, $D), k = __builtin_convertvector(n, $D);
return __builtin_convertvector((d - k * $PIO2_1) - k * $PIO2_LO, $T);"""
REST_F32 = """\
$D d = cvt$D$T(x), k = cvt$D$T(n);
return cvt$T$D(fnma$D(k, splat$D($PIO2_LO), fnma$D(k, splat$D($PIO2_1), d)));"""

HUGE_VECTOR = """\
for (int i = 0; i < $L; i++) {
    $E a = (*x)[i], b = (*r)[i];
    $EU k = (*q)[i];
    trig_huge$E(&a, &b, &k);
    (*r)[i] = b;
    (*q)[i] = k;
}"""
HUGE_SCALAR = """\
int k;
if (abs$(*x) < $TRIG_MAX) return;
*r = ($E)hr_trig_reduce_huge_f64(*x, &k);
*q = ($U)k;"""

# Payne and Hanek: seven 32-bit digits of 2/π, from the first that matters modulo 4, times the 53 bits of x.
REDUCE_HUGE = """\
static const uint32_t digits[] = {DIGITS};
uint64_t b, m, top, part[2], low, high;
uint32_t product[9];
__builtin_memcpy(&b, &x, sizeof b);
int e = (int)(b >> 52 & 0x7ff) - 1075, first = e > 2 ? (e - 2) / 32 : 0, point = 32 * (first + 7) - e;
*quadrant = 0;
if (e == 972) return x - x;
m = (b & UINT64_C(0xfffffffffffff)) | UINT64_C(0x10000000000000);
low = m & 0xffffffffu;
high = m >> 32;
for (int i = 0; i < 9; i++) product[i] = 0;
for (int i = 0; i < 7; i++) {
    uint64_t d = digits[first + 6 - i], s = low * d + product[i], u;
    product[i] = (uint32_t)s;
    u = high * d + product[i + 1] + (s >> 32);
    product[i + 1] = (uint32_t)u;
    product[i + 2] = (uint32_t)(u >> 32);
}
for (int i = 0; i < 2; i++) {
    int at = point - 64 * (i + 1), w = at / 32, s = at % 32;
    uint64_t l = product[w] | (uint64_t)product[w + 1] << 32;
    part[i] = s ? l >> s | (uint64_t)product[w + 2] << (64 - s) : l;
}
int w = point / 32, s = point % 32;
top = (uint64_t)product[w] | (w < 8 ? (uint64_t)product[w + 1] << 32 : 0);
int q = (int)(top >> s & 3), negative = (int)(part[0] >> 63);
if (negative) {
    q++;
    part[1] = ~part[1] + 1;
    part[0] = ~part[0] + (part[1] == 0);
}
double h = (double)(part[0] >> 11) * 0x1p-53;
double l = (double)(part[0] & 2047) * 0x1p-64 + (double)part[1] * 0x1p-128;
double r = h * 0x1.921fb54442d18p+0 + (l * 0x1.921fb54442d18p+0 + h * 0x1.1a62633145c07p-54);
if ((int)(b >> 63) != negative) r = -r;
*quadrant = b >> 63 ? -q : q;
return r;"""

# arctangent on three ranges: x, (x - 1)/(x + 1), -1/x
ATAN = """\
$T a = abs$(x), lo = splat$($TAN_PI_8), hi = splat$($TAN_3PI_8), zero = splat$(0.0$f);
$T w = select_lt$(hi, a, splat$(-1.0$f), select_lt$(lo, a, a - 1.0$f, a));
w = w / select_lt$(hi, a, a, select_lt$(lo, a, a + 1.0$f, splat$(1.0$f)));
$T base = select_lt$(hi, a, splat$($PIO2), select_lt$(lo, a, splat$($PIO4), zero));
$T rest = select_lt$(hi, a, splat$($PIO2_REST), select_lt$(lo, a, splat$($PIO4_REST), zero));
$T z = w * w;
poly p = ATAN(z)
return copysign$(base + (fma$(w * z, p, w) + rest), x);"""

# asin a = π/2 - 2 asin(sqrt((1 - a)/2)) above one half
_ASIN = """\
$T a = abs$(x), half = splat$(0.5$f), y = 0.5$f - 0.5$f * a;
$T z = select_lt$(half, a, y, a * a), s = select_lt$(half, a, sqrt$(y), a);
poly p = ASIN(z)
p = fma$(s * z, p, s);"""
ASIN = f"""\
{_ASIN}
return copysign$(select_lt$(half, a, $PIO2 - (2.0$f * p - $PIO2_REST), p), x);"""
ACOS = f"""\
{_ASIN}
$T big = select_lt$(x, splat$(0.0$f), $PI - (2.0$f * p - 2.0$f * $PIO2_REST), 2.0$f * p);
return select_lt$(half, a, big, $PIO2 - (copysign$(p, x) - $PIO2_REST));"""
