"""What must hold between a state's own rows, whatever was stored: for checks of what a disk has.

Each row can be read by itself; a key's record is made by the last change of it that is known; a key
is on a lease that is there, and the lease knows it; what members remember of requests can be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from kvstore.engine import DB
from kvstore.errors import CorruptionError
from kvstore.state.mvcc.auth import load_auth
from kvstore.state.mvcc.records import (
    ALARMS,
    ATTACHMENTS,
    EVENTS,
    LEASES,
    USER,
    USERS,
    attachment_key,
    decode_alarm_key,
    decode_attachment_key,
    decode_event,
    decode_event_key,
    decode_key,
    decode_lease,
    decode_lease_key,
    lease_key,
)
from kvstore.state.requests import check_record
from kvstore.state.sessions import decode_session
from kvstore.state.stored import REQUESTS, SESSIONS, StoredState, stored_state

__all__ = ["FINDINGS_MAX", "check_rows"]

FINDINGS_MAX = 100
"""That are told: where there are more, something is wrong with all."""

KEYS_AT_ONCE = 1 << 20
"""Of which the newest change is remembered."""


def check_rows(db: DB) -> list[str]:
    """What is wrong with the rows of a state, a line each, of which none holds a key or a value.

    Reads all of it. Raises StorageError.
    """
    state = stored_state(db)
    if state is None:
        return []
    findings: list[str] = []
    if state.applied_index > db.flushed_index:
        findings.append(
            f"the state is of index {state.applied_index}, its tables of {db.flushed_index}"
        )
    for check in (_keys, _events, _leases, _others):
        findings += islice(check(db, state), FINDINGS_MAX)
    return findings[:FINDINGS_MAX]


def _read(what: str, read: Callable[[], object]) -> Iterator[str]:
    """The finding of a row that can't be read."""
    try:
        read()
    except (CorruptionError, ValueError) as error:
        yield f"{what} can't be read: {error}"


def _keys(db: DB, state: StoredState) -> Iterator[str]:
    for key, record, sequence in db.iterator(prefix=USER, include_sequence=True):
        if sequence > state.revision:
            yield f"a key is of revision {sequence}, the state of {state.revision}"
            continue
        if not state.model_from:
            continue
        try:
            lease = decode_key(key[len(USER) :], record, sequence, state.model_from).lease
        except CorruptionError as error:
            yield f"the record of a key of revision {sequence} can't be read: {error}"
            continue
        if lease and attachment_key(lease, key[len(USER) :]) not in db:
            yield f"a key of revision {sequence} is on lease {lease:x}, which doesn't know of it"


def _events(db: DB, state: StoredState) -> Iterator[str]:
    """Each change that is known made the version of its key that there is of its revision."""
    if not state.model_from:
        return
    newest: dict[bytes, tuple[int, bool]] = {}
    are_all = True
    for key, record in db.iterator(prefix=EVENTS):
        try:
            revision, place = decode_event_key(key)
            event = decode_event(record)
        except CorruptionError as error:
            yield f"a change can't be read: {error}"
            continue
        if revision > state.revision:
            yield f"change {place} of revision {revision} is beyond the state's {state.revision}"
        newest[event.key] = (revision, event.is_delete)
        if len(newest) >= KEYS_AT_ONCE:
            yield from _newest_are_there(db, newest, are_all=False)
            newest.clear()
            are_all = False
    yield from _newest_are_there(db, newest, are_all=are_all)


def _newest_are_there(
    db: DB, newest: dict[bytes, tuple[int, bool]], *, are_all: bool
) -> Iterator[str]:
    """``are_all``: no change of any key is known but these."""
    for key, (revision, is_delete) in newest.items():
        version = db.get_versioned(USER + key, fill_cache=False)
        if version is not None and version[1] > revision:
            if are_all:
                yield f"a key is of revision {version[1]}, of which no change is known"
            continue
        if is_delete != (version is None):
            made = "deleted" if is_delete else "put"
            yield f"a key that revision {revision} {made} is {'not ' * (not is_delete)}there"
        elif version is not None and version[1] != revision:
            yield f"a key that revision {revision} put is there as of revision {version[1]}"


def _leases(db: DB, state: StoredState) -> Iterator[str]:
    for key, record in db.iterator(prefix=LEASES):
        yield from _read("a lease", lambda key=key: decode_lease_key(key))  # type: ignore[misc]
        yield from _read("a lease", lambda record=record: decode_lease(record))  # type: ignore[misc]
    for stored_key in db.iterator(prefix=ATTACHMENTS, include_value=False):
        try:
            lease, key = decode_attachment_key(stored_key)
        except CorruptionError as error:
            yield f"a key on a lease can't be read: {error}"
            continue
        if lease_key(lease) not in db:
            yield f"a key is on lease {lease:x}, which isn't there"
        version = db.get_versioned(USER + key, fill_cache=False)
        if version is None:
            yield f"lease {lease:x} has a key that isn't there"
        elif decode_key(key, *version, state.model_from).lease != lease:
            yield f"lease {lease:x} has a key that is on another one"


def _others(db: DB, state: StoredState) -> Iterator[str]:
    del state
    for _, record in db.iterator(prefix=REQUESTS):
        yield from _read("requests of an entry", lambda record=record: check_record(record))  # type: ignore[misc]
    for _, record in db.iterator(prefix=SESSIONS):
        yield from _read("a session", lambda record=record: decode_session(record))  # type: ignore[misc]
    for key in db.iterator(prefix=ALARMS, include_value=False):
        yield from _read("an alarm", lambda key=key: decode_alarm_key(key))  # type: ignore[misc]
    yield from _read("users and roles", lambda: load_auth(db.iterator(prefix=USERS)))
