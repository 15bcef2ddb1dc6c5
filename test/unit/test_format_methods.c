/*
 * How codes and scales are chosen: int4 against its definition in double, the search against
 * round to nearest, and nested scales.
 */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "quant/format.h"
#include "unit/packing.h"

/* Nearly normal numbers; one in 50 is `tail` times as great. */
static float *bell(int64_t count, uint32_t seed, float size, float tail)
{
    float *w = malloc((size_t)count * sizeof *w + 1);

    for (int64_t i = 0; i < count; i++) {
        float sum = 0.0f;

        for (int k = 0; k < 6; k++) {
            seed = seed * 1664525u + 1013904223u;
            sum += (float)(int32_t)seed / 2147483648.0f;
        }
        w[i] = sum * size * (seed % 50 == 0 ? tail : 1.0f);
    }
    return w;
}

/* ---- int4, said again in double ---- */

static double clamp(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

/* Group `at` of the whole matrix, which begins at column `col` of `row`. */
static void check_group(const struct packed *p, const float *w, const float *back, int64_t row,
                        int64_t col, int64_t at)
{
    int64_t n = p->cols - col < p->info->block ? p->cols - col : p->info->block;
    const uint8_t *codes = p->part[0] + row * ((p->cols + 1) / 2) + col / 2;
    double low = 0.0, high = 0.0, scale, ideal, zero, unit;
    uint16_t bits;
    int wrong = 0;

    memcpy(&bits, p->part[1] + 2 * at, sizeof bits);
    scale = p->info->scale_dtype == MMQI_F16 ? mmqi_f32_from_f16(bits) : mmqi_f32_from_bf16(bits);
    w += row * p->cols + col;
    back += row * p->cols + col;
    for (int64_t i = 0; i < n; i++) {
        low = w[i] < low ? w[i] : low;
        high = w[i] > high ? w[i] : high;
    }
    ideal = (high - low) / 15.0;
    unit = p->info->scale_dtype == MMQI_F16 ? 0x1p-11 : 0x1p-8;
    ck_assert(fabs(scale - ideal) <= ideal * unit * 1.001 + 0x1p-25);
    zero = scale > 0.0 ? clamp(nearbyint(-low / scale), 0.0, 15.0) : 0.0;
    ck_assert_int_eq(p->part[2][at], (int)zero);
    for (int64_t i = 0; i < n; i++) {
        double q = scale > 0.0 ? clamp(nearbyint(w[i] / scale) + zero, 0.0, 15.0) : 0.0;

        wrong += (i % 2 ? codes[i / 2] >> 4 : codes[i / 2] & 15) != (int)q;
        wrong += back[i] != (q - zero) * scale;
        for (int other = 0; other < 16; other++) /* what it decodes to is the nearest there is */
            wrong += fabs(back[i] - w[i]) > fabs((other - zero) * scale - w[i]);
    }
    ck_assert_int_eq(wrong, 0);
}

static void check_int4(int32_t format, const float *w, int64_t rows, int64_t cols)
{
    struct packed p = pack(mmqi_format_info(format)->name, w, rows, cols, rows);
    float *back = unpack(&p);
    int64_t at = 0;

    for (int64_t row = 0; row < rows; row++) {
        for (int64_t col = 0; col < cols; col += p.info->block)
            check_group(&p, w, back, row, col, at++);
        if (cols % 2)
            ck_assert_uint_lt(p.part[0][(row + 1) * ((cols + 1) / 2) - 1], 16);
    }
    ck_assert_int_eq(p.layout.part[1].shape[0] * p.layout.part[1].shape[1], at);
    free(back);
    free_packed(&p);
}

static const int64_t shapes[][2] = {{1, 1},  {1, 7},   {3, 5},    {64, 64},  {33, 130},
                                    {9, 65}, {17, 96}, {5, 4304}, {3, 3420}, {2, 31}};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

START_TEST(int4_is_its_definition_in_double)
{
    for (int32_t f = MMQI_FORMAT_INT4_G32; f < MMQI_N_FORMATS; f++)
        for (int s = 0; s < N_SHAPES; s++) {
            int64_t rows = shapes[s][0], cols = shapes[s][1];
            float *uniform = numbers(rows * cols, 11), *normal = bell(rows * cols, 5, 0.02f, 4.0f);

            check_int4(f, uniform, rows, cols);
            check_int4(f, normal, rows, cols);
            for (int64_t i = 0; i < rows * cols; i++) /* of one sign, and few values: many ties */
                uniform[i] = roundf(fabsf(uniform[i]) * 60.0f) / 8.0f;
            check_int4(f, uniform, rows, cols);
            for (int64_t i = 0; i < rows * cols; i++)
                uniform[i] = -uniform[i];
            check_int4(f, uniform, rows, cols);
            free(normal);
            free(uniform);
        }
}
END_TEST

START_TEST(int4_groups_of_one_value_decode_to_the_nearest)
{
    static const float values[] = {0.0f, -0.0f, 1.0f, -1.0f, 0.1f, -3.14159f, 1e-5f, 900000.0f};
    float w[100];

    for (int32_t f = MMQI_FORMAT_INT4_G32; f < MMQI_N_FORMATS; f++)
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            struct packed p;
            float *back;

            for (int i = 0; i < 100; i++)
                w[i] = values[v];
            check_int4(f, w, 2, 50);
            p = pack(mmqi_format_info(f)->name, w, 1, 100, 1);
            back = unpack(&p);
            for (int i = 0; i < 100; i++)
                ck_assert(fabsf(back[i] - w[i]) <= fabsf(w[i]) * 0x1p-8f + 15 * 0x1p-25f);
            ck_assert(back[0] == 0.0f || v > 1);
            free(back);
            free_packed(&p);
        }
}
END_TEST

