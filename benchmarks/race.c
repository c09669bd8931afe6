/* A streamed network and plain C on the same weights, many steps of one frame in one call. NAME, HEADER and the
 * sizes that causal.c wants are defined by the caller. */
#include <stddef.h>
#include HEADER

#define JOIN(a, b) a##b
#define CALL(name, verb) JOIN(name, verb)

extern void causal_step(const float *weights, const float *x, float *y);

static _Alignas(4096) unsigned char state[STATE], scratch[SCRATCH + 1];

int start(const void *weights) { return CALL(NAME, _init)(state, weights); }

int streamed(const void *weights, const float *x, float *y, long steps)
{
    const CALL(NAME, _inputs) in = {x};
    const CALL(NAME, _outputs) out = {y};
    size_t count;
    int error = 0;
    while (steps-- && !error) error = CALL(NAME, _push)(state, scratch, weights, &in, 1, &out, &count);
    return error;
}

int plain(const void *weights, const float *x, float *y, long steps)
{
    while (steps--) causal_step((const float *)weights, x, y);
    return 0;
}
