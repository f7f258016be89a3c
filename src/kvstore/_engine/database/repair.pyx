"""Saving what is left of a damaged database that nobody has open.

Everything that its checksums prove to be whole is kept. Tables that verify stay; of a damaged one the
frames that check are written into a fresh table of the same number, which takes its place in its
level: it holds a part of what was there, so all that is known of the order of the tables stays true.
A damaged log is read record by record, beyond what doesn't check too; the records that check go into
new tables of level 0 and the log is set aside. Without a manifest nothing says which of two tables is
the newer, so all are merged anew by sequence.

Nothing is deleted: what was damaged keeps its bytes under a name with `.damaged` behind it.
"""

import os

from libc.errno cimport ENOENT
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport KIND_RANGE_DELETE, TRAILER_BYTES, max_sequence
from kvstore._engine.files.native cimport (
    LINES_BYTES_MAX,
    DirectoryLock,
    FileSystem,
    kind_of,
    list_directory,
    lock_file,
    read_whole,
    remove_file,
    rename_file,
    replace_whole,
    sync_directory,
)
from kvstore._engine.log.native cimport Log
from kvstore._engine.log.native import log_segments, salvage_segment
from kvstore._engine.memtable.native cimport (
    MemTable,
    RangeTombstone,
    memtable_add,
    memtable_bytes,
    memtable_delete_ranges,
    memtable_new,
    memtable_release,
)
from kvstore._engine.table.native import TableFile, salvage_table
from kvstore._engine.version.native cimport (
    Manifest,
    begin_manifest,
    load_manifest,
    manifest_owner,
)
from kvstore._engine.version.native import END, Edit, TableEntry, end_note, noted_end

from kvstore._engine.database.repair_report import LostKeys, RepairReport
from kvstore.errors import CorruptionError, IntegrityCode, InvalidArgumentError, StorageError

cdef enum:
    REPAIR_BUFFER_BYTES = 1 << 26   # of the log's records at a time

DAMAGED = ".damaged"


def repair(str path, FileSystem filesystem not None, progress):
    """Repair the database in `path`; `progress` is called with (step, done, total), or None."""
    cdef DirectoryLock lock
    path = filesystem.resolve(path)
    if kind_of(filesystem, path) == 0:
        raise InvalidArgumentError(f"there is no database in {path}")
    names = own_names(filesystem, path)
    if not set(names) - {"LOCK", f"{IDENTITY}.new"}:
        raise InvalidArgumentError(f"there is no database in {path}")
    lock = lock_file(filesystem, f"{path}/LOCK")
    try:
        return Repair(filesystem, path, names, progress).run()
    finally:
        lock.close()


cdef int refuse_later_version(error) except -1:
    """What a later program wrote is whole, for that one: it isn't damage."""
    if getattr(error, "code", None) == IntegrityCode.UNSUPPORTED_VERSION:
        raise error
    return 0


