/* A stack of dilated causal convolutions with ReLU, one frame at a time, as plain C: what streamed programs are
 * compared with. CHANNELS, LAYERS and KERNEL are given to the compiler. Weights: for each layer [KERNEL][CHANNELS
 * in][CHANNELS out], then the biases. A ring for each layer holds the frames that its taps reach. */
#define TAPS(layer) ((KERNEL - 1) * (1 << (layer)) + 1)
#define LONGEST TAPS(LAYERS - 1)

static float ring[LAYERS][LONGEST][CHANNELS];
static int place[LAYERS];

void causal_step(const float *weights, const float *x, float *y)
{
    float frame[CHANNELS], sum[CHANNELS];
    for (int c = 0; c < CHANNELS; ++c) frame[c] = x[c];
    for (int layer = 0; layer < LAYERS; ++layer) {
        const float *bias = weights + KERNEL * CHANNELS * CHANNELS;
        const int length = TAPS(layer), now = place[layer];
        for (int c = 0; c < CHANNELS; ++c) ring[layer][now][c] = frame[c];
        for (int o = 0; o < CHANNELS; ++o) sum[o] = bias[o];
        for (int k = 0; k < KERNEL; ++k) {
            int at = now - (KERNEL - 1 - k) * (1 << layer);
            const float *past = ring[layer][at < 0 ? at + length : at];
            const float *w = weights + k * CHANNELS * CHANNELS;
            for (int c = 0; c < CHANNELS; ++c)
                for (int o = 0; o < CHANNELS; ++o) sum[o] += past[c] * w[c * CHANNELS + o];
        }
        for (int o = 0; o < CHANNELS; ++o) frame[o] = sum[o] > 0 ? sum[o] : 0;
        place[layer] = now + 1 == length ? 0 : now + 1;
        weights = bias + CHANNELS;
    }
    for (int c = 0; c < CHANNELS; ++c) y[c] = frame[c];
}
