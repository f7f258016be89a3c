"""Work on a database that nobody has open: destroying it, and saving what is left of a damaged one.

Repair keeps every table that verifies byte for byte. With a good manifest they keep their levels.
Without one nothing says which of two tables is the newer, so all are merged anew by sequence.
"""

import os

from libc.errno cimport ENOENT
from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport (
    BytesView,
    Cursor,
    PodVector,
    Status,
    TRAILER_BYTES,
    kv_realloc,
    status_clear,
    status_error_in,
    view_close,
    view_open,
)
from kvstore._engine.files.native cimport (
    DirectoryLock,
    FileSystem,
    kind_of,
    list_directory,
    lock_file,
    read_whole,
    remove_directory,
    remove_file,
    rename_file,
    replace_whole,
    sync_directory,
)
from kvstore._engine.log.native cimport Log, is_own_log_name
from kvstore._engine.table.native cimport TableSummary
from kvstore._engine.table.native import TableFile
from kvstore._engine.version.native cimport (
    LiveTable,
    Manifest,
    OpenTables,
    TableJob,
    begin_manifest,
    entry_of,
    entry_summary,
    level_cursor,
    live_table_new,
    live_table_release,
    load_manifest,
    manifest_owner,
    merge_cursor,
    open_tables_new,
    open_tables_release,
    range_input_add_table,
    table_job_free,
    table_job_guard,
    table_job_new,
    table_job_run,
)
from kvstore._engine.version.native import Edit, TableEntry

from kvstore.errors import CorruptionError, IntegrityCode, InvalidArgumentError, StorageError

cdef enum:
    REPAIR_LEVEL = 1
    REPAIR_FILE_BYTES = 1 << 25
    REPAIR_OPEN_TABLES = 1000
    REPAIR_READ_AHEAD_BYTES = 1 << 18
    BLOCK_BYTES = 4096
    RESTART_INTERVAL = 16
    BLOOM_BITS = 10

DAMAGED = ".damaged"


def destroy(str path, FileSystem filesystem not None):
    cdef DirectoryLock lock
    path = filesystem.resolve(path)
    if kind_of(filesystem, path) == 0:
        return
    names = own_names(filesystem, path)
    lock = lock_file(filesystem, f"{path}/LOCK")
    try:
        # The identity last: what a crash leaves is still known as ours, and can be destroyed again.
        for name in sorted(names, key=lambda name: (name == IDENTITY, name)):
            if name == LOG_DIRECTORY:
                destroy_log(filesystem, f"{path}/{name}")
            elif name != "LOCK":
                remove_file(filesystem, f"{path}/{name}")
        remove_file(filesystem, f"{path}/LOCK")
    finally:
        lock.close()
    if not list_directory(filesystem, path):
        remove_directory(filesystem, path)
        sync_directory(filesystem, os.path.dirname(path))


cdef int destroy_log(FileSystem disk, str path) except -1:
    for name in list_directory(disk, path):
        if is_own_log_name(name):
            remove_file(disk, f"{path}/{name}")
    if not list_directory(disk, path):
        remove_directory(disk, path)
    return 0


cdef list own_names(FileSystem disk, str path):
    """The database's own files in the directory; an error where it holds no database."""
    if kind_of(disk, path) != 2:
        raise StorageError(
            "not a database's directory", code=IntegrityCode.INVALID_MAGIC, path=path
        )
    names = list_directory(disk, path)
    own = [name for name in names if is_own_name(name)]
    if IDENTITY in names:
        try:
            check_identity(
                read_whole(disk, f"{path}/{IDENTITY}"), f"{path}/{IDENTITY}", True
            )
        except CorruptionError as error:
            if error.code == IntegrityCode.UNSUPPORTED_VERSION:
                raise
            if not any(name.endswith(".sst") or name.startswith("MANIFEST-") for name in own):
                raise
    elif set(names) - {"LOCK", f"{IDENTITY}.new"} and not (
        any(name.startswith("MANIFEST-") for name in own) and len(own) == len(names)
    ):
        raise StorageError(
            "the directory holds no kvstore database; nothing was touched",
            code=IntegrityCode.INVALID_MAGIC, path=path,
        )
    return own


# --- repair ---------------------------------------------------------------------------------

