/* The intrinsics beyond AVX2 that generated C uses, lane by lane, for processors that lack them. For gcc.
 *
 * Included before the code (-include), it takes the place of <immintrin.h>: what is not defined here is not
 * declared, and -Werror=implicit-function-declaration stops the compiler at it. Immediates that no generated
 * code has end the program. Function attributes target("…") vanish: everything is compiled for AVX2.
 */
#ifndef HR_EMULATE_AVX512
#define HR_EMULATE_AVX512
#define _IMMINTRIN_H_INCLUDED
#include <nmmintrin.h>
#include <avxintrin.h>
#include <avx2intrin.h>
#include <f16cintrin.h>
#include <fmaintrin.h>
#include <stddef.h>
#include <stdint.h>
#define target(...)

typedef float __m512 __attribute__((vector_size(64), may_alias));
typedef double __m512d __attribute__((vector_size(64), may_alias));
typedef long long __m512i __attribute__((vector_size(64), may_alias));
typedef uint8_t __mmask8;
typedef uint16_t __mmask16;
typedef uint32_t __mmask32;
typedef uint64_t __mmask64;

#define EMU static __attribute__((unused, noinline))
#define LANES(R, E) ((int)(sizeof(R) / sizeof(E)))
#define GET(E, a, va) E a[sizeof(va) / sizeof(E)]; __builtin_memcpy(a, &(va), sizeof(va))
#define PUT(R, r) R vr; __builtin_memcpy(&vr, r, sizeof(vr)); return vr

/* r[i] = EXPR of x = a[i], y = b[i], z = c[i] */
#define UNARY(NAME, R, E, EXPR) \
    EMU R NAME(R va) { \
        GET(E, a, va); \
        for (int i = 0; i < LANES(R, E); i++) { const E x = a[i]; a[i] = (E)(EXPR); } \
        PUT(R, a); \
    }
#define BINARY(NAME, R, E, EXPR) \
    EMU R NAME(R va, R vb) { \
        GET(E, a, va); GET(E, b, vb); \
        for (int i = 0; i < LANES(R, E); i++) { const E x = a[i], y = b[i]; a[i] = (E)(EXPR); } \
        PUT(R, a); \
    }
#define TERNARY(NAME, R, E, EXPR) \
    EMU R NAME(R va, R vb, R vc) { \
        GET(E, a, va); GET(E, b, vb); GET(E, c, vc); \
        for (int i = 0; i < LANES(R, E); i++) { const E x = a[i], y = b[i], z = c[i]; a[i] = (E)(EXPR); } \
        PUT(R, a); \
    }
#define SHIFT(NAME, R, E, EXPR) \
    EMU R NAME(R va, unsigned s) { \
        GET(E, a, va); \
        for (int i = 0; i < LANES(R, E); i++) { const E x = a[i]; a[i] = (E)(EXPR); } \
        PUT(R, a); \
    }
#define SPLAT(NAME, R, E, ARG) \
    EMU R NAME(ARG x) { \
        E a[LANES(R, E)]; \
        for (int i = 0; i < LANES(R, E); i++) a[i] = (E)x; \
        PUT(R, a); \
    }

/* ---- masks ---- */
#define MASKED(P, X, R, E, K) \
    EMU R P##_maskz_loadu_##X(K k, const void *p) { \
        E a[LANES(R, E)] = {0}; \
        for (int i = 0; i < LANES(R, E); i++) \
            if (k >> i & 1) __builtin_memcpy(&a[i], (const char *)p + i * sizeof(E), sizeof(E)); \
        PUT(R, a); \
    } \
    EMU void P##_mask_storeu_##X(void *p, K k, R va) { \
        GET(E, a, va); \
        for (int i = 0; i < LANES(R, E); i++) \
            if (k >> i & 1) __builtin_memcpy((char *)p + i * sizeof(E), &a[i], sizeof(E)); \
    }
