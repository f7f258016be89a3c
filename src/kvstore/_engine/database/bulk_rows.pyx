"""Rows: see bulk_rows.pxd."""

from libc.stdint cimport uint32_t

from kvstore._engine.primitives.native cimport (
    Slice,
    arena_allocate,
    arena_free,
    arena_init,
    arena_reserve,
    common_prefix,
    key_head,
)


cdef extern from *:
    """
    #include <algorithm>
    #include <cstdint>
    #include <cstring>
    #include <utility>
    /* By key; rows of equal keys keep their order. First by head, a byte at a time from the last
       on, then by the whole key where heads are equal. `spare` has room for `count` rows, too. */
    template <typename Run>
    static inline void kv_sort_rows(kv_row* rows, kv_row* spare, size_t count, const Run* keys) {
        auto less = [keys](const kv_row& a, const kv_row& b) {
            const Run& x = keys[a.row];
            const Run& y = keys[b.row];
            size_t shorter = x.size < y.size ? x.size : y.size;
            int order = shorter ? memcmp(x.data, y.data, shorter) : 0;
            if (order) return order < 0;
            if (x.size != y.size) return x.size < y.size;
            return a.row < b.row;
        };
        if (std::is_sorted(rows, rows + count, [&less](const kv_row& a, const kv_row& b) {
                return a.head != b.head ? a.head < b.head : less(a, b); }))
            return;
        kv_row* from = rows;
        kv_row* into = spare;
        for (int shift = 0; shift < 64; shift += 8) {
            size_t ends[256] = {0};
            for (size_t i = 0; i < count; i++) ends[(from[i].head >> shift) & 255]++;
            if (ends[(from[0].head >> shift) & 255] == count) continue;
            size_t sum = 0;
            for (size_t& end : ends) { size_t own = end; end = sum; sum += own; }
            for (size_t i = 0; i < count; i++) into[ends[(from[i].head >> shift) & 255]++] = from[i];
            std::swap(from, into);
        }
        if (from != rows) memcpy(rows, from, count * sizeof(kv_row));
        for (size_t i = 0; i < count;) {
            size_t end = i + 1;
            while (end < count && rows[end].head == rows[i].head) end++;
            if (end > i + 1) std::sort(rows + i, rows + end, less);
            i = end;
        }
    }
    """
    void sort_rows "kv_sort_rows"(
        Row* rows, Row* spare, size_t count, const Slice* keys
    ) noexcept nogil


cdef enum:
    ALIGNMENT = 64


cdef int rows_open(Rows* rows, Py_ssize_t most) noexcept nogil:
    cdef size_t room = <size_t> max(1, min(most, <Py_ssize_t> CHUNK_ROWS))
    cdef size_t value_bytes = room * max(sizeof(Slice), sizeof(Row))
    cdef size_t bytes = room * (sizeof(Slice) + sizeof(Row)) + value_bytes + 3 * ALIGNMENT
    rows.count = 0
    arena_init(&rows.memory, bytes)
    # In one piece: a large one has huge pages, which rows that are visited in any order need.
    if arena_reserve(&rows.memory, bytes) < 0:
        return -1
    rows.keys = <Slice*> arena_allocate(&rows.memory, room * sizeof(Slice), ALIGNMENT)
    rows.values = <Slice*> arena_allocate(&rows.memory, value_bytes, ALIGNMENT)
    rows.order = <Row*> arena_allocate(&rows.memory, room * sizeof(Row), ALIGNMENT)
    return 0


cdef void rows_free(Rows* rows) noexcept nogil:
    arena_free(&rows.memory)


cdef void rows_sort(Rows* rows) noexcept nogil:
    # Heads are of what comes after the bytes that all keys share.
    cdef size_t shared = rows.keys[0].size if rows.count else 0
    cdef Py_ssize_t i
    for i in range(1, rows.count):
        shared = common_prefix(rows.keys[0].data, shared, rows.keys[i].data, rows.keys[i].size)
    for i in range(rows.count):
        rows.order[i].head = key_head(rows.keys[i].data, rows.keys[i].size, shared)
        rows.order[i].row = <uint32_t> i
    sort_rows(rows.order, <Row*> rows.values, <size_t> rows.count, rows.keys)
