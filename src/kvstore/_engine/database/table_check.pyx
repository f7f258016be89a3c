"""Checks of the files of an open database, a piece at a time; see table_check.pxd."""

cimport cython
from libc.stdint cimport uint64_t

from kvstore._engine.files.native cimport LINES_BYTES_MAX, read_whole
from kvstore._engine.primitives.native cimport Status, status_clear, status_error_in
from kvstore._engine.table.native cimport (
    Table,
    table_check_begin,
    table_check_end,
    table_check_step,
    table_release,
)
from kvstore._engine.version.native cimport (
    LEVELS,
    LiveTable,
    Version,
    live_table_open,
    live_table_release,
    live_table_retain,
    load_manifest,
)
from kvstore._engine.version.native import end_note

from kvstore.errors import CorruptionError, IntegrityCode


cdef list live_tables(Store store):
    """(number, bytes) of each table, ascending."""
    cdef Version* version = store.version
    cdef int level, i
    tables = []
    for level in range(LEVELS):
        for i in range(version.levels[level].count):
            tables.append(
                (version.levels[level].files[i].number, version.levels[level].files[i].summary.file_bytes)
            )
    return sorted(tables)


cdef TableChecking check_of_table(Store store, uint64_t number):
    """None: there is no such table any more."""
    cdef Version* version = store.version
    cdef TableChecking checking
    cdef int level, i
    for level in range(LEVELS):
        for i in range(version.levels[level].count):
            if version.levels[level].files[i].number == number:
                checking = TableChecking.__new__(TableChecking)
                checking.store = store
                checking.file = version.levels[level].files[i]
                live_table_retain(checking.file)
                return checking
    return None


cdef object check_small_files(Store store):
    """IDENTITY, CURRENT, manifest and END, as they are on the disk now; returns the bytes of the
    first and the manifest."""
    cdef bytes identity
    with store.installing:
        # Nothing is written to them meanwhile.
        store.check_open()
        path = f"{store.path}/{IDENTITY}"
        identity = read_whole(store.disk, path, LINES_BYTES_MAX)
        if check_identity(identity, path, store.read_only) != store.database_id:
            raise CorruptionError(
                "another database's", code=IntegrityCode.INVALID_RECORD, path=path
            )
        noted, damage = end_note(store.disk, store.path, store.database_id).load()
        if damage:
            raise CorruptionError(
                damage, code=IntegrityCode.CHECKSUM_MISMATCH, path=f"{store.path}/{END}"
            )
        number, _, size, torn = load_manifest(
            store.disk, store.path, store.database_id, store.read_only, noted
        )
        if torn and (store.manifest is not None or store.manifest_stands):
            raise CorruptionError(
                "manifest edit", code=IntegrityCode.CHECKSUM_MISMATCH,
                path=f"{store.path}/MANIFEST-{number:06d}", offset=size,
            )
    return len(identity) + size + torn


# Freeing it still needs the store: the collector must not clear the reference first.
@cython.no_gc_clear
cdef class TableChecking:
    def __dealloc__(self):
        table_check_end(&self.check)
        if self.file != NULL:
            live_table_release(self.file)

    def step(self, *, bint forget=True):
        """Check the next piece: returns its bytes, 0 after the last one."""
        cdef Status status
        cdef Table* table
        cdef uint64_t before = self.check.checked_bytes
        cdef int result = 1
        if self.file == NULL:
            raise TypeError("get one from a database")
        self.store.check_open()
        status_clear(&status)
        if self.begun and self.check.table == NULL:
            return 0
        with nogil:
            if not self.begun:
                table = live_table_open(self.file, &status)
                if table == NULL:
                    result = -1
                else:
                    self.begun = True
                    result = table_check_begin(&self.check, table, &status)
                    table_release(table)
                    if result == 0:
                        result = table_check_step(&self.check, forget, &status)
            else:
                result = table_check_step(&self.check, forget, &status)
        if result < 0:
            raise status_error_in(&status, self.store.path)
        size = self.check.checked_bytes - before
        if result == 0:
            table_check_end(&self.check)
        return size
