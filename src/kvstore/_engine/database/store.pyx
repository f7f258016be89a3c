"""Store: opening, recovery, and the current set of memtables and tables."""

import os
import threading

cimport cython
from libc.errno cimport ENOENT
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memmove, memset

from kvstore._engine.primitives.native cimport counter_next, load_acquire, max_sequence, slice_of
from kvstore._engine.primitives.native import crc32c
from kvstore._engine.files.native cimport (
    FileSystem,
    OPEN_READ,
    kind_of,
    list_directory,
    lock_file,
    make_directory,
    os_failure,
    read_whole,
    remove_file,
    replace_whole,
    sync_directory,
)
from kvstore._engine.log.native cimport Log
from kvstore._engine.memtable.native cimport (
    memtable_add,
    memtable_bytes,
    memtable_entries,
    memtable_new,
    memtable_release,
)
from kvstore._engine.table.native cimport TableSummary, cache_new, cache_release
from kvstore._engine.version.native cimport (
    Change,
    LEVELS,
    LiveTable,
    Manifest,
    Version,
    begin_manifest,
    live_table_new,
    live_table_release,
    load_manifest,
    open_tables_new,
    open_tables_release,
    version_change,
    version_check,
    version_empty,
    version_release,
)
from kvstore._engine.version.native import Edit, TableEntry, manifest_name

from kvstore.errors import (
    ClosedError,
    CorruptionError,
    InternalError,
    IntegrityCode,
    InvalidArgumentError,
    StorageError,
)

IDENTITY = "IDENTITY"
IDENTITY_HEAD = "kvstore engine"
FORMAT_VERSION = 1
LOG_KIND_BATCH = 1
LOG_DIRECTORY = "wal"

cdef enum:
    # A manifest is begun anew when it is longer than so many times its first edit, and this on top.
    ROLL_FACTOR = 4
    ROLL_BYTES = 1 << 20
MIN_SEGMENT_BYTES = 1 << 20
MAX_SEGMENT_BYTES = 64 << 20

# --- the directory --------------------------------------------------------------------------

cdef str identity_text(str token):
    cdef str body = f"{IDENTITY_HEAD}\nformat {FORMAT_VERSION}\nid {token}\n"
    return f"{body}crc {crc32c(body.encode()):08x}\n"


cdef str check_identity(bytes data, str path):
    if not data.startswith(IDENTITY_HEAD.encode() + b"\n"):
        raise CorruptionError(
            "not a kvstore database's identity", code=IntegrityCode.INVALID_MAGIC, path=path
        )
    lines = data.decode("utf-8", "replace").splitlines()
    body, _, check = data.rpartition(b"crc ")
    if len(lines) != 4 or check != b"%08x\n" % crc32c(body):
        raise CorruptionError(
            "identity checksum", code=IntegrityCode.CHECKSUM_MISMATCH, path=path
        )
    if lines[1] != f"format {FORMAT_VERSION}":
        raise CorruptionError(
            f"{lines[1]}, this program reads format {FORMAT_VERSION}",
            code=IntegrityCode.UNSUPPORTED_VERSION, path=path,
        )
    return lines[2].removeprefix("id ")


cdef bint is_own_name(str name):
    """Whether a file of this name may be a database's own."""
    stem, _, suffix = name.partition(".")
    if name.startswith("MANIFEST-"):
        return name[9:].removesuffix(".new").isdecimal()
    if name.removesuffix(".new") in ("LOCK", "CURRENT", IDENTITY, LOG_DIRECTORY):
        return True
    return suffix == "sst" and stem.isdecimal()


cdef uint64_t number_of(str name):
    """The number of a table or manifest, 0 for any other file."""
    stem, _, suffix = name.partition(".")
    if suffix == "sst" and stem.isdecimal():
        return int(stem)
    if name.startswith("MANIFEST-") and name[9:].isdecimal():
        return int(name[9:])
    return 0


