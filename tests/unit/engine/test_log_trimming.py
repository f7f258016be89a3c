"""What becomes of the log of writes that nobody asked to sync."""

from kvstore.engine import DB


def test_a_log_that_was_never_synced_is_trimmed_by_flushes(tmp_path):
    with DB(tmp_path / "db", write_buffer_size=1 << 20, background=False) as db:
        for number in range(200):
            db.put(b"%06d" % number, bytes(64 << 10))
        db.flush()
        log = db.stats()["log"]
        assert log["segment"] > 5
        assert log["segments"] == 0
        assert list((tmp_path / "db/wal").iterdir()) == []
        assert log["durable_bytes"] == log["appended_bytes"]


def test_many_short_openings_leave_few_segments(tmp_path):
    for number in range(40):
        with DB(tmp_path / "db", background=False) as db:
            assert db.stats()["log"]["segments"] <= 9
            db.put(b"%06d" % number, b"value")
    with DB(tmp_path / "db", background=False) as db:
        assert len(list(db)) == 40
        assert db.stats()["flushes"] == 0
        assert len(list((tmp_path / "db/wal").iterdir())) <= 9


def test_openings_that_only_read_leave_nothing_at_all(tmp_path):
    with DB(tmp_path / "db", background=False) as db:
        db.put(b"key", b"value")
    before = sorted((tmp_path / "db/wal").iterdir())
    for _ in range(20):
        with DB(tmp_path / "db", background=False) as db:
            assert db.get(b"key") == b"value"
    assert sorted((tmp_path / "db/wal").iterdir()) == before