#define TOP_BITS(P, N, R, K) \
    EMU K P##_movepi##N##_mask(R va) { \
        K k = 0; \
        GET(int##N##_t, a, va); \
        for (int i = 0; i < LANES(R, int##N##_t); i++) k |= (K)((K)(a[i] < 0) << i); \
        return k; \
    }
#define CHOICES(P, X, R, E, K) \
    EMU R P##_mask_mov_##X(R vo, K k, R va) { \
        GET(E, o, vo); GET(E, a, va); \
        for (int i = 0; i < LANES(R, E); i++) a[i] = k >> i & 1 ? a[i] : o[i]; \
        PUT(R, a); \
    } \
    EMU R P##_mask_blend_##X(K k, R va, R vb) { return P##_mask_mov_##X(va, k, vb); } \
    EMU K P##_cmp_##X##_mask(R va, R vb, int how) { \
        K k = 0; \
        GET(E, a, va); GET(E, b, vb); \
        if (how != _CMP_LT_OQ && how != _CMP_UNORD_Q && how != _CMP_ORD_Q) __builtin_trap(); \
        for (int i = 0; i < LANES(R, E); i++) { \
            const int unordered = a[i] != a[i] || b[i] != b[i]; \
            const int yes = how == _CMP_LT_OQ ? a[i] < b[i] : how == _CMP_ORD_Q ? !unordered : unordered; \
            k |= (K)((K)yes << i); \
        } \
        return k; \
    }

/* ---- scalef: x * 2**floor(y), rounded once ---- */
EMU long double emu_power(int n) {
    long double p = 1, base = n < 0 ? 0.5L : 2.0L;
    for (unsigned m = n < 0 ? -(unsigned)n : (unsigned)n; m; m >>= 1, base *= base)
        if (m & 1) p *= base;
    return p;
}
EMU long double emu_scalef(double x, double y) {
    const double inf = __builtin_inf();
    if (y != y || (x != x && y - y == 0)) return (long double)x + y;
    if (y == inf) return x == 0 ? __builtin_nan("") : x < 0 ? -inf : inf;
    if (y == -inf) return x != x ? 0 : x - x != 0 ? __builtin_nan("") : __builtin_copysign(0, x);
    y = _mm_cvtsd_f64(_mm_floor_pd(_mm_set_sd(y)));
    return x * emu_power((int)(y > 5000 ? 5000 : y < -5000 ? -5000 : y));
}

