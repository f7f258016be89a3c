"""The check of a whole table, byte for byte, at once or a piece at a time."""

from libc.stdint cimport uint8_t, uint64_t

from kvstore._engine.primitives.native cimport Buffer, Status


cdef struct TableCheck:
    # A check under way. The fields are for sstable_verify.pyx alone.
    Table* table                # retained
    # What the walk has seen, to be held against the properties.
    Properties seen
    Properties told             # with keys in `kept`
    uint8_t* kept
    Buffer last                 # internal key of the last entry
    Buffer smallest
    BlockCursor walk
    uint32_t partition          # the next one
    uint64_t checked_bytes      # of the file, from its beginning


# Reads every byte of the file anew, past the cache: checksums, bounds, the order of all keys, each
# key's presence in its filter, and that the properties tell the truth. 0, or -1: see status.
cdef int table_verify(Table* table, Status* status) noexcept nogil

# The same in steps: begin reads what isn't data; each step then a partition and its blocks, which
# is about as much as a filter and an index of one frame are for; 1: there is more, 0: all is right.
# -1: see status. With `forget` what the system caches of the file is dropped before it is read, so
# that the device is asked, and after it, so that nobody else's pages make room for it.
cdef int table_check_begin(TableCheck* check, Table* table, Status* status) noexcept nogil
cdef int table_check_step(TableCheck* check, bint forget, Status* status) noexcept nogil
# After whatever the two said, once.
cdef void table_check_end(TableCheck* check) noexcept nogil
