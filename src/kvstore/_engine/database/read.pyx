"""Point lookups: mutable memtable, frozen ones, then the tables, newest first."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport (
    BytesView,
    OK,
    Slice,
    Status,
    kv_calloc,
    kv_free,
    max_sequence,
    status_clear,
    status_error_in,
    view_close,
    view_open,
)
from kvstore._engine.memtable.native cimport (
    ABSENT,
    COLD,
    DELETED,
    FAILED,
    FOUND,
    memtable_entries,
    memtable_get,
)
from kvstore._engine.table.native cimport (
    Pinned,
    READ_AND_KEEP,
    READ_CHECKED,
    READ_NOTHING,
    pinned_release,
)
from kvstore._engine.version.native cimport (
    LEVELS,
    Version,
    version_get,
    version_release,
    version_retain,
)

from kvstore.errors import InvalidArgumentError


cdef enum:
    # From so many keys on a multi_get looks into tables without the GIL; fewer take less time than it
    # takes to hand the GIL over and get it back.
    BESIDE_OTHERS = 256


cdef inline bytes bytes_of(Slice value):
    return PyBytes_FromStringAndSize(<const char*> value.data, <Py_ssize_t> value.size)


cdef int look_in_memory(
    Store store, Slice key, uint64_t sequence, Slice* value, uint64_t* found_sequence
) noexcept:
    cdef int i
    cdef int found = memtable_get(store.memory, key, sequence, value, found_sequence)
    if found != ABSENT:
        return found
    for i in range(store.frozen_count):
        found = memtable_get(store.frozen[i].table, key, sequence, value, found_sequence)
        if found != ABSENT:
            return found
    return ABSENT


cdef bint has_tables(Version* version) noexcept nogil:
    cdef int level
    for level in range(LEVELS):
        if version.levels[level].count:
            return True
    return False


cdef inline bint look_in_tables(
    Store store, Slice key, uint64_t sequence, int reading, Slice* value,
    uint64_t* found_sequence, Pinned* pin
) except -1:
    """Whether the key is there; its value is borrowed from what `pin` is to be released of.

    With the GIL as long as memory answers, which takes no longer than handing it over: the table lets
    go of it where it reads from disk, and others may come in then.
    """
    cdef Status status
    cdef int found
    cdef Version* version = store.version
    pin.handle = NULL
    status_clear(&status)
    version_retain(version)
    found = version_get(version, key, sequence, reading, value, found_sequence, pin, &status)
    if version == store.version:
        version_release(version)        # not the last who has it
    else:
        with nogil:
            version_release(version)
    if found == FAILED:
        raise status_error_in(&status, store.path)
    return found == FOUND


cdef object lookup(Store store, Slice key, uint64_t sequence, object default, int reading):
    cdef Slice value
    cdef uint64_t found_sequence
    cdef Pinned pin
    cdef int found = look_in_memory(store, key, sequence, &value, &found_sequence)
    if found == FOUND:
        return bytes_of(value)
    if found == DELETED or not has_tables(store.version):
        return default
    if not look_in_tables(store, key, sequence, reading, &value, &found_sequence, &pin):
        return default
    try:
        return bytes_of(value)
    finally:
        pinned_release(&pin)


cdef object lookup_versioned(Store store, Slice key, uint64_t sequence, int reading):
    cdef Slice value
    cdef uint64_t found_sequence
    cdef Pinned pin
    cdef int found = look_in_memory(store, key, sequence, &value, &found_sequence)
    if found == FOUND:
        return bytes_of(value), found_sequence
    if found == DELETED or not has_tables(store.version):
        return None
    if not look_in_tables(store, key, sequence, reading, &value, &found_sequence, &pin):
        return None
    try:
        return bytes_of(value), found_sequence
    finally:
        pinned_release(&pin)


cdef bint is_there(Store store, Slice key, uint64_t sequence) except -1:
    cdef Slice value
    cdef uint64_t found_sequence
    cdef Pinned pin
    cdef int found = look_in_memory(store, key, sequence, &value, &found_sequence)
    if found != ABSENT:
        return found == FOUND
    if not has_tables(store.version) or not look_in_tables(
        store, key, sequence, READ_AND_KEEP, &value, &found_sequence, &pin
    ):
        return False
    pinned_release(&pin)
    return True


cdef inline int look_in_caches(
    Store store, Slice key, uint64_t sequence, int reading, Slice* value, uint64_t* found_sequence,
    Pinned* pin
) except -1:
    """See look_without_disk(). The version can't go away: the GIL is kept."""
    cdef Status status
    cdef int found = look_in_memory(store, key, sequence, value, found_sequence)
    pin.handle = NULL
    if found != ABSENT or not has_tables(store.version):
        return found
    status_clear(&status)
    found = version_get(
        store.version, key, sequence, reading, value, found_sequence, pin, &status
    )
    if found == FAILED:
        raise status_error_in(&status, store.path)
    return found


