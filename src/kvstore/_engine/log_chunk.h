// Records on their way to one segment of the log. In C++ because Cython can't declare a struct that
// owns a vector.
#ifndef KVSTORE_LOG_CHUNK_H
#define KVSTORE_LOG_CHUNK_H

#include <cstdint>
#include <deque>
#include <vector>

namespace kvstore_log {

struct Chunk {
    uint64_t segment;        // number of the segment that it belongs to
    uint64_t offset;         // where in it the first byte goes
    uint64_t previous_end;   // of the segment before it; used when the segment is begun
    uint32_t chain;          // likewise: the chain that the segment begins with
    std::vector<uint8_t> bytes;
};

}  // namespace kvstore_log

#endif
