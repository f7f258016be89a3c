"""A Python face over one memtable, so that tests reach it without a DB around it."""

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport Slice, cursor_face, slice_of


cdef class MemTableFace:
    """One memtable. Every method needs the GIL, which is the memtable's lock."""

    cdef MemTable* table

    def __cinit__(self, size_t meant_for=64 << 20):
        self.table = memtable_new(meant_for)
        if self.table == NULL:
            raise MemoryError("no memory for a memtable")

    def __dealloc__(self):
        if self.table != NULL:
            memtable_release(self.table)

    def __len__(self):
        return memtable_entries(self.table)

    @property
    def memory_bytes(self):
        return memtable_bytes(self.table)

    def add(self, bytes key, uint64_t sequence, int kind, bytes value, bint ascending=False):
        """Raises MemoryError, with the table unchanged, when there is no memory for it."""
        if memtable_add(
            self.table, slice_of(<const unsigned char*> key, len(key)), sequence, kind,
            slice_of(<const unsigned char*> value, len(value)), ascending,
        ) < 0:
            raise MemoryError("no memory for an entry")

    def provide(self, size_t count, size_t size):
        """Room for `count` additions of `size` bytes in all; raises MemoryError where there is none."""
        if memtable_provide(self.table, count, size) < 0:
            raise MemoryError("no memory for entries")

    def delete_range(self, bytes start, bytes stop, uint64_t sequence):
        """Sequences must not descend. MemoryError, with the table unchanged, as for add()."""
        cdef RangeTombstone tombstone
        tombstone.start = slice_of(<const unsigned char*> start, len(start))
        tombstone.stop = slice_of(<const unsigned char*> stop, len(stop))
        tombstone.sequence = sequence
        tombstone.source = 0
        if memtable_delete_ranges(self.table, &tombstone, 1) < 0:
            raise MemoryError("no memory for a range tombstone")

    def get(self, bytes key, uint64_t sequence):
        """None where nothing is known, (sequence, None) for a tombstone, else (sequence, value)."""
        cdef Slice value
        cdef uint64_t found_sequence
        cdef int found = memtable_get(
            self.table, slice_of(<const unsigned char*> key, len(key)), sequence, &value,
            &found_sequence,
        )
        if found == ABSENT:
            return None
        if found == DELETED:
            return found_sequence, None
        return found_sequence, value.data[: value.size]

    def cursor(self):
        return cursor_face(memtable_cursor(self.table), "", None)