/* Scales that f16 or bf16 cannot hold: what is decoded is finite and errs no more than 0 does. */
START_TEST(int4_scales_beyond_their_type_decode_finite)
{
    static const float sizes[] = {1e-45f, 1e-40f, 1e-30f, 1e-8f, 3e-7f, 1e6f, 1e7f, 1e30f, FLT_MAX};
    float w[256];

    for (int32_t f = MMQI_FORMAT_INT4_G32; f < MMQI_N_FORMATS; f++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (int32_t method = 0; method < 2; method++)
                for (int sign = 0; sign < 3; sign++) {
                    struct packed p;
                    float *back;
                    int wrong = 0;

                    for (int i = 0; i < 256; i++) {
                        w[i] = sizes[s] * (float)(i % 17) / 16.0f;
                        w[i] = sign == 0 ? w[i] : sign == 1 || i % 2 ? -w[i] : w[i];
                    }
                    p = pack_by(mmqi_format_info(f)->name, method, w, 2, 128, 2);
                    back = unpack(&p);
                    for (int i = 0; i < 256; i++)
                        wrong += !isfinite(back[i]) ||
                                 fabs((double)back[i] - w[i]) > fmax(fabs((double)w[i]), 0x1p-25);
                    ck_assert_int_eq(wrong, 0);
                    free(back);
                    free_packed(&p);
                }
}
END_TEST

/* ---- the search ---- */

static double squared_error(const float *w, const float *back, int64_t n)
{
    double sum = 0.0;

    for (int64_t i = 0; i < n; i++)
        sum += ((double)back[i] - w[i]) * ((double)back[i] - w[i]);
    return sum;
}

/* Elements of the block that begins at flat element `at`. */
static int64_t block_size(const struct mmqi_format_info *info, int64_t rows, int64_t cols,
                          int64_t at)
{
    int64_t end = info->kind == MMQI_KIND_INT4 ? (at / cols + 1) * cols : rows * cols;

    return end - at < info->block ? end - at : info->block;
}

/* The search's error over round to nearest's. */
static double check_search(const struct mmqi_format_info *info, const float *w, int64_t rows,
                           int64_t cols)
{
    struct packed rtn = pack_by(info->name, MMQI_METHOD_RTN, w, rows, cols, rows);
    struct packed search = pack_by(info->name, MMQI_METHOD_SEARCH, w, rows, cols, rows);
    float *near = unpack(&rtn), *best = unpack(&search);
    int64_t n;
    double ratio = sqrt(squared_error(w, best, rows * cols) / squared_error(w, near, rows * cols));

    for (int64_t at = 0; at < rows * cols; at += n) {
        n = block_size(info, rows, cols, at);
        ck_assert_msg(squared_error(w + at, best + at, n) <= squared_error(w + at, near + at, n),
                      "%s, %d x %d: worse at %d", info->name, (int)rows, (int)cols, (int)at);
    }
    free(best);
    free(near);
    free_packed(&search);
    free_packed(&rtn);
    return ratio;
}

START_TEST(the_search_errs_no_more_than_round_to_nearest_in_any_block)
{
    static const float sizes[] = {1.0f, 0.02f, 1e-30f, 1e-38f, 1e-44f, 1e3f, 1e30f, 1.8e37f};

    for (int32_t f = MMQI_FORMAT_NF4; f < MMQI_N_FORMATS; f++)
        for (int s = 0; s < N_SHAPES; s++)
            for (size_t z = 0; z < sizeof sizes / sizeof *sizes; z++) {
                const struct mmqi_format_info *info = mmqi_format_info(f);
                int64_t rows = shapes[s][0], cols = shapes[s][1];
                float *w;

                if (info->nested) /* nesting comes after the choice */
                    continue;
                w = bell(rows * cols, (uint32_t)(s + 1), sizes[z], z % 2 ? 3.0f : 1.0f);
                check_search(info, w, rows, cols);
                free(w);
            }
}
END_TEST

START_TEST(the_search_lowers_the_error_of_normal_weights)
{
    static const struct {
        int32_t format;
        double ratio;
    } cases[] = {{MMQI_FORMAT_NF4_32, 0.92},   {MMQI_FORMAT_NF4, 0.94},
                 {MMQI_FORMAT_NF4_128, 0.96},  {MMQI_FORMAT_FP4_32, 0.94},
                 {MMQI_FORMAT_FP4, 0.95},      {MMQI_FORMAT_FP4_128, 0.96},
                 {MMQI_FORMAT_INT4_G32, 0.97}, {MMQI_FORMAT_INT4_G64_BF16, 0.97},
                 {MMQI_FORMAT_INT4_G128, 0.97}};
    float *w = bell(256 * 256, 77, 0.02f, 1.0f);

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double ratio = check_search(mmqi_format_info(cases[i].format), w, 256, 256);

        ck_assert_msg(ratio < cases[i].ratio, "%s: %g", mmqi_format_info(cases[i].format)->name,
                      ratio);
    }
    free(w);
}
END_TEST

