"""Five members restarted one after the other while clients write: nobody sees a failed call."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from tests.integration.cluster import Cluster

CLIENTS = 4
WAIT_S = 30.0


class Writers:
    """Clients that write all the time, each its own keys; they note when they got answers."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        self._more = threading.Condition()
        self.failed: list[Exception] = []
        self.answered: list[float] = []
        self.written: dict[bytes, bytes] = {}
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        with self._cluster.client(timeout=WAIT_S) as client:
            turn = 0
            while not self._stop.is_set():
                key, value = b"%d/%d" % (number, turn % 20), b"%d" % turn
                try:
                    client.put(key, value)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is a failed call
                    self.failed.append(error)
                with self._more:
                    self.written[key] = value
                    self.answered.append(time.monotonic())
                    self._more.notify_all()
                turn += 1

    def wait_for(self, answers: int) -> None:
        """Return once so many more calls were answered."""
        with self._more:
            until = len(self.answered) + answers
            assert self._more.wait_for(lambda: len(self.answered) >= until, WAIT_S)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_no_call_fails_while_all_members_are_restarted_under_load(tmp_path: Path) -> None:
    with Cluster(tmp_path, 5) as cluster:
        cluster.start()
        writers = Writers(cluster)
        try:
            for member in cluster.members:
                writers.wait_for(20)
                assert cluster.running.pop(member).terminate() == 0
                cluster.start(member)
            writers.wait_for(20)
        finally:
            writers.stop()
        assert writers.failed == []
        with cluster.client() as client:
            assert {key: client.get(key) for key in writers.written} == writers.written
        gaps = zip(sorted(writers.answered), sorted(writers.answered)[1:], strict=False)
        print(f"longest time without an answer: {1000 * max(b - a for a, b in gaps):.0f} ms")
