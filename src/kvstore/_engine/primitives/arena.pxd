"""Memory that is handed out piece by piece and given back all at once.

Chunks grow from 16 KiB to an eighth of what the arena is for, 2 MiB at most; those of 2 MiB are aligned
to, and advised as, huge pages, which saves the page-table misses that random reads of a large memtable
otherwise pay for.
"""

from libc.stdint cimport uint8_t


cdef struct Chunk:
    Chunk* older
    size_t size             # bytes obtained for the chunk, this header included
    bint mapped             # from mmap, else from malloc


cdef struct Arena:
    Chunk* newest
    Chunk* spare            # obtained by arena_provide, not yet begun; not counted in `bytes`
    uint8_t* at             # the next free byte of the current chunk
    size_t left             # bytes free from there on
    size_t next_size        # of the chunk to come
    size_t largest          # it grows to
    size_t bytes            # the sum of all chunk sizes: what the arena costs


# `meant_for` bytes; it may come to hold more.
cdef void arena_init(Arena* arena, size_t meant_for) noexcept nogil
cdef void arena_free(Arena* arena) noexcept nogil
# Makes room, so that allocations of `size` bytes in all (alignment included) can't fail. -1: no memory.
cdef int arena_reserve(Arena* arena, size_t size) noexcept nogil
# The same for any number of pieces, without giving the rest of the current chunk up: what no longer
# fits there goes into a spare chunk. -1: no memory, nothing changed.
cdef int arena_provide(Arena* arena, size_t size) noexcept nogil
# NULL: no memory. `alignment` is a power of two, at most 64.
cdef void* arena_allocate(Arena* arena, size_t size, size_t alignment) noexcept nogil
