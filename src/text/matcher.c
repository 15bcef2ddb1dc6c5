#include "text/matcher.h"

#include <string.h>

#include "core/mem.h"
#include "core/status.h"

/* A start of a reversed pattern. Node numbers are below 2^31; 0, the root, doubles as "none". */
struct mmqi_matcher_node {
    int32_t child, sibling; /* the first longer start, the next one as long; 0: none */
    int32_t fail;           /* the longest proper end of this start that is a start too */
    int32_t value;          /* of the longest pattern that ends here, if size > 0 */
    uint32_t size;          /* its bytes */
    uint32_t depth;         /* bytes of this start */
    unsigned char byte;     /* the last one of this start */
};

static int32_t child_of(const struct mmqi_matcher *matcher, int32_t node, unsigned char byte)
{
    int32_t child;

    if (node == 0)
        return matcher->first[byte];
    child = matcher->nodes[node].child;
    while (child > 0 && matcher->nodes[child].byte != byte)
        child = matcher->nodes[child].sibling;
    return child;
}

/* A new node below `parent`; 0 when there is no memory. */
static int32_t add_node(struct mmqi_matcher *matcher, int32_t parent, unsigned char byte)
{
    size_t capacity = matcher->capacity ? matcher->capacity * 2 : 256;
    struct mmqi_matcher_node *nodes;
    int32_t node;

    if (matcher->n_nodes == matcher->capacity) {
        nodes = capacity < INT32_MAX ? mmqi_realloc_array(matcher->nodes, capacity, sizeof *nodes)
                                     : NULL;
        if (!nodes)
            return 0;
        matcher->nodes = nodes;
        matcher->capacity = capacity;
    }
    if (matcher->n_nodes == 0) /* the root comes with the first node */
        memset(&matcher->nodes[matcher->n_nodes++], 0, sizeof *matcher->nodes);
    node = (int32_t)matcher->n_nodes++;
    memset(&matcher->nodes[node], 0, sizeof *matcher->nodes);
    matcher->nodes[node].byte = byte;
    matcher->nodes[node].depth = matcher->nodes[parent].depth + 1;
    matcher->nodes[node].sibling = matcher->nodes[parent].child;
    matcher->nodes[parent].child = node;
    if (parent == 0)
        matcher->first[byte] = node;
    return node;
}

/* The child of `node` by this byte, made if it is not there; 0 when there is no memory. */
static int32_t enter(struct mmqi_matcher *matcher, int32_t node, unsigned char byte)
{
    int32_t next = child_of(matcher, node, byte);

    return next > 0 ? next : add_node(matcher, node, byte);
}

int32_t mmqi_matcher_add(struct mmqi_matcher *matcher, const char *pattern, size_t size,
                         int32_t value)
{
    int32_t node = 0, next;
    size_t i;

    if (size == 0)
        return MMQ_OK;
    for (i = size; i-- > 0; node = next) {
        next = enter(matcher, node, (unsigned char)pattern[i]);
        if (next == 0)
            return MMQ_ERR_NOMEM;
    }
    if (matcher->nodes[node].size == 0) {
        matcher->nodes[node].size = (uint32_t)size;
        matcher->nodes[node].value = value;
    }
    return MMQ_OK;
}

/* The node after `byte`, falling back to shorter starts. */
static int32_t step(const struct mmqi_matcher *matcher, int32_t node, unsigned char byte)
{
    int32_t next;

    while ((next = child_of(matcher, node, byte)) == 0 && node != 0)
        node = matcher->nodes[node].fail;
    return next;
}

