"""Iterator and RawIterator."""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from libc.limits cimport LONG_MAX
from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport (
    BytesView,
    Cursor,
    OK,
    Slice,
    Status,
    kv_free,
    kv_zeroed,
    slice_of,
    status_clear,
    status_error_in,
    view_close,
    view_open,
)
from kvstore._engine.memtable.native cimport (
    MemTable,
    memtable_cursor,
    memtable_entries,
    memtable_page_cursor,
)
from kvstore._engine.version.native cimport (
    RangeCover,
    Version,
    cover_close,
    cover_open,
    merge_cursor,
    user_cursor_close,
    user_cursor_open,
    user_next,
    user_prev,
    user_resume,
    user_seek,
    user_seek_before,
    user_seek_to_first,
    user_seek_to_last,
    user_sequence,
    version_cursor_count,
    version_cursors,
    version_release,
    version_retain,
)

from types import GenericAlias

from kvstore.errors import ClosedError, InvalidArgumentError, IteratorInvalidError


cdef extern from "<sched.h>" nogil:
    int sched_yield()


cdef extern from *:
    """
    /* A pair of these two runs of bytes. As zip() does: where nobody but its one owner holds the pair
       `held`, it takes the new items, so that a loop that lets go of each costs no new one. From 3.14 on
       a tuple keeps the hash that was once asked for, and nothing public makes it forget that. */
    static inline PyObject* kv_pair_of(
            PyObject* held, const void* key, size_t key_size, const void* value, size_t value_size) {
        PyObject* first = PyBytes_FromStringAndSize((const char*) key, (Py_ssize_t) key_size);
        if (!first) return NULL;
        PyObject* second = PyBytes_FromStringAndSize((const char*) value, (Py_ssize_t) value_size);
        if (!second) {
            Py_DECREF(first);
            return NULL;
        }
        if (PY_VERSION_HEX < 0x030E0000 && held != Py_None && Py_REFCNT(held) == 1) {
            PyObject* old_first = PyTuple_GET_ITEM(held, 0);
            PyObject* old_second = PyTuple_GET_ITEM(held, 1);
            PyTuple_SET_ITEM(held, 0, first);
            PyTuple_SET_ITEM(held, 1, second);
            Py_DECREF(old_first);
            Py_DECREF(old_second);
            Py_INCREF(held);
            return held;
        }
        PyObject* fresh = PyTuple_New(2);
        if (!fresh) {
            Py_DECREF(first);
            Py_DECREF(second);
            return NULL;
        }
        PyTuple_SET_ITEM(fresh, 0, first);
        PyTuple_SET_ITEM(fresh, 1, second);
        return fresh;
    }
    """
    tuple pair_of "kv_pair_of"(
        PyObject* held, const void* key, size_t key_size, const void* value, size_t value_size
    )


cdef enum:
    ITERATOR_READ_AHEAD_BYTES = 1 << 17
    # Entries that a move passes over with the GIL, a millisecond or two; then others have their turns.
    PATIENCE = 4096
    MANY_DEAD = 32              # entries that a move passed over: the next one is to be spared them

cdef enum IteratorPosition:
    # Where the gap is that an iterator stands in.
    AT_START
    AT_STOP
    BEFORE_ENTRY                # just before the entry that the cursor stands on
    AFTER_ENTRY


cdef void close_walk(void* owner) noexcept:
    (<StoreIterator> owner).finish()


cdef int open_cover(
    Store store, Version* version, bint walks_memory, uint64_t moment, RangeCover** cover
) noexcept:
    """Of a walk over the memtables (the mutable one perhaps left out) and then the tables."""
    cdef MemTable* memories[MAX_FROZEN + 1]
    cdef int children[MAX_FROZEN + 1]
    cdef int i
    memories[0] = store.memory
    children[0] = walks_memory - 1
    for i in range(store.frozen_count):
        memories[i + 1] = store.frozen[i].table
        children[i + 1] = walks_memory + i
    return cover_open(
        cover, memories, children, store.frozen_count + 1, version,
        walks_memory + store.frozen_count, moment
    )