/* Blocks whose greatest weight lies on a level, the others too: nothing to gain. */
START_TEST(the_search_keeps_what_is_exact)
{
    float w[64];
    struct packed rtn, search;

    for (int i = 0; i < 64; i++)
        w[i] = mmqi_nf4_table[i % 16] * 0.75f;
    rtn = pack_by("nf4", MMQI_METHOD_RTN, w, 1, 64, 1);
    search = pack_by("nf4", MMQI_METHOD_SEARCH, w, 1, 64, 1);
    assert_part(&search, 0, rtn.part[0], 32);
    assert_part(&search, 1, rtn.part[1], 4);
    free_packed(&rtn);
    free_packed(&search);
}
END_TEST

START_TEST(int8_and_plain_formats_are_the_same_by_both_methods)
{
    float *w = bell(33 * 130, 3, 0.5f, 5.0f);

    for (int32_t f = 0; f <= MMQI_FORMAT_INT8; f++) {
        const char *name = mmqi_format_info(f)->name;
        struct packed rtn = pack_by(name, MMQI_METHOD_RTN, w, 33, 130, 33);
        struct packed search = pack_by(name, MMQI_METHOD_SEARCH, w, 33, 130, 33);

        for (int32_t i = 0; i < rtn.layout.n_parts; i++)
            assert_part(&search, i, rtn.part[i], rtn.layout.part[i].bytes);
        free_packed(&search);
        free_packed(&rtn);
    }
    free(w);
}
END_TEST

