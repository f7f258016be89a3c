"""Walks past a key that was written over and over."""

import pytest

from kvstore.engine import DB

VERSIONS = 100


@pytest.fixture(params=["memory", "tables", "both"])
def db(request, tmp_path):
    with DB(tmp_path / "db") as opened:
        keep = opened.snapshot()  # so that no version is dropped
        for round_number in range(2):
            for key in (b"a", b"b", b"c", b"d"):
                for version in range(VERSIONS):
                    opened.put(key, b"%d" % (round_number * VERSIONS + version))
            for _ in range(VERSIONS):
                opened.delete(b"c")
            if request.param == "tables" or (request.param == "both" and round_number == 0):
                opened.flush()
        yield opened
        keep.close()


def newest():
    return [(key, b"%d" % (2 * VERSIONS - 1)) for key in (b"a", b"b", b"d")]


def test_each_key_is_shown_once_with_its_newest_version_either_way(db):
    assert list(db.iterator()) == newest()
    assert list(db.iterator(reverse=True)) == newest()[::-1]


def test_turning_round_among_many_versions_keeps_the_place(db):
    with db.iterator() as pairs:
        first, second, third = newest()
        assert [next(pairs), next(pairs), pairs.prev(), pairs.prev()] == [
            first,
            second,
            second,
            first,
        ]
        assert [next(pairs), next(pairs), next(pairs), pairs.prev()] == [
            first,
            second,
            third,
            third,
        ]


def test_versions_newer_than_a_snapshot_are_passed_over(db):
    with db.snapshot() as snapshot:
        for key in (b"0", b"a", b"b", b"c", b"d", b"e"):
            for version in range(VERSIONS):
                db.put(key, b"new%d" % version)
        assert list(snapshot.iterator()) == newest()
        assert list(snapshot.iterator(reverse=True)) == newest()[::-1]
        assert list(snapshot.iterator(start=b"b")) == newest()[1:]
        assert list(snapshot.iterator(stop=b"d", reverse=True)) == newest()[1::-1]
