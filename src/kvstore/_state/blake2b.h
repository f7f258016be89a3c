/* BLAKE2b without a key (RFC 7693), for digests of up to 64 bytes: what hashlib does, for callers
   that have no Python object at hand. Streaming: begin, update any number of times, end. */

#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace kvstore_blake2b {

struct State {
    uint64_t chain[8];
    uint64_t count;         /* bytes that went through: 2^64 of them are enough for anybody here */
    uint8_t block[128];     /* what isn't compressed yet; the last block needs its mark */
    size_t filled;
    size_t digest_bytes;
};

static const uint64_t INITIAL[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};

/* RFC 7693, section 2.7; rounds 10 and 11 are 0 and 1 again. */
static const uint8_t ORDER[12][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
};

static inline uint64_t rotated(uint64_t word, int bits) {
    return (word >> bits) | (word << (64 - bits));
}

static inline void mix(uint64_t* v, int a, int b, int c, int d, uint64_t x, uint64_t y) {
    v[a] += v[b] + x;
    v[d] = rotated(v[d] ^ v[a], 32);
    v[c] += v[d];
    v[b] = rotated(v[b] ^ v[c], 24);
    v[a] += v[b] + y;
    v[d] = rotated(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = rotated(v[b] ^ v[c], 63);
}

static inline void compress(State* state, const uint8_t* block, bool last) {
    uint64_t words[16], v[16];
    memcpy(words, block, sizeof words);     /* little-endian, as all of the program */
    memcpy(v, state->chain, sizeof state->chain);
    memcpy(v + 8, INITIAL, sizeof INITIAL);
    v[12] ^= state->count;
    if (last) v[14] = ~v[14];
    /* Unrolled, the order is known to the compiler, and no table is read. */
    #pragma GCC unroll 12
    for (int round = 0; round < 12; round++) {
        const uint8_t* order = ORDER[round];
        mix(v, 0, 4, 8, 12, words[order[0]], words[order[1]]);
        mix(v, 1, 5, 9, 13, words[order[2]], words[order[3]]);
        mix(v, 2, 6, 10, 14, words[order[4]], words[order[5]]);
        mix(v, 3, 7, 11, 15, words[order[6]], words[order[7]]);
        mix(v, 0, 5, 10, 15, words[order[8]], words[order[9]]);
        mix(v, 1, 6, 11, 12, words[order[10]], words[order[11]]);
        mix(v, 2, 7, 8, 13, words[order[12]], words[order[13]]);
        mix(v, 3, 4, 9, 14, words[order[14]], words[order[15]]);
    }
    for (int i = 0; i < 8; i++) state->chain[i] ^= v[i] ^ v[i + 8];
}

static inline void begin(State* state, size_t digest_bytes) {
    memcpy(state->chain, INITIAL, sizeof INITIAL);
    state->chain[0] ^= 0x01010000 ^ digest_bytes;
    state->count = 0;
    state->filled = 0;
    state->digest_bytes = digest_bytes;
}

static inline void update(State* state, const uint8_t* data, size_t size) {
    while (size) {
        if (state->filled == sizeof state->block) {
            state->count += sizeof state->block;
            compress(state, state->block, false);
            state->filled = 0;
        }
        size_t part = sizeof state->block - state->filled;
        if (part > size) part = size;
        memcpy(state->block + state->filled, data, part);
        state->filled += part;
        data += part;
        size -= part;
    }
}

static inline void end(State* state, uint8_t* digest) {
    state->count += state->filled;
    memset(state->block + state->filled, 0, sizeof state->block - state->filled);
    compress(state, state->block, true);
    memcpy(digest, state->chain, state->digest_bytes);
}

}  // namespace kvstore_blake2b
