"""When storage counts as in trouble, and when as well again (election timeout: 10 ticks)."""

from __future__ import annotations

from kvstore.replica.storage_watch import StorageWatch


def after(watch: StorageWatch, ticks: int, lack: str = "", oldest: int = 0) -> bool:
    """Whether there is trouble after so many ticks; a write's age grows from ``oldest``."""
    for tick in range(ticks):
        watch.tick(lack, oldest + tick if oldest else 0)
    return bool(watch.trouble)


def test_a_full_disk_is_trouble_after_one_timeout_and_well_after_two_with_room() -> None:
    watch = StorageWatch(10)
    assert not after(watch, 9, "no room")
    assert after(watch, 1, "no room")
    assert watch.trouble == "no room"
    assert after(watch, 19)
    assert not after(watch, 1)


def test_a_disk_that_is_full_for_a_moment_now_and_then_is_no_trouble() -> None:
    watch = StorageWatch(10)
    for _ in range(20):
        assert not after(watch, 9, "no room")
        assert not after(watch, 1)


def test_a_write_that_takes_two_timeouts_is_trouble() -> None:
    watch = StorageWatch(10)
    assert not after(watch, 19, oldest=1)
    assert after(watch, 1, oldest=20)
    assert "hangs" in watch.trouble


def test_a_disk_whose_every_write_takes_too_long_stays_in_trouble_between_them() -> None:
    watch = StorageWatch(10)
    assert after(watch, 20, oldest=1)
    for _ in range(10):
        assert after(watch, 21, oldest=1)
    assert not after(watch, 20)
