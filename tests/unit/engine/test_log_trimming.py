"""What becomes of the log of writes that nobody asked to sync."""

from kvstore.engine import DB


def test_a_log_that_was_never_synced_is_trimmed_by_flushes(tmp_path):
    with DB(tmp_path / "db", write_buffer_size=1 << 20, background=False) as db:
        for number in range(200):
            db.put(b"%06d" % number, bytes(64 << 10))
        db.flush()
        log = db.stats()["log"]
        assert log["segment"] > 5
        assert log["segments"] == 1
        assert log["durable_bytes"] == log["appended_bytes"]