/* ---- the same bytes everywhere ---- */

static uint32_t crc32(uint32_t crc, const void *data, size_t size)
{
    const uint8_t *bytes = data;

    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

/* Recorded once: whatever compiler, flags and machine, the same numbers give these bytes. */
START_TEST(bytes_are_those_of_every_other_machine)
{
    static const uint32_t expected[MMQI_N_FORMATS][2] = {
        {0x9175b0da, 0x9175b0da}, {0x6e673d14, 0x6e673d14}, {0x4b1fa9a5, 0x4b1fa9a5},
        {0x53feab79, 0x53feab79}, {0xaff69b8f, 0xb576df18}, {0x84d6adff, 0x0da8cafe},
        {0x5755935c, 0xa2f21c09}, {0x7082feef, 0xfc740d4a}, {0xff1da5f7, 0xfdb28175},
        {0x19aafbc6, 0x898a6094}, {0x145714c7, 0xdedfa440}, {0x9d483593, 0x43f9ead2},
        {0xf9634957, 0xb2f70ea7}, {0x3f64eb05, 0x5ab22f45}, {0xc3c7d1bc, 0x4f3329f5},
        {0x75c90785, 0xed4ee99c}, {0x982cea69, 0x82015219}, {0xf68fc196, 0x7bc86abc},
        {0xe822cce4, 0x44a67f85}, {0xca34046b, 0xfeaf77e1}, {0x47069e27, 0x600ad4f5},
        {0x43943109, 0x88e1baae}};
    float *w = bell(37 * 131, 9, 0.02f, 2.5f);

    for (int32_t f = 0; f < MMQI_N_FORMATS; f++)
        for (int32_t method = 0; method < 2; method++) {
            const struct mmqi_format_info *info = mmqi_format_info(f);
            struct packed p = pack_by(info->name, method, w, 37, 131, 37);
            uint32_t crc = 0;

            for (int32_t i = 0; i < p.layout.n_parts; i++)
                crc = crc32(crc, p.part[i], p.layout.part[i].bytes);
            ck_assert_msg(crc == expected[f][method], "%s by method %d: 0x%08x", info->name, method,
                          crc);
            free_packed(&p);
        }
    free(w);
}
END_TEST

/* ---- nested scales ---- */

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return x < y ? -1 : x > y;
}

/* torch.linspace(0.1, 1, n)[i]: from both ends. */
static float linspace(int n, int i)
{
    float step = (1.0f - 0.1f) / (float)(n - 1);

    return i < n / 2 ? fmaf(step, (float)i, 0.1f) : fmaf(-step, (float)(n - 1 - i), 1.0f);
}

START_TEST(the_nested_map_is_its_formula_and_that_of_bitsandbytes)
{
    float map[256];
    int n = 0;

    for (int i = 0; i < 7; i++)
        for (int k = 0; k < 1 << i; k++) {
            float middle = (linspace((1 << i) + 1, k) + linspace((1 << i) + 1, k + 1)) / 2.0f;

            map[n++] = (float)pow(10.0, i - 6) * middle;
            map[n] = -map[n - 1];
            n++;
        }
    map[n++] = 0.0f;
    map[n++] = 1.0f;
    ck_assert_int_eq(n, 256);
    qsort(map, 256, sizeof *map, ascending);
    ck_assert_mem_eq(map, mmqi_nested_table, sizeof map);
    ck_assert_uint_eq(crc32(0, mmqi_nested_table, sizeof mmqi_nested_table), 0x1b137aeb);
    ck_assert(mmqi_nested_table[127] == 0.0f);
}
END_TEST

struct nest {
    uint8_t codes[600];
    float nested[3], offset;
    float absmax[600]; /* decoded */
};

