"""Writes that never wait, for callers on an event loop (kvstore.engine.awaiting).

Each is made at once, in memory and in the log, or not at all where it would have to wait: for a
flush, a compaction, a segment of the log, a disk that doesn't keep up, or behind another that waits.
Those are held, and a thread makes them in their order (held.py).

What is made is seen at once, as any write that needs no sync; behind one that isn't seen before its
sync it is seen with that.

What they return is (ticket, durably, result): the write is done once all up to the ticket is durable,
or not `durably` in the file; with 0, without a log or where another thread writes the file, already.
"""

import os
import weakref
from functools import partial

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport (
    BytesView,
    KIND_DELETE,
    KIND_PUT,
    slice_of,
    view_close,
    view_open,
)
from kvstore._engine.database.held import HeldWrites
from kvstore.errors import StorageError


cdef bint would_wait(Database db, size_t payload_bytes) except -1:
    """False: it can be made, and nothing lets other threads in before."""
    if db.attention:
        db.check_writable()
        if db.is_holding():
            return True
    if db.threads_begun and db.delay_wanted() > 0:
        return True
    if db.memory_is_full():
        if not db.threads_begun or db.must_stop():
            return True
        db.provide_room()
    return db.log is not None and (db.log.is_behind() or db.log.reserve(payload_bytes) != 0)


cdef object told(Database db, bint sync, object result):
    cdef uint64_t ticket
    if db.log is None:
        return 0, False, result
    ticket = db.log.position()
    # Without sync, too, it is to be seen.
    if sync or db.visible != db.assigned:
        return ticket, True, result
    if db.log.writes_behind or db.log.written_position() >= ticket:
        return 0, False, result
    return ticket, False, result


# --- at once; None: it would have to wait, and nothing was done -----------------------------------

def put_at_once(Database db not None, bint sync, key, value):
    cdef BytesView key_view
    cdef BytesView value_view
    view_open(key, &key_view, "key")
    value_view.held = False
    try:
        view_open(value, &value_view, "value")
        if db.put_one(KIND_PUT, key_view.slice, value_view.slice, LEFT):
            return None
        return told(db, sync, None)
    finally:
        view_close(&key_view)
        view_close(&value_view)


def delete_at_once(Database db not None, bint sync, key):
    cdef BytesView view
    view_open(key, &view, "key")
    try:
        if db.put_one(KIND_DELETE, view.slice, slice_of(NULL, 0), LEFT):
            return None
        return told(db, sync, None)
    finally:
        view_close(&view)


def write_at_once(Database db not None, bint sync, WriteBatch batch not None):
    db.check_open()
    if batch.expectations is not None:
        forget_read(batch)
    # What it expects may be only on the disk.
    if would_wait(db, batch.encoded.size) or db.write_now(batch, LEFT, None, None) is None:
        return None
    return told(db, sync, db.assigned)


def sync_at_once(Database db not None, bint sync):
    db.check_writable()
    return None if db.is_holding() else told(db, sync, None)


# --- held: `done` gets what those above return, or an error, on the thread that makes it ----------

def hold_put(Database db not None, bint sync, done, key, value):
    cdef bytes own_key = as_bytes(key, "key")
    cdef bytes own_value = as_bytes(value, "value")
    hold(db, partial(put_held, db, sync, own_key, own_value), len(own_key) + len(own_value), done)


def hold_delete(Database db not None, bint sync, done, key):
    cdef bytes own = as_bytes(key, "key")
    hold(db, partial(delete_held, db, sync, own), len(own), done)


def hold_batch(Database db not None, bint sync, done, WriteBatch batch not None):
    cdef WriteBatch own = WriteBatch()      # the caller's may change
    own.append(batch)
    hold(db, partial(write_held, db, sync, own), own.encoded.size + own.expected_bytes, done)


def hold_sync(Database db not None, bint sync, done):
    hold(db, partial(told_held, db, sync), 0, done)


cdef int hold(Database db, object make, uint64_t size, object done) except -1:
    db.check_writable()
    if db.held is None:
        db.held = HeldWrites(partial(none_held, weakref.ref(db)))
    db.held.add(make, size, done)
    db.attention = True
    return 0


def put_held(Database db not None, bint sync, bytes key not None, bytes value not None):
    Database.put(db, key, value)
    return told(db, sync, None)


def delete_held(Database db not None, bint sync, bytes key not None):
    Database.delete(db, key)
    return told(db, sync, None)


def write_held(Database db not None, bint sync, WriteBatch batch not None):
    sequence = Database.write(db, batch)
    return told(db, sync, sequence)


def told_held(Database db not None, bint sync):
    return told(db, sync, None)


def none_held(reference):
    cdef Database db = reference()
    if db is not None:
        db.refresh_attention()


# --- after a sync ---------------------------------------------------------------------------------

def note_durable(Database db not None):
    """Shows what was only waiting for its sync. A log that has failed ends all writes."""
    if db.log is None:
        return
    db.show_left()
    if db.failure is None:
        try:
            db.log.check_failed()
        except StorageError as error:
            db.fail(error)


def check_open(Database db not None):
    db.check_open()


def log_of(Database db not None):
    """None: nothing is logged, of a database that is only read, either."""
    db.check_open()
    return None if db.read_only else db.log


def new_event(Database db not None):
    """An eventfd; tables give their descriptors up for it."""
    while True:
        try:
            return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError as error:
            failure = StorageError(
                f"no event descriptor for writes that are awaited ({error.strerror})",
                path=db.path, errno=error.errno,
            )
            if not db.make_descriptors(failure):
                raise failure from error


def call_at_end(Database db not None, call):
    """Have it called when the database is closed, before close() returns."""
    db.at_end = call
