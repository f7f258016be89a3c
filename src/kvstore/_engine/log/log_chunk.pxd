"""Runs of encoded records on their way into a segment's file, and the list that they wait in.

All memory of them is asked for before anything else is done, and an answer of no is returned, never
thrown: a record that found no room must not count as appended.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport kv_free, kv_malloc


cdef enum:
    CHUNK_BYTES = 262144        # what an ordinary chunk holds; a larger record gets one of its own
    SPARE_CHUNKS = 8            # ordinary chunks that are kept to be used again


cdef struct Chunk:
    Chunk* next
    uint64_t segment            # number of the segment that it belongs to
    uint64_t offset             # where in it the first byte goes
    # Of a chunk that begins its segment, else 0:
    uint64_t segment_bytes      # what must be reserved for the segment
    uint64_t previous_end       # where the records of the segment before it end
    uint32_t chain              # what the segment begins with
    size_t size                 # of the records, then the terminator
    size_t capacity


cdef struct ChunkList:
    Chunk* first
    Chunk* last


cdef inline uint8_t* chunk_bytes(Chunk* chunk) noexcept nogil:
    return <uint8_t*> chunk + sizeof(Chunk)


cdef inline Chunk* chunk_new(size_t capacity) noexcept nogil:
    """Room for records of `capacity` bytes, their terminator included. NULL: no memory."""
    cdef Chunk* chunk
    if capacity < CHUNK_BYTES:
        capacity = CHUNK_BYTES
    chunk = <Chunk*> kv_malloc(sizeof(Chunk) + capacity)
    if chunk != NULL:
        chunk.next = NULL
        chunk.capacity = capacity
    return chunk


cdef inline void chunk_place(Chunk* chunk, uint64_t segment, uint64_t offset) noexcept nogil:
    """Makes it empty, and says where its bytes go."""
    cdef int i
    chunk.next = NULL
    chunk.segment = segment
    chunk.offset = offset
    chunk.segment_bytes = 0
    chunk.size = TERMINATOR_BYTES
    for i in range(TERMINATOR_BYTES):
        chunk_bytes(chunk)[i] = 0


cdef inline void chunks_free(Chunk* chunk) noexcept nogil:
    cdef Chunk* next
    while chunk != NULL:
        next = chunk.next
        kv_free(chunk)
        chunk = next


cdef inline void chunks_push(ChunkList* chunks, Chunk* chunk) noexcept nogil:
    if chunks.last != NULL:
        chunks.last.next = chunk
    else:
        chunks.first = chunk
    chunks.last = chunk


cdef inline void chunks_put_back(ChunkList* chunks, Chunk* taken, Chunk* last) noexcept nogil:
    """What was taken, up to `last`, in front of what came since."""
    if taken == NULL:
        return
    last.next = chunks.first
    chunks.first = taken
    if chunks.last == NULL:
        chunks.last = last
