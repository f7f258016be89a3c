// What the log keeps in C++ because Cython can't declare a struct that owns a vector, nor wait on a
// condition.
#ifndef KVSTORE_LOG_CHUNK_H
#define KVSTORE_LOG_CHUNK_H

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

namespace kvstore_log {

// Records on their way to one segment of the log.
struct Chunk {
    uint64_t segment = 0;       // number of the segment that it belongs to
    uint64_t offset = 0;        // where in it the first byte goes
    uint64_t previous_end = 0;  // of the segment before it; used when the segment is begun
    uint32_t chain = 0;         // likewise: the chain that the segment begins with
    std::vector<uint8_t> bytes; // records, then the terminator
};

// The newest record of a kind that is written again at the head of each segment.
struct Sticky {
    bool wanted = false;
    bool known = false;
    uint64_t index = 0;
    uint64_t term = 0;
    std::vector<uint8_t> payload;
};

// Gives what was taken and not written back, in front of what came since.
inline void put_back(std::deque<Chunk>& pending, std::deque<Chunk>& taken) {
    while (!taken.empty()) {
        pending.push_front(std::move(taken.back()));
        taken.pop_back();
    }
}

// A mutex, a condition for the writer thread, and a line of those who wait for the flusher. They are
// called one at a time, each by the one before it: woken all at once they would only meet again at the
// next lock (Python's).
struct Monitor {
    struct Waiter {
        std::condition_variable condition;
        bool called = false;
    };
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<Waiter*> line;
    void lock() { mutex.lock(); }
    void unlock() { mutex.unlock(); }
    void wait() {
        std::unique_lock<std::mutex> held(mutex, std::adopt_lock);
        changed.wait(held);
        held.release();
    }
    void notify() { changed.notify_all(); }
    // `again`: at the head, as one who was called in vain.
    void wait_in_line(bool again) {
        Waiter own;
        if (again) line.push_front(&own); else line.push_back(&own);
        std::unique_lock<std::mutex> held(mutex, std::adopt_lock);
        own.condition.wait(held, [&own] { return own.called; });
        held.release();
    }
    void call_next() {
        if (line.empty()) return;
        Waiter* next = line.front();
        line.pop_front();
        next->called = true;
        next->condition.notify_one();
    }
};

}  // namespace kvstore_log

#endif
