/* Counts what each push of one step does: basic blocks (the compiler calls __sanitizer_cov_trace_pc in each of
 * NAME.c) and allocations. Prints, for each stretch of a stream, the least and the most blocks of a push, then
 * whether the caller's floating-point mode has changed. NAME, FRAME (floats of one step of the input), OUT (bytes
 * of a step of the output), WEIGHTS, PORTABLE, POSITION (offset of the counter of frames) and CHUNK are defined by
 * the test, as are the fields X and Y. */
#include <fenv.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include HEADER

#define JOIN(a, b) a##b
#define CALL(name, verb) JOIN(name, verb)

static uint64_t blocks, allocations, noise = 1;

void __sanitizer_cov_trace_pc(void) { blocks++; }

#ifdef __GLIBC__
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
void *malloc(size_t size) { allocations++; return __libc_malloc(size); }
void *calloc(size_t count, size_t size) { allocations++; return __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { allocations++; return __libc_realloc(old, size); }
#endif

static _Alignas(4096) unsigned char state[1 << 22], scratch[1 << 22], weights[WEIGHTS + 4096], portable[PORTABLE];
static float x[FRAME], y[OUT];
static CALL(NAME, _inputs) in;
static CALL(NAME, _outputs) out;

enum kind { TONE, SPEECH, SILENCE, FADING, NOT_A_NUMBER };

static void fill(enum kind kind)
{
    for (int i = 0; i < FRAME; ++i) {
        noise = noise * 6364136223846793005u + 1442695040888963407u;
        const float value = (float)(int32_t)(noise >> 32) * 4.6566e-10f;
        x[i] = kind == TONE ? 0.25f + 0.001f * (float)i : kind == SPEECH ? value : kind == SILENCE ? 0.0f : kind == FADING ? value * 1e-39f : NAN;
    }
}

static void stretch(const char *title, enum kind kind, long steps)
{
    uint64_t least = UINT64_MAX, most = 0;
    const uint64_t before = allocations;
    size_t n_out[8];
    for (long k = 0; k < steps; ++k) {
        fill(kind);
        const uint64_t from = blocks;
        if (CALL(NAME, _push)(state, scratch, weights, &in, CHUNK, &out, n_out)) exit(3);
        const uint64_t count = blocks - from;
        if (count < least) least = count;
        if (count > most) most = count;
    }
    printf("%s %llu %llu %llu\n", title, (unsigned long long)least, (unsigned long long)most,
           (unsigned long long)(allocations - before));
}

/* The same stream, as if so many frames had gone by. */
static void jump(int64_t frames)
{
    if (CALL(NAME, _get_state)(state, portable)) exit(4);
    memcpy(portable + POSITION, &frames, sizeof frames);
    if (CALL(NAME, _set_state)(state, portable)) exit(5);
}

int main(void)
{
    FILE *file = fopen(WEIGHTS_FILE, "rb");
    if (sizeof state < CALL(NAME, _state_bytes)() || sizeof scratch < CALL(NAME, _scratch_bytes)()) return 1;
    if (!file || fread(weights, 1, WEIGHTS, file) != WEIGHTS || CALL(NAME, _init)(state, weights)) return 2;
    fclose(file);
    in.X = x;
    out.Y = y;
    const long minute = 60 * 100 / CHUNK;
    stretch("start", TONE, 300);
    stretch("minute 1", TONE, minute);
    stretch("speech", SPEECH, 58 * minute);
    stretch("silence", SILENCE, 10 * minute);
    stretch("fading", FADING, minute);
    stretch("again", TONE, 300);
    stretch("later", TONE, minute);
    jump(((int64_t)1 << 31) - 50 * CHUNK);
    stretch("past 2^31", TONE, 100);
    jump(((int64_t)1 << 40) / CHUNK * CHUNK);
    stretch("past 2^40", TONE, 100);
    stretch("nan", NOT_A_NUMBER, minute);
    volatile float half = FLT_MIN;
    fesetround(FE_UPWARD);
    stretch("rounding", SPEECH, 100);
    half = half * 0.5f;
    printf("mode %d %d 0\n", fegetround() == FE_UPWARD, half > 0.0f);
    return 0;
}
