"""Store: opening, recovery, and the current set of memtables and tables."""

import os
import threading

cimport cython
from libc.errno cimport EACCES, EINVAL, EPERM, EROFS
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memmove

from kvstore._engine.primitives.native cimport (
    counter_next,
    gil_ask,
    gil_have,
    kv_free,
    load_acquire,
    max_sequence,
    slice_of,
)
from kvstore._engine.primitives.threads import is_refused
from kvstore._engine.files.native cimport (
    LINES_BYTES_MAX,
    Appender,
    FileSystem,
    create_file,
    kind_of,
    list_directory,
    lock_file,
    lock_file_shared,
    make_directory,
    os_failure,
    read_whole,
    remove_file,
    rename_file,
    sync_directory,
)
from kvstore._engine.log.native cimport Log
from kvstore._engine.memtable.native cimport (
    memtable_bytes,
    memtable_entries,
    memtable_new,
    memtable_release,
)
from kvstore._engine.table.native cimport (
    TableSummary,
    cache_forget_table,
    cache_new,
    cache_release,
)
from kvstore._engine.version.native cimport (
    Change,
    LEVELS,
    LiveTable,
    Manifest,
    Version,
    create_manifest,
    current_text,
    draft_manifest,
    entry_of,
    entry_summary,
    live_table_new,
    live_table_release,
    load_manifest,
    open_tables_close_some,
    open_tables_leave_to,
    open_tables_new,
    open_tables_release,
    open_tables_remove_unwanted,
    point_current,
    remove_quietly,
    version_change,
    version_check,
    version_empty,
    version_release,
    version_release_removing,
)
from kvstore._engine.version.native import (
    END,
    ID_BYTES,
    Edit,
    end_note,
    first_end,
    manifest_name,
    note_end,
    noted_end,
)

from kvstore._engine.database.background import start_threads

from kvstore.errors import (
    ClosedError,
    CorruptionError,
    Error,
    InternalError,
    IntegrityCode,
    InvalidArgumentError,
    StorageError,
)

cdef enum:
    LOG_KIND_BATCH = 1
    # A database of less than this, tables and log, has a reserve only while it is written to.
    SMALL_BYTES = 4 << 20
    # A manifest is begun anew when it is longer than so many times its first edit, and this on top.
    ROLL_FACTOR = 4
    ROLL_BYTES = 1 << 20
MIN_SEGMENT_BYTES = 1 << 20
MAX_SEGMENT_BYTES = 64 << 20

