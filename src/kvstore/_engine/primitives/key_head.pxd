"""The head of a key: eight of its bytes as one number that sorts as the bytes do.

Comparing heads settles nearly every step of a search inside the node itself, without the cache
miss of following a pointer to the key. Heads skip the prefix that all keys of a node share, so
that keys like `user:0000000042` still differ in theirs.
"""

from libc.stdint cimport uint8_t, uint64_t


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    /* Bytes [skip, skip + 8) of the key, zeros past its end. */
    static inline uint64_t kv_key_head(const uint8_t* key, size_t size, size_t skip) {
        if (__builtin_expect(skip + 8 <= size, 1)) return kv_word_big_endian(key + skip);
        uint64_t head = 0;
        unsigned shift = 56;
        for (size_t i = skip; i < size; i++, shift -= 8) head |= (uint64_t) key[i] << shift;
        return head;
    }
    static inline size_t kv_common_prefix(
            const uint8_t* a, size_t a_size, const uint8_t* b, size_t b_size) {
        size_t limit = a_size < b_size ? a_size : b_size, i = 0;
        while (i + 8 <= limit) {
            uint64_t differ = kv_word_big_endian(a + i) ^ kv_word_big_endian(b + i);
            if (differ) return i + (size_t) __builtin_clzll(differ) / 8;
            i += 8;
        }
        while (i < limit && a[i] == b[i]) i++;
        return i;
    }
    /* Those of a block that lies in a read-ahead or a map have no alignment: hence the copies. */
    static inline uint64_t kv_head_at(const void* heads, size_t place) {
        uint64_t head;
        memcpy(&head, (const char*) heads + 8 * place, 8);
        return head;
    }
    /* The first of `count` ascending heads that is >= target. No branch depends on the data (it
       would be mispredicted half the time): hence the mask, where GCC makes a branch of `?:`. */
    static inline int kv_heads_lower(const void* heads, int count, uint64_t target) {
        size_t base = 0;
        if (count == 0) return 0;
        while (count > 1) {
            int half = count >> 1;
            base += (size_t) half & -(size_t) (kv_head_at(heads, base + half - 1) < target);
            count -= half;
        }
        return (int) base + (kv_head_at(heads, base) < target);
    }
    /* Not __builtin_prefetch where it can be helped: GCC takes a function with nothing else in it
       for one without effect and drops the call. */
    static inline void kv_prefetch(const void* at) {
    #if defined(__x86_64__)
        __asm__ volatile("prefetcht0 %0" : : "m"(*(const char*) at));
    #elif defined(__aarch64__)
        __asm__ volatile("prfm pldl1keep, %0" : : "Q"(*(const char*) at));
    #else
        __builtin_prefetch(at);
    #endif
    }
    /* All of a run up to a block of the usual size: so much is in flight while a caller makes room. */
    static inline void kv_prefetch_run(const void* at, size_t size) {
        const char* line = (const char*) at;
        const char* end = line + (size < 4608 ? size : 4608);
        for (; line < end; line += 64) kv_prefetch(line);
    }
    """
    uint64_t key_head "kv_key_head"(const uint8_t* key, size_t size, size_t skip) noexcept nogil
    size_t common_prefix "kv_common_prefix"(
        const uint8_t* a, size_t a_size, const uint8_t* b, size_t b_size
    ) noexcept nogil
    uint64_t head_at "kv_head_at"(const void* heads, size_t place) noexcept nogil
    int heads_lower "kv_heads_lower"(const void* heads, int count, uint64_t target) noexcept nogil
    void prefetch "kv_prefetch"(const void* at) noexcept nogil
    void prefetch_run "kv_prefetch_run"(const void* at, size_t size) noexcept nogil