int32_t mmqi_matcher_seal(struct mmqi_matcher *matcher)
{
    struct mmqi_matcher_node *nodes = matcher->nodes;
    size_t head, tail = 0;
    int32_t *order, node, child;

    if (matcher->n_nodes == 0)
        return MMQ_OK;
    order = mmqi_alloc_array(matcher->n_nodes, sizeof *order);
    if (!order)
        return MMQ_ERR_NOMEM;
    order[tail++] = 0;
    for (head = 0; head < tail; head++) { /* shorter starts first */
        node = order[head];
        for (child = nodes[node].child; child > 0; child = nodes[child].sibling) {
            nodes[child].fail = node == 0 ? 0 : step(matcher, nodes[node].fail, nodes[child].byte);
            if (nodes[child].size == 0) {
                nodes[child].size = nodes[nodes[child].fail].size;
                nodes[child].value = nodes[nodes[child].fail].value;
            }
            order[tail++] = child;
        }
    }
    mmqi_free(order);
    return MMQ_OK;
}

static int32_t push_match(struct mmqi_matches *matches, size_t begin,
                          const struct mmqi_matcher_node *node)
{
    size_t capacity = matches->capacity ? matches->capacity * 2 : 16;
    struct mmqi_match *list;

    if (matches->n == matches->capacity) {
        list = mmqi_realloc_array(matches->list, capacity, sizeof *list);
        if (!list)
            return MMQ_ERR_NOMEM;
        matches->list = list;
        matches->capacity = capacity;
    }
    list = &matches->list[matches->n++];
    list->begin = begin;
    list->size = node->size;
    list->value = node->value;
    return MMQ_OK;
}

int32_t mmqi_matcher_add_start(struct mmqi_matcher *matcher, const char *pattern, size_t size)
{
    int32_t node = 0;

    for (size_t i = 0; i < size; i++) {
        node = enter(matcher, node, (unsigned char)pattern[i]);
        if (node == 0)
            return MMQ_ERR_NOMEM;
    }
    return MMQ_OK;
}

int32_t mmqi_matcher_find_ends(const struct mmqi_matcher *matcher, struct mmqi_matches *matches,
                               const char *text, size_t size)
{
    int32_t node = 0, status = MMQ_OK;

    matches->n = 0;
    if (matcher->n_nodes == 0)
        return MMQ_OK;
    for (size_t i = 0; i < size; i++)
        node = step(matcher, node, (unsigned char)text[i]);
    for (; node != 0 && status == MMQ_OK; node = matcher->nodes[node].fail)
        status = push_match(matches, size - matcher->nodes[node].depth, &matcher->nodes[node]);
    return status;
}

/* The last start is first: turn it round. */
static void reverse(struct mmqi_matches *matches)
{
    struct mmqi_match *list = matches->list, swap;
    size_t i;

    for (i = 0; i < matches->n / 2; i++) {
        swap = list[i];
        list[i] = list[matches->n - 1 - i];
        list[matches->n - 1 - i] = swap;
    }
}

void mmqi_matches_keep_leftmost(struct mmqi_matches *matches)
{
    struct mmqi_match *list = matches->list;
    size_t i, n = 0, end = 0;

    for (i = 0; i < matches->n; i++) {
        if (list[i].begin < end)
            continue;
        end = list[i].begin + list[i].size;
        list[n++] = list[i];
    }
    matches->n = n;
}

int32_t mmqi_matcher_find_all(const struct mmqi_matcher *matcher, struct mmqi_matches *matches,
                              const char *text, size_t size)
{
    int32_t node = 0, status;
    size_t at;

    matches->n = 0;
    if (matcher->n_nodes == 0)
        return MMQ_OK;
    for (at = size; at-- > 0;) {
        node = step(matcher, node, (unsigned char)text[at]);
        if (node == 0 || matcher->nodes[node].size == 0)
            continue;
        status = push_match(matches, at, &matcher->nodes[node]);
        if (status != MMQ_OK)
            return status;
    }
    reverse(matches);
    return MMQ_OK;
}

int32_t mmqi_matcher_find(const struct mmqi_matcher *matcher, struct mmqi_matches *matches,
                          const char *text, size_t size)
{
    int32_t status = mmqi_matcher_find_all(matcher, matches, text, size);

    if (status == MMQ_OK)
        mmqi_matches_keep_leftmost(matches);
    return status;
}

void mmqi_matcher_free(struct mmqi_matcher *matcher)
{
    mmqi_free(matcher->nodes);
    memset(matcher, 0, sizeof *matcher);
}
