"""The merging cursor.

It keeps the child that it stands on and the one that comes next (`rival`): as long as the first
stays ahead of the second, a move costs one comparison. Otherwise the children are looked through
once; there are few, since a level is one child (level_cursor.pxd).
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport (
    Buffer,
    Cursor,
    KIND_MAX,
    OK,
    Slice,
    TRAILER_BYTES,
    buffer_append,
    buffer_free,
    buffer_init,
    internal_compare,
    internal_trailer,
    internal_user_key,
    kv_free,
    kv_zeroed,
    slice_compare,
    slice_of,
    status_clear,
    status_no_memory,
    trailer_pack,
    trailer_sequence,
)


cdef struct MergeCursor:
    Cursor base
    Cursor** children           # newest first; right behind this struct
    int count
    int current                 # the child stood on, -1 for none
    int rival                   # the valid child that comes next in this direction, -1 for none
    bint forward
    Buffer place                # the key stood on, while the direction is turned


cdef inline bint before(MergeCursor* merge, int a, int b) noexcept nogil:
    """Whether child a's entry comes before child b's; both are valid."""
    cdef Slice left = merge.children[a].key
    cdef Slice right = merge.children[b].key
    cdef int order = slice_compare(internal_user_key(left), internal_user_key(right))
    if order:
        return order < 0
    cdef uint64_t own = trailer_sequence(internal_trailer(left))
    cdef uint64_t other = trailer_sequence(internal_trailer(right))
    return own > other if own != other else a < b


cdef inline void merge_show(MergeCursor* merge) noexcept nogil:
    cdef Cursor* child
    if merge.current < 0:
        merge.base.valid = False
        return
    child = merge.children[merge.current]
    merge.base.key = child.key
    merge.base.value = child.value
    merge.base.valid = True


cdef bint failed(MergeCursor* merge) noexcept nogil:
    """A child that failed stops the whole: to walk on would be to skip its entries."""
    cdef int i
    for i in range(merge.count):
        if merge.children[i].status.code != OK:
            merge.base.status = merge.children[i].status
            merge.base.valid = False
            merge.current = -1
            return True
    return False


cdef void choose(MergeCursor* merge) noexcept nogil:
    """Look through all children for the current one and its rival."""
    cdef int i
    cdef int best = -1
    cdef int second = -1
    for i in range(merge.count):
        if not merge.children[i].valid:
            if merge.children[i].status.code != OK:
                failed(merge)
                return
            continue
        if best < 0:
            best = i
        elif before(merge, i, best) == merge.forward:
            second = best
            best = i
        elif second < 0 or before(merge, i, second) == merge.forward:
            second = i
    merge.current = best
    merge.rival = second
    merge_show(merge)


cdef inline void moved(MergeCursor* merge) noexcept nogil:
    """The current child was moved: is it still the one?"""
    cdef Cursor* child = merge.children[merge.current]
    if child.valid and (
        merge.rival < 0 or before(merge, merge.current, merge.rival) == merge.forward
    ):
        merge.base.key = child.key
        merge.base.value = child.value
        return
    choose(merge)


cdef void merge_seek_to_first(Cursor* self) noexcept nogil:
    cdef MergeCursor* merge = <MergeCursor*> self.state
    cdef int i
    for i in range(merge.count):
        merge.children[i].seek_to_first(merge.children[i])
    merge.forward = True
    status_clear(&self.status)
    choose(merge)


cdef void merge_seek_to_last(Cursor* self) noexcept nogil:
    cdef MergeCursor* merge = <MergeCursor*> self.state
    cdef int i
    for i in range(merge.count):
        merge.children[i].seek_to_last(merge.children[i])
    merge.forward = False
    status_clear(&self.status)
    choose(merge)


cdef void merge_seek(Cursor* self, Slice target) noexcept nogil:
    cdef MergeCursor* merge = <MergeCursor*> self.state
    cdef int i
    for i in range(merge.count):
        merge.children[i].seek(merge.children[i], target)
    merge.forward = True
    status_clear(&self.status)
    choose(merge)


cdef bint turn(MergeCursor* merge, bint forward) noexcept nogil:
    """Bring every child but the current one to the other side of the place stood on."""
    cdef Cursor* child
    cdef Slice place
    cdef uint64_t trailer = internal_trailer(merge.base.key)
    cdef uint64_t target = trailer_pack(trailer_sequence(trailer), KIND_MAX)
    cdef int i
    cdef bint same
    merge.place.size = 0
    if buffer_append(&merge.place, merge.base.key.data, merge.base.key.size) < 0:
        status_no_memory(&merge.base.status, b"memory for a merge")
        merge.base.valid = False
        merge.current = -1
        return False
    # With the largest kind, the seek lands on an entry of this very sequence whatever its kind.
    memcpy(merge.place.data + merge.place.size - TRAILER_BYTES, &target, TRAILER_BYTES)
    place = slice_of(merge.place.data, merge.place.size)
    for i in range(merge.count):
        if i == merge.current:
            continue
        child = merge.children[i]
        child.seek(child, place)
        same = child.valid and same_version(child.key, place)
        if forward:
            # Entries of the same version in newer sources lie before the place.
            if same and i < merge.current:
                child.next(child)
        elif not child.valid:
            if child.status.code == OK:
                child.seek_to_last(child)
        elif not (same and i < merge.current):
            child.prev(child)
    merge.forward = forward
    return not failed(merge)


cdef inline bint same_version(Slice a, Slice b) noexcept nogil:
    return trailer_sequence(internal_trailer(a)) == trailer_sequence(
        internal_trailer(b)
    ) and slice_compare(internal_user_key(a), internal_user_key(b)) == 0


cdef void merge_next(Cursor* self) noexcept nogil:
    cdef MergeCursor* merge = <MergeCursor*> self.state
    if merge.current < 0:
        return
    cdef Cursor* child = merge.children[merge.current]
    if not merge.forward:
        if not turn(merge, True):
            return
        child.next(child)
        choose(merge)
        return
    child.next(child)
    moved(merge)


cdef void merge_prev(Cursor* self) noexcept nogil:
    cdef MergeCursor* merge = <MergeCursor*> self.state
    if merge.current < 0:
        return
    cdef Cursor* child = merge.children[merge.current]
    if merge.forward:
        if not turn(merge, False):
            return
        child.prev(child)
        choose(merge)
        return
    child.prev(child)
    moved(merge)


cdef inline bint skip_forward(Cursor* cursor, Slice target) noexcept nogil:
    if not cursor.valid or internal_compare(cursor.key, target) >= 0:
        return False
    cursor.seek(cursor, target)
    return True


cdef inline bint skip_back(Cursor* cursor, Slice target) noexcept nogil:
    if not cursor.valid or internal_compare(cursor.key, target) < 0:
        return False
    cursor.seek(cursor, target)
    if cursor.valid:
        cursor.prev(cursor)
    elif cursor.status.code == OK:
        cursor.seek_to_last(cursor)
    return True


cdef bint merge_skip_forward(Cursor* self, int newest, Slice target) noexcept nogil:
    cdef MergeCursor* merge = <MergeCursor*> self.state
    cdef bint skipped = False
    cdef int i
    if self.seek != merge_seek:
        return newest < 0 and skip_forward(self, target)
    if not merge.forward:
        return False
    for i in range(newest + 1, merge.count):
        skipped = skip_forward(merge.children[i], target) or skipped
    if skipped:
        choose(merge)
    return skipped


cdef bint merge_skip_back(Cursor* self, int newest, Slice target) noexcept nogil:
    cdef MergeCursor* merge = <MergeCursor*> self.state
    cdef bint skipped = False
    cdef int i
    if self.seek != merge_seek:
        return newest < 0 and skip_back(self, target)
    if merge.forward:
        return False
    for i in range(newest + 1, merge.count):
        skipped = skip_back(merge.children[i], target) or skipped
    if skipped:
        choose(merge)
    return skipped


cdef void merge_free(Cursor* self) noexcept nogil:
    cdef MergeCursor* merge = <MergeCursor*> self.state
    cdef int i
    for i in range(merge.count):
        merge.children[i].free(merge.children[i])
    buffer_free(&merge.place)
    kv_free(merge)


cdef Cursor* merge_cursor(Cursor** children, int count) noexcept nogil:
    cdef MergeCursor* merge
    cdef int i
    if count == 1:
        return children[0]
    merge = <MergeCursor*> kv_zeroed(sizeof(MergeCursor) + count * sizeof(Cursor*))
    if merge == NULL:
        for i in range(count):
            children[i].free(children[i])
        return NULL
    merge.children = <Cursor**> (merge + 1)
    for i in range(count):
        merge.children[i] = children[i]
    merge.count = count
    merge.current = -1
    merge.rival = -1
    buffer_init(&merge.place)
    merge.base.state = merge
    merge.base.seek_to_first = merge_seek_to_first
    merge.base.seek_to_last = merge_seek_to_last
    merge.base.seek = merge_seek
    merge.base.next = merge_next
    merge.base.prev = merge_prev
    merge.base.free = merge_free
    status_clear(&merge.base.status)
    return &merge.base
