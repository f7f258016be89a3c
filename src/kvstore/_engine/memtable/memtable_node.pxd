"""The nodes and entries of the memtable: a B+tree over an arena, laid out by cache lines.

An entry is written once and never moves:

    u32 key bytes | u32 value bytes | user key | u64 trailer | value

so `user key | trailer` is the internal key as cursors show it. Nodes hold, for each entry or
separator, an eight-byte head (key_head.pxd) and a pointer; a search touches a few lines of heads
in each node and then, once, the entry. Separators are pointers to entries: nothing is copied.

Nothing is ever removed.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport (
    Arena,
    Slice,
    TRAILER_BYTES,
    common_prefix,
    internal_trailer,
    key_head,
    prefetch,
    slice_compare,
    slice_of,
    trailer_sequence,
)


cdef enum:
    LEAF_SLOTS = 60             # a leaf is 16 cache lines
    INNER_SLOTS = 60
    ENTRY_HEADER_BYTES = 8
    CACHE_LINE_BYTES = 64


ctypedef const uint8_t* Entry


cdef struct Leaf:
    uint32_t count
    uint32_t prefix             # bytes that all keys here share; heads start after them
    Leaf* next
    Leaf* prev
    uint64_t heads[LEAF_SLOTS]
    Entry entries[LEAF_SLOTS]


cdef struct Inner:
    # children[i] holds what lies before separators[i], children[count] the rest; a separator is
    # the first entry that ever stood on its right.
    uint32_t count
    uint32_t prefix
    uint64_t heads[INNER_SLOTS]
    Entry separators[INNER_SLOTS]
    void* children[INNER_SLOTS + 1]


cdef struct MemTable:
    uint64_t references
    Arena arena
    void* root                  # a Leaf where height is 0, else an Inner
    int height                  # inner levels above the leaves
    Leaf* first
    Leaf* last
    Entry smallest              # of the whole tree; NULL while it is empty
    Entry largest
    # The leaf that the last addition went to, and the bound above it. NULL where it moved a bound of
    # the tree or split a leaf.
    Leaf* near
    Entry near_upper
    size_t entries
    size_t leaves
    size_t inners
    RangeSet ranges             # beside the tree; the keys are in the arena


cdef inline uint32_t load_u32(const uint8_t* at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


cdef inline Slice entry_user_key(Entry entry) noexcept nogil:
    return slice_of(entry + ENTRY_HEADER_BYTES, load_u32(entry))


cdef inline Slice entry_internal_key(Entry entry) noexcept nogil:
    return slice_of(entry + ENTRY_HEADER_BYTES, <size_t> load_u32(entry) + TRAILER_BYTES)


cdef inline Slice entry_value(Entry entry) noexcept nogil:
    return slice_of(
        entry + ENTRY_HEADER_BYTES + load_u32(entry) + TRAILER_BYTES, load_u32(entry + 4)
    )


cdef inline uint64_t entry_trailer(Entry entry) noexcept nogil:
    return internal_trailer(entry_internal_key(entry))


cdef inline int entry_compare(Entry entry, Slice user_key, uint64_t trailer) noexcept nogil:
    """Order of the entry against (user_key, trailer), whatever their kinds.

    A key has one entry for each sequence: what is done to it later at the same sequence replaces it.
    """
    cdef int order = slice_compare(entry_user_key(entry), user_key)
    if order:
        return order
    cdef uint64_t own = trailer_sequence(entry_trailer(entry))
    cdef uint64_t other = trailer_sequence(trailer)
    return -1 if own > other else (1 if own < other else 0)


cdef inline uint64_t entry_head(Entry entry, size_t prefix) noexcept nogil:
    cdef Slice key = entry_user_key(entry)
    return key_head(key.data, key.size, prefix)


cdef inline size_t entries_common_prefix(Entry a, Entry b) noexcept nogil:
    cdef Slice left = entry_user_key(a)
    cdef Slice right = entry_user_key(b)
    return common_prefix(left.data, left.size, right.data, right.size)


cdef inline void prefetch_whole_leaf(Leaf* leaf) noexcept nogil:
    cdef const uint8_t* at = <const uint8_t*> leaf
    cdef int line
    for line in range(16):
        prefetch(at + line * CACHE_LINE_BYTES)
