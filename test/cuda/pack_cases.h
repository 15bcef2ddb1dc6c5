/*
 * Matrices that are hard to pack, for the tests that compare one packer with another: C and C++.
 */
#ifndef TEST_CUDA_PACK_CASES_H
#define TEST_CUDA_PACK_CASES_H

#include <float.h>
#include <stdint.h>
#include <string.h>

enum pack_fill_kind {
    PACK_NORMAL = 0,   /* as weights are */
    PACK_ZEROS = 1,    /* with a number here and there */
    PACK_DENORMAL = 2, /* below 1e-38 */
    PACK_GREATEST = 3, /* the ends of f32, beside small ones */
    PACK_MIXED = 4,    /* every magnitude, both zeros */
    PACK_POSITIVE = 5, /* all above 0 */
    PACK_TIES = 6,     /* multiples of a power of two, many equal */
    PACK_N_FILLS = 7
};

struct pack_case {
    int64_t rows, cols;
    int32_t fill; /* enum pack_fill_kind */
};

static const int64_t pack_shapes[][2] = {
    {1, 1},   {1, 63}, {3, 65},  {64, 64}, {17, 129}, {5, 100}, /* blocks cross rows */
    {2, 255}, {7, 33}, {1, 128}, {127, 1}, {3, 257},  {9, 31},  {66, 130},
};
enum { PACK_N_SHAPES = sizeof pack_shapes / sizeof pack_shapes[0] };

/* Every shape with every fill, and one of a real width. */
static inline int32_t pack_n_cases(void)
{
    return PACK_N_SHAPES * PACK_N_FILLS + 1;
}

static inline struct pack_case pack_case_at(int32_t i)
{
    struct pack_case c = {128, 4096, PACK_NORMAL};

    if (i < PACK_N_SHAPES * PACK_N_FILLS) {
        c.rows = pack_shapes[i / PACK_N_FILLS][0];
        c.cols = pack_shapes[i / PACK_N_FILLS][1];
        c.fill = i % PACK_N_FILLS;
    }
    return c;
}

static inline const char *pack_fill_name(int32_t fill)
{
    static const char *const names[] = {"normal", "zeros",    "denormal", "greatest",
                                        "mixed",  "positive", "ties"};

    return names[fill];
}

static inline uint64_t pack_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* About normal, of deviation 0.02. */
static inline float pack_weight(uint64_t *state)
{
    float sum = 0.0f;

    for (int i = 0; i < 4; i++)
        sum += (float)(pack_random(state) >> 40) / 16777216.0f - 0.5f;
    return sum * 0.035f;
}

/* Any finite number with exponent bits in [low, high). */
static inline float pack_any(uint64_t *state, uint32_t low, uint32_t high)
{
    uint64_t r = pack_random(state);
    uint32_t exponent = low + (uint32_t)(r >> 33) % (high - low);
    uint32_t bits = (uint32_t)(r & 0x807fffffu) | exponent << 23;
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float pack_number(uint64_t *state, int32_t fill)
{
    uint64_t r = pack_random(state) >> 32;

    switch (fill) {
    case PACK_ZEROS:
        return r % 29 == 0 ? pack_weight(state) : r % 2 ? 0.0f : -0.0f;
    case PACK_DENORMAL:
        return pack_any(state, 0, 3);
    case PACK_GREATEST:
        return r % 7 == 0 ? (r & 8 ? FLT_MAX : -FLT_MAX) : pack_any(state, 200, 255);
    case PACK_MIXED:
        return r % 13 == 0 ? -0.0f : pack_any(state, 0, 255);
    case PACK_POSITIVE:
        return 0.001f + (float)(r % 1000) / 1000.0f;
    case PACK_TIES:
        return ((float)(r % 33) - 16.0f) / 32.0f;
    default:
        return pack_weight(state);
    }
}

static inline void pack_fill(float *w, const struct pack_case *c)
{
    uint64_t state = 88172645463325252ull + (uint64_t)c->fill * 977 + (uint64_t)c->cols;

    for (int64_t i = 0; i < c->rows * c->cols; i++)
        w[i] = pack_number(&state, c->fill);
}

#endif
