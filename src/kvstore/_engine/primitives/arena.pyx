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
    CHUNK_HEADER_BYTES = 64         # keeps what follows aligned to a cache line


cdef void arena_init(Arena* arena) noexcept nogil:
    arena.newest = NULL
    arena.at = NULL
    arena.left = 0
    arena.next_size = FIRST_CHUNK_BYTES
    arena.bytes = 0


cdef void arena_free(Arena* arena) noexcept nogil:
    cdef Chunk* chunk = arena.newest
    cdef Chunk* older
    while chunk != NULL:
        older = chunk.older
        if chunk.mapped:
            unmap(chunk, chunk.size)
            kv_gave_back()
        else:
            kv_free(chunk)
        chunk = older
    arena_init(arena)


cdef void* map_chunk(size_t size) noexcept nogil:
    if not kv_may_allocate():
        return NULL
    cdef void* memory = map_huge(size)
    if memory == NULL:
        kv_gave_back()
    return memory


cdef Chunk* add_chunk(Arena* arena, size_t size, bint mapped) noexcept nogil:
    cdef void* memory = map_chunk(size) if mapped else kv_malloc(size)
    if memory == NULL:
        return NULL
    cdef Chunk* chunk = <Chunk*> memory
    chunk.size = size
    chunk.mapped = mapped
    chunk.older = arena.newest
    arena.newest = chunk
    arena.bytes += size
    if arena.next_size < LARGEST_CHUNK_BYTES:
        arena.next_size *= 2
    return chunk


cdef int arena_reserve(Arena* arena, size_t size) noexcept nogil:
    if size <= arena.left:
        return 0
    cdef size_t chunk_bytes = arena.next_size
    # malloc aligns to 16 bytes only: up to 48 are lost on reaching a cache line.
    while chunk_bytes < size + 2 * CHUNK_HEADER_BYTES:
        chunk_bytes *= 2
    cdef Chunk* chunk = add_chunk(arena, chunk_bytes, chunk_bytes >= LARGEST_CHUNK_BYTES)
    if chunk == NULL:
        return -1
    cdef uintptr_t start = <uintptr_t> chunk + sizeof(Chunk)
    start = (start + CHUNK_HEADER_BYTES - 1) & ~(<uintptr_t> CHUNK_HEADER_BYTES - 1)
    arena.at = <uint8_t*> start
    arena.left = chunk_bytes - <size_t> (start - <uintptr_t> chunk)
    return 0


cdef void* allocate_alone(Arena* arena, size_t size) noexcept nogil:
    """A chunk of its own for a large piece, so that the current chunk isn't thrown away for it."""
    if size > <size_t> -1 - 2 * CHUNK_HEADER_BYTES:
        return NULL
    cdef Chunk* chunk = add_chunk(arena, size + 2 * CHUNK_HEADER_BYTES, False)
    if chunk == NULL:
        return NULL
    cdef uintptr_t start = <uintptr_t> chunk + sizeof(Chunk)
    return <void*> ((start + CHUNK_HEADER_BYTES - 1) & ~(<uintptr_t> CHUNK_HEADER_BYTES - 1))


cdef void* arena_allocate(Arena* arena, size_t size, size_t alignment) noexcept nogil:
    cdef size_t padding = (alignment - (<uintptr_t> arena.at & (alignment - 1))) & (alignment - 1)
    if size + padding > arena.left:
        if size > arena.next_size // 4:
            return allocate_alone(arena, size)
        if arena_reserve(arena, size + alignment) < 0:
            return NULL
        padding = (alignment - (<uintptr_t> arena.at & (alignment - 1))) & (alignment - 1)
    cdef void* result = arena.at + padding
    arena.at += size + padding
    arena.left -= size + padding
    return result