class Repair:
    def __init__(self, FileSystem disk, str path, list names, progress):
        self.disk = disk
        self.path = path
        self.names = names
        self.progress = progress or (lambda step, done, total: None)
        self.report = RepairReport()
        self.say = self.report.actions.append
        # What the manifest says of the log, as Log takes it.
        self.log_noted = [0, 0, 0]
        # number -> TableEntry of level 0; of tables that verify
        self.good = {}
        self.next_number = 1 + max((number_of(name) for name in names), default=0)

    def run(self):
        self.mend_identity()
        whole, listed = self.read_manifest()
        self.check_tables(listed)
        if whole is not None:
            self.choose_listed(whole, listed)
        first_logged, last_logged, from_log = self.check_log(
            0 if whole is None else whole.flushed_sequence or 0
        )
        if whole is None:
            whole = self.merge_anew(first_logged, last_logged, from_log)
        elif from_log:
            whole.added += from_log
        if from_log is not None and whole is not None:
            newest = max([entry.max_sequence for entry in from_log], default=0)
            whole.flushed_sequence = max(whole.flushed_sequence or 0, newest)
            whole.last_sequence = whole.flushed_sequence
        if self.report:
            whole.next_number = self.next_number
            self.next_number += 1
            write_manifest(self.disk, self.path, self.next_number, self.database_id, whole)
        if from_log is not None:
            # Its rows are in tables that the manifest names: should this be cut off, it is done again.
            self.set_aside(LOG_DIRECTORY, "what is whole in it is in tables")
        return self.report

    def set_aside(self, name, why):
        target = f"{name}{DAMAGED}"
        attempt = 1
        while kind_of(self.disk, f"{self.path}/{target}"):
            attempt += 1
            target = f"{name}{DAMAGED}{attempt}"
        rename_file(self.disk, f"{self.path}/{name}", f"{self.path}/{target}")
        sync_directory(self.disk, self.path)
        self.say(f"{name}: set aside as {target}: {why}")
        return target

    def mend_identity(self):
        try:
            self.database_id = check_identity(
                read_whole(self.disk, f"{self.path}/{IDENTITY}", LINES_BYTES_MAX),
                f"{self.path}/{IDENTITY}", False,
            )
        except StorageError as error:
            refuse_later_version(error)
            self.database_id = write_identity(self.disk, self.path)
            self.say(f"{IDENTITY}: written anew: {error}")

    # --- tables -------------------------------------------------------------------------------

    def read_manifest(self):
        """(what the manifest says but for tables, {number: TableEntry}); (None, None): unusable."""
        try:
            edits, log_end, end_damage = read_manifest(self.disk, self.path)
        except StorageError as error:
            refuse_later_version(error)
            if isinstance(error, CorruptionError) or error.errno == ENOENT:
                self.say(f"the manifest can't be used: {error}")
                return None, None
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
            for place, field in enumerate(("log_first", "log_segment", "log_end")):
                if getattr(edit, field) is not None:
                    self.log_noted[place] = getattr(edit, field)
        if self.log_noted[1] or not end_damage:
            # Else it may be from before a flush let go of the log.
            self.log_noted[1:] = max(tuple(self.log_noted[1:]), log_end)
        return whole, {entry.number: entry for entry in tables.values()}

    def check_tables(self, listed):
        """Verify each table that counts: those of the manifest, or all where there is none."""
        there = {number_of(name): name for name in self.names if name.endswith(".sst")}
        wanted = sorted(there if listed is None else listed)
        for done, number in enumerate(wanted):
            self.progress("tables", done, len(wanted))
            said = None if listed is None else listed[number]
            name = there.get(number, f"{number:06d}.sst")
            try:
                if number in there:
                    self.good[number] = self.verified(name, number, said)
                    self.report.tables_whole += 1
                elif kind_of(self.disk, f"{self.path}/{name}{DAMAGED}"):
                    # A repair was cut off here.
                    self.salvage(name, name + DAMAGED, number, said)
                else:
                    self.note_lost(name, said)
                    self.say(f"{name}: is not there, with {said.entries} entries")
            except CorruptionError as error:
                refuse_later_version(error)
                self.salvage(name, self.set_aside(name, error), number, said)
        self.progress("tables", len(wanted), len(wanted))

    def verified(self, name, number, said):
        entry = verified_entry(self.disk, f"{self.path}/{name}", number)
        if said is not None and entry.file_id != said.file_id and not kind_of(
            self.disk, f"{self.path}/{name}{DAMAGED}"
        ):
            # Unless a repair that was cut off has put it there.
            raise CorruptionError(
                "another table than the manifest's", code=IntegrityCode.INVALID_RECORD,
                path=f"{self.path}/{name}",
            )
        return entry if said is None else entry._replace(
            smallest=said.smallest, largest=said.largest
        )

    def salvage(self, name, aside, number, said):
        """A fresh table under the same name, of what checks in the one that was set aside."""
        fresh = f"{self.path}/{name}.new"
        if kind_of(self.disk, fresh):
            remove_file(self.disk, fresh)       # of a repair that was cut off
        try:
            found = salvage_table(
                self.disk, f"{self.path}/{aside}", number, fresh, number,
                file_id=None if said is None else said.file_id,
            )
        except CorruptionError as error:
            refuse_later_version(error)
            self.say(f"{name}: nothing in it can be proved to be whole: {error}")
            self.note_lost(name, said)
            return
        self.report.old_may_be_back = True
        if found.range_deletes_lost:
            self.say(f"{name}: its range deletes are lost")
        if found.summary is None:
            self.say(f"{name}: none of its entries is whole")
            self.note_lost(name, said)
            return
        self.good[number] = verified_entry(self.disk, fresh, number)._replace(
            smallest=found.smallest, largest=found.largest
        )
        rename_file(self.disk, fresh, f"{self.path}/{name}")
        sync_directory(self.disk, self.path)
        gone = lowest = highest = None
        if said is not None:
            gone = said.entries - found.entries
            lowest, highest = user_key(said.smallest), user_key(said.largest)
        for lost in found.lost:
            self.report.lost.append(LostKeys(
                name, lowest if lost.after is None else lost.after,
                highest if lost.before is None else lost.before, gone,
            ))
        self.report.tables_salvaged += 1
        self.report.entries_salvaged += found.entries
        self.say(
            f"{name}: {found.entries} entries in {found.blocks} blocks are whole and in a fresh table"
            + ("" if gone is None else f"; {gone} entries are lost")
        )

    def note_lost(self, name, said):
        self.report.old_may_be_back = True
        self.report.lost.append(
            LostKeys(name, None, None, None) if said is None else LostKeys(
                name, user_key(said.smallest), user_key(said.largest), said.entries
            )
        )

    def choose_listed(self, whole, listed):
        """The tables of the manifest that are there, in the levels where they were."""
        for number, entry in listed.items():
            if number in self.good:
                whole.added.append(self.good[number]._replace(level=entry.level))

    def merge_anew(self, first_logged, last_logged, from_log):
        entries = [*self.good.values(), *(from_log or ())]
        newest = max((entry.max_sequence for entry in entries), default=0)
        whole = Edit(last_sequence=newest, flushed_sequence=newest, applied_index=0)
        if from_log is None and first_logged and last_logged >= newest:
            # All of the log is replayed once more: what tables hold of it already is the same.
            whole.flushed_sequence = whole.last_sequence = first_logged - 1
        self.progress("merge", 0, 1)
        whole.added, self.next_number = merge_tables(
            self.disk, self.path, entries, self.next_number
        )
        self.progress("merge", 1, 1)
        self.report.old_may_be_back = True
        self.say(f"{len(entries)} tables merged anew; keys deleted since may be back")
        return whole

    # --- the log ------------------------------------------------------------------------------

    def check_log(self, flushed):
        """(first sequence, last sequence, None) of a whole log, or (0, 0, tables of a damaged one)."""
        if LOG_DIRECTORY not in self.names:
            if self.log_noted[1]:
                self.say("the log is missing, with what it alone held")
            return 0, 0, None
        try:
            return (*self.logged(flushed), None)
        except CorruptionError as error:
            refuse_later_version(error)
            why = error
        entries = self.salvage_log(flushed)
        self.say(f"the log can't be used: {why}")
        self.say(
            f"the log: {self.report.log_records} records are whole, {self.report.log_operations} "
            "operations of them are in new tables"
        )
        for damage in self.report.log_damage:
            self.say(f"the log: {damage}")
        for first, last in self.report.missing_sequences:
            self.say(f"the log: the writes of sequence {first} to {last} are gone")
        self.report.old_may_be_back = True
        return 0, 0, entries

    def logged(self, flushed):
        """First and last sequence; CorruptionError where the log can't be replayed whole."""
        first = 0
        last = flushed
        path = f"{self.path}/{LOG_DIRECTORY}"
        log = Log(path, filesystem=self.disk, read_only=True, noted=tuple(self.log_noted))
        try:
            for kind, index, _, payload in log.replay():
                count = batch_count(kind, payload)
                if count == 0:
                    raise CorruptionError(
                        f"the log record of sequence {index} holds no valid batch",
                        code=IntegrityCode.INVALID_RECORD, path=path,
                    )
                if index > last + 1 and (flushed or first):
                    raise CorruptionError(
                        f"the log goes on with sequence {index}, {last + 1} is missing",
                        code=IntegrityCode.INVALID_RECORD, path=path,
                    )
                first = first or index
                last = max(last, index + count - 1)
        finally:
            log.close()
        return first, last if first else 0

    def salvage_log(self, flushed):
        """Tables of level 0 of what checks in the log, above sequence `flushed`."""
        path = f"{self.path}/{LOG_DIRECTORY}"
        rows = LogRows(flushed)
        entries = []
        numbers = log_segments(self.disk, path)
        for done, number in enumerate(numbers):
            self.progress("log", done, len(numbers))
            segment = salvage_segment(self.disk, path, number)
            for kind, index, payload in segment:
                if rows.add(kind, index, payload):
                    self.report.log_records += 1
                else:
                    self.report.log_damage.append(
                        f"the record of sequence {index} holds no valid batch"
                    )
                if rows.size > REPAIR_BUFFER_BYTES:
                    entries += self.write_rows(rows)
            self.report.log_damage += segment.damage
        self.progress("log", len(numbers), len(numbers))
        entries += self.write_rows(rows)
        self.report.log_operations = rows.operations
        self.report.missing_sequences = rows.missing
        return entries

    def write_rows(self, rows):
        entries, self.next_number = write_memtable(self.disk, self.path, rows, self.next_number)
        return entries


