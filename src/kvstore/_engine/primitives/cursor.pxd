"""The one shape of everything that can be walked in order: memtable, block, table, merge, DB.

A cursor stands on an entry or is not `valid`. `key` is an internal key (see key.pxd), `key` and
`value` are borrowed until the next move. Moves never raise: a failure makes the cursor invalid
and fills `status`. Whoever makes a cursor frees it with `cursor.free(cursor)`; a cursor pins what
it reads (reference counts), so its source may be dropped before it.
"""



cdef struct Cursor:
    Slice key
    Slice value
    bint valid
    Status status
    void* state
    void (*seek_to_first)(Cursor* self) noexcept nogil
    void (*seek_to_last)(Cursor* self) noexcept nogil
    # The first entry whose internal key is >= target.
    void (*seek)(Cursor* self, Slice target) noexcept nogil
    void (*next)(Cursor* self) noexcept nogil
    void (*prev)(Cursor* self) noexcept nogil
    void (*free)(Cursor* self) noexcept nogil
