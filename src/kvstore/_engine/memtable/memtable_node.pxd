"""The nodes and entries of the memtable: a B+tree over an arena, laid out by cache lines.

An entry is written once and never moves:

    u32 key bytes | u32 value bytes | user key | u64 trailer | value

so `user key | trailer` is the internal key as cursors show it. Nodes hold, for each entry or
separator, an eight-byte head (key_head.pxd) and a pointer; a search touches a few lines of heads
in each node and then, once, the entry. Separators are pointers to entries: nothing is copied.

Long keys with parts in common, such as paths, would have runs of equal heads. The heads of a node with
such keys have a *hole*: `taken` bytes after the prefix, and the others from `second` on. Of two of its
keys that agree in the former, what is in the hole is equal.

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
    NODE_SLOTS = 60             # a leaf is 16 cache lines
    LEAF_SLOTS = NODE_SLOTS
    INNER_SLOTS = NODE_SLOTS
    ENTRY_HEADER_BYTES = 8
    CACHE_LINE_BYTES = 64
    HEAD_BYTES = 8


ctypedef const uint8_t* Entry


cdef struct Node:
    # How leaves and inner nodes begin.
    uint32_t count
    uint32_t prefix             # bytes that all keys here share; heads start after them
    uint32_t taken              # HEAD_BYTES: no hole
    uint32_t second             # no hole: the count from which on it is worthwhile to look for one
    uint64_t heads[NODE_SLOTS]
    Entry entries[NODE_SLOTS]


cdef struct Leaf:
    uint32_t count
    uint32_t prefix
    uint32_t taken
    uint32_t second
    uint64_t heads[LEAF_SLOTS]
    Entry entries[LEAF_SLOTS]
    Leaf* next
    Leaf* prev


cdef struct Inner:
    # children[i] holds what lies before separators[i], children[count] the rest; a separator is
    # the first entry that ever stood on its right.
    uint32_t count
    uint32_t prefix
    uint32_t taken
    uint32_t second
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


cdef inline int entry_compare_from(
    Entry entry, Slice user_key, uint64_t trailer, size_t shared
) noexcept nogil:
    """Order of the entry against (user_key, trailer), whatever their kinds.

    A key has one entry for each sequence: what is done to it later at the same sequence replaces it.
    Both keys have their first `shared` bytes in common.
    """
    cdef Slice own_key = entry_user_key(entry)
    cdef int order = slice_compare(
        slice_of(own_key.data + shared, own_key.size - shared),
        slice_of(user_key.data + shared, user_key.size - shared),
    )
    if order:
        return order
    cdef uint64_t own = trailer_sequence(entry_trailer(entry))
    cdef uint64_t other = trailer_sequence(trailer)
    return -1 if own > other else (1 if own < other else 0)


cdef inline int entry_compare(Entry entry, Slice user_key, uint64_t trailer) noexcept nogil:
    return entry_compare_from(entry, user_key, trailer, 0)


cdef inline uint64_t head_in(Node* node, Slice key) noexcept nogil:
    """The head of a key in this node."""
    cdef uint64_t head = key_head(key.data, key.size, node.prefix)
    if node.taken == HEAD_BYTES:
        return head
    cdef int taken = 8 * <int> node.taken
    return (head >> (64 - taken) << (64 - taken)) | (
        key_head(key.data, key.size, node.second) >> taken
    )


cdef inline size_t entries_common_prefix(Entry a, Entry b) noexcept nogil:
    cdef Slice left = entry_user_key(a)
    cdef Slice right = entry_user_key(b)
    return common_prefix(left.data, left.size, right.data, right.size)


cdef inline void prefetch_whole_leaf(Leaf* leaf) noexcept nogil:
    cdef const uint8_t* at = <const uint8_t*> leaf
    cdef int line
    for line in range(16):
        prefetch(at + line * CACHE_LINE_BYTES)
