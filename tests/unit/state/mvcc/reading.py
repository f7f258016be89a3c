"""Short ways to read a model in tests."""

from __future__ import annotations

from kvstore.etcd_errors import EtcdError
from kvstore.state.mvcc.answers import Event
from kvstore.state.mvcc.reads import read_events
from tests.unit.state.mvcc.harness import Model


def plain(answer: object) -> object:
    """Comparable: an error stands for its reason."""
    return answer.reason if isinstance(answer, EtcdError) else answer


def events(model: Model, first: int, bytes_max: int = 1 << 20) -> list[tuple[int, Event]]:
    """All from ``first`` on, page by page, with what keys were before."""
    told = []
    sub = 0
    last = model.standing.revision
    while first <= last:
        page = read_events(
            model.store, lambda: model.standing, first, last, bytes_max, previous=True, sub=sub
        )
        assert (page.next_revision, page.next_sub) > (first, sub)
        told += [(revision, event) for revision, events in page.revisions for event in events]
        first, sub = page.next_revision, page.next_sub
    return told
