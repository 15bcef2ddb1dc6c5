#include "emulated/blocks.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { MAX_THREADS = 1024, LANES = 32, STACK = 256 * 1024, GUARD = 256, MOST_SHARED = 227 * 1024 };

/* Fibers are begun with setcontext, then switched with jumps, which make no calls of the system. */
struct fiber {
    struct emulated_size index;
    int number;
    bool begun, done;
    ucontext_t context;
    jmp_buf at;
    unsigned char *stack;
};

struct warp {
    int waiting, alive;
    unsigned turn;
    uint64_t brought[LANES];
};

static struct {
    const char *what;
    struct emulated_size grid, size, block;
    void (*kernel)(void *);
    void *arg;
    struct fiber fiber[MAX_THREADS], *running;
    struct warp warp[MAX_THREADS / LANES];
    int waiting, alive, any[2];
    unsigned turn; /* of the block's barrier */
    jmp_buf scheduler;
    unsigned char *shared;
} g;

static void stop(const char *why)
{
    fprintf(stderr, "%s: %s (block %u %u %u, thread %d)\n", g.what, why, g.block.x, g.block.y,
            g.block.z, g.running ? g.running->number : -1);
    abort();
}

const struct emulated_size *emulated_thread(void)
{
    return &g.running->index;
}

const struct emulated_size *emulated_block(void)
{
    return &g.block;
}

const struct emulated_size *emulated_block_size(void)
{
    return &g.size;
}

const struct emulated_size *emulated_grid_size(void)
{
    return &g.grid;
}

unsigned char *emulated_shared(void)
{
    return g.shared;
}

void emulated_check_aligned(const void *p, size_t size)
{
    if ((uintptr_t)p % size != 0)
        stop("a misaligned load");
}

/* ---- meeting ---- */

static void yield(void)
{
    if (_setjmp(g.running->at) == 0)
        _longjmp(g.scheduler, 1);
}

static void open_barrier(void)
{
    g.waiting = 0;
    g.any[++g.turn & 1] = 0;
}

int emulated_barrier(int x)
{
    unsigned turn = g.turn;

    g.any[turn & 1] |= x != 0;
    if (++g.waiting == g.alive)
        open_barrier();
    while (g.turn == turn)
        yield();
    return g.any[turn & 1];
}

static void meet(struct warp *warp)
{
    unsigned turn = warp->turn;

    if (++warp->waiting == warp->alive) {
        warp->waiting = 0;
        warp->turn++;
    }
    while (warp->turn == turn)
        yield();
}

int emulated_exchange(uint64_t x, uint64_t all[32])
{
    int lane = g.running->number % LANES;
    struct warp *warp = &g.warp[g.running->number / LANES];

    warp->brought[lane] = x;
    meet(warp);
    memcpy(all, warp->brought, sizeof warp->brought);
    meet(warp);
    return lane;
}

/* ---- running ---- */

/* A thread that has returned is no longer waited for. */
static void leave(void)
{
    struct warp *warp = &g.warp[g.running->number / LANES];

    g.running->done = true;
    if (--g.alive > 0 && g.waiting == g.alive)
        open_barrier();
    if (--warp->alive > 0 && warp->waiting == warp->alive) {
        warp->waiting = 0;
        warp->turn++;
    }
}

static void enter(void)
{
    g.kernel(g.arg);
    leave();
    _longjmp(g.scheduler, 1);
}

static void go_on(struct fiber *fiber)
{
    g.running = fiber;
    if (_setjmp(g.scheduler) != 0)
        return;
    if (fiber->begun)
        _longjmp(fiber->at, 1);
    fiber->begun = true;
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = STACK;
    fiber->context.uc_link = NULL;
    makecontext(&fiber->context, enter, 0);
    setcontext(&fiber->context);
}

static void prepare(int n)
{
    memset(g.warp, 0, sizeof g.warp);
    g.alive = n;
    g.waiting = g.any[0] = g.any[1] = 0;
    for (int i = 0; i < n; i++) {
        struct fiber *fiber = &g.fiber[i];

        if (!fiber->stack)
            fiber->stack = malloc(STACK);
        fiber->number = i;
        fiber->begun = fiber->done = false;
        fiber->index.x = (unsigned)i % g.size.x;
        fiber->index.y = (unsigned)i / g.size.x % g.size.y;
        fiber->index.z = (unsigned)i / (g.size.x * g.size.y);
        g.warp[i / LANES].alive++;
    }
}

static void run_block(int n, size_t shared, bool backwards)
{
    prepare(n);
    memset(g.shared, 0xff, shared + GUARD);
    for (long rounds = 0; g.alive > 0; rounds++) {
        if (rounds > 100000000)
            stop("threads wait for each other");
        for (int i = 0; i < n; i++) {
            struct fiber *fiber = &g.fiber[backwards ? n - 1 - i : i];

            if (!fiber->done)
                go_on(fiber);
        }
    }
    for (size_t i = shared; i < shared + GUARD; i++)
        if (g.shared[i] != 0xff)
            stop("written behind the shared memory");
}

void emulated_run(const char *what, struct emulated_size grid, struct emulated_size block,
                  size_t shared, void (*kernel)(void *), void *arg)
{
    static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
    unsigned n = block.x * block.y * block.z, blocks = 0;

    pthread_mutex_lock(&one_at_a_time);
    g.what = what;
    g.grid = grid;
    g.size = block;
    g.kernel = kernel;
    g.arg = arg;
    g.running = NULL;
    if (n == 0 || n > MAX_THREADS || grid.x == 0 || grid.y == 0 || grid.y > 65535 || grid.z == 0 ||
        grid.z > 65535 || shared > MOST_SHARED)
        stop("cannot be launched");
    g.shared = aligned_alloc(128, (shared + GUARD + 127) / 128 * 128);
    for (g.block.z = 0; g.block.z < grid.z; g.block.z++)
        for (g.block.y = 0; g.block.y < grid.y; g.block.y++)
            for (g.block.x = 0; g.block.x < grid.x; g.block.x++)
                run_block((int)n, shared, blocks++ % 2 != 0);
    free(g.shared);
    pthread_mutex_unlock(&one_at_a_time);
}