cdef int look_without_disk(
    Store store, Slice key, uint64_t sequence, Slice* value, uint64_t* found_sequence, Pinned* pin
) except -1:
    return look_in_caches(store, key, sequence, READ_NOTHING, value, found_sequence, pin)


cdef int look_without_maps(
    Store store, Slice key, uint64_t sequence, Slice* value, uint64_t* found_sequence, Pinned* pin
) except -1:
    return look_in_caches(
        store, key, sequence, READ_NOTHING | READ_CHECKED, value, found_sequence, pin
    )


cdef object lookup_cached(Store store, Slice key, uint64_t sequence, object default, object cold):
    cdef Slice value
    cdef uint64_t found_sequence
    cdef Pinned pin
    cdef int found = look_without_disk(store, key, sequence, &value, &found_sequence, &pin)
    if found == COLD:
        return cold
    if found != FOUND:
        return default
    try:
        return bytes_of(value)
    finally:
        pinned_release(&pin)


cdef object lookup_versioned_cached(Store store, Slice key, uint64_t sequence, object cold):
    cdef Slice value
    cdef uint64_t found_sequence
    cdef Pinned pin
    cdef int found = look_without_disk(store, key, sequence, &value, &found_sequence, &pin)
    if found == COLD:
        return cold
    if found != FOUND:
        return None
    try:
        return bytes_of(value), found_sequence
    finally:
        pinned_release(&pin)


cdef object is_there_cached(Store store, Slice key, uint64_t sequence):
    cdef Slice value
    cdef uint64_t found_sequence
    cdef Pinned pin
    cdef int found = look_without_disk(store, key, sequence, &value, &found_sequence, &pin)
    pinned_release(&pin)
    return None if found == COLD else found == FOUND


cdef struct Wanted:
    BytesView key
    Slice value
    Pinned pin
    int found


cdef int find_in_tables(
    Version* version, Wanted* wanted, Py_ssize_t count, uint64_t moment, Status* status
) noexcept nogil:
    """What the memtables didn't know. -1: see status."""
    cdef uint64_t found_sequence
    cdef Py_ssize_t i
    for i in range(count):
        if wanted[i].found == ABSENT:
            wanted[i].found = version_get(
                version, wanted[i].key.slice, moment, True, &wanted[i].value, &found_sequence,
                &wanted[i].pin, status
            )
            if wanted[i].found == FAILED:
                return -1
    return 0


cdef list lookup_many(Store store, list keys, object sequence, object default):
    cdef Py_ssize_t count = len(keys)
    cdef Py_ssize_t i
    cdef Wanted* wanted = <Wanted*> kv_calloc(count + 1, sizeof(Wanted))
    cdef Version* version = NULL
    cdef Status status
    cdef uint64_t found_sequence
    cdef bint failed = False
    cdef list results = [default] * count
    cdef bint unfinished = False
    cdef uint64_t moment
    if wanted == NULL:
        raise MemoryError("no memory for the keys")
    status_clear(&status)
    try:
        for i in range(count):
            view_open(keys[i], &wanted[i].key, "key")
        # From here on nothing lets other threads in, until the version is held.
        moment = readable_sequence(store, sequence)
        for i in range(count):
            wanted[i].found = look_in_memory(
                store, wanted[i].key.slice, moment, &wanted[i].value, &found_sequence
            )
            if wanted[i].found == FOUND:
                # Before anything can let go of the memtable.
                results[i] = bytes_of(wanted[i].value)
            elif wanted[i].found == ABSENT:
                unfinished = True
        if unfinished and has_tables(store.version):
            version = store.version
            version_retain(version)
            if count < BESIDE_OTHERS:
                failed = find_in_tables(version, wanted, count, moment, &status) < 0
            else:
                with nogil:
                    failed = find_in_tables(version, wanted, count, moment, &status) < 0
            if failed:
                raise status_error_in(&status, store.path)
            for i in range(count):
                if wanted[i].pin.handle != NULL and wanted[i].found == FOUND:
                    results[i] = bytes_of(wanted[i].value)
        return results
    finally:
        for i in range(count):
            view_close(&wanted[i].key)
            pinned_release(&wanted[i].pin)
        kv_free(wanted)
        if version != NULL:
            with nogil:
                version_release(version)


cdef uint64_t readable_sequence(Store store, object sequence) except? 0:
    cdef uint64_t wanted
    if sequence is None:
        return store.visible
    sequence = as_sequence(sequence)
    if not 0 <= sequence <= store.visible:
        raise InvalidArgumentError(
            f"sequence {sequence} is outside [0, {store.visible}], the last one written"
        )
    wanted = sequence
    if wanted < store.retain_from and wanted != store.visible and wanted not in store.snapshots:
        kept = "" if store.retain_from == max_sequence() else f", kept from {store.retain_from} on"
        raise InvalidArgumentError(f"the history at sequence {sequence} isn't kept{kept}")
    return wanted