def repair(str path, FileSystem filesystem not None):
    cdef DirectoryLock lock
    path = filesystem.resolve(path)
    if kind_of(filesystem, path) == 0:
        raise InvalidArgumentError(f"there is no database in {path}")
    names = own_names(filesystem, path)
    lock = lock_file(filesystem, f"{path}/LOCK")
    try:
        return Repair(filesystem, path, names).run()
    finally:
        lock.close()


class Repair:
    def __init__(self, FileSystem disk, str path, list names):
        self.disk = disk
        self.path = path
        self.names = names
        self.report = []
        # number -> TableEntry of level 0; of tables that verify
        self.good = {}
        self.next_number = 1 + max(
            (number_of_name(name) for name in names), default=0
        )

    def run(self):
        self.mend_identity()
        self.check_tables()
        everything = self.from_manifest()
        first_logged, last_logged = self.check_log()
        if everything is None:
            everything = self.from_tables(first_logged, last_logged)
        if self.report:
            everything.next_number = self.next_number
            self.next_number += 1
            write_manifest(
                self.disk, self.path, self.next_number, self.database_id, everything
            )
        return self.report

    def set_aside(self, name, why):
        rename_file(self.disk, f"{self.path}/{name}", f"{self.path}/{name}{DAMAGED}")
        sync_directory(self.disk, self.path)
        self.report.append(f"{name}: set aside as {name}{DAMAGED}: {why}")

    def mend_identity(self):
        try:
            self.database_id = check_identity(
                read_whole(self.disk, f"{self.path}/{IDENTITY}"), f"{self.path}/{IDENTITY}", False
            )
        except StorageError as error:
            self.database_id = write_identity(self.disk, self.path)
            self.report.append(f"{IDENTITY}: written anew: {error}")

    def check_tables(self):
        for name in sorted(self.names):
            if not name.endswith(".sst"):
                continue
            number = number_of_name(name)
            try:
                self.good[number] = verified_entry(self.disk, f"{self.path}/{name}", number)
            except CorruptionError as error:
                self.set_aside(name, error)

    def from_manifest(self):
        """What the manifest says, less the tables that are gone; None if it can't be read."""
        try:
            _, edits, _ = read_manifest(self.disk, self.path)
        except StorageError as error:
            if isinstance(error, CorruptionError) or error.errno == ENOENT:
                self.report.append(f"the manifest can't be used: {error}")
                return None
            raise
        tables = {}
        whole = Edit()
        for edit in edits:
            for key in edit.removed:
                tables.pop(key, None)
            for entry in edit.added:
                tables[entry.level, entry.number] = entry
            for field in ("last_sequence", "flushed_sequence", "applied_index", "retain_from"):
                if getattr(edit, field) is not None:
                    setattr(whole, field, getattr(edit, field))
        for (_, number), entry in tables.items():
            if number in self.good:
                whole.added.append(entry)
            else:
                self.report.append(
                    f"{number:06d}.sst: lost, with up to {entry.entries} entries from "
                    f"{user_key(entry.smallest)!r} to {user_key(entry.largest)!r}"
                )
        return whole

    def check_log(self):
        """First and last sequence in the log, (0, 0) for none."""
        if LOG_DIRECTORY not in self.names:
            return 0, 0
        first = last = 0
        try:
            log = Log(f"{self.path}/{LOG_DIRECTORY}", filesystem=self.disk)
            try:
                for _, index, _, payload in log.replay():
                    first = first or index
                    last = index + int.from_bytes(payload[:4], "little") - 1
            finally:
                log.close()
        except CorruptionError as error:
            self.set_aside(LOG_DIRECTORY, error)
            return 0, 0
        return first, last

    def from_tables(self, first_logged, last_logged):
        newest = max((entry.max_sequence for entry in self.good.values()), default=0)
        whole = Edit(last_sequence=newest, flushed_sequence=newest, applied_index=0)
        if first_logged and last_logged >= newest:
            # All of the log is replayed once more: what tables hold of it already is the same.
            whole.flushed_sequence = whole.last_sequence = first_logged - 1
        whole.added, self.next_number = merge_tables(
            self.disk, self.path, list(self.good.values()), self.next_number
        )
        self.report.append(
            f"{len(self.good)} tables merged anew; keys deleted since may be back"
        )
        return whole


cdef bytes user_key(bytes internal):
    return internal[: len(internal) - TRAILER_BYTES]


cdef uint64_t number_of_name(str name):
    stem = name.removeprefix("MANIFEST-").partition(".")[0]
    return int(stem) if stem.isdecimal() else 0