cdef class LogRows:
    """Operations of the log on their way into a table."""
    cdef MemTable* table
    cdef uint64_t above             # sequences up to this one are in tables already
    cdef readonly uint64_t last     # the highest sequence seen
    cdef readonly uint64_t operations
    cdef readonly list missing

    def __cinit__(self, uint64_t above=0):
        self.above = self.last = above
        self.missing = []
        self.clear()

    def __dealloc__(self):
        if self.table != NULL:
            memtable_release(self.table)

    cdef int clear(self) except -1:
        if self.table != NULL:
            memtable_release(self.table)
        self.table = memtable_new(REPAIR_BUFFER_BYTES)
        if self.table == NULL:
            raise MemoryError("no memory for the log's rows")
        return 0

    @property
    def size(self):
        return memtable_bytes(self.table)

    def add(self, int kind, uint64_t first, bytes payload):
        """Take a record's operations; False where it holds no batch."""
        cdef const uint8_t* at = payload
        cdef const uint8_t* end = at + len(payload)
        cdef uint32_t count = batch_count(kind, payload)
        cdef Operation operation
        cdef RangeTombstone tombstone
        cdef uint64_t sequence
        cdef int added
        if count == 0 or first == 0 or first > max_sequence() - count:
            return False
        if first > self.last + 1 and self.last:
            self.missing.append((self.last + 1, first - 1))
        at += BATCH_HEADER_BYTES
        for sequence in range(first, first + count):
            at = decode_operation(at, end, &operation)
            if sequence <= self.above or (
                # Range tombstones come in the order of their sequences.
                operation.kind == KIND_RANGE_DELETE and sequence <= self.last
            ):
                continue
            if operation.kind == KIND_RANGE_DELETE:
                range_of(&operation, sequence, &tombstone)
                added = memtable_delete_ranges(self.table, &tombstone, 1)
            else:
                added = memtable_add(
                    self.table, operation.key, sequence, operation.kind, operation.value, False
                )
            if added < 0:
                raise MemoryError("no memory for the log's rows")
            self.operations += 1
        self.last = max(self.last, first + count - 1)
        return True


