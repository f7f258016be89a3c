"""Holding writers back before they have to wait: see pace.pxd."""

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, nanosleep, timespec

from kvstore._engine.memtable.native cimport memtable_used


cdef double SLEPT_LEAST_S = 0.001       # shorter ones cost more than they take
cdef double SLEPT_MOST_S = 0.005
cdef double LATE_S = 0.002              # what a flush that should be over is expected to take yet
cdef double UNKNOWN_S_A_BYTE = 1.0 / (16 << 20)
cdef double LEAST_SHARE = 0.05          # of its speed, for who is close to a stop


cdef double now_s() noexcept nogil:
    cdef timespec at
    clock_gettime(CLOCK_MONOTONIC, &at)
    return <double> at.tv_sec + 1e-9 * <double> at.tv_nsec


# A flush, or a compaction that took so many tables of level 0, went well.
cdef void note_flush(Pace* pace, double took_s, size_t memory_bytes) noexcept:
    cdef double a_byte = took_s / <double> (memory_bytes + 1)
    pace.flush_s_a_byte = (pace.flush_s_a_byte + a_byte) / 2 if pace.flush_s_a_byte else a_byte


cdef void note_level0(Pace* pace, double took_s, size_t tables) noexcept:
    cdef double a_table = took_s / <double> (tables + 1)
    pace.level0_s_a_table = (pace.level0_s_a_table + a_table) / 2 if pace.level0_s_a_table else a_table


cdef double flush_wants(Store store, double now) noexcept:
    """Seconds a byte, so that the memtable is full when there is room for the next one."""
    cdef MemTable* oldest
    cdef size_t used = memtable_used(store.memory)
    cdef double left_s
    if store.frozen_count < store.max_frozen or used >= store.write_buffer_bytes:
        return 0
    oldest = store.frozen[store.frozen_count - 1].table
    left_s = store.pace.flush_s_a_byte * <double> memtable_used(oldest)
    if store.pace.flush_began_s:
        left_s -= now - store.pace.flush_began_s
    return max(left_s, LATE_S) / <double> (store.write_buffer_bytes - used)


cdef double level0_wants(Store store) noexcept:
    """Seconds a byte, so that level 0 grows no further, and less fast the fuller it is."""
    cdef int over = store.version.levels[0].count - store.slowdown_files + 1
    cdef double room = store.stop_files - store.slowdown_files + 1
    cdef double a_byte = UNKNOWN_S_A_BYTE
    if over <= 0:
        return 0
    if store.pace.level0_s_a_table:
        a_byte = store.pace.level0_s_a_table / <double> store.write_buffer_bytes
    return a_byte / max(1 - over / room, LEAST_SHARE)


cdef int keep_pace(Store store, size_t written_bytes) except -1:
    """For what was written since the last look. May give up the GIL, to sleep."""
    cdef double now = now_s()
    cdef double wanted_s_a_byte = max(flush_wants(store, now), level0_wants(store))
    cdef double sleep_s, woke
    cdef timespec wait
    if wanted_s_a_byte == 0:
        store.pace.owed_s = 0
        store.pace.looked_s = now
        return 0
    store.pace.owed_s += wanted_s_a_byte * <double> written_bytes - (now - store.pace.looked_s)
    store.pace.looked_s = now
    if store.pace.owed_s < 0:
        store.pace.owed_s = 0
    if store.pace.owed_s < SLEPT_LEAST_S:
        return 0
    store.slowdowns += 1
    sleep_s = min(store.pace.owed_s, SLEPT_MOST_S)
    wait.tv_sec = 0
    wait.tv_nsec = <long> (sleep_s * 1e9)
    with nogil:
        nanosleep(&wait, NULL)
    woke = now_s()
    # Several writers owe together what they wrote together; each sleeps for its own part.
    store.pace.owed_s = max(0.0, store.pace.owed_s - (woke - now))
    store.pace.looked_s = woke
    store.slowdown_seconds += woke - now
    store.check_writable()
    return 0
