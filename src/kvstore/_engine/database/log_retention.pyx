"""The log's segments that stay for change feeds: see log_retention.pxd."""

from libc.stdint cimport uint64_t

from kvstore._engine.log.native cimport LogTail, oldest_sealed, segment_of_tail


cdef int remove_flushed_log(Store store) except -1:
    """Where that can't be done yet, the next flush does."""
    if store.log is None:
        return 0
    return let_go_of_log(store, first_kept(store, store.options.changes_kept_size))


cdef uint64_t flushed_log_end(Store store) except? 0xFFFFFFFFFFFFFFFF:
    cdef uint64_t first
    if store.log is None or store.log_has_failed():
        return 0
    try:
        first = first_kept(store, store.options.changes_kept_size)
    except MemoryError:
        return 0        # the next flush does it
    # Before the first is gone: whoever reads there from here on mustn't believe it.
    store.log_kept = max(store.log_kept, first)
    return first


cdef int log_removed(Store store, int result, uint64_t failed) except -1:
    return check_removal(store, store.log.removal_error(result, failed)) if result < 0 else 0


cdef int check_removal(Store store, object error) except -1:
    """Raises why segments could not be removed, unless that may be otherwise with the next flush."""
    if store.log_has_failed() or not is_retryable(error):
        store.fail(error)
        raise error
    return 0


cdef int rest_log(Store store, uint64_t flushed) except -1:
    """Where all that the log holds will be in tables, durably: none of it is needed then.

    Whoever opens the database reads nothing of it, and the disk has it back.
    """
    if store.log is not None and not store.options.changes_kept_size and not store.feeds and (
        # A feed that begins with what isn't seen yet, since its writer waits, would lack that.
        store.visible >= flushed
    ):
        store.log.begin_rest(flushed + 1)
    return 0


cdef bint remove_kept_log(Store store) except -1:
    cdef uint64_t first, oldest
    if store.log is None or store.read_only:
        return False
    first = first_kept(store, 0)
    oldest = oldest_sealed(store.log)
    if oldest == 0 or oldest >= first:
        return False
    let_go_of_log(store, first)
    return True


cdef uint64_t first_kept(Store store, uint64_t kept_bytes) except? 0xFFFFFFFFFFFFFFFF:
    """The oldest segment that stays: for recovery, for an open feed, or as part of so much log."""
    cdef ChangeReader feed
    cdef uint64_t first = store.log_first
    cdef uint64_t pinned
    if not store.manifest_is_durable():
        return 0            # what it says of the log may be a cache's memory
    if store.may_lose_its_log():
        first = store.log.beyond_unneeded(store.flushed_sequence + 1)
    if kept_bytes:
        first = min(first, segment_of_tail(store.log, kept_bytes))
    pinned = first
    for reference in list(store.feeds.values()):
        feed = reference()
        if feed is not None:
            pinned = min(pinned, feed.tail.segment)
    if pinned < first:
        # Feeds that are further behind than they may be are told so when they read on.
        first = max(pinned, min(first, segment_of_tail(store.log, store.options.changes_behind_size)))
    return first


cdef int let_go_of_log(Store store, uint64_t first) except -1:
    # Before the first is gone: whoever reads there from here on mustn't believe it.
    store.log_kept = max(store.log_kept, first)
    try:
        store.log.remove_segments_before(first)
    except Exception as error:
        check_removal(store, error)
    return 0


cdef object oldest_change(Store store):
    cdef uint64_t oldest = 0
    if store.log is None:
        return None
    LogTail(store.log).go_before(0, store.log_kept, &oldest)
    return oldest or store.visible + 1