# Freeing it still needs what it refers to: the collector must not clear the references first.
@cython.no_gc_clear
cdef class StoreIterator:
    def __init__(self):
        raise TypeError(f"make a {type(self).__name__} with the database's methods")

    def __dealloc__(self):
        if self.live:
            self.finish()

    def __reduce__(self):
        raise TypeError(f"a {type(self).__name__} can't be copied or pickled: make another one")

    cdef void finish(self) noexcept:
        if self.live:
            self.live = False
            self.store.unlink(&self.link)
            self.release()
        elif self.busy and not self.doomed:
            self.doomed = True
            self.store.unlink(&self.link)

    cdef void release(self) noexcept:
        if self.store.forked:
            return                      # see Store.__dealloc__
        self.store.passed_entries += self.cursor.passed
        if self.version == self.store.version:
            # The store has all of it, too: there is nothing to be freed that would take long.
            user_cursor_close(&self.cursor)
            version_release(self.version)
        else:
            with nogil:
                user_cursor_close(&self.cursor)
                version_release(self.version)

    cdef int enter(self) except -1:
        if not self.live:
            self.check()
        self.live = False
        self.busy = True
        return 0

    cdef int leave(self) except -1:
        self.busy = False
        if self.doomed:
            self.release()
            self.check()
        self.live = True
        return 0

    cdef int rest(self) except -1:
        with nogil:
            sched_yield()
        try:
            PyErr_CheckSignals()
            if self.interrupt is not None:
                self.interrupt()
        except:
            self.finish()
            self.busy = False
            self.release()
            raise
        return 0

    cdef int settle(self) except -1:
        while self.cursor.paused and not self.doomed:
            self.rest()
            if self.walks_mutable():
                user_resume(&self.cursor)
            else:
                with nogil:
                    user_resume(&self.cursor)
        return 0

    cdef bint walks_mutable(self) noexcept:
        return self.mutable != NULL and self.mutable == self.store.memory

    cdef int bound(
        self, object start, object stop, bint include_start, bint include_stop, object prefix,
        bytes within
    ) except -1:
        if prefix is not None:
            if start is not None or stop is not None:
                raise TypeError("prefix can't be given together with start or stop")
            self.low = within + as_bytes(prefix, "prefix")
            self.high = after_prefix(self.low)
            return 0
        if within:
            self.low = within
            self.high = after_prefix(within)
        # The key that follows k at once is k + b"\0": so every bound becomes [low, high).
        if start is not None:
            self.low = as_bytes(start, "start")
            if within:
                self.low = within + self.low
            if not include_start:
                self.low += b"\0"
        if stop is not None:
            self.high = as_bytes(stop, "stop")
            if within:
                self.high = within + self.high
            if include_stop:
                self.high += b"\0"
        return 0

    cdef int begin(self, Store store, object sequence, bint fill_cache, bint paged) except -1:
        # The moment, the memtables and the version belong together: until all are held, nothing
        # may let other threads in.
        cdef uint64_t moment = readable_sequence(store, sequence)
        cdef Version* version = store.version
        cdef int tables = version_cursor_count(version)
        cdef int most = 1 + store.frozen_count + tables
        cdef int count = 0
        cdef Cursor** cursors = <Cursor**> kv_zeroed(most * sizeof(Cursor*))
        cdef Cursor* merged = NULL
        cdef Cursor* page
        cdef Slice low_slice, high_slice
        cdef Slice* low_bound = NULL
        cdef Slice* high_bound = NULL
        cdef RangeCover* cover = NULL
        cdef Status status
        cdef int i
        cdef int result = 0
        cdef bint missing = cursors == NULL
        status_clear(&status)
        version_retain(version)
        self.store = store
        self.puts = store.dead.puts
        self.era = store.dead.era
        self.newest = moment == store.visible
        if not missing:
            # What is added to an empty memtable from now on is newer than what this may see.
            if memtable_entries(store.memory) or most == 1:
                cursors[0] = (
                    memtable_page_cursor(store.memory) if paged else memtable_cursor(store.memory)
                )
                self.mutable = store.memory
                missing = cursors[0] == NULL
                count = 1
            for i in range(store.frozen_count):
                cursors[count] = memtable_cursor(store.frozen[i].table)
                missing = missing or cursors[count] == NULL
                count += 1
            missing = missing or open_cover(store, version, self.mutable != NULL, moment, &cover) < 0
        if not missing:
            # Opens tables of level 0. A disk that is written in Python lets other threads in.
            result = version_cursors(version, fill_cache, ITERATOR_READ_AHEAD_BYTES, cursors + count, &status)
        if missing or result < 0:
            for i in range(count):
                if cursors[i] != NULL:
                    cursors[i].free(cursors[i])
            kv_free(cursors)
            cover_close(cover)
            version_release(version)
            raise MemoryError("no memory for an iterator") if missing else status_error_in(
                &status, store.path
            )
        page = cursors[0]
        merged = merge_cursor(cursors, count + tables)
        kv_free(cursors)
        if merged == NULL:
            cover_close(cover)
            version_release(version)
            raise MemoryError("no memory for an iterator")
        self.version = version
        if paged and self.mutable != NULL:
            self.page = page
        if self.low is not None:
            low_slice = slice_of(<const char*> self.low, len(self.low))
            low_bound = &low_slice
        if self.high is not None:
            high_slice = slice_of(<const char*> self.high, len(self.high))
            high_bound = &high_slice
        result = user_cursor_open(&self.cursor, merged, cover, moment, low_bound, high_bound)
        self.cursor.patience = PATIENCE
        self.live = True
        self.link.owner = <void*> self
        self.link.close = close_walk
        store.link(&self.link)
        if result < 0 or not store.open:
            self.finish()
            store.check_open()
            raise MemoryError("no memory for an iterator")
        return 0

    cdef int check(self) except -1:
        if not self.live:
            if self.busy:
                raise InvalidArgumentError("another thread is moving this iterator")
            if self.store is None:
                raise ClosedError("the iterator was not made by a database")
            self.store.check_open()
            raise ClosedError("the iterator is closed")
        return 0

    cdef int check_status(self) except -1:
        if self.cursor.status.code != OK:
            raise status_error_in(&self.cursor.status, self.store.path)
        return 0

    def close(self):
        self.finish()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.finish()


