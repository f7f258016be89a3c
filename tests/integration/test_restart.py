"""What a kill or a stop may not take away."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kvstore.client import Client
from kvstore.errors import Error, InvalidArgumentError
from kvstore.server.process import DRAIN_S
from tests.integration.cluster import Cluster
from tests.integration.process import Kvd, command, environment

WRITERS = 4
WAIT_S = 30.0


class Writer(threading.Thread):
    """Writes until its server is gone, and remembers what it was promised.

    Keys of its own: ``w/n`` is written once, ``w`` over and over with rising numbers.
    """

    def __init__(self, number: int, address: str, progress: threading.Semaphore) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.acknowledged = 0
        self.attempted = 0
        self._address = address
        self._progress = progress

    def key(self, n: int | None = None) -> bytes:
        return f"{self.number}".encode() if n is None else f"{self.number}/{n}".encode()

    def run(self) -> None:
        with Client(self._address, timeout=2.0) as client:
            try:
                while True:
                    self.attempted += 1
                    client.put(self.key(self.attempted), b"once %d" % self.attempted)
                    client.put(self.key(), b"%d" % self.attempted)
                    self.acknowledged = self.attempted
                    self._progress.release()
            except Error:
                return

    def check(self, client: Client) -> None:
        """Everything acknowledged is there, and of the rest all or nothing."""
        for n in range(1, self.acknowledged + 1):
            assert client.get(self.key(n)) == b"once %d" % n
        assert client.get(self.key(self.attempted)) in (None, b"once %d" % self.attempted)
        assert client.get(self.key(self.attempted + 1)) is None
        last = client.get(self.key())
        assert self.acknowledged <= int(last or 0) <= self.attempted


def write_until(server: Kvd, rounds: int) -> tuple[list[Writer], threading.Semaphore]:
    """Start the writers and return when together they have done ``rounds`` rounds of writes."""
    progress = threading.Semaphore(0)
    writers = [Writer(number, server.address, progress) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    for _ in range(rounds):
        assert progress.acquire(timeout=WAIT_S), server.stderr
    return writers, progress


def join(writers: list[Writer]) -> None:
    for writer in writers:
        writer.join(WAIT_S)
        assert not writer.is_alive()


@pytest.mark.parametrize("rounds", [1, 8, 40, 120, 300])
def test_after_sigkill_every_acknowledged_write_is_there(tmp_path: Path, rounds: int) -> None:
    with Kvd(tmp_path / "data") as server:
        server.wait_serving()
        writers, _ = write_until(server, rounds)
        server.kill()
        join(writers)
    assert sum(writer.acknowledged for writer in writers) >= rounds
    with Kvd(tmp_path / "data") as server, server.client() as client:
        for writer in writers:
            writer.check(client)


def test_it_survives_being_killed_again_and_again(tmp_path: Path) -> None:
    written: list[bytes] = []
    for run in range(4):
        with Kvd(tmp_path / "data") as server, server.client(WAIT_S) as client:
            for key in written:
                assert client.get(key) == b"v"
            for n in range(10):
                client.put(b"%d/%d" % (run, n), b"v")
                written.append(b"%d/%d" % (run, n))
            server.kill()


def test_request_ids_are_remembered_over_a_kill(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data") as server, server.client(WAIT_S) as client:
        assert client.put(b"k", b"1", request_id="first") is False
        assert client.put(b"k", b"2", request_id="second") is True
        assert client.delete(b"other", request_id="third") is False
        server.kill()
    with Kvd(tmp_path / "data") as server, server.client(WAIT_S) as client:
        assert client.put(b"k", b"1", request_id="first") is False
        assert client.get(b"k") == b"2"
        assert client.put(b"other", b"v") is False
        assert client.delete(b"other", request_id="third") is False
        assert client.get(b"other") == b"v"
        with pytest.raises(InvalidArgumentError, match="request_id"):
            client.put(b"k", b"3", request_id="first")


def test_sigterm_under_load_loses_nothing_and_exits_with_0(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data") as server:
        server.wait_serving()
        writers, _ = write_until(server, 20)
        # It would be 1 had it not ended in time.
        assert server.terminate() == 0, server.stderr
        join(writers)
    with Kvd(tmp_path / "data") as server, server.client() as client:
        for writer in writers:
            writer.check(client)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_stops_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with Kvd(tmp_path / "data") as server:
        server.wait_serving()
        started = time.monotonic()
        server.signal(number)
        assert server.wait() == 0, server.stderr
        assert time.monotonic() - started < DRAIN_S


def test_a_second_sigterm_does_not_wait_for_the_drain(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data") as server, server.channel() as channel:
        # A stream that its client never ends holds the drain up.
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        status = health_pb2.HealthCheckResponse
        while next(watch).status != status.SERVING:
            pass
        started = time.monotonic()
        server.signal(signal.SIGTERM)
        assert next(watch).status == status.NOT_SERVING
        server.signal(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM
        assert time.monotonic() - started < DRAIN_S


def takes_calls(address: str) -> bool:
    """Whether a client that comes now is answered."""
    with grpc.insecure_channel(address) as channel:
        try:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
            return False
    return True


def test_a_stopping_server_takes_no_new_calls_and_lets_those_under_way_finish(
    tmp_path: Path,
) -> None:
    with Kvd(tmp_path / "data") as server, server.channel() as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        status = health_pb2.HealthCheckResponse
        while next(watch).status != status.SERVING:
            pass
        assert takes_calls(server.address)
        cut = threading.Event()
        watch.add_done_callback(lambda _: cut.set())
        server.signal(signal.SIGTERM)
        assert next(watch).status == status.NOT_SERVING
        while takes_calls(server.address):
            assert not cut.is_set(), "took calls until its end"
        # The drain has the rest of its 4 s.
        assert not cut.wait(0.5)
        watch.cancel()
        assert server.wait() == 0


def test_a_founder_that_waits_for_others_ends_at_once(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 3)
    with open(tmp_path / "stderr", "wb") as stderr:
        waiting = subprocess.Popen(
            [*command("kvd"), "--mode=cluster-node", f"--config={cluster.config(1)}"],
            stderr=stderr,
            stdout=subprocess.DEVNULL,
            env=environment(),
        )
    try:
        until = time.monotonic() + WAIT_S
        while b"waiting for a founder" not in (tmp_path / "stderr").read_bytes():
            assert time.monotonic() < until
            time.sleep(0.02)
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(WAIT_S) == 0
        assert b"stopped before it served" in (tmp_path / "stderr").read_bytes()
    finally:
        waiting.kill()
        waiting.wait()


BUSY = """
import asyncio, sys, time
import uvloop
from kvstore.server.process import _exit_on_signals

