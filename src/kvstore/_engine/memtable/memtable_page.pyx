"""Copying pages, and walking them: see memtable_page.pxd."""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport (
    Cursor,
    KIND_MAX,
    Slice,
    internal_trailer,
    internal_user_key,
    kv_free,
    kv_malloc,
    max_sequence,
    prefetch,
    slice_compare,
    slice_equal,
    slice_of,
    status_clear,
    trailer_pack,
)


cdef enum:
    PAGE_ENTRIES = 4096
    FIRST_PAGE_ENTRIES = 256    # most walks end within


cdef struct PageCursor:
    Cursor base
    MemTable* table
    int room                    # entries that the next page may have
    int count
    int at
    Entry entries[PAGE_ENTRIES]


# --- taking a page --------------------------------------------------------------------------

cdef Entry copy_entries(PageCursor* page, Leaf* leaf, int slot) noexcept nogil:
    """As many as there is room for, from this one on; the entry after them, NULL at the end."""
    cdef int taken
    while leaf != NULL:
        if page.count == page.room:
            return leaf.entries[slot]
        taken = min(<int> leaf.count - slot, page.room - page.count)
        memcpy(&page.entries[page.count], &leaf.entries[slot], taken * sizeof(Entry))
        page.count += taken
        slot += taken
        if slot == <int> leaf.count:
            leaf = leaf.next
            slot = 0
    return NULL


cdef int page_lower(PageCursor* page, Slice user_key, uint64_t trailer) noexcept nogil:
    """The place of the first entry >= (user_key, trailer)."""
    cdef int low = 0
    cdef int high = page.count
    cdef int middle
    while low < high:
        middle = (low + high) >> 1
        if entry_compare(page.entries[middle], user_key, trailer) < 0:
            low = middle + 1
        else:
            high = middle
    return low


cdef Slice key_after(MemTable* table, Slice user_key) noexcept nogil:
    """The next user key; NULL data: there is none."""
    cdef Leaf* leaf
    cdef int slot
    cdef Entry entry = memtable_find(table, user_key, trailer_pack(0, KIND_MAX), &leaf, &slot)
    if entry != NULL and slice_equal(entry_user_key(entry), user_key):
        # A version with sequence 0: it is the last one.
        slot += 1
        if slot == <int> leaf.count:
            leaf = leaf.next
            slot = 0
        if leaf == NULL:
            return slice_of(NULL, 0)
        entry = leaf.entries[slot]
    return slice_of(NULL, 0) if entry == NULL else entry_user_key(entry)


cdef void memtable_page_fill(
    Cursor* cursor, Slice low, uint64_t sequence, Slice* next
) noexcept nogil:
    cdef PageCursor* page = <PageCursor*> cursor.state
    cdef Leaf* leaf
    cdef int slot
    cdef Slice last
    cdef Entry after
    cursor.valid = False
    page.count = 0
    next[0] = slice_of(NULL, 0)
    if memtable_find(
        page.table, low, trailer_pack(max_sequence(), KIND_MAX), &leaf, &slot
    ) == NULL:
        return
    after = copy_entries(page, leaf, slot)
    page.room = PAGE_ENTRIES
    if after == NULL:
        return
    next[0] = entry_user_key(after)
    last = entry_user_key(page.entries[page.count - 1])
    if not slice_equal(last, next[0]):
        return
    # Versions of one key are not to be parted.
    page.count = page_lower(page, last, trailer_pack(max_sequence(), KIND_MAX))
    if page.count:
        return
    # There are more of them than a page has room for, and one is enough.
    after = memtable_find(page.table, last, trailer_pack(sequence, KIND_MAX), &leaf, &slot)
    if after != NULL and slice_equal(entry_user_key(after), last):
        page.entries[0] = after
        page.count = 1
    next[0] = key_after(page.table, last)


# --- walking it -----------------------------------------------------------------------------

cdef void page_show(PageCursor* page, int at) noexcept nogil:
    cdef Entry entry
    page.base.valid = 0 <= at < page.count
    if not page.base.valid:
        return
    if at + AHEAD < page.count:
        prefetch(page.entries[at + AHEAD])
    entry = page.entries[at]
    page.at = at
    page.base.key = entry_internal_key(entry)
    page.base.value = entry_value(entry)


cdef void page_seek_to_first(Cursor* self) noexcept nogil:
    page_show(<PageCursor*> self.state, 0)


cdef void page_seek_to_last(Cursor* self) noexcept nogil:
    cdef PageCursor* page = <PageCursor*> self.state
    page_show(page, page.count - 1)


cdef void page_seek(Cursor* self, Slice target) noexcept nogil:
    cdef PageCursor* page = <PageCursor*> self.state
    page_show(page, page_lower(page, internal_user_key(target), internal_trailer(target)))


cdef void page_next(Cursor* self) noexcept nogil:
    cdef PageCursor* page = <PageCursor*> self.state
    if self.valid:
        page_show(page, page.at + 1)


cdef void page_prev(Cursor* self) noexcept nogil:
    cdef PageCursor* page = <PageCursor*> self.state
    if self.valid:
        page_show(page, page.at - 1)


cdef void page_free(Cursor* self) noexcept nogil:
    memtable_release((<PageCursor*> self.state).table)
    kv_free(self.state)


cdef Cursor* memtable_page_cursor(MemTable* table) noexcept nogil:
    cdef PageCursor* page = <PageCursor*> kv_malloc(sizeof(PageCursor))
    if page == NULL:
        return NULL
    memtable_retain(table)
    page.table = table
    page.room = FIRST_PAGE_ENTRIES
    page.count = 0
    page.at = 0
    page.base.key = page.base.value = slice_of(NULL, 0)
    page.base.valid = False
    page.base.state = page
    page.base.seek_to_first = page_seek_to_first
    page.base.seek_to_last = page_seek_to_last
    page.base.seek = page_seek
    page.base.next = page_next
    page.base.prev = page_prev
    page.base.free = page_free
    status_clear(&page.base.status)
    return &page.base