@cython.no_gc_clear
@cython.final
cdef class Iterator(StoreIterator):
    cdef DeadRange* dead_at(self, Slice key, bint below) noexcept:
        if self.era != self.store.dead.era:
            return NULL
        return dead_find(&self.store.dead, key, self.cursor.sequence, below)

    cdef void note_dead(self, Slice low, Slice high) noexcept:
        cdef DeadRanges* dead = &self.store.dead
        if (
            self.newest and self.era == dead.era and not dead.exchanging
            and self.puts == dead.puts and dead.last_put <= self.cursor.sequence
        ):
            dead_note(dead, low, high, self.cursor.sequence)

    cdef void note_dead_up(self, Slice low) noexcept:
        cdef bytes end
        if self.cursor.valid:
            self.note_dead(low, self.cursor.key)
        elif self.cursor.status.code == OK and not self.cursor.paused:
            try:
                # There is nothing beyond either.
                end = self.high if self.high is not None else after_all_keys(self.store)
            except MemoryError:
                return
            if end is not None:
                self.note_dead(low, slice_of(<const char*> end, len(end)))

    cdef void note_dead_down(self, Slice high) noexcept:
        cdef bytes end
        if self.cursor.valid:
            try:
                end = <bytes> self.cursor.key.data[: self.cursor.key.size] + b"\0"
            except MemoryError:
                return
        elif self.cursor.status.code != OK or self.cursor.paused:
            return
        else:
            end = self.low if self.low is not None else b""
        self.note_dead(slice_of(<const char*> end, len(end)), high)

    cdef bint begin_up(self) except -1:
        cdef Slice low = slice_of(b"", 0)
        cdef uint64_t passed = self.cursor.passed
        cdef DeadRange* dead
        cdef bint known
        if self.low is not None:
            low = slice_of(<const char*> self.low, len(self.low))
        dead = self.dead_at(low, False)
        known = dead != NULL
        if known:
            # The cursor copies the key before it reads a block, where others may change the range.
            user_seek(&self.cursor, slice_of(dead.high.data, dead.high.size))
        else:
            user_seek_to_first(&self.cursor)
        self.settle()
        if not self.doomed and self.cursor.passed - passed >= <uint64_t> (1 if known else MANY_DEAD):
            self.note_dead_up(low)
        return self.came_up()

    cdef bint begin_down(self) except -1:
        cdef Slice high
        cdef uint64_t passed = self.cursor.passed
        cdef DeadRange* dead
        cdef bint known
        if self.high is None:
            # Nobody knows of keys yet to come where the range would end.
            user_seek_to_last(&self.cursor)
            self.settle()
            return self.came_down()
        high = slice_of(<const char*> self.high, len(self.high))
        dead = self.dead_at(high, True)
        known = dead != NULL
        if known:
            user_seek_before(&self.cursor, slice_of(dead.low.data, dead.low.size))
        else:
            user_seek_to_last(&self.cursor)
        self.settle()
        if not self.doomed and self.cursor.passed - passed >= <uint64_t> (1 if known else MANY_DEAD):
            self.note_dead_down(high)
        return self.came_down()

    cdef object item(self):
        cdef UserCursor* cursor = &self.cursor
        cdef tuple pair
        if not self.pairs:
            return self.part_of_item()
        pair = pair_of(
            <PyObject*> self.pair, cursor.key.data + self.strip, cursor.key.size - self.strip,
            cursor.value.data, cursor.value.size,
        )
        if pair is not self.pair:
            self.pair = pair
        return pair

    cdef object part_of_item(self):
        """What else than pairs was asked for."""
        cdef Slice slice
        cdef bytes key
        cdef bytes value
        cdef uint64_t sequence
        if self.include_key:
            slice = self.shown_key()
            key = PyBytes_FromStringAndSize(<const char*> slice.data, <Py_ssize_t> slice.size)
            if not (self.include_value or self.include_sequence):
                return key
        if self.include_value:
            slice = self.cursor.value
            value = PyBytes_FromStringAndSize(<const char*> slice.data, <Py_ssize_t> slice.size)
            if not self.include_sequence:
                return value
        if not self.include_sequence:
            return None
        sequence = user_sequence(&self.cursor)
        if self.include_key and self.include_value:
            return key, value, sequence
        if self.include_key:
            return key, sequence
        return (value, sequence) if self.include_value else sequence

    cdef Slice shown_key(self) noexcept nogil:
        cdef Slice key = self.cursor.key
        return slice_of(key.data + self.strip, key.size - <size_t> self.strip)

    cdef bint step(self) noexcept nogil:
        if self.cursor.paused:
            user_resume(&self.cursor)
            return self.came_down() if self.reverse else self.came_up()
        return self.step_down() if self.reverse else self.step_up()

    cdef bint step_up(self) noexcept nogil:
        if self.place == AFTER_ENTRY:
            user_next(&self.cursor)
        elif self.place == AT_START:
            user_seek_to_first(&self.cursor)
        elif self.place == AT_STOP:
            return False
        return self.came_up()

    cdef bint came_up(self) noexcept nogil:
        if self.cursor.valid:
            self.place = AFTER_ENTRY
        elif self.cursor.status.code == OK and not self.cursor.paused:
            self.place = AT_STOP
        return self.cursor.valid

    cdef bint step_down(self) noexcept nogil:
        if self.place == BEFORE_ENTRY:
            user_prev(&self.cursor)
        elif self.place == AT_STOP:
            user_seek_to_last(&self.cursor)
        elif self.place == AT_START:
            return False
        return self.came_down()

    cdef bint came_down(self) noexcept nogil:
        if self.cursor.valid:
            self.place = BEFORE_ENTRY
        elif self.cursor.status.code == OK and not self.cursor.paused:
            self.place = AT_START
        return self.cursor.valid

    cdef object onward(self):
        if self.left == 0:
            self.check()
            raise StopIteration
        entry = self.backward() if self.reverse else self.forward()
        if self.left > 0:
            self.left -= 1
        return entry

    cdef object forward(self):
        self.enter()
        cdef bint moved = self.begin_up() if self.place == AT_START else self.step_up()
        if self.cursor.paused:
            self.settle()
            moved = self.came_up()
        self.leave()
        if not moved:
            self.check_status()
            raise StopIteration
        return self.item()

    cdef object backward(self):
        self.enter()
        cdef bint moved = self.begin_down() if self.place == AT_STOP else self.step_down()
        if self.cursor.paused:
            self.settle()
            moved = self.came_down()
        self.leave()
        if not moved:
            self.check_status()
            raise StopIteration
        return self.item()

    def __iter__(self):
        return self

    @classmethod
    def __class_getitem__(cls, entry):
        return GenericAlias(cls, entry)

    def __next__(self):
        return self.onward()

    def next(self):
        return self.onward()

    def prev(self):
        return self.forward() if self.reverse else self.backward()

    def seek(self, target):
        cdef BytesView view
        cdef bytes whole
        self.check()
        view_open(target, &view, "target")
        try:
            if self.strip:
                whole = self.within + <bytes> view.slice.data[: view.slice.size]
            self.enter()
            if self.strip:
                user_seek(&self.cursor, slice_of(<const char*> whole, len(whole)))
            else:
                user_seek(&self.cursor, view.slice)
            self.settle()
            self.leave()
        finally:
            view_close(&view)
        if self.cursor.valid:
            self.place = BEFORE_ENTRY
        else:
            self.check_status()
            self.place = AT_STOP

    def seek_to_start(self):
        self.check()
        self.place = AT_STOP if self.reverse else AT_START

    def seek_to_stop(self):
        self.check()
        self.place = AT_START if self.reverse else AT_STOP


