/*
 * A graph over several places: which segments run where, and what crosses.
 *
 * A place is one device with its own memory. Every place uses the same arena
 * offsets, and needs only the bytes that its own segments touch. Consecutive
 * segments of one place are a leg, run in one call; before it, values that it
 * reads and that were written elsewhere are copied to it.
 */
#ifndef MMQI_GRAPH_ROUTE_H
#define MMQI_GRAPH_ROUTE_H

#include "graph/graph.h"

enum { MMQI_MAX_PLACES = 16 };

/* A whole value (never a slice), brought from where it was last written. */
struct mmqi_crossing {
    int32_t value, from;
};

struct mmqi_leg {
    int32_t place;
    int32_t begin, end;                  /* segments */
    int32_t first_crossing, n_crossings; /* before it runs */
};

struct mmqi_route {
    struct mmqi_leg *legs;
    int32_t n_legs;
    struct mmqi_crossing *crossings;
    int32_t n_crossings;
};

/* `places` [segments] are below MMQI_MAX_PLACES. Inputs that the run binds are taken to be wherever
 * they are read. Cleared with mmqi_route_clear(), also after a failure. */
int32_t mmqi_route_create(struct mmqi_route *out, const struct mmqi_graph *graph,
                          const int32_t *places);
void mmqi_route_clear(struct mmqi_route *route); /* accepts all zeros */

/* ---- what the segments at one place touch; `places` NULL: all segments are at place 0 ---- */

/* The place of a segment. */
static inline int32_t mmqi_place_of(const int32_t *places, int32_t segment)
{
    return places ? places[segment] : 0;
}

bool mmqi_place_binds(const struct mmqi_graph *graph, const int32_t *places, int32_t place,
                      int32_t binding);
/* Keys and values of a layer of the cache. */
bool mmqi_place_keeps(const struct mmqi_graph *graph, const int32_t *places, int32_t place,
                      int32_t layer);
bool mmqi_place_runs(const struct mmqi_graph *graph, const int32_t *places, int32_t place);
/* Bytes of the arena up to the last that is touched there. */
uint64_t mmqi_plan_bytes_at(const struct mmqi_plan *plan, const struct mmqi_graph *graph,
                            const int32_t *places, int32_t place);
/* As mmqi_plan_needs(), for one place. */
void mmqi_plan_needs_at(struct mmqi_stream_options *needs, const struct mmqi_graph *graph,
                        const struct mmqi_plan *plan, const int32_t *places, int32_t place);

#endif
