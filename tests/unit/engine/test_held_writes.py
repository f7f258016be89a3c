"""The line of writes that wait for a thread to make them."""

from __future__ import annotations

import threading

import pytest

from kvstore._engine.database.held import HeldWrites

WAIT_S = 60


@pytest.mark.parametrize("starts", [True, False])
def test_what_is_held_after_a_signal_interrupted_another_is_made(
    starts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the thread is being started: that write isn't held, and none waits for it."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        if starts:
            start(thread)
        raise KeyboardInterrupt

    made: list[str] = []
    done = threading.Event()
    held = HeldWrites(lambda: None)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        held.add(lambda: made.append("first"), 100, lambda _made, _error: None)
    assert not held.waiting
    held.add(lambda: made.append("second"), 100, lambda _made, _error: done.set())
    assert done.wait(WAIT_S)
    held.wait_behind()
    held.end()
    assert made == ["second"]
    assert not held.waiting
    assert held.bytes == 0
