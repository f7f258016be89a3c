"""Keys of a Range encoded as they are found, beside those that have an object each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore._service.native import Encoder, KeyValues
from kvstore.engine import DB, Options, WriteBatch
from kvstore.errors import ClosedError, CorruptionError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc import reads
from kvstore.state.mvcc.answers import (
    DeleteRangeAnswer,
    GatheredAnswer,
    PutAnswer,
    RangeAnswer,
    TxnAnswer,
)
from kvstore.state.mvcc.ranges import may_be_gathered
from kvstore.state.mvcc.reads import gather_range, read_range
from kvstore.state.mvcc.records import USER, encode_key
from kvstore.state.mvcc.requests import Range, SortOrder, SortTarget
from kvstore.state.mvcc.source import Standing
from kvstore.state.stores import DiskStore

ENCODER = Encoder(RangeAnswer, PutAnswer, DeleteRangeAnswer, TxnAnswer)
OPTIONS = Options(wal=False, history_prefixes=(USER,))
ALL = Range(b"\0", b"\0")
MODEL_FROM = 3
KEYS = 700
"""More than two steps of a walk."""


def put(db: DB, sequence: int, key: bytes, record: bytes) -> None:
    batch = WriteBatch()
    batch.put(USER + key, record)
    db.write(batch, sequence=sequence, applied_index=sequence)


@pytest.fixture(scope="module", params=["memory", "tables", "both"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DB]:
    """Keys of v1, keys of the model with leases of either sign, empty values, old versions."""
    with DB(str(tmp_path_factory.mktemp("db")), options=OPTIONS) as db:
        db.retain_from(0)
        for sequence in range(1, MODEL_FROM + 1):
            put(db, sequence, b"old%d" % sequence, b"of v1")
        sequence = MODEL_FROM
        for number in range(KEYS):
            sequence += 1
            lease = (0, 7, -7)[number % 3]
            value = b"" if number % 5 == 0 else b"v" * (number % 300)
            put(db, sequence, b"k%04d" % number, encode_key(sequence, 1, lease, value))
            if request.param == "both" and number == KEYS // 2:
                db.flush()
        for number in range(0, KEYS, 10):
            sequence += 1
            record = encode_key(MODEL_FROM + 1 + number, 2, 0, b"new")
            put(db, sequence, b"k%04d" % number, record)
        if request.param == "tables":
            db.flush()
        yield db


def standing_of(db: DB) -> Callable[[], Standing]:
    return lambda: Standing(db.last_sequence, MODEL_FROM, -1)


def encoded_both_ways(db: DB, asked: Range) -> tuple[bytes, bytes]:
    disk, standing = DiskStore(db), standing_of(db)
    plain = ENCODER.response(read_range(disk, standing, asked), 1, 2, 3)
    assert plain is not None
    answer = gather_range(disk, standing, asked, KeyValues)
    assert isinstance(answer, GatheredAnswer)
    return plain, answer.keys.response(answer.revision, answer.total, 1, 2, 3)


bounds = st.sampled_from([b"\0", b"k", b"k0100", b"k0699", b"old", b"zz"])


@settings(max_examples=150, deadline=None)
@given(
    bounds,
    bounds | st.just(b"\0"),
    st.sampled_from([0, 1, 255, 256, 257, 512, KEYS + MODEL_FROM, 5000]),
    st.sampled_from([0, 2, MODEL_FROM + 1, MODEL_FROM + 400, MODEL_FROM + KEYS + 3]),
    st.sampled_from(SortOrder),
    st.booleans(),
)
def test_the_same_bytes_as_by_objects(
    store: DB, key: bytes, end: bytes, limit: int, revision: int, order: SortOrder, keys_only: bool
) -> None:
    asked = Range(key, end, limit=limit, revision=revision, sort_order=order, keys_only=keys_only)
    if may_be_gathered(asked):
        plain, gathered = encoded_both_ways(store, asked)
        assert gathered == plain


@pytest.mark.parametrize(
    "asked",
    [
        Range(b"k0001"),
        ALL._replace(count_only=True),
        ALL._replace(sort_target=SortTarget.MOD),
        ALL._replace(min_mod_revision=5),
        Range(b"b", b"a"),
    ],
)
def test_what_is_not_taken_as_it_comes_is_answered_by_objects(store: DB, asked: Range) -> None:
    answer = gather_range(DiskStore(store), standing_of(store), asked, KeyValues)
    assert answer == read_range(DiskStore(store), standing_of(store), asked)


def test_what_is_too_much_is_refused(store: DB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "ANSWER_BYTES_MAX", 10_000)
    with pytest.raises(EtcdError) as refused:
        gather_range(DiskStore(store), standing_of(store), ALL, KeyValues)
    assert refused.value.reason is Reason.REQUEST_TOO_LARGE
    few = ALL._replace(limit=20)
    plain, gathered = encoded_both_ways(store, few)
    assert gathered == plain


def test_each_step_is_told(store: DB) -> None:
    steps: list[None] = []
    disk = DiskStore(store, lambda: steps.append(None))
    gather_range(disk, standing_of(store), ALL, KeyValues)
    assert len(steps) >= KEYS // 256


def test_a_broken_record_is_corruption(tmp_path: Path) -> None:
    with DB(str(tmp_path / "db"), options=OPTIONS) as db:
        put(db, 5, b"good", encode_key(5, 1, 0, b"value"))
        put(db, 6, b"newer", encode_key(7, 1, 0, b"created after it was changed"))
        standing = standing_of(db)
        with pytest.raises(CorruptionError, match="at revision 6 is broken"):
            gather_range(DiskStore(db), standing, ALL, KeyValues)
        answer = gather_range(DiskStore(db), standing, Range(b"a", b"h"), KeyValues)
        assert isinstance(answer, GatheredAnswer)
        assert answer.total == 1


def test_a_closed_walk_is_refused(tmp_path: Path) -> None:
    with DB(str(tmp_path / "db"), options=OPTIONS) as db:
        walk = db.iterator(include_sequence=True)
        walk.close()
        with pytest.raises(ClosedError):
            KeyValues(0, 0, 1, False).take(walk, 1)
