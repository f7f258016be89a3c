"""Walks past a key that was written over and over."""

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, WriteBatch

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


# --- how many of them are looked at ---------------------------------------------------------------

MANY = 100_000
PASSED_MAX = 16  # of one key: 8 steps and a seek, on either side of the version that is shown


@pytest.fixture(scope="module", params=["memory", "table", "tables"])
def rewritten(request):
    """A key with very many versions between two others, the last write of it a delete."""
    with DB(
        "/db",
        filesystem=MemoryFileSystem(),
        background=False,
        wal=False,
        write_buffer_size=256 << 20,
    ) as opened:
        opened.retain_from(0)
        opened.put(b"a", b"")
        opened.put(b"c", b"")
        for first in range(3, MANY, 1000):
            batch = WriteBatch()
            for number in range(first, first + 1000):
                batch.put(b"b", b"%d" % number)
            opened.write(batch)
            if request.param == "tables" and first % 20_000 == 3:
                opened.flush()
        opened.delete(b"b")
        if request.param != "memory":
            opened.flush()
        yield opened


def passed(db, walk):
    """Entries that were gone over by what the walk opens and closes, and not shown."""
    before = db.stats()["passed_entries"]
    walk()
    return db.stats()["passed_entries"] - before


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sequence", [2, 3, 5, MANY // 2, MANY, None])
def test_a_scan_goes_past_a_key_with_very_many_versions_in_a_few_steps(
    rewritten, reverse, sequence
):
    found = []

    def walk():
        found.extend(rewritten.iterator(reverse=reverse, sequence=sequence))

    steps = passed(rewritten, walk)
    expected = [(b"a", b""), (b"b", b"%d" % (sequence or 0)), (b"c", b"")]
    if sequence in (2, None):
        del expected[1]
    assert found == (expected[::-1] if reverse else expected)
    assert steps <= 2 * PASSED_MAX


@pytest.mark.parametrize("sequence", [2, 3, MANY // 2, MANY, None])
def test_a_count_goes_past_it_as_well(rewritten, sequence):
    counts = []
    steps = passed(rewritten, lambda: counts.append(rewritten.count(sequence=sequence)))
    assert counts == [2 if sequence in (2, None) else 3]
    assert steps <= 2 * PASSED_MAX


def test_turning_round_on_it_does_too(rewritten):
    def walk():
        with rewritten.iterator(sequence=3) as pairs:
            assert [next(pairs), next(pairs)] == [(b"a", b""), (b"b", b"3")]
            # Before its place lie all the versions that this reader doesn't see.
            assert [pairs.prev(), pairs.prev()] == [(b"b", b"3"), (b"a", b"")]
            assert [next(pairs), next(pairs), next(pairs)] == [
                (b"a", b""),
                (b"b", b"3"),
                (b"c", b""),
            ]

    assert passed(rewritten, walk) <= 4 * PASSED_MAX


def test_seeks_to_it_and_beyond_it_pass_few_versions(rewritten):
    def walk():
        with rewritten.iterator(sequence=5) as pairs:
            for _ in range(3):
                pairs.seek(b"b")
                assert next(pairs) == (b"b", b"5")
                pairs.seek(b"b\0")
                assert next(pairs) == (b"c", b"")

    assert passed(rewritten, walk) <= 3 * PASSED_MAX


def test_entries_that_are_shown_are_not_counted_as_passed(tmp_path):
    with DB(tmp_path / "db") as db:
        for number in range(100):
            db.put(b"%02d" % number, b"")
        assert passed(db, lambda: list(db.iterator())) == 0
        assert passed(db, lambda: list(db.iterator(reverse=True))) == 0
        assert passed(db, db.count) == 0
        db.delete(b"50")
        # The tombstone, and what it hides.
        assert passed(db, lambda: list(db.iterator())) == 2
        assert passed(db, lambda: list(db.iterator(reverse=True))) == 2
