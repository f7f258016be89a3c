"""A member's metrics, now and while something goes on."""

from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Watch", "metrics_of", "watching"]

PAUSE_S = 1.0
SAMPLE = re.compile(r"^kvstore_(?P<name>\w+)(\{[^}]*\})? (?P<value>\S+)$", re.MULTILINE)


def metrics_of(address: str) -> dict[str, float]:
    """By name without ``kvstore_``; of several with other labels their sum."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for sample in SAMPLE.finditer(text):
        found[sample["name"]] = found.get(sample["name"], 0.0) + float(sample["value"])
    return found


class Watch:
    """The largest that each of some metrics was."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.largest: dict[str, float] = {}

    def look(self) -> None:
        now = metrics_of(self._address)
        for name in ("loop_turn_seconds_max", "loop_late_seconds_max"):
            self.largest[name] = max(now[name], self.largest.get(name, 0.0))


@contextmanager
def watching(address: str) -> Iterator[Watch]:
    """Look every second while the body runs, and once at its end."""
    watch, ended = Watch(address), threading.Event()

    def run() -> None:
        while not ended.wait(PAUSE_S):
            watch.look()

    thread = threading.Thread(target=run, name="watch")
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()
    watch.look()
