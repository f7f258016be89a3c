"""Arena: see arena.pxd."""

from libc.stdint cimport uint8_t, uintptr_t



cdef extern from *:
    """
    #include <stdint.h>
    #include <stdlib.h>
    #include <sys/mman.h>
    /* `size` is a multiple of 2 MiB; the result is aligned to 2 MiB. NULL: no memory. */
    static void* kv_map_huge(size_t size) {
        const size_t huge = (size_t) 2 << 20;
        char* raw = (char*) mmap(NULL, size + huge, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (raw == (char*) MAP_FAILED) return NULL;
        char* aligned = (char*) (((uintptr_t) raw + huge - 1) & ~(uintptr_t) (huge - 1));
        if (aligned > raw) munmap(raw, (size_t) (aligned - raw));
        size_t tail = (size_t) (raw + huge - aligned);
        if (tail) munmap(aligned + size, tail);
    #ifdef MADV_HUGEPAGE
        (void) madvise(aligned, size, MADV_HUGEPAGE);
    #endif
        return aligned;
    }
    static void kv_unmap(void* at, size_t size) { (void) munmap(at, size); }
    """
    void* map_huge "kv_map_huge"(size_t size) noexcept nogil
    void unmap "kv_unmap"(void* at, size_t size) noexcept nogil


cdef enum:
    FIRST_CHUNK_BYTES = 16 << 10
    LARGEST_CHUNK_BYTES = 2 << 20
    CHUNK_SHARE = 8                 # of what the arena is for: so much of it may lie idle
    CHUNK_HEADER_BYTES = 64         # a cache line: what follows the header begins with one


cdef void arena_init(Arena* arena, size_t meant_for) noexcept nogil:
    arena.largest = FIRST_CHUNK_BYTES
    while arena.largest < LARGEST_CHUNK_BYTES and 2 * arena.largest <= meant_for // CHUNK_SHARE:
        arena.largest *= 2
    clear(arena)


cdef void clear(Arena* arena) noexcept nogil:
    arena.newest = NULL
    arena.spare = NULL
    arena.at = NULL
    arena.left = 0
    arena.next_size = FIRST_CHUNK_BYTES
    arena.bytes = 0


cdef void free_chunk(Chunk* chunk) noexcept nogil:
    if chunk == NULL:
        return
    if chunk.mapped:
        unmap(chunk, chunk.size)
        kv_gave_back()
    else:
        kv_free(chunk)


cdef void arena_free(Arena* arena) noexcept nogil:
    cdef Chunk* chunk = arena.newest
    cdef Chunk* older
    free_chunk(arena.spare)
    while chunk != NULL:
        older = chunk.older
        free_chunk(chunk)
        chunk = older
    clear(arena)


cdef void* map_chunk(size_t size) noexcept nogil:
    if not kv_may_allocate():
        return NULL
    cdef void* memory = map_huge(size)
    if memory == NULL:
        kv_gave_back()
    return memory


cdef Chunk* new_chunk(size_t size, bint mapped) noexcept nogil:
    # Aligned, so that it doesn't hang on the system's addresses how much fits, and with it when a
    # memtable is full.
    cdef void* memory = map_chunk(size) if mapped else kv_aligned_alloc(CHUNK_HEADER_BYTES, size)
    if memory == NULL:
        return NULL
    cdef Chunk* chunk = <Chunk*> memory
    chunk.size = size
    chunk.mapped = mapped
    return chunk


cdef void take_chunk(Arena* arena, Chunk* chunk) noexcept nogil:
    """It belongs to the arena, and costs what it costs."""
    chunk.older = arena.newest
    arena.newest = chunk
    arena.bytes += chunk.size
    if arena.next_size < arena.largest:
        arena.next_size *= 2


cdef Chunk* chunk_for(Arena* arena, size_t size) noexcept nogil:
    """A new chunk with room for `size` bytes. NULL: no memory."""
    cdef size_t chunk_bytes = arena.next_size
    while chunk_bytes < size + CHUNK_HEADER_BYTES and chunk_bytes < LARGEST_CHUNK_BYTES:
        chunk_bytes *= 2
    if chunk_bytes < size + CHUNK_HEADER_BYTES:
        if size > <size_t> -1 - 2 * LARGEST_CHUNK_BYTES:
            return NULL
        chunk_bytes = (size + CHUNK_HEADER_BYTES + LARGEST_CHUNK_BYTES - 1) & ~(
            <size_t> LARGEST_CHUNK_BYTES - 1
        )
    return new_chunk(chunk_bytes, chunk_bytes >= LARGEST_CHUNK_BYTES)


cdef inline bint spare_holds(Arena* arena, size_t size) noexcept nogil:
    return arena.spare != NULL and size <= arena.spare.size - CHUNK_HEADER_BYTES


cdef int arena_reserve(Arena* arena, size_t size) noexcept nogil:
    if size <= arena.left:
        return 0
    cdef Chunk* chunk = arena.spare
    if spare_holds(arena, size):
        arena.spare = NULL
    else:
        chunk = chunk_for(arena, size)
    if chunk == NULL:
        return -1
    take_chunk(arena, chunk)
    arena.at = <uint8_t*> chunk + CHUNK_HEADER_BYTES
    arena.left = chunk.size - CHUNK_HEADER_BYTES
    return 0


cdef int arena_provide(Arena* arena, size_t size) noexcept nogil:
    cdef Chunk* chunk
    if size <= arena.left or spare_holds(arena, size):
        return 0
    chunk = chunk_for(arena, size)
    if chunk == NULL:
        return -1
    free_chunk(arena.spare)
    arena.spare = chunk
    return 0


cdef void* allocate_alone(Arena* arena, size_t size) noexcept nogil:
    """A chunk of its own for a large piece, so that the current chunk isn't thrown away for it."""
    if size > <size_t> -1 - 2 * CHUNK_HEADER_BYTES:
        return NULL
    cdef size_t lines = (size + CHUNK_HEADER_BYTES - 1) & ~(<size_t> CHUNK_HEADER_BYTES - 1)
    cdef Chunk* chunk = new_chunk(lines + CHUNK_HEADER_BYTES, False)
    if chunk == NULL:
        return NULL
    take_chunk(arena, chunk)
    return <uint8_t*> chunk + CHUNK_HEADER_BYTES


cdef void* arena_allocate(Arena* arena, size_t size, size_t alignment) noexcept nogil:
    cdef size_t padding = (alignment - (<uintptr_t> arena.at & (alignment - 1))) & (alignment - 1)
    if size + padding > arena.left:
        if size > arena.next_size // 4 and not spare_holds(arena, size + alignment):
            return allocate_alone(arena, size)
        if arena_reserve(arena, size + alignment) < 0:
            return NULL
        padding = (alignment - (<uintptr_t> arena.at & (alignment - 1))) & (alignment - 1)
    cdef void* result = arena.at + padding
    arena.at += size + padding
    arena.left -= size + padding
    return result
