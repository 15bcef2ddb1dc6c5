/*
 * Nested scales of nf4 and fp4: bitsandbytes' double quantization of the blocks' absmax.
 *
 *   part 1   NAME.weight.absmax        [blocks]              U8 codes
 *   part 2   NAME.weight.nested_absmax [ceil(blocks / 256)]  F32 scale of 256 codes
 *   part 3   the offset                [1]                   F32; in a file a number of the state
 *
 *   offset = the mean: summed in f64 in order, divided, rounded to f32
 *   r      = absmax - offset
 *   code   = that of the value of the map nearest to r * (1 / greatest |r| of its 256)
 *   absmax = map[code] * nested_absmax + offset          every step rounded to f32
 *
 * A nested block whose 1 / greatest |r| is beyond f32 (zeros among them) has the codes 0.
 */
#include "quant/format_parts.h"

#include <float.h>
#include <math.h>
#include <string.h>

/*
 * For i in 0..6 the middles of 2^i equal parts of [0.1, 1], times 10^(i - 6), with both signs; then
 * 0 and 1; ascending. To the bit as torch's linspace makes it: from both ends, each step one fused
 * multiply-add.
 */
const float mmqi_nested_table[256] = {
    -0.992968738f,    -0.978906274f,    -0.96484375f,     -0.950781226f,
    -0.936718762f,    -0.922656238f,    -0.908593774f,    -0.89453125f,
    -0.880468726f,    -0.866406262f,    -0.852343738f,    -0.838281274f,
    -0.82421875f,     -0.810156226f,    -0.796093762f,    -0.782031238f,
    -0.767968774f,    -0.75390625f,     -0.739843726f,    -0.725781262f,
    -0.711718798f,    -0.697656274f,    -0.68359375f,     -0.669531226f,
    -0.655468762f,    -0.641406298f,    -0.627343774f,    -0.61328125f,
    -0.599218726f,    -0.585156262f,    -0.571093798f,    -0.557031274f,
    -0.54296875f,     -0.528906226f,    -0.514843702f,    -0.500781238f,
    -0.486718714f,    -0.47265625f,     -0.458593726f,    -0.444531262f,
    -0.430468738f,    -0.416406244f,    -0.40234375f,     -0.388281226f,
    -0.374218762f,    -0.360156238f,    -0.346093744f,    -0.33203125f,
    -0.317968726f,    -0.303906262f,    -0.289843738f,    -0.275781274f,
    -0.26171875f,     -0.247656241f,    -0.233593747f,    -0.219531253f,
    -0.205468744f,    -0.19140625f,     -0.177343756f,    -0.163281247f,
    -0.149218753f,    -0.135156244f,    -0.12109375f,     -0.107031256f,
    -0.0985937491f,   -0.0957812592f,   -0.0929687545f,   -0.0901562497f,
    -0.0873437524f,   -0.0845312476f,   -0.0817187577f,   -0.078906253f,
    -0.0760937482f,   -0.0732812509f,   -0.0704687461f,   -0.0676562563f,
    -0.0648437515f,   -0.0620312504f,   -0.0592187531f,   -0.0564062484f,
    -0.053593751f,    -0.05078125f,     -0.047968749f,    -0.0451562516f,
    -0.0423437469f,   -0.0395312496f,   -0.0367187522f,   -0.0339062512f,
    -0.0310937501f,   -0.028281251f,    -0.0254687499f,   -0.0226562507f,
    -0.0198437516f,   -0.0170312505f,   -0.0142187504f,   -0.0114062503f,
    -0.00971874967f,  -0.00915624946f,  -0.00859375019f,  -0.00803124998f,
    -0.00746874977f,  -0.00690625003f,  -0.00634374982f,  -0.00578125007f,
    -0.00521875033f,  -0.00465624966f,  -0.00409374991f,  -0.00353124971f,
    -0.00296874996f,  -0.00240624999f,  -0.00184375001f,  -0.00128124992f,
    -0.000943750085f, -0.000831249985f, -0.00071875006f,  -0.000606250076f,
    -0.000493750034f, -0.000381250022f, -0.000268750038f, -0.000156250011f,
    -8.87499991e-05f, -6.62500024e-05f, -4.37499984e-05f, -2.12499981e-05f,
    -7.7499999e-06f,  -3.25000019e-06f, -5.50000038e-07f, 0.0f,
    5.50000038e-07f,  3.25000019e-06f,  7.7499999e-06f,   2.12499981e-05f,
    4.37499984e-05f,  6.62500024e-05f,  8.87499991e-05f,  0.000156250011f,
    0.000268750038f,  0.000381250022f,  0.000493750034f,  0.000606250076f,
    0.00071875006f,   0.000831249985f,  0.000943750085f,  0.00128124992f,
    0.00184375001f,   0.00240624999f,   0.00296874996f,   0.00353124971f,
    0.00409374991f,   0.00465624966f,   0.00521875033f,   0.00578125007f,
    0.00634374982f,   0.00690625003f,   0.00746874977f,   0.00803124998f,
    0.00859375019f,   0.00915624946f,   0.00971874967f,   0.0114062503f,
    0.0142187504f,    0.0170312505f,    0.0198437516f,    0.0226562507f,
    0.0254687499f,    0.028281251f,     0.0310937501f,    0.0339062512f,
    0.0367187522f,    0.0395312496f,    0.0423437469f,    0.0451562516f,
    0.047968749f,     0.05078125f,      0.053593751f,     0.0564062484f,
    0.0592187531f,    0.0620312504f,    0.0648437515f,    0.0676562563f,
    0.0704687461f,    0.0732812509f,    0.0760937482f,    0.078906253f,
    0.0817187577f,    0.0845312476f,    0.0873437524f,    0.0901562497f,
    0.0929687545f,    0.0957812592f,    0.0985937491f,    0.107031256f,
    0.12109375f,      0.135156244f,     0.149218753f,     0.163281247f,
    0.177343756f,     0.19140625f,      0.205468744f,     0.219531253f,
    0.233593747f,     0.247656241f,     0.26171875f,      0.275781274f,
    0.289843738f,     0.303906262f,     0.317968726f,     0.33203125f,
    0.346093744f,     0.360156238f,     0.374218762f,     0.388281226f,
    0.40234375f,      0.416406244f,     0.430468738f,     0.444531262f,
    0.458593726f,     0.47265625f,      0.486718714f,     0.500781238f,
    0.514843702f,     0.528906226f,     0.54296875f,      0.557031274f,
    0.571093798f,     0.585156262f,     0.599218726f,     0.61328125f,
    0.627343774f,     0.641406298f,     0.655468762f,     0.669531226f,
    0.68359375f,      0.697656274f,     0.711718798f,     0.725781262f,
    0.739843726f,     0.75390625f,      0.767968774f,     0.782031238f,
    0.796093762f,     0.810156226f,     0.82421875f,      0.838281274f,
    0.852343738f,     0.866406262f,     0.880468726f,     0.89453125f,
    0.908593774f,     0.922656238f,     0.936718762f,     0.950781226f,
    0.96484375f,      0.978906274f,     0.992968738f,     1.0f,
};