@cython.no_gc_clear
@cython.final
cdef class RawIterator(StoreIterator):
    cdef int moved(self) except -1:
        """The end of a move."""
        self.settle()
        self.leave()
        return self.check_status()

    cdef int check_valid(self) except -1:
        self.check()
        if not self.cursor.valid:
            raise IteratorInvalidError("the iterator stands on no entry")
        return 0

    def valid(self):
        self.check()
        return self.cursor.valid

    def seek_to_first(self):
        self.enter()
        user_seek_to_first(&self.cursor)
        self.moved()

    def seek_to_last(self):
        self.enter()
        user_seek_to_last(&self.cursor)
        self.moved()

    def seek(self, target):
        cdef BytesView view
        self.check()
        view_open(target, &view, "target")
        try:
            self.enter()
            user_seek(&self.cursor, view.slice)
            self.moved()
        finally:
            view_close(&view)

    def next(self):
        self.check_valid()
        self.enter()
        user_next(&self.cursor)
        self.moved()

    def prev(self):
        self.check_valid()
        self.enter()
        user_prev(&self.cursor)
        self.moved()

    def key(self):
        self.check_valid()
        return <bytes> self.cursor.key.data[: self.cursor.key.size]

    def value(self):
        self.check_valid()
        return <bytes> self.cursor.value.data[: self.cursor.value.size]

    def item(self):
        return self.key(), self.value()


