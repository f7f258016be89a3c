"""What an open database says about itself; see introspect.pxd."""

import contextlib
import os

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport (
    Buffer,
    BytesView,
    KIND_MAX,
    Slice,
    Status,
    TRAILER_BYTES,
    buffer_append,
    buffer_free,
    buffer_init,
    internal_compare,
    internal_user_key,
    max_sequence,
    slice_of,
    status_clear,
    status_error_in,
    trailer_pack,
    view_close,
    view_open,
)
from kvstore._engine.files.native cimport (
    FileSystem,
    kind_of,
    link_file,
    list_directory,
    make_directory,
    remove_directory,
    remove_file,
    rename_file,
    replace_whole,
    sync_directory,
)
from kvstore._engine.memtable.native cimport memtable_bytes, memtable_entries
from kvstore._engine.table.native cimport (
    CacheStats,
    Table,
    cache_stats,
    table_offset_of,
    table_release,
    table_verify,
)
from kvstore._engine.version.native cimport (
    LEVELS,
    LiveTable,
    Manifest,
    Version,
    begin_manifest,
    live_table_open,
    live_table_pin,
    live_table_unpin,
    open_tables_count,
    open_tables_mapped,
    version_release,
    version_retain,
)

from kvstore.errors import InvalidArgumentError, StorageError

PROPERTY_PREFIXES = ("leveldb.", "kvstore.")
FILES_AT_LEVEL = "num-files-at-level"


cdef int verify_tables(Store store) except -1:
    cdef Version* version = store.version
    cdef Table* table
    cdef Status status
    cdef int level, i
    cdef int result = 0
    version_retain(version)
    status_clear(&status)
    with nogil:
        for level in range(LEVELS):
            for i in range(version.levels[level].count):
                table = live_table_open(version.levels[level].files[i], &status)
                if table == NULL:
                    result = -1
                    break
                result = table_verify(table, &status)
                table_release(table)
                if result < 0:
                    break
            if result < 0:
                break
        version_release(version)
    if result < 0:
        raise status_error_in(&status, store.path)
    return 0


cdef uint64_t bytes_before(Version* version, Slice internal, Status* status) noexcept nogil:
    """Bytes of all tables that lie before the internal key; opens only tables that it lies within."""
    cdef uint64_t total = 0
    cdef LiveTable* file
    cdef Table* table
    cdef int level, i
    for level in range(LEVELS):
        for i in range(version.levels[level].count):
            file = version.levels[level].files[i]
            if internal_compare(file.largest, internal) < 0:
                total += file.summary.file_bytes
            elif internal_compare(file.smallest, internal) < 0:
                table = live_table_pin(file, status)
                if table == NULL:
                    return 0
                total += table_offset_of(table, internal)
                live_table_unpin(file)
    return total


cdef uint64_t bytes_before_key(Store store, Version* version, object key, str what) except? 0:
    cdef BytesView view
    cdef Buffer internal
    cdef Status status
    cdef uint64_t result = 0
    cdef uint64_t trailer = trailer_pack(max_sequence(), KIND_MAX)
    cdef bint failed
    buffer_init(&internal)
    status_clear(&status)
    view_open(key, &view, what)
    failed = (
        buffer_append(&internal, view.slice.data, view.slice.size) < 0
        or buffer_append(&internal, &trailer, TRAILER_BYTES) < 0
    )
    view_close(&view)
    if failed:
        buffer_free(&internal)
        raise MemoryError("no memory for a key")
    with nogil:
        result = bytes_before(version, slice_of(internal.data, internal.size), &status)
        buffer_free(&internal)
    if status.code:
        raise status_error_in(&status, store.path)
    return result


cdef list table_bytes_of_ranges(Store store, tuple ranges):
    cdef Version* version = store.version
    version_retain(version)
    try:
        sizes = []
        for given in ranges:
            if not isinstance(given, (tuple, list)):
                raise TypeError(f"a range must be a pair (start, stop), not {given!r:.100}")
            if len(given) != 2:
                raise InvalidArgumentError(
                    f"a range must be a pair (start, stop), not {given!r:.100}"
                )
            start, stop = given
            low = bytes_before_key(store, version, start, "start")
            sizes.append(max(0, bytes_before_key(store, version, stop, "stop") - low))
        return sizes
    finally:
        with nogil:
            version_release(version)


