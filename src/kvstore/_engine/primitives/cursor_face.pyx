"""CursorFace: see cursor_face.pxd."""

cimport cython
from libc.stdint cimport uint64_t



cdef CursorFace cursor_face(Cursor* cursor, str path, object keep_alive):
    if cursor == NULL:
        raise MemoryError("no memory for a cursor")
    cdef CursorFace face = CursorFace.__new__(CursorFace)
    face.cursor = cursor
    face.path = path
    face.keep_alive = keep_alive
    return face


# Freeing it still needs the disk: the collector must not clear the reference first.
@cython.no_gc_clear
cdef class CursorFace:
    """Walks internal entries in order. Not thread-safe."""

    def __dealloc__(self):
        if self.cursor != NULL:
            self.cursor.free(self.cursor)

    cdef int check(self) except -1:
        if self.cursor == NULL:
            raise ValueError("no cursor: make it with the table's or memtable's cursor()")
        return 0

    cdef object standing(self):
        if self.cursor.status.code != OK:
            raise status_error(&self.cursor.status, self.path)
        if not self.cursor.valid:
            return None
        key = self.cursor.key.data[: self.cursor.key.size - TRAILER_BYTES]
        cdef uint64_t trailer = internal_trailer(self.cursor.key)
        value = self.cursor.value.data[: self.cursor.value.size]
        return key, trailer_sequence(trailer), trailer_kind(trailer), value

    def current(self):
        """(key, sequence, kind, value) of the entry stood on, or None; raises what went wrong."""
        self.check()
        return self.standing()

    def first(self):
        self.check()
        self.cursor.seek_to_first(self.cursor)
        return self.standing()

    def last(self):
        self.check()
        self.cursor.seek_to_last(self.cursor)
        return self.standing()

    def seek(self, bytes key, uint64_t sequence, int kind=KIND_MAX):
        """Stand on the first entry at or after (key, sequence, kind)."""
        self.check()
        cdef uint64_t trailer = trailer_pack(sequence, kind)
        cdef bytes target = key + (<unsigned char*> &trailer)[:TRAILER_BYTES]
        self.cursor.seek(self.cursor, slice_of(<const unsigned char*> target, len(target)))
        return self.standing()

    def next(self):
        self.check()
        self.cursor.next(self.cursor)
        return self.standing()

    def prev(self):
        self.check()
        self.cursor.prev(self.cursor)
        return self.standing()
