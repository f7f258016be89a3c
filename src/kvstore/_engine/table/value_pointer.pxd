"""What an entry holds whose value lies outside of its table: a pointer into a value file.

Such an entry has the kind KIND_POINTER, and these 20 bytes for its value, little-endian:

| offset | size | field |
|---|---|---|
| 0 | 8 | number of the value file |
| 8 | 4 | where in it the value begins |
| 12 | 4 | bytes of the value |
| 16 | 4 | CRC-32C of user key and value, continued from the seed of the value file |

A table with such entries has a meta frame `values`: of each value file that they point into, ascending,
u64 number, u64 bytes of the values, u64 end of the last of them.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memmove

from kvstore._engine.primitives.native cimport (
    Buffer,
    Slice,
    buffer_reserve,
    get_fixed32,
    get_fixed64,
    put_fixed32,
    put_fixed64,
)


cdef enum:
    POINTER_BYTES = 20
    VALUE_REF_BYTES = 24


cdef struct Pointer:
    uint64_t file
    uint32_t offset
    uint32_t size
    uint32_t crc


cdef struct ValueRef:
    # What the entries of a table point to in one value file.
    uint64_t file
    uint64_t bytes              # of these values
    uint64_t end                # where the last of them ends


cdef inline void pointer_put(uint8_t* at, const Pointer* pointer) noexcept nogil:
    put_fixed64(at, pointer.file)
    put_fixed32(at + 8, pointer.offset)
    put_fixed32(at + 12, pointer.size)
    put_fixed32(at + 16, pointer.crc)


cdef inline int pointer_get(Pointer* pointer, Slice value) noexcept nogil:
    """-1: it is none."""
    if value.size != POINTER_BYTES:
        return -1
    pointer.file = get_fixed64(value.data)
    pointer.offset = get_fixed32(value.data + 8)
    pointer.size = get_fixed32(value.data + 12)
    pointer.crc = get_fixed32(value.data + 16)
    return 0 if pointer.file else -1


cdef inline size_t value_refs_count(const Buffer* refs) noexcept nogil:
    return refs.size // sizeof(ValueRef)


cdef inline int value_refs_note(Buffer* refs, const Pointer* pointer) noexcept nogil:
    """Counts one more pointer in `refs`, which holds a ValueRef each, ascending. -1: no memory."""
    cdef ValueRef* all = <ValueRef*> refs.data
    cdef size_t count = value_refs_count(refs)
    cdef size_t low = 0
    cdef size_t high = count
    cdef size_t middle
    cdef uint64_t end = <uint64_t> pointer.offset + pointer.size
    # Mostly it is the newest.
    if count and all[count - 1].file < pointer.file:
        low = count
    while low < high:
        middle = (low + high) >> 1
        if all[middle].file < pointer.file:
            low = middle + 1
        else:
            high = middle
    if low < count and all[low].file == pointer.file:
        all[low].bytes += pointer.size
        all[low].end = max(all[low].end, end)
        return 0
    if buffer_reserve(refs, sizeof(ValueRef)) < 0:
        return -1
    all = <ValueRef*> refs.data
    memmove(all + low + 1, all + low, (count - low) * sizeof(ValueRef))
    all[low].file = pointer.file
    all[low].bytes = pointer.size
    all[low].end = end
    refs.size += sizeof(ValueRef)
    return 0