async def replay():
    _exit_on_signals()
    print("busy", flush=True)
    while True:  # as replaying a log: the loop gets no turn
        time.sleep(0.01)

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(replay())
"""

HANGING = """
import asyncio, os, signal, time
import uvloop
from kvstore.server import process

process.STOP_S = 0.3

async def serve():
    stop = process._Ending().stop
    print("serving", flush=True)
    await stop.wait()
    while True:  # the loop hangs for good
        time.sleep(0.01)

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(serve())
"""


# The same, but the loop hung before the signal came.
HUNG = HANGING.replace("    await stop.wait()\n", "")

# A disk failed, and closing hangs on it.
FAILED = """
import asyncio, time
from kvstore.errors import StorageError
from kvstore.server import process

process.STOP_S = 0.3

async def serve():
    ending = process._Ending()
    ending.failed(StorageError("broken disk", path="/data"))
    print("failed", flush=True)
    time.sleep(60)

asyncio.run(serve())
"""

# No thread can be had any more by the time of the signal.
NO_THREADS = """
import threading

def refuse(thread):
    raise RuntimeError("can't start new thread")
"""
HUNG_NO_THREADS = NO_THREADS + HUNG.replace(
    "    print(", "    threading.Thread.start = refuse\n    print("
)
FAILED_NO_THREADS = NO_THREADS + FAILED.replace(
    "    ending.failed(", "    threading.Thread.start = refuse\n    ending.failed("
)


@pytest.mark.parametrize(
    ("program", "status"),
    [
        (BUSY, 0),
        (HANGING, 1),
        (HUNG, 1),
        (HUNG_NO_THREADS, 1),
        (FAILED, 5),
        (FAILED_NO_THREADS, 5),
    ],
)
def test_a_signal_ends_a_process_whose_loop_gets_no_turn(program: str, status: int) -> None:
    """With 0 while it starts, for nothing is lost; with 1 where it should have ended by itself."""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        if status != 5:
            process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(WAIT_S) == status
        finally:
            process.kill()


def test_a_leader_that_is_stopped_hands_over_first(tmp_path: Path) -> None:
    # Without that, nobody would lead for at least these 4 s.
    with Cluster(tmp_path, settings="election_timeout_ms = 4000") as cluster:
        cluster.start()
        leader = cluster.leader()
        done = threading.Event()
        gaps: list[float] = []

        def write() -> None:
            with cluster.client() as client:
                last = time.monotonic()
                while not done.is_set():
                    client.put(b"k", b"v")
                    now = time.monotonic()
                    gaps.append(now - last)
                    last = now

        writer = threading.Thread(target=write)
        writer.start()
        try:
            stopped = cluster.running.pop(leader)
            assert stopped.terminate() == 0
            count = len(gaps)
            until = time.monotonic() + WAIT_S
            while len(gaps) < count + 20:
                assert time.monotonic() < until
                time.sleep(0.01)
        finally:
            done.set()
            writer.join()
        assert "leadership handed over" in stopped.stderr
        assert max(gaps) < 3


def test_nobody_else_can_read_the_data_whatever_the_umask(tmp_path: Path) -> None:
    open_to_all = ("sh", "-c", 'umask 000; exec "$@"', "sh")
    with Kvd(tmp_path / "data", wrapper=open_to_all) as server, server.client() as client:
        server.wait_serving()
        client.put(b"k", b"secret")
        server.terminate()
    paths = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
    assert len(paths) > 20
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in paths}
    assert not {str(path): oct(mode) for path, mode in modes.items() if mode & 0o077}