def write_identity(FileSystem disk, str path):
    """The id that its files know it by, if any of them still says it."""
    database_id = manifest_owner(disk, path) or os.urandom(16)
    replace_whole(disk, path, IDENTITY, identity_text(database_id))
    return database_id


def read_manifest(FileSystem disk, str path):
    return load_manifest(disk, path, None, False)


def write_manifest(FileSystem disk, str path, uint64_t number, database_id, everything):
    cdef Manifest manifest = begin_manifest(disk, path, number, database_id, everything)
    manifest.close()


def verified_entry(FileSystem disk, str path, uint64_t number):
    with TableFile(disk, path, number) as table:
        table.verify()
        properties = table.properties
    return TableEntry(
        0, number, properties["file_bytes"], properties["entries"], properties["tombstones"],
        properties["min_sequence"], properties["max_sequence"], properties["smallest"],
        properties["largest"], properties["file_id"], properties["range_deletes"],
    )


def merge_tables(FileSystem disk, str path, list entries, uint64_t next_number):
    """All entries of all tables, in fresh tables of one level: (their TableEntry, next number)."""
    cdef PodVector[LiveTable*] files
    cdef PodVector[Cursor*] cursors
    cdef TableJob* job
    cdef OpenTables* tables
    cdef LiveTable* file
    cdef TableSummary summary
    cdef Status status
    cdef BytesView low, high
    cdef uint64_t stop = 0
    cdef int result
    cdef size_t i
    cdef bytes raw = os.fsencode(path)
    if not entries:
        return [], next_number
    merged = []
    tables = open_tables_new(disk.ops, disk.disk, NULL, raw, REPAIR_OPEN_TABLES)
    if tables == NULL:
        raise MemoryError("no memory for the tables")
    job = table_job_new()
    try:
        if job == NULL or files.reserve(len(entries), kv_realloc) < 0 or cursors.reserve(
            len(entries), kv_realloc
        ) < 0:
            raise MemoryError("no memory for the tables")
        for entry in entries:
            entry_summary(entry, &summary)
            view_open(entry.smallest, &low, "smallest")
            view_open(entry.largest, &high, "largest")
            file = live_table_new(tables, entry.number, &summary, low.slice, high.slice)
            view_close(&low)
            view_close(&high)
            if file == NULL:
                raise MemoryError("no memory for the tables")
            files.push_reserved(file)
        for i in range(files.size()):
            cursors.push_reserved(level_cursor(&files[i], 1, False, REPAIR_READ_AHEAD_BYTES))
            if cursors.back() == NULL:
                cursors.pop()
                raise MemoryError("no memory for the tables")
        job.input = merge_cursor(cursors.data(), <int> cursors.size())
        cursors.clear()
        if job.input == NULL:
            raise MemoryError("no memory for the tables")
        job.ops = disk.ops
        job.disk = disk.disk
        job.directory = raw
        job.options.block_bytes = BLOCK_BYTES
        job.options.restart_interval = RESTART_INTERVAL
        job.options.bloom_bits = BLOOM_BITS
        job.options.compression = 0
        job.max_file_bytes = REPAIR_FILE_BYTES
        job.next_number = &next_number
        if table_job_guard(job, 0) < 0:
            raise MemoryError("no memory for the tables")
        job.retain_from = 0
        job.version = NULL
        job.output_level = REPAIR_LEVEL
        job.cancelled = &stop
        status_clear(&status)
        with nogil:
            result = 0
            for i in range(files.size()):
                if result == 0 and files[i].summary.range_deletes:
                    # Which of the tables is the newer one isn't known: none is skipped.
                    result = range_input_add_table(&job.ranges, files[i], <int> files.size(), &status)
            if result == 0:
                result = table_job_run(job, &status)
        if result < 0:
            raise status_error_in(&status, path)
        sync_directory(disk, path)
        for i in range(job.outputs_count):
            merged.append(
                entry_of(
                    REPAIR_LEVEL, job.outputs[i].number, &job.outputs[i].summary,
                    slice_of(job.outputs[i].smallest.data, job.outputs[i].smallest.size),
                    slice_of(job.outputs[i].largest.data, job.outputs[i].largest.size),
                )
            )
    finally:
        for i in range(cursors.size()):
            cursors[i].free(cursors[i])
        if job != NULL:
            table_job_free(job)
        for i in range(files.size()):
            live_table_release(files[i])
        open_tables_release(tables)
    return merged, next_number + 1
