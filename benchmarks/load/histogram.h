/* Latencies in microseconds: exact below 1024, to 0.2 % above. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { SUB_BITS = 9, BUCKETS = (64 - SUB_BITS) << SUB_BITS };

struct histogram {
    uint64_t counts[BUCKETS], total, max_us;
};

static inline size_t bucket_of(uint64_t us)
{
    if (us < 2u << SUB_BITS)
        return us;
    int shift = 63 - __builtin_clzll(us) - SUB_BITS;
    return ((size_t)shift << SUB_BITS) + (us >> shift);
}

static inline uint64_t bucket_floor(size_t bucket)
{
    if (bucket < 2u << SUB_BITS)
        return bucket;
    int shift = (int)(bucket >> SUB_BITS) - 1;
    return (uint64_t)(bucket - ((size_t)shift << SUB_BITS)) << shift;
}

static inline void note(struct histogram *h, uint64_t us)
{
    h->counts[bucket_of(us)]++;
    h->total++;
    if (us > h->max_us)
        h->max_us = us;
}

static inline double percentile_ms(const struct histogram *h, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)h->total), seen = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        seen += h->counts[i];
        if (seen > wanted)
            return (double)bucket_floor(i) / 1e3;
    }
    return (double)h->max_us / 1e3;
}