cdef dict statistics(Store store):
    cdef CacheStats cache
    cdef int level, i
    cdef uint64_t live_entries = 0
    cdef uint64_t tombstones = 0
    cdef uint64_t superseded = 0
    cdef uint64_t range_tombstones = store.memory.ranges.count
    cdef uint64_t table_bytes = 0
    cdef uint64_t memory_bytes = memtable_bytes(store.memory)
    cdef uint64_t memory_entries = memtable_entries(store.memory)
    levels = []
    for level in range(LEVELS):
        for i in range(store.version.levels[level].count):
            live_entries += store.version.levels[level].files[i].summary.entries
            tombstones += store.version.levels[level].files[i].summary.tombstones
            superseded += store.version.levels[level].files[i].summary.superseded
            range_tombstones += store.version.levels[level].files[i].summary.range_deletes
        table_bytes += store.version.levels[level].bytes
        levels.append(
            {
                "tables": store.version.levels[level].count,
                "bytes": store.version.levels[level].bytes,
            }
        )
    for i in range(store.frozen_count):
        memory_bytes += memtable_bytes(store.frozen[i].table)
        memory_entries += memtable_entries(store.frozen[i].table)
        range_tombstones += store.frozen[i].table.ranges.count
    cache.capacity_bytes = cache.used_bytes = cache.blocks = 0
    cache.hits = cache.misses = cache.evictions = 0
    cache.index_capacity_bytes = cache.index_used_bytes = cache.index_misses = 0
    if store.cache != NULL:
        cache_stats(store.cache, &cache)
    written = store.flushed_bytes + store.compacted_bytes
    return {
        "last_sequence": store.visible,
        "flushed_sequence": store.flushed_sequence,
        "levels": levels,
        "table_bytes": table_bytes,
        "table_entries": live_entries,
        "table_tombstones": tombstones,
        "table_superseded": superseded,
        "range_tombstones": range_tombstones,
        "open_tables": open_tables_count(store.tables),
        "mapped_tables": open_tables_mapped(store.tables),
        "max_open_files": store.tables.max_open,
        "memtable_bytes": memory_bytes,
        "memtable_entries": memory_entries,
        "frozen_memtables": store.frozen_count,
        "unseen_writes": store.assigned - store.visible,
        "held_bytes": 0 if store.held is None else store.held.bytes,
        "snapshots": len(store.snapshots),
        "user_bytes": store.user_bytes,
        "flushes": store.flushes,
        "flushed_bytes": store.flushed_bytes,
        "compactions": store.compactions,
        "compaction_read_bytes": store.compaction_read_bytes,
        "compacted_bytes": store.compacted_bytes,
        "compaction_score": compaction_score(store),
        "trivial_moves": store.trivial_moves,
        "dropped_entries": store.dropped_entries,
        "passed_entries": store.passed_entries,
        # What reached tables for each byte of keys and values written; the log comes on top.
        "write_amplification": written / store.user_bytes if store.user_bytes else 0.0,
        # Bytes of all levels for each byte of the lowest one: what old versions may take.
        "space_amplification": space_amplification(store),
        "slowdowns": store.slowdowns,
        "slowdown_seconds": store.slowdown_seconds,
        "stalls": store.stalls,
        "stall_seconds": store.stall_seconds,
        "log": None if store.log is None else store.log.stats(),
        "changes": {"feeds": len(store.feeds), "oldest_sequence": oldest_change(store)},
        "log_cut_bytes": 0 if store.log is None else store.log.recovery.cut_bytes,
        "cache": {
            "capacity_bytes": cache.capacity_bytes,
            "used_bytes": cache.used_bytes,
            "blocks": cache.blocks,
            "hits": cache.hits,
            "misses": cache.misses,
            "evictions": cache.evictions,
            "index_capacity_bytes": cache.index_capacity_bytes,
            "index_used_bytes": cache.index_used_bytes,
            "index_misses": cache.index_misses,
        },
        "manifest_bytes": store.noted[1] if store.manifest is None else store.manifest.size,
        "manifest_rolls": store.manifest_rolls,
        "background_error": background_error(store),
        "damaged_tables": sorted(store.damaged_tables),
        "failure": failure(store),
    }


cdef object failure(Store store):
    """What made it read-only; also what the next write would find of the log."""
    if store.failure is not None:
        return str(store.failure)
    try:
        if store.log is not None:
            store.log.check_failed()
    except StorageError as error:
        return str(error)
    return None


cdef object background_error(Store store):
    """What flushes or compactions wait for to go away, or meet and leave alone; None: nothing."""
    errors = [store.flush_retry.error, store.compaction_retry.error, *store.damaged_tables.values()]
    errors = [str(error) for error in errors if error is not None]
    return errors[0] if errors else None


cdef double space_amplification(Store store) noexcept:
    cdef uint64_t total = 0
    cdef uint64_t lowest = 0
    cdef int level
    for level in range(LEVELS):
        if store.version.levels[level].count:
            total += store.version.levels[level].bytes
            lowest = store.version.levels[level].bytes
    return <double> total / <double> lowest if lowest else 0.0


