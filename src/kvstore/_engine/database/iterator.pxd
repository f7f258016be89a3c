"""What walks the database at one moment: Iterator (plyvel's), RawIterator (LevelDB's).

An open iterator keeps the memtables and tables that it walks. GIL: its moves need it, since one of
the memtables may be the mutable one. One thread at a time; a second one is refused.
"""

cimport cython
from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport Cursor, Slice
from kvstore._engine.memtable.native cimport MemTable
from kvstore._engine.version.native cimport UserCursor, Version


cdef class StoreIterator:
    """A cursor on a store, and what it needs to stay valid."""
    cdef Store store
    cdef UserCursor cursor
    cdef Version* version
    cdef IteratorLink link
    cdef MemTable* mutable          # the one it walks that was mutable when it began, or NULL
    cdef Cursor* page               # what it walks that one by, if a page at a time
    cdef bytes low                  # included; None: no bound
    cdef bytes high                 # not included
    cdef uint64_t puts              # of the store's dead ranges, when it began
    cdef uint64_t era               # so, too
    cdef bint newest                # all that was visible when it began is to be seen
    cdef bint live                  # it may be used: neither closed nor busy
    # It is being moved: all without the GIL, or with it and without it where a block is read.
    cdef bint busy
    cdef bint doomed                # it was closed while busy
    # Called while a move passes over much; what it raises ends the move, and closes. None: nobody is.
    cdef object interrupt
    # The range that it is to walk, from a user's arguments; `within`: the prefix of a view.
    cdef int bound(
        self, object start, object stop, bint include_start, bint include_stop, object prefix,
        bytes within
    ) except -1
    # `paged`: the mutable memtable is walked by `page`, which has yet to be filled.
    cdef int begin(self, Store store, object sequence, bint fill_cache, bint paged) except -1
    cdef void finish(self) noexcept
    cdef void release(self) noexcept
    # Around every move: nobody else can move it, and closing waits for `leave`.
    @cython.final
    cdef int enter(self) except -1
    @cython.final
    cdef int leave(self) except -1
    # Within a move that is paused: lets others have their turns. Looks at signals, too.
    cdef int rest(self) except -1
    # On to the end of a move that pauses.
    cdef int settle(self) except -1
    # Whether its moves need the GIL.
    cdef bint walks_mutable(self) noexcept
    cdef int check(self) except -1
    cdef int check_status(self) except -1


@cython.final
cdef class Iterator(StoreIterator):
    cdef bint reverse
    cdef bint include_key
    cdef bint include_value
    cdef bint include_sequence
    cdef bint pairs                 # of keys and values, and nothing else, as mostly
    cdef Py_ssize_t strip           # bytes of a prefix that keys are shown without
    cdef bytes within               # that prefix
    cdef int place
    cdef Py_ssize_t left            # so many more entries may be given; below 0: any number
    cdef tuple pair                 # the last one given out
    # Onto the next entry in its direction; false at the end, where the status says why, or where the
    # move is paused: then it is to `rest`, and the next step goes on.
    cdef bint step(self) noexcept nogil
    # The same of one direction; of a move that begins.
    cdef bint step_up(self) noexcept nogil
    cdef bint step_down(self) noexcept nogil
    # Where a move has ended, or paused.
    cdef bint came_up(self) noexcept nogil
    cdef bint came_down(self) noexcept nogil
    cdef Slice shown_key(self) noexcept nogil
    cdef object item(self)
    cdef object part_of_item(self)
    # The next entry, while there is one and the limit isn't reached.
    cdef object onward(self)
    cdef object forward(self)
    cdef object backward(self)
    # The dead range, if any, that a move needn't go over; `below`: that ends at `key`.
    cdef DeadRange* dead_at(self, Slice key, bint below) noexcept
    # What a move that began at `low`, or below `high`, went over without an entry: the next one needn't.
    cdef void note_dead_up(self, Slice low) noexcept
    cdef void note_dead_down(self, Slice high) noexcept
    cdef void note_dead(self, Slice low, Slice high) noexcept
    # The first move, from an end of the range: not over what is known to be deleted.
    cdef bint begin_up(self) except -1
    cdef bint begin_down(self) except -1


@cython.final
cdef class RawIterator(StoreIterator):
    cdef int moved(self) except -1
    cdef int check_valid(self) except -1


cdef struct Range:
    bint reverse
    bint include_key
    bint include_value
    bint include_sequence
    Py_ssize_t limit                # below 0: none
    bint fill_cache


# From an iterator's argument; raises TypeError, InvalidArgumentError.
cdef Py_ssize_t limit_of(object limit) except? -2
cdef Iterator open_iterator(
    Store store, object sequence, Range how, object start, object stop, bint include_start,
    bint include_stop, object prefix, bytes within, object interrupt
)
cdef RawIterator open_raw_iterator(Store store, object sequence, bint fill_cache)
