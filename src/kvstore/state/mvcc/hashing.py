"""A hash of what can be read, for members to compare.

It is of the keys as they were at the compacted revision, in their order, and of each change since,
in the order of events: not of bytes on a disk. So it is the same whatever a member's engine has
merged, dropped or not yet dropped.
"""

from __future__ import annotations

import struct
from typing import Final

from kvstore._engine.primitives.native import crc32c
from kvstore.state.mvcc.answers import HashAnswer, KeyValue
from kvstore.state.mvcc.reads import Now, read_events, read_settled
from kvstore.state.mvcc.source import Span, Standing, Store, StoredSource
from kvstore.state.mvcc.txn import check_revision

__all__ = ["hash_kv"]

_PAGE_BYTES: Final = 1 << 20
_FIELDS = struct.Struct("<BQQQqII")


def hash_kv(store: Store, standing: Now, revision: int) -> HashAnswer:
    """The hash up to ``revision``, 0 being the current one. Reads everything; raises EtcdError."""

    def read(now: Standing) -> HashAnswer:
        check_revision(now, max(revision, 0))
        last = revision if revision > 0 else now.revision
        return HashAnswer(now.revision, _hash(store, standing, now, last), now.compacted, last)

    return read_settled(standing, read)


def _hash(store: Store, standing: Now, now: Standing, last: int) -> int:
    crc = 0
    if now.compacted > 0:
        source = StoredSource(store, now.model_from, now.compacted)
        for kv in source.visible(Span(b"", None)):
            crc = _add(crc, False, kv)
    first, sub = max(now.compacted, 0) + 1, 0
    while first <= last:
        page = read_events(store, standing, first, last, _PAGE_BYTES, sub=sub)
        for _, events in page.revisions:
            for event in events:
                crc = _add(crc, event.is_delete, event.kv)
        first, sub = page.next_revision, page.next_sub
    return crc


def _add(crc: int, is_delete: bool, kv: KeyValue) -> int:
    key, create_revision, mod_revision, version, value, lease = kv
    fields = _FIELDS.pack(
        is_delete, create_revision, mod_revision, version, lease, len(key), len(value)
    )
    return crc32c(value, crc32c(key, crc32c(fields, crc)))