/* The lower of two values at equal distance. */
static uint8_t nearest_code(float x)
{
    int low = 0, high = 255;

    while (high - low > 1) {
        int middle = (low + high) / 2;

        if (mmqi_nested_table[middle] <= x)
            low = middle;
        else
            high = middle;
    }
    return (uint8_t)(x - mmqi_nested_table[low] <= mmqi_nested_table[high] - x ? low : high);
}

static float nest_block(uint8_t *codes, const float *absmax, int64_t n, float offset)
{
    float most = 0.0f, inverse;

    for (int64_t i = 0; i < n; i++) {
        float magnitude = fabsf(absmax[i] - offset);

        most = magnitude > most ? magnitude : most;
    }
    inverse = 1.0f / most;
    if (!(inverse <= FLT_MAX)) {
        memset(codes, 0, (size_t)n);
        return most;
    }
    for (int64_t i = 0; i < n; i++)
        codes[i] = nearest_code((absmax[i] - offset) * inverse);
    return most;
}

void mmqi_nest(uint8_t *const part[], const float *absmax, int64_t n)
{
    double sum = 0.0;
    float offset;

    for (int64_t i = 0; i < n; i++)
        sum += absmax[i];
    offset = n > 0 ? (float)(sum / (double)n) : 0.0f;
    for (int64_t begin = 0; begin < n; begin += MMQI_NESTED_BLOCK) {
        int64_t left = n - begin < MMQI_NESTED_BLOCK ? n - begin : MMQI_NESTED_BLOCK;
        float most = nest_block(part[1] + begin, absmax + begin, left, offset);

        memcpy(part[2] + begin / MMQI_NESTED_BLOCK * 4, &most, sizeof most);
    }
    memcpy(part[3], &offset, sizeof offset);
}

float mmqi_nested_absmax(const uint8_t *const part[], int64_t block)
{
    float scale, offset;

    memcpy(&scale, part[2] + block / MMQI_NESTED_BLOCK * 4, sizeof scale);
    memcpy(&offset, part[3], sizeof offset);
    return mmqi_nested_table[part[1][block]] * scale + offset;
}