# Freeing it still needs what it refers to: the collector must not clear the references first.
@cython.no_gc_clear
cdef class Store:
    def __cinit__(self, *_args, **_named):
        self.failure = None
        self.flush_retry = Retry()
        self.compaction_retry = Retry()
        self.damaged_tables = {}
        self.snapshots = {}
        self.history_bounds = []
        self.feeds = {}
        self.arrivals = EventCount()
        self.threads = []
        self.installing = threading.Lock()
        self.flushing = threading.Lock()
        self.changed = EventCount()
        self.attention = True
        self.retain_from = max_sequence()
        self.noted = (0, 0, 0, 0)

    def __dealloc__(self):
        cdef int i
        if self.forked:
            # A lock may be held for ever by a thread that isn't there, and files are the parent's.
            return
        dead_forget(&self.dead)
        if self.memory != NULL:
            memtable_release(self.memory)
        for i in range(self.frozen_count):
            memtable_release(self.frozen[i].table)
        if self.version != NULL:
            version_release(self.version)
        if self.tables != NULL:
            open_tables_leave_to(self.tables, NULL, NULL)
            open_tables_remove_unwanted(self.tables)
            open_tables_release(self.tables)
        if self.cache != NULL:
            cache_release(self.cache)
        kv_free(self.history)

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
        if self.read_only:
            raise StorageError(
                f"the database {self.name} was opened with read_only=True", path=self.path,
                errno=EROFS,
            )
        if self.failure is not None:
            said = str(self.failure) or type(self.failure).__name__
            raise StorageError(
                f"the database is read-only since a failure ({said}); reopen it",
                code=getattr(self.failure, "code", IntegrityCode.IO_ERROR), path=self.path,
                errno=getattr(self.failure, "errno", None), is_final=True,
            )
        return 0

    cdef int fail(self, object error) except -1:
        """No more writes until reopened; reads go on."""
        if self.failure is None:
            self.failure = error
        self.attention = True
        self.changed.advance()
        self.arrivals.advance()
        return 0

    cdef int job_failed(self, Retry retry, object error) except -1:
        if self.failure is None and is_retryable(error):
            retry.failed(error)
            # What was half written is gone, so there may be room for it again.
            if not self.reserve_taken and is_lack_of_space(error):
                self.reserve_taken = take_reserve(self.disk, self.path)
            self.changed.advance()
            # Whoever met it needn't be the thread that tries again.
            self.call_threads()
        elif not may_be_of_a_handler(error) and not any(
            error is known for known in self.damaged_tables.values()
        ):
            self.fail(error)
        return 0

    cdef int job_done(self, Retry retry) except -1:
        retry.succeeded()
        self.renew_reserve()
        self.changed.advance()
        return 0

    cdef bint log_has_failed(self) except -1:
        """Else what it raised was lack of something, and nothing of it is lost."""
        try:
            self.log.check_failed()
        except StorageError:
            return True
        return False

    cdef bint make_descriptors(self, object error) except -1:
        return is_lack_of_descriptors(error) and (
            open_tables_close_some(self.tables) > 0 or rest_feeds(self)
        )

    cdef bint make_space(self, object error) except -1:
        if self.make_descriptors(error):
            return True
        if not self.reserve_taken or self.failure is not None or not is_lack_of_space(error):
            return False
        self.reserve_taken = False
        self.reserve_spent = True
        return release_reserve(self.disk, self.path)

    cdef int refresh_attention(self) except -1:
        self.attention = (
            not self.open or self.forked or self.read_only or self.failure is not None
            or self.assigned != self.visible or self.is_holding()
        )
        return 0

    cdef bint is_holding(self) except -1:
        return self.held is not None and self.held.waiting

    def _after_fork(self):
        """In the child: nothing of it is to be used, nor given back, but the copy of the lock."""
        cdef ChangeReader feed
        self.forked = True
        self.attention = True
        self.open = False
        self.close_iterators()
        for reference in self.feeds.values():
            feed = reference()
            if feed is not None and feed.tail is not None:
                feed.tail.reading = False
        if self.lock is not None:
            # Else the directory stayed locked while the child lives, whatever becomes of the parent.
            self.guard.let_go_after_fork()
            self.lock.close()

    # --- its threads --------------------------------------------------------------------------

    cdef bint has_threads(self) except -1:
        """Those of the background, started where they are wanted first; False: there can be none."""
        if not self.background or not self.open:
            return False
        if self.threads_begun:
            return True
        self.threads_begun = True
        jobs = ["flush"] + ["compact"] * self.options.compaction_threads
        try:
            # Some may run since a try that came to a bad end.
            start_threads(self, background_step, self.work, jobs, len(self.threads), self.threads)
        except BaseException as error:
            self.threads_begun = False
            if not isinstance(error, RuntimeError) or not is_refused(error):
                raise               # a signal's handler
            # The process may have no more: whoever writes does their work.
            self.changed.advance()
            return False
        with nogil:
            open_tables_leave_to(self.tables, <void*> self, tables_left)
        return True

    cdef int call_threads(self) except -1:
        self.has_threads()
        self.work.advance()
        return 0

    cdef int call_for_compaction(self) except -1:
        if self.threads_begun or (self.background and compaction_score(self) >= 1):
            self.call_threads()
        return 0

    # --- the set of tables --------------------------------------------------------------------

    cdef int freeze(self) except -1:
        cdef MemTable* fresh = memtable_new(self.write_buffer_bytes)
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
        self.look_at = self.looked_at = 0
        return 0

    cdef int install(
        self, object edit, const Change* removed, int removed_count, const Change* added,
        int added_count
    ) except -1:
        cdef Version* old = NULL
        try:
            self.replace(edit, removed, removed_count, added, added_count, 0, &old)
        finally:
            if old != NULL:
                # The files that nobody reads any more take long to remove: others go on.
                with nogil:
                    version_release_removing(old, self.tables)
                    gil_ask()
                gil_have()
        return 0

    cdef int replace(
        self, object edit, const Change* removed, int removed_count, const Change* added,
        int added_count, int frozen_done, Version** old
    ) except -1:
        with self.installing:
            self.enter_version(edit, removed, removed_count, added, added_count, frozen_done, old)
        self.refresh_attention()
        return 0

    cdef int enter_version(
        self, object edit, const Change* removed, int removed_count, const Change* added,
        int added_count, int frozen_done, Version** old
    ) except -1:
        """Under `installing`. `old`: what was current until now, for the caller to release."""
        cdef Version* next_version
        cdef uint64_t segment = 0
        cdef uint64_t offset = 0
        cdef bint unsure
        cdef int i
        self.check_writable()
        self.need_manifest()
        edit.next_number = load_acquire(&self.next_number)
        # What the job let go of by it must not be asked for after a crash either.
        edit.retain_from = None if self.retain_from == max_sequence() else self.retain_from
        next_version = version_change(self.version, removed, removed_count, added, added_count)
        if next_version == NULL:
            raise MemoryError("no memory for a version")
        try:
            if version_check(next_version) < 0:
                error = InternalError("a change of tables leads to no valid version")
                self.fail(error)
                raise error
            if self.log is not None:
                segment, offset = self.log.newest_place(
                    max(self.flushed_sequence, edit.flushed_sequence or 0) + 1
                )
            # Where END fails nobody knows which of both it is: a segment that either asks for stays.
            self.end_asks = self.end_asks or segment != 0
            try:
                noted = self.manifest.append_synced(edit, self.end, segment, offset, &unsure)
            except BaseException as error:
                if unsure:
                    # Whether the edit holds is not known any more. A signal's handler may have raised
                    # this in place of what the disk said.
                    self.fail(error)
                raise
        except BaseException:
            version_release(next_version)
            raise
        old[0] = self.version
        self.version = next_version
        if edit.flushed_sequence is not None:
            self.flushed_sequence = max(self.flushed_sequence, edit.flushed_sequence)
        if edit.applied_index is not None:
            self.flushed_applied = max(self.flushed_applied, edit.applied_index)
        self.take_note_of_log(edit)
        self.flushed_memtables += frozen_done
        for i in range(frozen_done):
            self.frozen_count -= 1
            memtable_release(self.frozen[self.frozen_count].table)
        if frozen_done:
            # Writers wait for the room; for nothing of what follows.
            self.changed.advance()
        for i in range(removed_count):
            removed[i].file.obsolete = not is_current(next_version, removed[i].file.number)
        if noted is None:
            self.note_manifest()
        elif noted is True:
            self.noted = self.manifest.number, self.manifest.durable_bytes, segment, offset
            self.end_asks = segment != 0
        else:
            result, what = noted
            self.note_failed(os_failure(result, what, self.end.path))
        if self.manifest.size >= self.manifest.first_bytes * ROLL_FACTOR + ROLL_BYTES:
            self.roll_manifest()
        return 0

    cdef int need_manifest(self) except -1:
        if self.manifest is None:
            self.switch_manifest()
        if self.current_unsynced:
            self.sync_current()
        return 0

    cdef int roll_manifest(self) except -1:
        cdef Manifest grown = self.manifest
        try:
            self.switch_manifest()
        except Exception as error:
            if not is_retryable(error):
                self.fail(error)
                raise
            # The old one does as well. Not with each edit from here on.
            grown.first_bytes = grown.size
            return 0
        self.manifest_rolls += 1
        try:
            self.sync_current()
        except Exception as error:
            if self.failure is not None:
                raise
            # Before the next edit, then.
        return 0

    cdef int switch_manifest(self) except -1:
        """Where this fails the old one is in force, and nothing is left of the fresh one."""
        cdef Manifest old = self.manifest
        everything = self.everything()
        cdef Manifest fresh = create_manifest(
            self.disk, self.path, counter_next(&self.next_number), self.database_id, everything
        )
        try:
            point_current(self.disk, self.path, fresh.number)
        except StorageError:
            fresh.file.release()
            remove_quietly(self.disk, f"{self.path}/{manifest_name(fresh.number)}")
            raise
        self.manifest = fresh
        self.manifest_stands = False
        self.current_unsynced = True
        self.unsynced_edit = everything
        if old is not None:
            old.file.release()
        return 0

    cdef int sync_current(self) except -1:
        try:
            sync_directory(self.disk, self.path)
        except StorageError as error:
            # A sync that never began, for want of a descriptor or memory, may be tried again.
            if not is_retryable(error) or is_lack_of_space(error):
                self.fail(error)
            raise
        self.current_unsynced = False
        # Not before: segments that the old manifest asks for must be there while it may come back.
        if self.unsynced_edit is not None:
            self.take_note_of_log(self.unsynced_edit)
            self.unsynced_edit = None
        self.note_manifest()
        try:
            names = list_directory(self.disk, self.path)
        except StorageError:
            return 0        # the next opening removes it
        for name in names:
            if name.startswith("MANIFEST-") and number_of(name) < self.manifest.number:
                remove_quietly(self.disk, f"{self.path}/{name}")
        return 0

    cdef tuple end_of_now(self):
        """What END may say: (manifest, bytes of it, segment, offset)."""
        segment = offset = 0
        if self.log is not None:
            segment, offset = self.log.newest_place(self.flushed_sequence + 1)
        if self.manifest is None:
            return (*self.noted[:2], segment, offset)
        return self.manifest.number, self.manifest.durable_bytes, segment, offset

    cdef int note_manifest(self) except -1:
        if self.read_only or self.current_unsynced or self.failure is not None or (
            self.manifest is None and not self.manifest_stands
        ):
            # After a failure the manifest may end in an edit of which nobody knows whether it holds.
            return 0
        try:
            now = self.end_of_now()
            if now == self.noted:
                return 0
            # Where it fails nobody knows which of both END says: a segment that either asks for stays.
            self.end_asks = self.end_asks or now[2] != 0
            if note_end(self.end, *now):
                self.noted = now
                self.end_asks = now[2] != 0
        except (StorageError, MemoryError) as error:
            self.note_failed(error)
        return 0

    cdef int note_failed(self, object error) except -1:
        """Without it the manifest's end is as sure as it is after a crash."""
        if is_retryable(error):
            return 0
        self.fail(error)
        raise error

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
            self.directory_made = make_directory(self.disk, path)
            names = []
        else:
            names = list_directory(self.disk, path)
        if IDENTITY in names:
            self.read_identity()
        elif set(names) - MADE_FIRST - {"LOCK"}:
            if is_of_kvd(names):
                raise StorageError(
                    "the directory is a kvd's, which alone opens it: ask that kvd for what it holds "
                    "(kvctl --dir), or for a copy (kvctl snapshot save); nothing was touched",
                    code=IntegrityCode.INVALID_MAGIC, path=path,
                )
            raise StorageError(
                "the directory isn't empty and holds no kvstore database; nothing was touched",
                code=IntegrityCode.INVALID_MAGIC, path=path,
            )
        elif not self.options.create_if_missing:
            raise InvalidArgumentError(
                f"there is no database in {path} (create_if_missing is off)"
            )
        self.lock = lock_file(self.disk, f"{path}/LOCK")
        self.guard.hold(self.lock)
        if IDENTITY not in names and IDENTITY in list_directory(self.disk, path):
            # Somebody made it, and closed it again, before this one had the lock.
            self.read_identity()
        return 0

    cdef int read_identity(self) except -1:
        cdef str path = f"{self.path}/{IDENTITY}"
        self.database_id = check_identity(read_whole(self.disk, path, LINES_BYTES_MAX), path, self.read_only)
        return 0

    cdef int open_to_read(self, str path) except -1:
        """As open_directory, of what is there, and nothing is written."""
        if kind_of(self.disk, path) != 2 or "CURRENT" not in list_directory(self.disk, path):
            raise InvalidArgumentError(f"there is no database in {path} to be read")
        self.read_identity()
        self.lock = lock_file_shared(self.disk, f"{path}/LOCK")
        self.load()
        log_path = f"{path}/{LOG_DIRECTORY}"
        if self.asks_for_log() or kind_of(self.disk, log_path) == 2:
            self.replay_log(log_path)
        return 0

    cdef int recover(self, object create_if_missing, object error_if_exists) except -1:
        cdef str path = self.path
        names = list_directory(self.disk, path)
        cdef bint exists = "CURRENT" in names and not (
            # The names that a database got when it was created come in any order.
            "MANIFEST-000001.new" in names and "MANIFEST-000001" not in names
            and self.creation_was_cut_off(names)
        )
        if exists and error_if_exists:
            raise InvalidArgumentError(f"there is a database in {path} (error_if_exists is on)")
        if not exists:
            if not self.creation_was_cut_off(names):
                raise CorruptionError(
                    "CURRENT is missing beside a database's files",
                    code=IntegrityCode.INVALID_RECORD, path=f"{path}/CURRENT",
                )
            if not create_if_missing:
                raise InvalidArgumentError(
                    f"there is no database in {path} (create_if_missing is off)"
                )
            if "CURRENT" in names:
                # Durably, and first: without what the cut off creation left it looks like damage.
                remove_file(self.disk, f"{path}/CURRENT")
                sync_directory(self.disk, path)
            for name in names:
                if number_of(name) or name.endswith(".new") or name == END:
                    remove_file(self.disk, f"{path}/{name}")
            if IDENTITY not in names:
                self.database_id = os.urandom(ID_BYTES)
            self.create(IDENTITY not in names)
            names = []
        else:
            self.load()
        log_path = f"{path}/{LOG_DIRECTORY}"
        self.reserve_taken = RESERVE in names
        if self.uses_log or self.asks_for_log() or kind_of(self.disk, log_path) == 2:
            try:
                self.replay_log(log_path)
            except StorageError as error:
                if not self.make_space(error):
                    raise
                self.forget_replayed()
                self.replay_log(log_path)
        for name in names:
            self.next_number = max(self.next_number, number_of(name))
        # An earlier opening left what it had flushed, as all did once: it would be read each time.
        if not self.manifest_stands or self.log_is_unneeded():
            try:
                try:
                    self.need_manifest()
                except StorageError as error:
                    if not self.make_space(error):
                        raise
                    self.need_manifest()
            except StorageError as error:
                # The old one says all there is to say until tables change.
                if not exists or self.failure is not None or not is_retryable(error):
                    raise
                self.flush_retry.failed(error)
        if self.manifest_is_durable():
            self.remove_leftovers(names)
        if self.log_is_unneeded():
            remove_flushed_log(self)
        if not self.is_small() or not self.uses_log:
            self.renew_reserve()
        return 0

    cdef bint manifest_is_durable(self) noexcept:
        """What it asks for no more may go: power can't bring back a manifest that asked for it."""
        return self.manifest_stands or (self.manifest is not None and not self.current_unsynced)

    cdef bint asks_for_log(self) except -1:
        """Whether the manifest or END says that some of the log must be there."""
        return self.log_segment != 0 or self.noted[2] != 0

    cdef bint may_lose_its_log(self) except -1:
        """Neither the manifest nor END asks for any of it, and this opening wrote that END.

        What another process wrote last may be a cache's memory, which a power loss takes back.
        """
        return (
            not self.asks_for_log() and not self.end_asks and self.manifest is not None
            and self.noted[0] == self.manifest.number
        )

    cdef bint log_is_unneeded(self) except -1:
        """Whether the log holds nothing that tables don't, and nothing for feeds."""
        return (
            self.log is not None and len(self.log.found) > 0 and not self.options.changes_kept_size
            and not self.log.is_needed(self.flushed_sequence + 1)
        )

    cdef bint is_small(self) noexcept:
        """Whether its tables and log take so little that the reserve would be much beside them."""
        cdef uint64_t size = 0 if self.log is None else self.log.bytes_held()
        cdef int level
        for level in range(LEVELS):
            size += self.version.levels[level].bytes
        return size < SMALL_BYTES

    cdef int renew_reserve(self) except -1:
        # Once it was given back, there must be room for more than it.
        if not self.reserve_taken and (not self.reserve_spent or has_room(self.disk, self.path)):
            self.reserve_taken = take_reserve(self.disk, self.path)
            self.reserve_spent = self.reserve_spent and not self.reserve_taken
        return 0

    cdef bint creation_was_cut_off(self, list names) except -1:
        # It leaves neither tables nor log segments, and an END that was never written again.
        if any(name.endswith(".sst") for name in names) or (
            LOG_DIRECTORY in names and list_directory(self.disk, f"{self.path}/{LOG_DIRECTORY}")
        ):
            return False
        if END not in names:
            return True
        note = end_note(self.disk, self.path, self.database_id)
        _, damage = note.load()
        return not damage and note.number == 1

    cdef int create(self, bint with_identity) except -1:
        """In two rounds of syncs: first what the files hold, then their names."""
        cdef Appender file
        cdef uint64_t number = counter_next(&self.next_number)
        cdef Manifest manifest
        cdef dict files = {}
        self.end = end_note(self.disk, self.path, self.database_id)
        try:
            manifest = draft_manifest(
                self.disk, f"{self.path}/{manifest_name(number)}.new", number, self.database_id,
                self.everything(),
            )
            files[manifest_name(number)] = manifest.file
            for name, content in (
                (END, first_end(self.end, number, manifest.size)),
                ("CURRENT", current_text(number)),
                *([(IDENTITY, identity_text(self.database_id))] if with_identity else []),
            ):
                file = create_file(self.disk, f"{self.path}/{name}.new")
                files[name] = file
                file.append(content)
            self.finish_creation(files, with_identity)
        except BaseException:
            for name, opened in files.items():
                file = opened
                file.release()
                remove_quietly(self.disk, f"{self.path}/{name}.new")
            raise
        for name, opened in files.items():
            file = opened
            if file is not manifest.file:
                file.close()
        self.manifest = manifest
        return 0

    cdef int sync_own_name(self) except -1:
        """Also where the directory was there: whoever made it may have been killed before this."""
        parent = os.path.dirname(self.path)
        try:
            sync_directory(self.disk, parent)
        except StorageError as error:
            # What isn't ours to sync, such as the place of a mount, somebody else has made.
            if self.directory_made or error.errno not in (EACCES, EPERM, EROFS, EINVAL):
                raise
        return 0

    cdef int finish_creation(self, dict files, bint with_identity) except -1:
        cdef Appender file
        cdef int result
        for opened in files.values():
            # On its way all of it, so that the first sync finds the places of all: one of them then
            # waits for the file system's journal, and not each.
            file = opened
            with nogil:
                result = self.disk.ops.write_back(self.disk.disk, file.file, 0, file.size)
            if result < 0:
                raise os_failure(result, b"writing", file.path)
        for opened in files.values():
            file = opened
            file.sync()
        if with_identity:
            rename_file(self.disk, f"{self.path}/{IDENTITY}.new", f"{self.path}/{IDENTITY}")
        self.sync_own_name()
        # Nothing else of it has its name before the identity has: without that it isn't known for ours.
        sync_directory(self.disk, self.path)
        for name in files:
            if name != IDENTITY:
                rename_file(self.disk, f"{self.path}/{name}.new", f"{self.path}/{name}")
                file = files[name]
                file.path = f"{self.path}/{name}"
        if self.uses_log:
            make_directory(self.disk, f"{self.path}/{LOG_DIRECTORY}")
        sync_directory(self.disk, self.path)
        return 0

    cdef object everything(self):
        cdef LiveTable* file
        cdef int level, i
        added = []
        for level in range(LEVELS):
            for i in range(self.version.levels[level].count):
                file = self.version.levels[level].files[i]
                added.append(table_entry(level, file))
        edit = Edit(
            last_sequence=self.flushed_sequence, flushed_sequence=self.flushed_sequence,
            applied_index=self.flushed_applied, next_number=load_acquire(&self.next_number),
            added=added,
            retain_from=None if self.retain_from == max_sequence() else self.retain_from,
        )
        self.describe_log(edit, self.flushed_sequence)
        return edit

    cdef int describe_log(self, object edit, uint64_t flushed) except -1:
        if self.log is None:
            edit.log_id, edit.log_first, edit.log_segment, edit.log_end = b"", 0, 0, 0
            return 0
        edit.log_id = self.log.log_id
        edit.log_first, edit.log_segment, edit.log_end = self.log.durable_places(flushed + 1)
        return 0

    cdef int take_note_of_log(self, object edit) except -1:
        if edit.log_id is not None:
            self.log_id = edit.log_id
        if edit.log_first is not None:
            self.log_first = edit.log_first
        if edit.log_segment is not None:
            self.log_segment = edit.log_segment
        if edit.log_end is not None:
            self.log_end = edit.log_end
        return 0

    cdef int say_that_no_log_is_needed(self) except -1:
        """Of a database that goes on without one. Under `installing`."""
        edit = Edit()
        self.describe_log(edit, self.flushed_sequence)
        if (edit.log_segment, edit.log_end) != (self.log_segment, self.log_end):
            self.need_manifest()
            try:
                self.manifest.append(edit)
                self.manifest.sync()
            except Exception as error:
                # Else the end of this opening noted an edit of which nobody knows whether it holds.
                self.fail(error)
                raise
            self.take_note_of_log(edit)
        return self.note_manifest()

    cdef int load(self) except -1:
        """The version that the manifest describes, every table of it present."""
        cdef str path
        cdef TableSummary summary
        cdef LiveTable* file
        cdef Version* version
        cdef Version* empty
        cdef Change* changes
        cdef int i
        self.end = end_note(self.disk, self.path, self.database_id)
        noted, damage = self.end.load()
        self.noted = noted_end(noted)
        number, edits, size, self.torn_manifest_bytes = load_manifest(
            self.disk, self.path, self.database_id, self.read_only, noted
        )
        # END is written when all of this is durable, its name included. What another process saw last
        # may be a cache's memory of a sync that failed, and is written anew.
        self.manifest_stands = not damage and self.noted[:2] == (number, size) and (
            self.torn_manifest_bytes == 0
        )
        manifest_path = f"{self.path}/{manifest_name(number)}"
        self.next_number = self.loaded_manifest = number
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
            self.take_note_of_log(edit)
        if damage and self.log_segment == 0:
            # What is left of END may be from before a flush let go of the log, which the manifest was told
            # first.
            self.noted = (*self.noted[:2], 0, 0)
        self.end_asks = bool(damage) or self.noted[2] != 0
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
                entry_summary(entry, &summary)
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
        cdef LogApplier applier = LogApplier(self)
        segment, end = max((self.log_segment, self.log_end), self.noted[2:])
        if segment and kind_of(self.disk, path) == 0:
            raise CorruptionError(
                "the database's log is missing", code=IntegrityCode.INVALID_RECORD, path=path
            )
        self.log = Log(
            path, filesystem=self.disk, read_only=self.read_only,
            # Of a log of which no segment is left the next one has another id: numbers begin anew, and
            # what the device has of the old ones must not be taken for the new one's.
            log_id=self.log_id if self.log_id and self.log_segment else None,
            database_id=self.database_id, noted=(self.log_first, segment, end),
            segment_bytes=min(max(self.write_buffer_bytes, MIN_SEGMENT_BYTES), MAX_SEGMENT_BYTES),
            applier=applier, folder_made=self.loaded_manifest == 0 and self.uses_log,
        )
        applier.settle()
        applier.let_go()
        self.visible = self.assigned
        return 0

    cdef int forget_replayed(self) except -1:
        """What a try to open the log put into memory: the next one reads it from the beginning.

        A memtable that is frozen then is to hold all up to `assigned`, not what is read again later.
        """
        cdef MemTable* fresh = memtable_new(self.write_buffer_bytes)
        if fresh == NULL:
            raise MemoryError("no memory for a memtable")
        memtable_release(self.memory)
        self.memory = fresh
        while self.frozen_count:
            self.frozen_count -= 1
            memtable_release(self.frozen[self.frozen_count].table)
        self.assigned = self.flushed_sequence
        return 0

    cdef int remove_leftovers(self, list names) except -1:
        """Files that the manifest in force doesn't mention: of interrupted jobs, older manifests."""
        cdef int level, i
        live = {self.loaded_manifest}
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

    cdef int close_feeds(self) except -1:
        cdef ChangeReader feed
        for reference in list(self.feeds.values()):
            feed = reference()
            if feed is not None:
                feed.let_go()
        self.feeds.clear()
        return 0

    cdef int shut(self) except -1:
        """Close the files, whatever happens to each; raises the first trouble.

        What a signal's handler interrupts is done by the next call.
        """
        trouble = None
        if self.failure is None and self.log is not None:
            # What was written behind may have failed when nobody wrote any more to be told.
            try:
                self.log.check_failed()
            except StorageError as error:
                trouble = error
        for part in (self.log, self.manifest):
            try:
                if part is self.manifest and trouble is None and self.failure is None:
                    # How far the log is durable: should its end go from here on, that is damage.
                    self.note_manifest()
            except Exception as error:
                # Without space for the note the end of the log is as sure as it is after a crash.
                trouble = None if is_retryable(error) else error
            try:
                if part is not None:
                    part.close()
            except Exception as error:
                trouble = trouble or error
        self.manifest = None
        with nogil:
            open_tables_leave_to(self.tables, NULL, NULL)
            open_tables_remove_unwanted(self.tables)
            # A call that is still inside keeps what it looks at, and may open tables again.
            while open_tables_close_some(self.tables):
                pass
            if self.cache != NULL:
                cache_forget_table(self.cache, 0)
        if self.reserve_taken and self.uses_log and self.is_small() and (
            trouble is None and self.failure is None and not self.read_only
        ):
            self.reserve_taken = not release_reserve(self.disk, self.path)
        if self.lock is not None:
            self.guard.let_go()
            self.lock.close()
        if trouble is not None and self.failure is None:
            raise trouble
        return 0


cdef void tables_left(void* owner) noexcept with gil:
    """Whoever let go of tables needn't remove them: a thread of the database does."""
    (<Store> owner).work.advance()


cdef bint is_of_kvd(list names):
    """By the names in its data directory, or in the directory of a member within."""
    return "KVSTORE" in names or "LOGEND" in names


cdef object table_entry(int level, LiveTable* file):
    return entry_of(level, file.number, &file.summary, file.smallest, file.largest)


cdef bint may_be_of_a_handler(object error) except -1:
    """Raised by a signal's handler within a call of the program's, it says nothing of the store."""
    return (
        threading.current_thread() is threading.main_thread()
        and not isinstance(error, (Error, MemoryError)) and getattr(error, "errno", None) is None
    )


cdef bint is_current(Version* version, uint64_t number) noexcept:
    """Whether that table is in any level."""
    cdef int level, i
    for level in range(LEVELS):
        for i in range(version.levels[level].count):
            if version.levels[level].files[i].number == number:
                return True
    return False
