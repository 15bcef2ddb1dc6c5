/*
 * Sorting, integers and clipped names for the readers of this folder.
 */
#include "io/util.h"

static void sift_down(uint32_t *order, size_t root, size_t n, mmqi_before_fn before,
                      const void *context)
{
    const uint32_t item = order[root];

    for (;;) {
        size_t child = 2 * root + 1;

        if (child >= n)
            break;
        if (child + 1 < n && before(context, order[child], order[child + 1]))
            child++;
        if (!before(context, item, order[child]))
            break;
        order[root] = order[child];
        root = child;
    }
    order[root] = item;
}

void mmqi_sort(uint32_t *order, size_t n, mmqi_before_fn before, const void *context)
{
    size_t i;

    for (i = n / 2; i > 0; i--)
        sift_down(order, i - 1, n, before, context);
    for (i = n; i > 1; i--) {
        const uint32_t last = order[i - 1];

        order[i - 1] = order[0];
        order[0] = last;
        sift_down(order, 0, i - 1, before, context);
    }
}

static bool is_tail(unsigned char byte)
{
    return (byte & 0xC0) == 0x80;
}

bool mmqi_parse_integer(const char *text, int64_t *value)
{
    const bool negative = *text == '-';
    int64_t n = 0;

    text += negative;
    if (!*text)
        return false;
    for (; *text; text++) {
        /* Counting downwards reaches the least int64_t too. */
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(n, 10, &n) ||
            __builtin_sub_overflow(n, *text - '0', &n))
            return false;
    }
    if (!negative && n == INT64_MIN)
        return false;
    *value = negative ? n : -n;
    return true;
}

int mmqi_clip(const char *text, size_t size)
{
    size_t end = MMQI_CLIP_BYTES;

    if (size <= end)
        return (int)size;
    while (end > 0 && is_tail((unsigned char)text[end]))
        end--;
    return (int)end;
}