static void nest(struct nest *out, const float *absmax, int64_t n)
{
    uint8_t *part[MMQI_MAX_PARTS] = {NULL, out->codes, (uint8_t *)out->nested,
                                     (uint8_t *)&out->offset};
    const uint8_t *whole[MMQI_MAX_PARTS] = {NULL, out->codes, (uint8_t *)out->nested,
                                            (uint8_t *)&out->offset};

    memset(out, 0xa5, sizeof *out);
    mmqi_format_info(MMQI_FORMAT_NF4_NESTED)->nest(part, absmax, n);
    for (int64_t i = 0; i < n; i++)
        out->absmax[i] = mmqi_nested_absmax(whole, i);
}

/* The sheet's eight scales. */
START_TEST(nested_scales_are_those_of_the_sheet)
{
    static const float absmax[8] = {.78125f,  1.53125f, 2.34375f, 3.125f,
                                    3.90625f, 4.6875f,  5.46875f, 6.25f};
    static const uint8_t codes[8] = {0, 19, 40, 61, 194, 214, 234, 255};
    struct nest out;

    nest(&out, absmax, 8);
    ck_assert(out.offset == 3.51171875f && out.nested[0] == 2.73828125f);
    ck_assert_mem_eq(out.codes, codes, 8);
    ck_assert(fabsf(out.absmax[0] - .79269099f) < 1e-6f && out.absmax[7] == 6.25f);
    ck_assert_uint_eq(out.codes[8], 0xa5);
}
END_TEST

START_TEST(nested_scales_of_one_value_have_the_codes_0)
{
    float absmax[600];
    struct nest out;

    for (int i = 0; i < 600; i++)
        absmax[i] = 0.375f;
    nest(&out, absmax, 600);
    ck_assert(out.offset == 0.375f);
    for (int i = 0; i < 600; i++)
        ck_assert(out.codes[i] == 0 && out.absmax[i] == 0.375f);
    nest(&out, absmax, 0);
    ck_assert(out.offset == 0.0f);
}
END_TEST

START_TEST(each_256_nested_scales_have_their_own_and_take_the_nearest_code)
{
    float *w = bell(600, 21, 1.0f, 1.0f), absmax[600];
    struct nest out;
    int far = 0;

    for (int i = 0; i < 600; i++)
        absmax[i] = fabsf(w[i]) * (i < 256 ? 1.0f : i < 512 ? 0.1f : 10.0f);
    nest(&out, absmax, 600);
    for (int b = 0; b < 3; b++) {
        float most = 0.0f;

        for (int i = 256 * b; i < 256 * (b + 1) && i < 600; i++)
            most = fmaxf(most, fabsf(absmax[i] - out.offset));
        ck_assert(out.nested[b] == most);
    }
    for (int i = 0; i < 600; i++)
        for (int k = 0; k < 256; k++) {
            double r = (absmax[i] - out.offset) / out.nested[i / 256];

            far +=
                fabs(mmqi_nested_table[out.codes[i]] - r) > fabs(mmqi_nested_table[k] - r) + 1e-6;
        }
    ck_assert_int_eq(far, 0);
    free(w);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("format_methods");
    TCase *tests = tcase_create("format_methods");
    SRunner *runner;
    int failed;

    tcase_add_test(tests, int4_is_its_definition_in_double);
    tcase_add_test(tests, int4_groups_of_one_value_decode_to_the_nearest);
    tcase_add_test(tests, int4_scales_beyond_their_type_decode_finite);
    tcase_add_test(tests, the_search_errs_no_more_than_round_to_nearest_in_any_block);
    tcase_add_test(tests, the_search_lowers_the_error_of_normal_weights);
    tcase_add_test(tests, the_search_keeps_what_is_exact);
    tcase_add_test(tests, int8_and_plain_formats_are_the_same_by_both_methods);
    tcase_add_test(tests, bytes_are_those_of_every_other_machine);
    tcase_add_test(tests, the_nested_map_is_its_formula_and_that_of_bitsandbytes);
    tcase_add_test(tests, nested_scales_are_those_of_the_sheet);
    tcase_add_test(tests, nested_scales_of_one_value_have_the_codes_0);
    tcase_add_test(tests, each_256_nested_scales_have_their_own_and_take_the_nearest_code);
    tcase_set_timeout(tests, 60);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