# --- making them ----------------------------------------------------------------------------

cdef bytes after_prefix(bytes prefix):
    """The smallest key after all that begin with `prefix`; None if there is none."""
    short = prefix.rstrip(b"\xff")
    last = len(short) - 1
    return short[:last] + bytes([short[last] + 1]) if short else None


cdef bytes as_bytes(object given, str what):
    cdef BytesView view
    if type(given) is bytes:
        return <bytes> given
    view_open(given, &view, what)
    try:
        return <bytes> view.slice.data[: view.slice.size]
    finally:
        view_close(&view)


def prefix_end(bytes prefix not None):
    return after_prefix(prefix)


def joined(bytes prefix not None, key):
    return prefix + as_bytes(key, "key")


cdef Py_ssize_t limit_of(object limit) except? -2:
    """Of an iterator's argument; -1: none."""
    if limit is None:
        return -1
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise TypeError(f"limit must be an int or None, not {limit!r}")
    if limit < 0:
        raise InvalidArgumentError(f"limit={limit} is negative")
    return min(limit, LONG_MAX)


cdef Iterator open_iterator(
    Store store, object sequence, Range how, object start, object stop, bint include_start,
    bint include_stop, object prefix, bytes within, object interrupt
):
    cdef Iterator iterator = Iterator.__new__(Iterator)
    iterator.bound(start, stop, include_start, include_stop, prefix, within)
    iterator.begin(store, sequence, how.fill_cache, False)
    iterator.interrupt = interrupt
    iterator.reverse = how.reverse
    iterator.include_key = how.include_key
    iterator.include_value = how.include_value
    iterator.include_sequence = how.include_sequence
    iterator.left = how.limit
    iterator.pairs = how.include_key and how.include_value and not how.include_sequence
    iterator.within = within
    iterator.strip = len(within)
    iterator.place = AT_STOP if how.reverse else AT_START
    return iterator


cdef RawIterator open_raw_iterator(Store store, object sequence, bint fill_cache):
    cdef RawIterator iterator = RawIterator.__new__(RawIterator)
    iterator.begin(store, sequence, fill_cache, False)
    return iterator
