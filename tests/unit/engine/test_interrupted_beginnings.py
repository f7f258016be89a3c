"""A signal's handler that raises while a database is opened, or its threads are started."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from kvstore import DB
from kvstore._engine.database.background import start_threads
from kvstore._engine.database.native import EventCount


def test_no_name_of_a_directory_is_lost_to_a_handler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are taken in C: nothing of Python's runs amid a listing, in which one could raise."""
    path = tmp_path / "db"
    with DB(path) as db:
        for number in range(100):
            db.put(b"%d" % number, b"1")
    (path / "END").unlink()

    decode = os.fsdecode

    def interrupted(name: bytes | str) -> str:
        if name in (b"000001.wal", b"000002.wal"):
            raise KeyboardInterrupt
        return decode(name)

    monkeypatch.setattr(os, "fsdecode", interrupted)
    with DB(path) as db:
        assert len(list(db)) == 100


class Interrupting(list[threading.Thread]):
    def append(self, thread: threading.Thread) -> None:
        super().append(thread)
        raise KeyboardInterrupt


def test_a_thread_that_was_not_started_is_none() -> None:
    """It would be taken for one that runs when they are started again."""
    threads = Interrupting()
    store: Any = DB
    with pytest.raises(KeyboardInterrupt):
        start_threads(store, lambda _store, _job: None, EventCount(), ["flush"], 0, threads)
    assert threads == []
