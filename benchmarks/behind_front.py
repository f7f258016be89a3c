"""What a call costs behind the front: service, Raft, log, state and engine of some members.

    python -m benchmarks.behind_front put 512
    python -m benchmarks.behind_front put 64 --session --plain

All in one thread, on memory disks, without sockets; calls are plain objects, handed to
``KVService.take``. Prints the processor time, µs a call, of all members together.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import Error, UnavailableError
from kvstore.replica import Group, Replica, ReplicaOptions
from kvstore.service import Asked, KVService, Method, OpenSession, Result
from kvstore.service.limits import SESSION_WINDOW
from kvstore.state.mvcc.operations import encode_operations
from kvstore.state.mvcc.requests import EnableModel, Proposal

WARM_UP = 2000
KEYS = 100_000


@dataclass(slots=True)
class Call:
    number: int
    method: int
    key: bytes
    value: bytes
    request_id: bytes
    deadline: float
    age_s: float | None = None


class Members:
    """A group and its service; :meth:`step` does what there is to do."""

    def __init__(self, count: int, plain: bool) -> None:
        disk = MemoryFileSystem()
        disk.make_directory("/g")
        self.soon: list[Callable[[], None]] = []
        self.group = Group(
            "/g",
            cluster="c",
            wake=lambda: None,
            rng=random.Random(1),
            members=count,
            filesystem=disk,
            threaded=False,
            options=ReplicaOptions(segment_bytes=64 << 20, plain_state=plain),
        )
        self.service = KVService(
            self._route, now=time.monotonic, soon=self.soon.append, plain=plain
        )
        while self.group.leader_replica() is None:
            self.group.tick()
            self.step()

    def _route(self) -> Replica | Error:
        return self.group.leader_replica() or UnavailableError("no leader")

    def step(self) -> None:
        while self.soon:
            calls, self.soon[:] = list(self.soon), []
            for call in calls:
                call()
        self.group.turn()
        for replica in self.group.replicas.values():
            if replica.storage_busy:
                replica.sync_storage()
        self.group.turn()

    def enable_model(self) -> None:
        """As a kvd that serves etcd's API does."""
        leader = self.group.leader_replica()
        assert leader is not None
        leader.propose(encode_operations([Proposal(bytes(16), EnableModel())]), lambda _: None)
        while not leader.machine.model_enabled:
            self.step()

    def open_session(self) -> bytes:
        drawn: list[Result] = []
        self.service.submit((OpenSession(),), time.monotonic() + 60, drawn.extend)
        while not drawn:
            self.step()
        assert isinstance(drawn[0], bytes)
        return drawn[0]


class Load:
    """So many calls are kept in flight until so many are answered."""

    def __init__(self, members: Members, method: Method, in_flight: int, session: bytes) -> None:
        self._members = members
        self._method = method
        self._in_flight = in_flight
        self._session = session
        self._sent = self._answered = 0
        self._made: list[Call] = []
        # Of the session: all before is answered, and what is answered beyond.
        self._floor = 1
        self._done: set[int] = set()

    def make(self, count: int) -> None:
        """What the next calls ask for, so that it costs nothing later; but for ids of a session."""
        deadline = time.monotonic() + 600
        self._made = [
            Call(
                0,
                self._method,
                b"key-%08d" % random.randrange(KEYS),
                b"v" * 100,
                b"%032x" % random.getrandbits(128),
                deadline,
            )
            for _ in range(count)
        ]

    def run(self, calls: int) -> None:
        """So many of those that were made."""
        until = self._answered + calls
        while self._answered < until:
            batch: list[Asked] = []
            while self._sent < until and self._sent - self._answered < self._in_flight:
                if self._session and self._sent + 1 >= self._floor + SESSION_WINDOW:
                    break
                self._sent += 1
                batch.append(self._call(self._sent))
            if batch:
                self._members.service.take(batch, self._take_back)
            self._members.step()

    def _call(self, number: int) -> Call:
        call = self._made.pop()
        if self._session:
            call.number = number
            call.request_id = b"kvs1/%s/%d/%d" % (self._session, number, self._floor)
        return call

    def _take_back(self, calls: list[Asked], results: list[Result]) -> None:
        for result in results:
            if isinstance(result, Error):
                raise result
        if self._session:
            self._done.update(call.number for call in calls)  # type: ignore[attr-defined]
        while self._floor in self._done:
            self._done.discard(self._floor)
            self._floor += 1
        self._answered += len(calls)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("operation", choices=("put", "get"))
    parser.add_argument("in_flight", type=int)
    parser.add_argument("--calls", type=int, default=30_000)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--session", action="store_true", help="puts are numbered by a session")
    parser.add_argument("--plain", action="store_true", help="by the readable forms")
    parser.add_argument("--model", action="store_true", help="with revisions, history and events")
    asked = parser.parse_args()
    members = Members(asked.members, asked.plain)
    if asked.model:
        members.enable_model()
    session = members.open_session() if asked.session else b""
    load = Load(members, Method[asked.operation.upper()], asked.in_flight, session)
    load.make(WARM_UP)
    load.run(WARM_UP)
    load.make(asked.calls)
    began = time.process_time()
    load.run(asked.calls)
    spent = time.process_time() - began
    print(f"{spent / asked.calls * 1e6:.2f} us a {asked.operation}, {asked.members} members")


if __name__ == "__main__":
    main()
