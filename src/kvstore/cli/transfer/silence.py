"""A watch that is silent because there is nothing to say, or because nobody is there."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from kvstore.cli.transfer.export import newest_revision
from kvstore.client import Client, Watch
from kvstore.client.watch_position import Batch
from kvstore.errors import ClosedError, Error

__all__ = ["batches_while_there"]


def batches_while_there(client: Client, watch: Watch, patience_s: float) -> Iterator[Batch]:
    """Yield a watch's batches. After ``patience_s`` without one the store is asked whether it is
    there, and how far the watch is: what asked before may have been a member that has ended.

    Raises what the store's answer is: UnavailableError and the like.
    """
    heard, ended = threading.Event(), threading.Event()
    failed: list[Error] = []

    def ask() -> None:
        while not ended.is_set():
            if heard.wait(patience_s):
                heard.clear()
                continue
            try:
                newest_revision(client)
                watch.ask_progress()
            except Error as error:
                failed.append(error)
                with contextlib.suppress(ClosedError):
                    watch.close()
                return

    # Nobody waits for it: it may be in a call that has its own deadline.
    threading.Thread(target=ask, daemon=True).start()
    try:
        for batch in watch.batches():
            heard.set()
            yield batch
    finally:
        ended.set()
        heard.set()
    if failed:
        raise failed[0]