cdef uint32_t batch_count(int kind, bytes payload) except? 0:
    """The operations of a log record; 0 where it is no valid batch."""
    cdef uint32_t count = 0
    if kind != LOG_KIND_BATCH:
        return 0
    if check_batch(<const uint8_t*> <const char*> payload, len(payload), &count) < 0:
        return 0
    return count


cdef bytes user_key(bytes internal):
    return internal[: len(internal) - TRAILER_BYTES]


cdef bytes log_owner(FileSystem disk, str path):
    """The id of the database that the log says it is of; None where it says nothing."""
    try:
        log = Log(f"{path}/{LOG_DIRECTORY}", filesystem=disk, read_only=True)
    except StorageError:
        return None
    return log.database_id if any(log.database_id) else None


def write_identity(FileSystem disk, str path):
    """The id that its files know it by, if any of them still says it."""
    database_id = manifest_owner(disk, path) or log_owner(disk, path) or os.urandom(16)
    replace_whole(disk, path, IDENTITY, identity_text(database_id))
    return database_id


def read_manifest(FileSystem disk, str path):
    """Its edits, (segment, offset) up to which the log was durable as END says, and END's damage."""
    noted, damage = end_note(disk, path, b"").load()
    _, edits, _, _ = load_manifest(disk, path, None, False, noted)
    return edits, noted_end(noted)[2:], damage


def write_manifest(FileSystem disk, str path, uint64_t number, database_id, everything):
    # What it says needn't be true any more.
    remove_file(disk, f"{path}/{END}")
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
        properties["superseded"],
    )
