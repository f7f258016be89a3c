"""A Python face over any Cursor, for tests and inspection tools; DB has its own, faster one."""



cdef class CursorFace:
    cdef Cursor* cursor
    cdef str path               # named in errors
    cdef object keep_alive      # whatever the cursor's functions need to stay loaded and open
    cdef int check(self) except -1
    cdef object standing(self)


# Takes ownership; MemoryError for NULL.
cdef CursorFace cursor_face(Cursor* cursor, str path, object keep_alive)
