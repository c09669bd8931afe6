/* The tile registers of Intel AMX in plain C, for processors that lack them. For gcc; avx512.h includes it.
 *
 * As strict as the processor and stricter: no configuration, or one that the processor refuses, tiles without a
 * size, and shapes that do not fit each other end the program (abort). A context switch in between is nothing to
 * it: registers are of the thread. HR_TILES answers in place of the operating system, unless EMU_ASK is defined.
 */
#ifndef HR_EMULATE_AMX
#define HR_EMULATE_AMX
#if !defined(HR_TILES) && !defined(EMU_ASK)
#define HR_TILES 1
#endif

#define TILE static __attribute__((unused, noinline)) void

static __thread struct {
    int palette, rows[8], bytes[8];
    uint8_t data[8][16][64];
} emu_tiles;

#define TILE_CHECK(CONDITION) do { if (!(CONDITION)) __builtin_abort(); } while (0)

TILE _tile_release(void) { __builtin_memset(&emu_tiles, 0, sizeof emu_tiles); }

TILE _tile_loadconfig(const void *p)
{
    uint8_t c[64];
    __builtin_memcpy(c, p, 64);
    TILE_CHECK(c[0] == 1 && c[1] == 0);
    for (int i = 2; i < 16; i++) TILE_CHECK(c[i] == 0);
    for (int i = 32; i < 48; i++) TILE_CHECK(c[i] == 0); /* tiles 8 to 15 */
    for (int i = 56; i < 64; i++) TILE_CHECK(c[i] == 0);
    _tile_release();
    emu_tiles.palette = 1;
    for (int t = 0; t < 8; t++) {
        const int bytes = c[16 + 2 * t] | c[17 + 2 * t] << 8, rows = c[48 + t];
        TILE_CHECK(bytes <= 64 && rows <= 16 && (bytes == 0) == (rows == 0));
        emu_tiles.bytes[t] = bytes;
        emu_tiles.rows[t] = rows;
    }
}

static __attribute__((unused)) void emu_tile_known(int t)
{
    TILE_CHECK(emu_tiles.palette == 1 && t >= 0 && t < 8 && emu_tiles.rows[t] > 0);
}

TILE _tile_zero(int t)
{
    emu_tile_known(t);
    __builtin_memset(emu_tiles.data[t], 0, sizeof emu_tiles.data[t]);
}

TILE _tile_loadd(int t, const void *p, long stride)
{
    _tile_zero(t);
    for (int i = 0; i < emu_tiles.rows[t]; i++)
        __builtin_memcpy(emu_tiles.data[t][i], (const char *)p + i * stride, (size_t)emu_tiles.bytes[t]);
}

TILE _tile_stored(int t, void *p, long stride)
{
    emu_tile_known(t);
    for (int i = 0; i < emu_tiles.rows[t]; i++)
        __builtin_memcpy((char *)p + i * stride, emu_tiles.data[t][i], (size_t)emu_tiles.bytes[t]);
}

/* C is rows of A by columns of B, and B has a row for each word of A. */
static __attribute__((unused)) void emu_tile_fit(int c, int a, int b)
{
    emu_tile_known(c); emu_tile_known(a); emu_tile_known(b);
    TILE_CHECK(c != a && c != b && a != b);
    TILE_CHECK(emu_tiles.rows[c] == emu_tiles.rows[a] && emu_tiles.bytes[c] == emu_tiles.bytes[b]);
    TILE_CHECK(emu_tiles.bytes[a] == 4 * emu_tiles.rows[b] && emu_tiles.bytes[b] % 4 == 0);
}

#define TILE_BYTES(NAME, X, Y) \
    TILE NAME(int c, int a, int b) \
    { \
        emu_tile_fit(c, a, b); \
        for (int m = 0; m < emu_tiles.rows[c]; m++) \
            for (int n = 0; n < emu_tiles.bytes[c] / 4; n++) { \
                uint32_t sum; \
                __builtin_memcpy(&sum, &emu_tiles.data[c][m][4 * n], 4); \
                for (int k = 0; k < emu_tiles.bytes[a]; k++) { \
                    const int x = (X)emu_tiles.data[a][m][k]; \
                    const int y = (Y)emu_tiles.data[b][k / 4][4 * n + k % 4]; \
                    sum += (uint32_t)(x * y); \
                } \
                __builtin_memcpy(&emu_tiles.data[c][m][4 * n], &sum, 4); \
            } \
    }
TILE_BYTES(_tile_dpbssd, int8_t, int8_t)
TILE_BYTES(_tile_dpbsud, int8_t, uint8_t)
TILE_BYTES(_tile_dpbusd, uint8_t, int8_t)
TILE_BYTES(_tile_dpbuud, uint8_t, uint8_t)

static __attribute__((unused)) float emu_tile_bf16(const uint8_t *p)
{
    return emu_bf16((uint32_t)p[0] << 16 | (uint32_t)p[1] << 24);
}

/* Lower and upper elements are summed apart, from zero; their sum is added at the end. */
TILE _tile_dpbf16ps(int c, int a, int b)
{
    emu_tile_fit(c, a, b);
    for (int m = 0; m < emu_tiles.rows[c]; m++)
        for (int n = 0; n < emu_tiles.bytes[c] / 4; n++) {
            float sum, half[2] = {0, 0};
            for (int k = 0; k < emu_tiles.bytes[a] / 2; k++) {
                const float x = emu_tile_bf16(&emu_tiles.data[a][m][2 * k]);
                const float y = emu_tile_bf16(&emu_tiles.data[b][k / 2][4 * n + k % 2 * 2]);
                half[k % 2] = emu_flush(__builtin_fmaf(x, y, half[k % 2]));
            }
            __builtin_memcpy(&sum, &emu_tiles.data[c][m][4 * n], 4);
            sum = emu_flush(emu_flush(sum) + emu_flush(half[0] + half[1]));
            __builtin_memcpy(&emu_tiles.data[c][m][4 * n], &sum, 4);
        }
}
#endif
