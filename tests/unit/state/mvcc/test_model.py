"""Random histories of operations, against the oracle: each answer, event and read of the past."""

from __future__ import annotations

import pytest

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc import overlay
from kvstore.state.mvcc.answers import Event, RangeAnswer
from kvstore.state.mvcc.evaluate import evaluate
from kvstore.state.mvcc.hashing import hash_kv
from kvstore.state.mvcc.reads import read_events_cached, read_range, read_txn
from kvstore.state.mvcc.requests import Proposal, Range, Txn
from kvstore.state.mvcc.source import ColdError
from tests.unit.state.mvcc.harness import ColdStore, Model, enabled
from tests.unit.state.mvcc.histories import History
from tests.unit.state.mvcc.oracle import Oracle
from tests.unit.state.mvcc.reading import events, plain

SEEDS = 40
SLICES = 60


def read(model: Model, request: Range) -> RangeAnswer | Reason:
    try:
        return read_range(model.store, lambda: model.standing, request)
    except EtcdError as error:
        return error.reason


def expected(oracle: Oracle, request: Range) -> RangeAnswer | Reason:
    try:
        return oracle.read(request)
    except EtcdError as error:
        return error.reason


def check_all(model: Model, oracle: Oracle, bytes_max: int) -> None:
    """Every state that can be read, and every event that can be told."""
    for revision in range(max(oracle.compacted, 1), oracle.revision + 1):
        request = Range(b"\0", b"\0", revision=revision)
        assert read(model, request) == expected(oracle, request)
    first = max(oracle.compacted, 1)
    assert events(model, first, bytes_max) == [
        (revision, event)
        for revision in range(first, oracle.revision + 1)
        for event in told_events(oracle, revision)
    ]


def told_events(oracle: Oracle, revision: int) -> list[Event]:
    """With what the keys were before, which isn't known any more at the compacted revision."""
    told = oracle.events.get(revision, [])
    if revision > oracle.compacted:
        return told
    return [event._replace(previous=None) for event in told]


def check_reading_txn(model: Model, oracle: Oracle, request: Txn) -> None:
    """It says the same as if it went through the log."""
    asked = Oracle()
    asked.__dict__.update(oracle.__dict__, alarms=set())
    answer: object
    try:
        answer = read_txn(model.store, lambda: model.standing, request)
    except EtcdError as error:
        answer = error.reason
    assert answer == plain(asked.apply(Proposal(b"", request), model.term))


def check_new_events(model: Model, oracle: Oracle) -> None:
    """Those of the newest revisions, as they are told from single keys."""
    last = oracle.revision
    first = max(oracle.compacted, last - 5, 1)
    page = read_events_cached(
        model.store, lambda: model.standing, first, last, 1 << 20, previous=True
    )
    assert page.revisions == tuple(
        (revision, tuple(told_events(oracle, revision)))
        for revision in range(first, last + 1)
        if revision in oracle.events
    )


def evaluate_cold(model: Model, proposals: list[Proposal]) -> list[object] | None:
    """What the slice comes to by memory alone, None if that doesn't tell. Changes nothing."""
    view = model.view(ColdStore(model.db))
    try:
        return [plain(evaluate(proposal, view, model.term)) for proposal in proposals]
    except ColdError:
        return None


@pytest.mark.parametrize("seed", range(SEEDS))
def test_any_history_is_as_the_oracle_says(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ranges so small count as large ones, too: all of their keys have one note then.
    monkeypatch.setattr(overlay, "_LARGE", seed % 4)
    model, oracle = enabled(), Oracle()
    history = History(seed, oracle)
    other = enabled()
    for _ in range(SLICES):
        proposals, told = [], []
        for _ in range(history.random.choice([1, 1, 2, 3, 6])):
            proposals.append(model.proposal(history.operation()))
            told.append(plain(oracle.apply(proposals[-1], model.term)))
        assert evaluate_cold(model, proposals) in (None, told)
        assert list(map(plain, model.apply_proposals(proposals))) == told
        for proposal in proposals:
            other.apply_proposals([proposal])
        assert (model.standing.revision, model.standing.compacted) == (
            oracle.revision,
            oracle.compacted,
        )
        assert model.leases == oracle.leases
        assert model.alarms == oracle.alarms
        for _ in range(3):
            request = history.range()
            assert read(model, request) == expected(oracle, request)
        check_reading_txn(model, oracle, history.txn_of_reads())
        check_new_events(model, oracle)
        if history.one_in(10):
            model.restart()
        if history.one_in(10):
            model.db.compact_range()
        if history.one_in(10):
            check_all(model, oracle, history.random.choice([1, 200, 1 << 20]))
    model.db.compact_range()
    check_all(model, oracle, 300)
    # However they were sliced, and whatever was merged.
    one = hash_kv(model.store, lambda: model.standing, 0)
    assert one == hash_kv(other.store, lambda: other.standing, 0)
    assert one.compacted == oracle.compacted