cdef int check_table_file(FileSystem disk, str path, uint64_t expected) except -1:
    """That the file is there and of its size; what is in it is checked as it is read."""
    cdef bytes raw = os.fsencode(path)
    cdef void* file = NULL
    cdef int64_t size
    cdef int result = disk.ops.open(disk.disk, raw, OPEN_READ, &file)
    if result == -ENOENT:
        raise CorruptionError(
            "the manifest names a table that is missing", code=IntegrityCode.INVALID_RECORD,
            path=path,
        )
    if result < 0:
        raise os_failure(result, b"opening a table", path)
    size = disk.ops.size(disk.disk, file)
    disk.ops.close(disk.disk, file)
    if size < 0:
        raise os_failure(<int> size, b"sizing a table", path)
    if <uint64_t> size != expected:
        raise CorruptionError(
            f"a table of {size} bytes, the manifest says {expected}",
            code=IntegrityCode.TRUNCATED_RECORD if <uint64_t> size < expected
            else IntegrityCode.INVALID_RECORD,
            path=path, offset=min(<uint64_t> size, expected),
        )
    return 0


# Freeing it still needs what it refers to: the collector must not clear the references first.
@cython.no_gc_clear
cdef class Store:
    def __cinit__(self, *_args, **_named):
        self.failure = None
        self.snapshots = {}
        self.threads = []
        self.installing = threading.Lock()
        self.flushing = threading.Lock()
        self.changed = threading.Condition()
        self.attention = True
        self.retain_from = max_sequence()

    def __dealloc__(self):
        cdef int i
        if self.forked:
            # A lock may be held for ever by a thread that isn't there, and files are the parent's.
            return
        if self.memory != NULL:
            memtable_release(self.memory)
        for i in range(self.frozen_count):
            memtable_release(self.frozen[i].table)
        if self.version != NULL:
            version_release(self.version)
        if self.tables != NULL:
            open_tables_release(self.tables)
        if self.cache != NULL:
            cache_release(self.cache)

    def __reduce__(self):
        raise TypeError("an open database can't be copied or pickled: hand on its path")

    # --- whether it may be used ---------------------------------------------------------------

    cdef int check_open(self) except -1:
        if self.forked:
            raise ClosedError(
                f"the database {self.name} was opened before this process forked; open it here"
            )
        if not self.open:
            raise ClosedError(f"the database {self.name} is closed")
        return 0

    cdef int check_writable(self) except -1:
        self.check_open()
        if self.failure is not None:
            raise StorageError(
                f"the database is read-only since a failure ({self.failure}); reopen it",
                code=getattr(self.failure, "code", IntegrityCode.IO_ERROR), path=self.path,
                errno=getattr(self.failure, "errno", None),
            )
        return 0

    cdef int fail(self, object error) except -1:
        """No more writes until reopened; reads go on."""
        if self.failure is None:
            self.failure = error
        self.attention = True
        with self.changed:
            self.changed.notify_all()
        return 0

    cdef int refresh_attention(self) except -1:
        self.attention = (
            not self.open or self.forked or self.failure is not None
            or self.assigned != self.visible
            or self.version.levels[0].count >= self.slowdown_files
        )
        return 0

    def _after_fork(self):
        """In the child: nothing of it is to be used, nor given back, but the copy of the lock."""
        self.forked = True
        self.attention = True
        self.open = False
        self.close_iterators()
        if self.lock is not None:
            # Else the directory stayed locked while the child lives, whatever becomes of the parent.
            self.lock.close()

    # --- the set of tables --------------------------------------------------------------------

    cdef int freeze(self) except -1:
        cdef MemTable* fresh = memtable_new()
        if fresh == NULL:
            raise MemoryError("no memory for a memtable")
        if self.frozen_count == MAX_FROZEN:
            memtable_release(fresh)
            raise InternalError("more frozen memtables than there is room for")
        memmove(&self.frozen[1], &self.frozen[0], self.frozen_count * sizeof(Frozen))
        self.frozen[0].table = self.memory
        self.frozen[0].last_sequence = self.assigned
        self.frozen[0].applied_index = self.applied_index
        self.frozen_count += 1
        self.memory = fresh
        return 0

    cdef int install(
        self, object edit, const Change* removed, int removed_count, const Change* added,
        int added_count, bint frozen_done
    ) except -1:
        cdef Version* next_version
        cdef Version* old
        cdef int i
        with self.installing:
            self.check_writable()
            edit.next_number = load_acquire(&self.next_number)
            # What the job let go of by it must not be asked for after a crash either.
            edit.retain_from = None if self.retain_from == max_sequence() else self.retain_from
            next_version = version_change(
                self.version, removed, removed_count, added, added_count
            )
            try:
                if next_version == NULL:
                    raise MemoryError("no memory for a version")
                if version_check(next_version) < 0:
                    raise InternalError("a change of tables leads to no valid version")
                self.manifest.append(edit)
            except Exception as error:
                if next_version != NULL:
                    version_release(next_version)
                self.fail(error)
                raise
            old = self.version
            self.version = next_version
            if edit.flushed_sequence is not None:
                self.flushed_sequence = max(self.flushed_sequence, edit.flushed_sequence)
            if edit.applied_index is not None:
                self.flushed_applied = max(self.flushed_applied, edit.applied_index)
            if frozen_done:
                self.frozen_count -= 1
                memtable_release(self.frozen[self.frozen_count].table)
            for i in range(removed_count):
                removed[i].file.obsolete = not kept(next_version, removed[i].file)
            with nogil:
                version_release(old)
            if self.manifest.size >= self.manifest.first_bytes * ROLL_FACTOR + ROLL_BYTES:
                self.roll_manifest()
        self.refresh_attention()
        return 0

    cdef int roll_manifest(self) except -1:
        cdef Manifest grown = self.manifest
        cdef uint64_t number = counter_next(&self.next_number)
        try:
            self.manifest = begin_manifest(self.disk, self.path, number, self.everything())
        except Exception as error:
            # Which of the two CURRENT names is not known any more.
            self.fail(error)
            raise
        self.manifest_rolls += 1
        try:
            grown.close()
            remove_file(self.disk, f"{self.path}/{manifest_name(grown.number)}")
        except StorageError:
            pass            # nobody reads it again; the next opening removes it
        return 0

    cdef list protected_sequences(self):
        # A write that waits for its sync isn't seen by readers yet, and they read at `visible`.
        return sorted({*self.snapshots, self.visible})

    # --- opening ------------------------------------------------------------------------------

    cdef int open_directory(self, str path) except -1:
        """Refuse what isn't ours before anything is touched; then lock."""
        cdef int kind = kind_of(self.disk, path)
        if kind == 1:
            raise StorageError(
                "there is a file where the database's directory should be",
                code=IntegrityCode.INVALID_MAGIC, path=path,
            )
        if kind == 0:
            if not self.options.create_if_missing:
                raise InvalidArgumentError(
                    f"there is no database in {path} (create_if_missing is off)"
                )
            make_directory(self.disk, path)
            sync_directory(self.disk, os.path.dirname(path))
            names = []
        else:
            names = list_directory(self.disk, path)
        if IDENTITY in names:
            check_identity(read_whole(self.disk, f"{path}/{IDENTITY}"), f"{path}/{IDENTITY}")
        elif set(names) - {"LOCK", f"{IDENTITY}.new"}:
            raise StorageError(
                "the directory isn't empty and holds no kvstore database; nothing was touched",
                code=IntegrityCode.INVALID_MAGIC, path=path,
            )
        elif not self.options.create_if_missing:
            raise InvalidArgumentError(
                f"there is no database in {path} (create_if_missing is off)"
            )
        self.lock = lock_file(self.disk, f"{path}/LOCK")
        return 0

    cdef int recover(self, object create_if_missing, object error_if_exists) except -1:
        cdef str path = self.path
        names = list_directory(self.disk, path)
        cdef bint exists = "CURRENT" in names
        if exists and error_if_exists:
            raise InvalidArgumentError(f"there is a database in {path} (error_if_exists is on)")
        if not exists:
            # A try to create it that was cut off leaves neither tables nor log segments.
            if any(name.endswith(".sst") for name in names) or (
                LOG_DIRECTORY in names and list_directory(self.disk, f"{path}/{LOG_DIRECTORY}")
            ):
                raise CorruptionError(
                    "CURRENT is missing beside a database's files",
                    code=IntegrityCode.INVALID_RECORD, path=f"{path}/CURRENT",
                )
            if not create_if_missing:
                raise InvalidArgumentError(
                    f"there is no database in {path} (create_if_missing is off)"
                )
            if IDENTITY not in names:
                replace_whole(
                    self.disk, path, IDENTITY, identity_text(os.urandom(16).hex()).encode()
                )
            # What a crash may have left of an earlier try to create it.
            for name in names:
                if number_of(name) or name.endswith(".new"):
                    remove_file(self.disk, f"{path}/{name}")
            names = []
        else:
            self.load()
        log_path = f"{path}/{LOG_DIRECTORY}"
        if self.uses_log or kind_of(self.disk, log_path) == 2:
            self.replay_log(log_path)
        for name in names:
            self.next_number = max(self.next_number, number_of(name))
        self.next_number += 1
        number = self.next_number
        self.manifest = begin_manifest(self.disk, path, number, self.everything())
        self.remove_leftovers(names)
        return 0

    cdef object everything(self):
        cdef LiveTable* file
        cdef int level, i
        added = []
        for level in range(LEVELS):
            for i in range(self.version.levels[level].count):
                file = self.version.levels[level].files[i]
                added.append(table_entry(level, file))
        return Edit(
            last_sequence=self.flushed_sequence, flushed_sequence=self.flushed_sequence,
            applied_index=self.flushed_applied, next_number=load_acquire(&self.next_number),
            added=added,
            retain_from=None if self.retain_from == max_sequence() else self.retain_from,
        )

    cdef int load(self) except -1:
        """The version that the manifest describes, every table of it present."""
        cdef str path
        cdef TableSummary summary
        cdef LiveTable* file
        cdef Version* version
        cdef Version* empty
        cdef Change* changes
        cdef int i
        number, edits, self.torn_manifest_bytes = load_manifest(self.disk, self.path)
        manifest_path = f"{self.path}/{manifest_name(number)}"
        self.next_number = number
        tables = {}
        for edit in edits:
            for level, table_number in edit.removed:
                if tables.pop((level, table_number), None) is None:
                    raise CorruptionError(
                        f"an edit removes table {table_number}, which is not in level {level}",
                        code=IntegrityCode.INVALID_RECORD, path=manifest_path,
                    )
            for entry in edit.added:
                if any((level, entry.number) in tables for level in range(LEVELS)):
                    raise CorruptionError(
                        f"an edit adds table {entry.number}, which is there already",
                        code=IntegrityCode.INVALID_RECORD, path=manifest_path,
                    )
                tables[entry.level, entry.number] = entry
            if edit.flushed_sequence is not None:
                self.flushed_sequence = edit.flushed_sequence
            if edit.applied_index is not None:
                self.flushed_applied = edit.applied_index
            if edit.retain_from is not None:
                self.retain_from = edit.retain_from
            if edit.next_number is not None:
                self.next_number = max(self.next_number, edit.next_number)
        self.applied_index = self.flushed_applied
        self.assigned = self.visible = self.flushed_sequence
        self.history_from = min(self.retain_from, self.flushed_sequence)
        empty = self.version
        handles = bytearray(max(1, len(tables)) * sizeof(Change))
        changes = <Change*> <char*> handles
        i = 0
        try:
            for entry in tables.values():
                path = f"{self.path}/{entry.number:06d}.sst"
                check_table_file(self.disk, path, entry.file_bytes)
                summary.file_bytes = entry.file_bytes
                summary.entries = entry.entries
                summary.tombstones = entry.tombstones
                summary.min_sequence = entry.min_sequence
                summary.max_sequence = entry.max_sequence
                file = live_table_new(
                    self.tables, entry.number, &summary,
                    slice_of(<const char*> <bytes> entry.smallest, len(entry.smallest)),
                    slice_of(<const char*> <bytes> entry.largest, len(entry.largest)),
                )
                if file == NULL:
                    raise MemoryError("no memory for the tables")
                changes[i].level = entry.level
                changes[i].file = file
                i += 1
            version = version_change(empty, NULL, 0, changes, i)
        finally:
            while i > 0:
                i -= 1
                live_table_release(changes[i].file)
        if version == NULL:
            raise MemoryError("no memory for the tables")
        version_release(empty)
        self.version = version
        if version_check(version) < 0:
            raise CorruptionError(
                "the tables of a level overlap", code=IntegrityCode.INVALID_RECORD,
                path=manifest_path,
            )
        return 0

    cdef int replay_log(self, str path) except -1:
        # A log is about as large as a memtable: its segments need not be larger than that.
        self.log = Log(
            path, filesystem=self.disk, maps=True,
            segment_bytes=min(max(self.write_buffer_bytes, MIN_SEGMENT_BYTES), MAX_SEGMENT_BYTES),
        )
        for kind, index, _, payload in self.log.replay():
            if kind != LOG_KIND_BATCH:
                raise CorruptionError(
                    f"a log record of unknown kind {kind}", code=IntegrityCode.INVALID_OPERATION,
                    path=path,
                )
            self.replay_batch(index, payload, path)
        self.visible = self.assigned
        return 0

    cdef int replay_batch(self, uint64_t first, bytes payload, str path) except -1:
        cdef const uint8_t* at = payload
        cdef const uint8_t* end = at + len(payload)
        cdef Operation operation
        cdef uint32_t count = 0
        cdef uint64_t sequence
        if check_batch(at, len(payload), &count) < 0 or count == 0 or first > max_sequence() - count:
            raise CorruptionError(
                f"the log record of sequence {first} holds no valid batch",
                code=IntegrityCode.INVALID_RECORD, path=path,
            )
        if first + count - 1 <= self.flushed_sequence:
            return 0
        if first > self.assigned + 1:
            raise CorruptionError(
                f"the log goes on with sequence {first}, {self.assigned + 1} is missing",
                code=IntegrityCode.INVALID_RECORD, path=path,
            )
        at += BATCH_HEADER_BYTES
        for sequence in range(first, first + count):
            at = decode_operation(at, end, &operation)
            if sequence > self.flushed_sequence and memtable_add(
                self.memory, operation.key, sequence, operation.kind, operation.value, False
            ) < 0:
                raise MemoryError("no memory to replay the log")
        self.assigned = max(self.assigned, first + count - 1)
        if memtable_bytes(self.memory) >= self.write_buffer_bytes:
            # Flushed once everything is open; until then memory holds the log's unflushed part.
            if self.frozen_count < MAX_FROZEN:
                self.freeze()
        return 0

    cdef int remove_leftovers(self, list names) except -1:
        """Files that no manifest mentions: of interrupted jobs, and manifests of before."""
        cdef int level, i
        live = {self.manifest.number}
        for level in range(LEVELS):
            for i in range(self.version.levels[level].count):
                live.add(self.version.levels[level].files[i].number)
        for name in names:
            number = number_of(name)
            if (number and number not in live) or name.endswith(".new"):
                remove_file(self.disk, f"{self.path}/{name}")
        return 0

    cdef void link(self, IteratorLink* link) noexcept:
        link.prev = NULL
        link.next = self.open_iterators
        if link.next != NULL:
            link.next.prev = link
        self.open_iterators = link
        link.linked = True

    cdef void unlink(self, IteratorLink* link) noexcept:
        if not link.linked:
            return
        link.linked = False
        if link.prev != NULL:
            link.prev.next = link.next
        else:
            self.open_iterators = link.next
        if link.next != NULL:
            link.next.prev = link.prev

    cdef void close_iterators(self) noexcept:
        while self.open_iterators != NULL:
            # Takes itself out of the list.
            self.open_iterators.close(self.open_iterators.owner)

    cdef int shut(self) except -1:
        """Close the files, whatever happens to each; raises the first trouble."""
        trouble = None
        for part in (self.log, self.manifest):
            if part is not None:
                try:
                    part.close()
                except (OSError, StorageError) as error:
                    trouble = trouble or error
        if self.lock is not None:
            self.lock.close()
        if trouble is not None and self.failure is None:
            raise trouble
        return 0


cdef object table_entry(int level, LiveTable* file):
    return TableEntry(
        level, file.number, file.summary.file_bytes, file.summary.entries, file.summary.tombstones,
        file.summary.min_sequence, file.summary.max_sequence,
        <bytes> file.smallest.data[: file.smallest.size],
        <bytes> file.largest.data[: file.largest.size],
    )


cdef bint kept(Version* version, LiveTable* file) noexcept:
    """Whether the table is in any level: it was only moved."""
    cdef int level, i
    for level in range(LEVELS):
        for i in range(version.levels[level].count):
            if version.levels[level].files[i] == file:
                return True
    return False