/* ---- for every width ---- */
#define EVERY_WIDTH(P, RI, R, RD, K8, K16, K32, K64) \
    UNARY(P##_abs_epi64, RI, int64_t, x < 0 ? -(uint64_t)x : (uint64_t)x) \
    BINARY(P##_min_epi64, RI, int64_t, x < y ? x : y) \
    BINARY(P##_max_epi64, RI, int64_t, x > y ? x : y) \
    BINARY(P##_min_epu64, RI, uint64_t, x < y ? x : y) \
    BINARY(P##_max_epu64, RI, uint64_t, x > y ? x : y) \
    BINARY(P##_scalef_ps, R, float, emu_scalef(x, y)) \
    BINARY(P##_scalef_pd, RD, double, emu_scalef(x, y)) \
    MASKED(P, epi8, RI, uint8_t, K8) MASKED(P, epi16, RI, uint16_t, K16) \
    MASKED(P, epi32, RI, uint32_t, K32) MASKED(P, epi64, RI, uint64_t, K64) \
    MASKED(P, ps, R, uint32_t, K32) MASKED(P, pd, RD, uint64_t, K64) \
    TOP_BITS(P, 8, RI, K8) TOP_BITS(P, 16, RI, K16) TOP_BITS(P, 32, RI, K32) TOP_BITS(P, 64, RI, K64) \
    CHOICES(P, ps, R, float, K32) CHOICES(P, pd, RD, double, K64) \
    EMU RI P##_dpbusd_epi32(RI vc, RI va, RI vb) { \
        GET(uint32_t, c, vc); GET(uint8_t, a, va); GET(int8_t, b, vb); \
        for (int i = 0; i < LANES(RI, uint8_t); i++) c[i / 4] += (uint32_t)(a[i] * b[i]); \
        PUT(RI, c); \
    }
EVERY_WIDTH(_mm, __m128i, __m128, __m128d, __mmask16, __mmask8, __mmask8, __mmask8)
EVERY_WIDTH(_mm256, __m256i, __m256, __m256d, __mmask32, __mmask16, __mmask8, __mmask8)
EVERY_WIDTH(_mm512, __m512i, __m512, __m512d, __mmask64, __mmask32, __mmask16, __mmask8)
EMU __m128i _mm_dpbusd_avx_epi32(__m128i c, __m128i a, __m128i b) { return _mm_dpbusd_epi32(c, a, b); }
EMU __m256i _mm256_dpbusd_avx_epi32(__m256i c, __m256i a, __m256i b) { return _mm256_dpbusd_epi32(c, a, b); }

/* ---- 512 bits: arithmetic ---- */
#define ORDERED(X, E) \
    BINARY(_mm512_min_##X, __m512i, E, x < y ? x : y) \
    BINARY(_mm512_max_##X, __m512i, E, x > y ? x : y)
ORDERED(epi8, int8_t) ORDERED(epi16, int16_t) ORDERED(epi32, int32_t)
ORDERED(epu8, uint8_t) ORDERED(epu16, uint16_t) ORDERED(epu32, uint32_t)
UNARY(_mm512_abs_epi8, __m512i, int8_t, x < 0 ? -x : x)
UNARY(_mm512_abs_epi16, __m512i, int16_t, x < 0 ? -x : x)
UNARY(_mm512_abs_epi32, __m512i, int32_t, x < 0 ? -(uint32_t)x : (uint32_t)x)
BINARY(_mm512_add_epi32, __m512i, uint32_t, x + y)
BINARY(_mm512_and_si512, __m512i, uint64_t, x & y)
SHIFT(_mm512_slli_epi16, __m512i, uint16_t, s > 15 ? 0 : (unsigned)x << s)
SHIFT(_mm512_srli_epi16, __m512i, uint16_t, s > 15 ? 0 : x >> s)
SHIFT(_mm512_srai_epi16, __m512i, int16_t, x >> (s > 15 ? 15 : s))
SPLAT(_mm512_set1_epi16, __m512i, int16_t, short)
EMU __m512i _mm512_madd_epi16(__m512i va, __m512i vb) {
    uint32_t r[16] = {0};
    GET(int16_t, a, va); GET(int16_t, b, vb);
    for (int i = 0; i < 32; i++) r[i / 2] += (uint32_t)(a[i] * b[i]);
    PUT(__m512i, r);
}
BINARY(_mm512_min_ps, __m512, float, x < y ? x : y)
BINARY(_mm512_max_ps, __m512, float, x > y ? x : y)
BINARY(_mm512_min_pd, __m512d, double, x < y ? x : y)
BINARY(_mm512_max_pd, __m512d, double, x > y ? x : y)
UNARY(_mm512_sqrt_ps, __m512, float, _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))))
UNARY(_mm512_sqrt_pd, __m512d, double, _mm_cvtsd_f64(_mm_sqrt_sd(_mm_set_sd(x), _mm_set_sd(x))))
TERNARY(_mm512_fmadd_ps, __m512, float, __builtin_fmaf(x, y, z))
TERNARY(_mm512_fnmadd_ps, __m512, float, __builtin_fmaf(-x, y, z))
TERNARY(_mm512_fmadd_pd, __m512d, double, __builtin_fma(x, y, z))
TERNARY(_mm512_fnmadd_pd, __m512d, double, __builtin_fma(-x, y, z))

/* to whole numbers: 0x08 nearest even, 0x09 down, 0x0a up, 0x0b towards zero */
EMU double emu_round(double x, unsigned how) {
    const __m128d v = _mm_set_sd(x);
    switch (how) {
    case 0x08: return _mm_cvtsd_f64(_mm_round_sd(v, v, 0x08));
    case 0x09: return _mm_cvtsd_f64(_mm_round_sd(v, v, 0x09));
    case 0x0a: return _mm_cvtsd_f64(_mm_round_sd(v, v, 0x0a));
    case 0x0b: return _mm_cvtsd_f64(_mm_round_sd(v, v, 0x0b));
    default: __builtin_trap();
    }
}
SHIFT(_mm512_roundscale_ps, __m512, float, emu_round(x, s))
SHIFT(_mm512_roundscale_pd, __m512d, double, emu_round(x, s))

/* ---- 512 bits: memory, conversions ---- */
EMU __m512 _mm512_loadu_ps(const void *p) {
    __m512 r;
    __builtin_memcpy(&r, p, sizeof r);
    return r;
}
#define CONVERT(NAME, TO, E, FROM, S, EXPR) \
    EMU TO NAME(FROM va) { \
        E r[LANES(TO, E)]; \
        GET(S, a, va); \
        for (int i = 0; i < LANES(TO, E); i++) { const S x = a[i]; r[i] = (E)(EXPR); } \
        PUT(TO, r); \
    }
CONVERT(_mm512_cvtps_pd, __m512d, double, __m256, float, x)
CONVERT(_mm512_cvtpd_ps, __m256, float, __m512d, double, x)
CONVERT(_mm512_cvtph_ps, __m512, float, __m256i, uint16_t, _cvtsh_ss(x))
EMU __m256i _mm512_cvtps_ph(__m512 va, int how) {
    uint16_t r[16];
    GET(float, a, va);
    if (how) __builtin_trap();
    for (int i = 0; i < 16; i++) r[i] = _cvtss_sh(a[i], 0);
    PUT(__m256i, r);
}

/* ---- integers of 8, 16 and 32 bits; the rest of a register is zero ---- */
CONVERT(_mm512_cvtepi8_epi32, __m512i, int32_t, __m128i, int8_t, x)
CONVERT(_mm512_cvtepu8_epi32, __m512i, int32_t, __m128i, uint8_t, x)
CONVERT(_mm512_cvtepi16_epi32, __m512i, int32_t, __m256i, int16_t, x)
CONVERT(_mm512_cvtepu16_epi32, __m512i, int32_t, __m256i, uint16_t, x)
#define NARROWED(NAME, TO, E, FROM) \
    EMU TO NAME(FROM va) { \
        E r[LANES(TO, E)] = {0}; \
        GET(int32_t, a, va); \
        for (int i = 0; i < LANES(FROM, int32_t); i++) r[i] = (E)a[i]; \
        PUT(TO, r); \
    }
NARROWED(_mm512_cvtepi32_epi8, __m128i, int8_t, __m512i)
NARROWED(_mm512_cvtepi32_epi16, __m256i, int16_t, __m512i)
NARROWED(_mm256_cvtepi32_epi8, __m128i, int8_t, __m256i)
NARROWED(_mm256_cvtepi32_epi16, __m128i, int16_t, __m256i)
NARROWED(_mm_cvtepi32_epi8, __m128i, int8_t, __m128i)
NARROWED(_mm_cvtepi32_epi16, __m128i, int16_t, __m128i)
SPLAT(_mm512_set1_ps, __m512, float, float)
EMU __m512i _mm512_maskz_cvtps_epi32(__mmask16 k, __m512 va) {
    int32_t r[16] = {0};
    GET(float, a, va);
    for (int i = 0; i < 16; i++)
        if (k >> i & 1) r[i] = _mm_cvtss_si32(_mm_set_ss(a[i]));
    PUT(__m512i, r);
}

/* ---- 512 bits: halves; what a cast leaves undefined is scribbled over ---- */
#define HALVES(WIDE, NARROW, TO_WIDE, TO_NARROW, EXTRACT, INSERT) \
    EMU WIDE TO_WIDE(NARROW a) { \
        WIDE r; \
        __builtin_memset(&r, 0xA5, sizeof r); \
        __builtin_memcpy(&r, &a, sizeof a); \
        return r; \
    } \
    EMU NARROW EXTRACT(WIDE a, int which) { \
        NARROW r; \
        if (which & ~1) __builtin_trap(); \
        __builtin_memcpy(&r, (const char *)&a + 32 * which, sizeof r); \
        return r; \
    } \
    EMU NARROW TO_NARROW(WIDE a) { return EXTRACT(a, 0); } \
    EMU WIDE INSERT(WIDE a, NARROW b, int which) { \
        if (which & ~1) __builtin_trap(); \
        __builtin_memcpy((char *)&a + 32 * which, &b, sizeof b); \
        return a; \
    }
HALVES(__m512, __m256, _mm512_castps256_ps512, _mm512_castps512_ps256, _mm512_extractf32x8_ps, _mm512_insertf32x8)
HALVES(__m512d, __m256d, _mm512_castpd256_pd512, _mm512_castpd512_pd256, _mm512_extractf64x4_pd, _mm512_insertf64x4)
HALVES(__m512i, __m256i, _mm512_castsi256_si512, _mm512_castsi512_si256, _mm512_extracti64x4_epi64, _mm512_inserti64x4)

/* ---- 512 bits: permutes, within parts of 128 bits and of whole parts ---- */
#define INTERLEAVE(NAME, R, E, HIGH) \
    EMU R NAME(R va, R vb) { \
        E r[LANES(R, E)]; \
        GET(E, a, va); GET(E, b, vb); \
        const int n = LANES(__m128, E); \
        for (int i = 0; i < LANES(R, E); i++) { \
            const int from = i / n * n + i % n / 2 + (HIGH) * n / 2; \
            r[i] = i % 2 ? b[from] : a[from]; \
        } \
        PUT(R, r); \
    }
INTERLEAVE(_mm512_unpacklo_ps, __m512, float, 0)
INTERLEAVE(_mm512_unpackhi_ps, __m512, float, 1)
INTERLEAVE(_mm512_unpacklo_pd, __m512d, double, 0)
INTERLEAVE(_mm512_unpackhi_pd, __m512d, double, 1)
EMU __m512 _mm512_shuffle_f32x4(__m512 va, __m512 vb, int pick) {
    float r[16];
    GET(float, a, va); GET(float, b, vb);
    for (int i = 0; i < 16; i++) r[i] = (i < 8 ? a : b)[4 * (pick >> 2 * (i / 4) & 3) + i % 4];
    PUT(__m512, r);
}

/* ---- bf16: two multiply-adds, the upper element first, to nearest even; what is below 2**-126 is zero ---- */
typedef short __m128bh __attribute__((vector_size(16), may_alias));
typedef short __m256bh __attribute__((vector_size(32), may_alias));
typedef short __m512bh __attribute__((vector_size(64), may_alias));
EMU float emu_flush(float x) { return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0, x) : x; }
EMU float emu_bf16(uint32_t bits) {
    float x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return emu_flush(x);
}
#define PAIR_DOT(P, R) \
    EMU R P##_dpbf16_ps(R vc, R##bh va, R##bh vb) { \
        GET(float, c, vc); GET(uint32_t, a, va); GET(uint32_t, b, vb); \
        for (int i = 0; i < LANES(R, float); i++) { \
            const float high_a = emu_bf16(a[i] & 0xffff0000u), high_b = emu_bf16(b[i] & 0xffff0000u); \
            const float high = emu_flush(__builtin_fmaf(high_a, high_b, emu_flush(c[i]))); \
            c[i] = emu_flush(__builtin_fmaf(emu_bf16(a[i] << 16), emu_bf16(b[i] << 16), high)); \
        } \
        PUT(R, c); \
    }
PAIR_DOT(_mm, __m128) PAIR_DOT(_mm256, __m256) PAIR_DOT(_mm512, __m512)

/* ---- f16: f32 has more than twice its bits, so only the multiply-add needs more ---- */
typedef short __m128h __attribute__((vector_size(16), may_alias));
typedef short __m256h __attribute__((vector_size(32), may_alias));
typedef short __m512h __attribute__((vector_size(64), may_alias));
EMU float emu_half(uint16_t x) { return _cvtsh_ss(x); }
EMU uint16_t emu_to_half(float x) { return _cvtss_sh(x, 0); }
EMU uint16_t emu_half_fma(float x, float y, float z) {
    const long double exact = (long double)x * y + z; /* exact wherever f16 holds the result */
    float r = (float)exact;
    uint32_t bits;
    __builtin_memcpy(&bits, &r, sizeof bits);
    if (r - r == 0 && r != exact) { /* to odd: cut off, and the last bit set */
        if (__builtin_fabsl(r) > __builtin_fabsl(exact)) bits--;
        bits |= 1;
    }
    __builtin_memcpy(&r, &bits, sizeof bits);
    return emu_to_half(r);
}
#define HALF_FLOATS(P, R) \
    BINARY(P##_add_ph, R, uint16_t, emu_to_half(emu_half(x) + emu_half(y))) \
    BINARY(P##_sub_ph, R, uint16_t, emu_to_half(emu_half(x) - emu_half(y))) \
    BINARY(P##_mul_ph, R, uint16_t, emu_to_half(emu_half(x) * emu_half(y))) \
    BINARY(P##_div_ph, R, uint16_t, emu_to_half(emu_half(x) / emu_half(y))) \
    TERNARY(P##_fmadd_ph, R, uint16_t, emu_half_fma(emu_half(x), emu_half(y), emu_half(z))) \
    TERNARY(P##_fnmadd_ph, R, uint16_t, emu_half_fma(-emu_half(x), emu_half(y), emu_half(z)))
HALF_FLOATS(_mm, __m128h) HALF_FLOATS(_mm256, __m256h) HALF_FLOATS(_mm512, __m512h)

#include "amx.h"
#endif