cdef object property_value(Store store, object name):
    cdef LiveTable* file
    cdef int level, i
    cdef Slice key
    if not isinstance(name, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"name must be str or bytes-like, not {type(name).__name__}")
    text = name if isinstance(name, str) else bytes(name).decode("utf-8", "replace")
    for prefix in PROPERTY_PREFIXES:
        if text.startswith(prefix):
            text = text[len(prefix):]
            break
    else:
        return None
    if text.startswith(FILES_AT_LEVEL):
        number = text[len(FILES_AT_LEVEL):]
        # Its length first: int() refuses thousands of digits.
        if not number.isdecimal() or len(number) > 9 or int(number) >= LEVELS:
            return None
        return b"%d" % store.version.levels[<int> int(number)].count
    if text == "approximate-memory-usage":
        state = statistics(store)
        cached = state["cache"]["used_bytes"] + state["cache"]["index_used_bytes"]
        return b"%d" % (state["memtable_bytes"] + cached)
    if text == "stats":
        state = statistics(store)
        del state["levels"]
        return "".join(f"{key}: {value}\n" for key, value in state.items()).encode()
    if text == "sstables":
        lines = []
        for level in range(LEVELS):
            lines.append(f"--- level {level} ---\n")
            for i in range(store.version.levels[level].count):
                file = store.version.levels[level].files[i]
                key = internal_user_key(file.smallest)
                low = <bytes> key.data[: key.size]
                key = internal_user_key(file.largest)
                high = <bytes> key.data[: key.size]
                lines.append(f" {file.number}:{file.summary.file_bytes}[{low!r} .. {high!r}]\n")
        return "".join(lines).encode()
    return None


# --- checkpoints ----------------------------------------------------------------------------

# Directories in which a thread of this process is making one.
cdef set unfinished_checkpoints = set()


cdef int remove_unfinished(FileSystem disk, str path) except -1:
    """What a checkpoint that failed left; anything else is somebody's and stays."""
    cdef int kind = kind_of(disk, path)
    if kind == 0:
        return 0
    names = list_directory(disk, path) if kind == 2 else []
    if kind != 2 or not all(is_own_name(name) for name in names):
        raise InvalidArgumentError(f"{path} is in the way: a checkpoint is made there")
    for name in names:
        remove_file(disk, f"{path}/{name}")
    remove_directory(disk, path)
    return 0


cdef int link_tables(Store store, Version* version, str path) except -1:
    cdef int level, i
    for level in range(LEVELS):
        for i in range(version.levels[level].count):
            name = f"{version.levels[level].files[i].number:06d}.sst"
            link_file(store.disk, f"{store.path}/{name}", f"{path}/{name}")
    return 0


cdef int make_copy(Store store, str path) except -1:
    """A whole database of the present tables in the new directory."""
    cdef Manifest manifest
    cdef Version* version
    with store.installing:
        store.check_open()
        version = store.version
        version_retain(version)
        everything = store.everything()
        # A copy has no log of its own yet.
        everything.log_id = everything.log_first = None
        everything.log_segment = everything.log_end = None
    try:
        make_directory(store.disk, path)
        link_tables(store, version, path)
        database_id = os.urandom(16)
        replace_whole(store.disk, path, IDENTITY, identity_text(database_id))
        manifest = begin_manifest(
            store.disk, path, everything.next_number + 1, database_id, everything
        )
        manifest.close()
    finally:
        with nogil:
            version_release(version)
    return 0


cdef int copy_tables(Store store, str path) except -1:
    cdef str building
    path = store.disk.resolve(path)
    building = f"{path}.new"
    if path == store.path or path.startswith(store.path.rstrip("/") + "/"):
        # destroy_db leaves what isn't its own, and so would never remove it.
        raise InvalidArgumentError(f"{path} is within the database itself")
    if kind_of(store.disk, path) != 0:
        raise InvalidArgumentError(f"{path} exists already; a checkpoint makes it")
    if building in unfinished_checkpoints:
        raise InvalidArgumentError(f"a checkpoint at {path} is being made already")
    unfinished_checkpoints.add(building)
    try:
        remove_unfinished(store.disk, building)
        try:
            make_copy(store, building)
            # The name comes last: what has it is whole.
            rename_file(store.disk, building, path)
        except BaseException:
            # What can't be removed now is, before the next one is made there.
            with contextlib.suppress(StorageError):
                remove_unfinished(store.disk, building)
            store.check_open()          # closed meanwhile: its disk makes no name any more
            raise
        try:
            sync_directory(store.disk, os.path.dirname(path))
        except BaseException:
            # Not durable under its name, so it gets none, and the next try isn't in its way.
            with contextlib.suppress(StorageError):
                rename_file(store.disk, path, building)
                remove_unfinished(store.disk, building)
            raise
    finally:
        unfinished_checkpoints.discard(building)
    return 0
