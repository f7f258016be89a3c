"""The conditions of a batch.

They are looked at where the batch is about to be written, as of the last write that was begun: that
one may still await its sync, but what comes behind it is never seen without it.

What only the disk knows is read from it before, and noted with the flush that tables were as of:
with how many there were, since whoever numbers writes may have two of them end with one sequence.
Should memory have nothing newer of the key by then, and no flush have come between, that is how it
is; compactions change nothing of it. What a map of a table says is not taken for it: only calls
check what they read each time.
"""

from kvstore._engine.primitives.native cimport Slice, slice_compare, slice_of
from kvstore._engine.memtable.native cimport COLD, FOUND
from kvstore._engine.table.native cimport (
    Pinned,
    READ_AND_KEEP,
    READ_CHECKED,
    pinned_release,
)

from kvstore.errors import ConflictError


cdef enum:
    SHOWN_KEY_BYTES = 64


cdef inline Slice slice_of_bytes(bytes data):
    return slice_of(<const char*> data, len(data))


cdef int forget_read(WriteBatch batch) except -1:
    cdef Expectation expected
    for expected in batch.expectations:
        expected.is_read = False
        expected.read = None
    return 0


cdef int read_expected(Store store, WriteBatch batch) except -1:
    cdef Expectation expected
    cdef Slice value
    cdef uint64_t found_sequence
    cdef uint64_t flushed
    cdef Pinned pin
    cdef int found
    for expected in batch.expectations:
        found = look_without_maps(
            store, slice_of_bytes(expected.key), store.assigned, &value, &found_sequence, &pin
        )
        pinned_release(&pin)
        if found != COLD or (expected.is_read and expected.read_flushed == store.flushed_memtables):
            continue
        flushed = store.flushed_memtables
        expected.read = lookup_versioned(
            store, slice_of_bytes(expected.key), store.assigned, READ_AND_KEEP | READ_CHECKED
        )
        expected.read_flushed = flushed
        expected.is_read = True
    return 0


cdef bint is_as_expected(Store store, WriteBatch batch) except -1:
    cdef Expectation expected
    cdef Slice value
    cdef uint64_t found_sequence
    cdef Pinned pin
    cdef int found
    cdef bint met
    for expected in batch.expectations:
        found = look_without_maps(
            store, slice_of_bytes(expected.key), store.assigned, &value, &found_sequence, &pin
        )
        if found == COLD:
            pinned_release(&pin)
            if not expected.is_read or expected.read_flushed != store.flushed_memtables:
                return False
            met = is_met(expected, expected.read)
        elif found != FOUND:
            pinned_release(&pin)
            met = is_met(expected, None)
        else:
            if expected.by_sequence:
                met = found_sequence == expected.sequence
            else:
                met = expected.value is not None and slice_compare(
                    value, slice_of_bytes(expected.value)
                ) == 0
            pinned_release(&pin)
        if not met:
            raise unmet(expected)
    return True


cdef bint is_met(Expectation expected, object there):
    """`there`: a value and the sequence of its write, or None."""
    if there is None:
        return not expected.by_sequence and expected.value is None
    value, sequence = there
    if expected.by_sequence:
        return sequence == expected.sequence
    return expected.value is not None and value == expected.value


cdef object unmet(Expectation expected):
    shown = expected.key[:SHOWN_KEY_BYTES]
    more = "…" if len(expected.key) > SHOWN_KEY_BYTES else ""
    return ConflictError(f"key {shown!r}{more} isn't as the batch expects it", expected.key)
