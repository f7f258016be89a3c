// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78; RFC 3720 appendix B.4), the checksum of
// every frame that kvstore writes. The processor's instruction where there is one, chosen at run
// time, so that one build serves every x86-64 and arm64 machine; eight tables elsewhere.
#ifndef KVSTORE_CRC32C_H
#define KVSTORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace kvstore_crc32c {

static const uint32_t POLYNOMIAL = 0x82F63B78u;

// Bytes that each of the three interleaved streams covers: long enough to hide the instruction's
// latency of three cycles, short enough for a block of 4 KiB to profit.
static const size_t LANE_BYTES = 1024;

struct Tables {
    uint32_t bytes[8][256];   // slicing by eight
    uint32_t shift[4][256];   // a checksum moved on by LANE_BYTES zero bytes

    static uint32_t zeros(uint32_t crc, const uint32_t table[256], size_t count) {
        while (count--) crc = table[crc & 0xFF] ^ (crc >> 8);
        return crc;
    }

    Tables() {
        for (uint32_t i = 0; i < 256; ++i) {
            uint32_t crc = i;
            for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? POLYNOMIAL : 0);
            bytes[0][i] = crc;
        }
        for (uint32_t i = 0; i < 256; ++i)
            for (int k = 1; k < 8; ++k)
                bytes[k][i] = bytes[0][bytes[k - 1][i] & 0xFF] ^ (bytes[k - 1][i] >> 8);
        // The map is linear: of the 32 bits alone, then of all sums of them.
        for (int k = 0; k < 4; ++k) {
            shift[k][0] = 0;
            for (uint32_t bit = 1; bit < 256; bit <<= 1) {
                shift[k][bit] = zeros(bit << (8 * k), bytes[0], LANE_BYTES);
                for (uint32_t i = 1; i < bit; ++i) shift[k][bit + i] = shift[k][bit] ^ shift[k][i];
            }
        }
    }

    // Moves a raw (uninverted) checksum on by LANE_BYTES zero bytes: the map is linear over GF(2).
    uint32_t advance(uint32_t crc) const {
        return shift[0][crc & 0xFF] ^ shift[1][(crc >> 8) & 0xFF] ^ shift[2][(crc >> 16) & 0xFF] ^
               shift[3][crc >> 24];
    }
};

inline const Tables& tables() {
    static const Tables instance;
    return instance;
}

inline uint64_t load64(const uint8_t* data) {
    uint64_t word;
    memcpy(&word, data, 8);
    return word;
}

inline uint32_t software(uint32_t crc, const uint8_t* data, size_t size) {
    const Tables& t = tables();
    crc = ~crc;
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    for (; size >= 8; size -= 8, data += 8) {
        uint64_t word = load64(data) ^ crc;
        crc = t.bytes[7][word & 0xFF] ^ t.bytes[6][(word >> 8) & 0xFF] ^
              t.bytes[5][(word >> 16) & 0xFF] ^ t.bytes[4][(word >> 24) & 0xFF] ^
              t.bytes[3][(word >> 32) & 0xFF] ^ t.bytes[2][(word >> 40) & 0xFF] ^
              t.bytes[1][(word >> 48) & 0xFF] ^ t.bytes[0][word >> 56];
    }
#endif
    for (; size; --size) crc = t.bytes[0][(crc ^ *data++) & 0xFF] ^ (crc >> 8);
    return ~crc;
}

#if defined(__x86_64__) || (defined(__aarch64__) && defined(__linux__))
#define KVSTORE_CRC32C_HARDWARE 1

#if defined(__x86_64__)
#define KVSTORE_CRC32C_TARGET __attribute__((target("sse4.2")))
#define KVSTORE_CRC32C_STEP8(crc, word) ((uint32_t)_mm_crc32_u64((crc), (word)))
#define KVSTORE_CRC32C_STEP1(crc, byte) (_mm_crc32_u8((crc), (byte)))
inline bool detect() { return __builtin_cpu_supports("sse4.2"); }
#else
#define KVSTORE_CRC32C_TARGET __attribute__((target("+crc")))
#define KVSTORE_CRC32C_STEP8(crc, word) (__crc32cd((crc), (word)))
#define KVSTORE_CRC32C_STEP1(crc, byte) (__crc32cb((crc), (byte)))
inline bool detect() { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }
#endif

KVSTORE_CRC32C_TARGET inline uint32_t hardware(uint32_t crc, const uint8_t* data, size_t size) {
    crc = ~crc;
    if (size >= 3 * LANE_BYTES) {
        const Tables& t = tables();
        do {
            uint32_t second = 0, third = 0;
            for (size_t i = 0; i < LANE_BYTES; i += 8) {
                crc = KVSTORE_CRC32C_STEP8(crc, load64(data + i));
                second = KVSTORE_CRC32C_STEP8(second, load64(data + LANE_BYTES + i));
                third = KVSTORE_CRC32C_STEP8(third, load64(data + 2 * LANE_BYTES + i));
            }
            crc = t.advance(t.advance(crc) ^ second) ^ third;
            data += 3 * LANE_BYTES;
            size -= 3 * LANE_BYTES;
        } while (size >= 3 * LANE_BYTES);
    }
    for (; size >= 8; size -= 8, data += 8) crc = KVSTORE_CRC32C_STEP8(crc, load64(data));
    for (; size; --size) crc = KVSTORE_CRC32C_STEP1(crc, *data++);
    return ~crc;
}

inline bool accelerated() {
    static const bool answer = detect();
    return answer;
}

inline uint32_t extend(uint32_t crc, const uint8_t* data, size_t size) {
    return accelerated() ? hardware(crc, data, size) : software(crc, data, size);
}
#else
inline bool accelerated() { return false; }
inline uint32_t extend(uint32_t crc, const uint8_t* data, size_t size) {
    return software(crc, data, size);
}
#endif

}  // namespace kvstore_crc32c

#endif
