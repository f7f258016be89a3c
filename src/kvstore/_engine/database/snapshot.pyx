"""Snapshot: see snapshot.pxd."""

cimport cython
from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport BytesView, view_close, view_open

from kvstore.errors import ClosedError, InvalidArgumentError


cdef Snapshot open_snapshot(Store store, object sequence, bytes prefix):
    cdef Snapshot snapshot = Snapshot.__new__(Snapshot)
    snapshot.store = store
    snapshot.prefix = prefix
    # From here to the last line nothing may let other threads in: a compaction could take away
    # what is only about to be held.
    cdef uint64_t moment = readable_sequence(store, sequence)
    snapshot.sequence = moment
    store.snapshots[moment] = store.snapshots.get(moment, 0) + 1
    snapshot.held = True
    return snapshot


@cython.no_gc_clear
@cython.final
cdef class Snapshot:
    def __init__(self):
        raise TypeError("make a Snapshot with db.snapshot()")

    def __dealloc__(self):
        if self.held and self.store.snapshots is not None:
            self.close()

    def __reduce__(self):
        raise TypeError("a Snapshot can't be copied or pickled: make another one")

    cdef int check(self) except -1:
        if self.store is None:
            raise ClosedError("the snapshot was not made by a database")
        self.store.check_open()
        if not self.held:
            raise ClosedError("the snapshot is closed")
        return 0

    def close(self):
        if not self.held:
            return
        self.held = False
        left = self.store.snapshots.get(self.sequence, 0) - 1
        if left > 0:
            self.store.snapshots[self.sequence] = left
        else:
            self.store.snapshots.pop(self.sequence, None)

    def release(self):
        self.close()

    def get(self, key, default=None, *, bint verify_checksums=False, bint fill_cache=True):
        cdef BytesView view
        self.check()
        if self.prefix:
            key = self.prefix + as_bytes(key, "key")
        view_open(key, &view, "key")
        try:
            return lookup(
                self.store, view.slice, self.sequence, default,
                reading_of(fill_cache, verify_checksums),
            )
        finally:
            view_close(&view)

    def get_versioned(self, key, *, bint fill_cache=True):
        cdef BytesView view
        self.check()
        if self.prefix:
            key = self.prefix + as_bytes(key, "key")
        view_open(key, &view, "key")
        try:
            return lookup_versioned(self.store, view.slice, self.sequence, fill_cache)
        finally:
            view_close(&view)

    def multi_get(self, keys, default=None):
        self.check()
        if self.prefix:
            keys = [self.prefix + as_bytes(key, "key") for key in keys]
        return lookup_many(self.store, list(keys), self.sequence, default)

    def __contains__(self, key):
        cdef BytesView view
        self.check()
        if self.prefix:
            key = self.prefix + as_bytes(key, "key")
        view_open(key, &view, "key")
        try:
            return is_there(self.store, view.slice, self.sequence)
        finally:
            view_close(&view)

    def __getitem__(self, key):
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __iter__(self):
        return self.iterator()

    def keys(self):
        return self.iterator(include_value=False)

    def values(self):
        return self.iterator(include_key=False)

    def items(self):
        return self.iterator()

    def iterator(
        self, *, bint reverse=False, start=None, stop=None, bint include_start=True,
        bint include_stop=False, prefix=None, bint include_key=True, bint include_value=True,
        bint include_sequence=False, verify_checksums=False, bint fill_cache=True, limit=None,
    ):
        cdef Range how
        self.check()
        how.reverse = reverse
        how.include_key = include_key
        how.include_value = include_value
        how.include_sequence = include_sequence
        how.limit = limit_of(limit)
        how.fill_cache = fill_cache
        return open_iterator(
            self.store, self.sequence, how, start, stop, include_start, include_stop, prefix,
            self.prefix, None,
        )

    def raw_iterator(self, *, verify_checksums=False, bint fill_cache=True):
        self.check()
        if self.prefix:
            raise InvalidArgumentError("a raw iterator has no prefix; use iterator()")
        return open_raw_iterator(self.store, self.sequence, fill_cache)

    def count(self, start=None, stop=None, *, prefix=None, bint fill_cache=True):
        self.check()
        return count_range(
            self.store, self.sequence, start, stop, prefix, self.prefix, fill_cache, None
        )

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()
