"""A walk over the memtable: see memtable_cursor.pxd.

A cursor stays true across additions by remembering its entry: if that isn't where it was left, the
tree is searched for it again.
"""

from libc.stdint cimport uint8_t

from kvstore._engine.primitives.native cimport (
    Cursor,
    Slice,
    internal_trailer,
    internal_user_key,
    kv_free,
    kv_zeroed,
    prefetch,
    prefetch_run,
    status_clear,
)


cdef enum:
    AHEAD = 6                   # entries that a cursor prefetches before it comes to them


cdef struct MemCursor:
    Cursor base
    MemTable* table
    Leaf* leaf
    int slot
    Entry entry                 # leaf.entries[slot] when it was last looked at


cdef inline void prefetch_entry(Leaf* leaf, int slot) noexcept nogil:
    """An entry that a walk comes to in a moment: entries lie in the order in which they came."""
    cdef const uint8_t* at = leaf.entries[slot]
    prefetch(at)
    prefetch(at + CACHE_LINE_BYTES)
    prefetch(at + 2 * CACHE_LINE_BYTES)


cdef inline void prefetch_value(Leaf* leaf, int slot) noexcept nogil:
    """The rest of a long value that comes next; what is before it was prefetched with the entry."""
    cdef Slice value
    if 0 <= slot < <int> leaf.count:
        value = entry_value(leaf.entries[slot])
        if value.size > 2 * CACHE_LINE_BYTES:
            prefetch_run(value.data, value.size)


cdef inline void prefetch_after(Leaf* leaf, int slot) noexcept nogil:
    prefetch_value(leaf, slot + 1)
    slot += AHEAD
    if slot < <int> leaf.count:
        prefetch_entry(leaf, slot)
    elif leaf.next != NULL:
        slot -= <int> leaf.count
        if slot == 0:
            prefetch_whole_leaf(leaf.next.next)
        if slot < <int> leaf.next.count:
            prefetch_entry(leaf.next, slot)


cdef inline void prefetch_before(Leaf* leaf, int slot) noexcept nogil:
    prefetch_value(leaf, slot - 1)
    slot -= AHEAD
    if slot >= 0:
        prefetch_entry(leaf, slot)
    elif leaf.prev != NULL:
        slot += <int> leaf.prev.count
        if slot == <int> leaf.prev.count - 1:
            prefetch_whole_leaf(leaf.prev.prev)
        if slot >= 0:
            prefetch_entry(leaf.prev, slot)


cdef inline void show(MemCursor* cursor, Leaf* leaf, int slot) noexcept nogil:
    cdef Entry entry = leaf.entries[slot]
    cursor.leaf = leaf
    cursor.slot = slot
    cursor.entry = entry
    cursor.base.key = entry_internal_key(entry)
    cursor.base.value = entry_value(entry)
    cursor.base.valid = True


cdef inline void find_again(MemCursor* cursor) noexcept nogil:
    """Additions may have moved the pointer to our entry: make leaf and slot true again."""
    if cursor.slot < <int> cursor.leaf.count and cursor.leaf.entries[cursor.slot] == cursor.entry:
        return
    memtable_find(
        cursor.table, entry_user_key(cursor.entry), entry_trailer(cursor.entry),
        &cursor.leaf, &cursor.slot
    )


cdef void cursor_seek_to_first(Cursor* self) noexcept nogil:
    cdef MemCursor* cursor = <MemCursor*> self.state
    if cursor.table.entries == 0:
        self.valid = False
        return
    show(cursor, cursor.table.first, 0)


cdef void cursor_seek_to_last(Cursor* self) noexcept nogil:
    cdef MemCursor* cursor = <MemCursor*> self.state
    if cursor.table.entries == 0:
        self.valid = False
        return
    show(cursor, cursor.table.last, <int> cursor.table.last.count - 1)


cdef void cursor_seek(Cursor* self, Slice target) noexcept nogil:
    cdef MemCursor* cursor = <MemCursor*> self.state
    cdef Leaf* leaf
    cdef int slot
    if memtable_find(
        cursor.table, internal_user_key(target), internal_trailer(target), &leaf, &slot
    ) == NULL:
        self.valid = False
        return
    show(cursor, leaf, slot)


cdef void cursor_next(Cursor* self) noexcept nogil:
    cdef MemCursor* cursor = <MemCursor*> self.state
    if not self.valid:
        return
    find_again(cursor)
    prefetch_after(cursor.leaf, cursor.slot + 1)
    if cursor.slot + 1 < <int> cursor.leaf.count:
        show(cursor, cursor.leaf, cursor.slot + 1)
    elif cursor.leaf.next != NULL:
        show(cursor, cursor.leaf.next, 0)
    else:
        self.valid = False


cdef void cursor_prev(Cursor* self) noexcept nogil:
    cdef MemCursor* cursor = <MemCursor*> self.state
    if not self.valid:
        return
    find_again(cursor)
    prefetch_before(cursor.leaf, cursor.slot - 1)
    if cursor.slot > 0:
        show(cursor, cursor.leaf, cursor.slot - 1)
    elif cursor.leaf.prev != NULL:
        show(cursor, cursor.leaf.prev, <int> cursor.leaf.prev.count - 1)
    else:
        self.valid = False


cdef void cursor_free(Cursor* self) noexcept nogil:
    memtable_release((<MemCursor*> self.state).table)
    kv_free(self.state)


cdef Cursor* memtable_cursor(MemTable* table) noexcept nogil:
    cdef MemCursor* cursor = <MemCursor*> kv_zeroed(sizeof(MemCursor))
    if cursor == NULL:
        return NULL
    memtable_retain(table)
    cursor.table = table
    cursor.base.state = cursor
    cursor.base.seek_to_first = cursor_seek_to_first
    cursor.base.seek_to_last = cursor_seek_to_last
    cursor.base.seek = cursor_seek
    cursor.base.next = cursor_next
    cursor.base.prev = cursor_prev
    cursor.base.free = cursor_free
    status_clear(&cursor.base.status)
    return &cursor.base
