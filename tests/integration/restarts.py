"""Calls of clients under way while servers are stopped with SIGTERM and started again.

``python -m tests.integration.restarts`` does all there is, ten rounds each; ``--help`` says what
can be left out. It ends with 1 where a single call failed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kvstore import Put
from kvstore.client import AsyncClient, Client
from kvstore.client.channels import Transport
from kvstore.client.watching import AsyncWatch
from tests.integration.cluster import SecureCluster
from tests.integration.process import FRONTS, Kvd

__all__ = ["CALLS", "Tally", "restart_cluster", "restart_under_tasks", "restart_under_threads"]

# Of a call, its retries included. A restart takes a second; a busy machine has a thousand tasks.
TIMEOUT_S = 60.0


@dataclass
class Tally:
    """What came of calls, by their kind."""

    done: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    def note(self, kind: str, error: Exception | None = None) -> None:
        if error is None:
            self.done[kind] += 1
        else:
            outcome = getattr(error, "outcome", None)
            self.failed.append(f"{kind}: {type(error).__name__} ({outcome}): {error}")

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.done.items()))
        worst = [f"{count}x {why}" for why, count in Counter(self.failed).most_common(3)]
        return f"{counts}; {len(self.failed)} failed {worst or ''}"


Call = Callable[[AsyncClient, int, int], Awaitable[object]]
"""By the number of the task and of its turn."""


async def _save(client: AsyncClient, task: int) -> None:
    if task:
        return  # a member saves one at a time
    async for _ in client.save_snapshot():
        pass


async def _get_many(client: AsyncClient, task: int) -> None:
    async for _ in client.get_many(b"%d/%d" % (task, turn) for turn in range(5)):
        pass


def _transaction(client: AsyncClient, task: int, turn: int) -> Awaitable[object]:
    absent = client.key(b"absent").absent()
    return client.transaction().if_(absent).then(Put(b"%d/t" % task, b"%d" % turn)).commit()


CALLS: Mapping[str, Call] = {
    "put": lambda client, task, turn: client.put(b"%d/%d" % (task, turn % 5), b"%d" % turn),
    "get": lambda client, task, turn: client.get(b"%d/%d" % (task, turn % 5)),
    "delete": lambda client, task, turn: client.delete(b"%d/%d" % (task, turn % 5)),
    "put_many": lambda client, task, turn: client.put_many({b"%d/m" % task: b"%d" % turn}),
    "get_many": lambda client, task, turn: _get_many(client, task),
    "range": lambda client, task, turn: client.range(prefix=b"%d/" % task).list(),
    "transaction": _transaction,
    "delete_range": lambda client, task, turn: client.delete_range(prefix=b"%d/" % task),
    "leases": lambda client, task, turn: client.leases(),
    "status": lambda client, task, turn: client.status(),
    "save_snapshot": lambda client, task, turn: _save(client, task),
}
"""Each kind that a client tries again."""


async def _tasks(
    client: AsyncClient, count: int, calls: Mapping[str, Call], tally: Tally, stop: asyncio.Event
) -> None:
    """Call one kind after the other in each of ``count`` tasks, until told to stop."""

    async def run(task: int) -> None:
        kinds = itertools.cycle(calls.items())
        for turn in itertools.count():
            if stop.is_set():
                return
            kind, call = next(kinds)
            try:
                await call(client, task, turn)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a failed call
                tally.note(kind, error)
            else:
                tally.note(kind)

    await asyncio.gather(*(run(task) for task in range(count)))


async def _answered(tally: Tally, more: int) -> None:
    """Return once so many more calls ended."""
    until = sum(tally.done.values()) + len(tally.failed) + more
    end = time.monotonic() + TIMEOUT_S
    while sum(tally.done.values()) + len(tally.failed) < until:
        if time.monotonic() > end:
            raise AssertionError(f"{more} calls took more than {TIMEOUT_S:g} s: {tally}")
        await asyncio.sleep(0.01)


async def _watch(changes: AsyncWatch, tally: Tally) -> None:
    """Each change comes once, in order."""
    before = 0
    try:
        async for event in changes:
            assert event.entry.mod_revision >= before
            before = event.entry.mod_revision
            tally.note("event")
    except Exception as error:  # noqa: BLE001 - whatever it is, the watch failed
        tally.note("event", error)


async def _under_tasks(
    client: AsyncClient,
    tasks: int,
    calls: Mapping[str, Call],
    restart: Callable[[], None],
    rounds: int,
) -> Tally:
    tally, stop = Tally(), asyncio.Event()
    async with client, client.watch(prefix=b"0/") as changes:
        watching = asyncio.create_task(_watch(changes, tally))
        load = asyncio.create_task(_tasks(client, tasks, calls, tally, stop))
        try:
            for _ in range(rounds):
                await _answered(tally, tasks)
                await asyncio.to_thread(restart)
            await _answered(tally, tasks)
        finally:
            stop.set()
            await load
            watching.cancel()
            await asyncio.wait([watching])
    return tally


def restart_under_tasks(
    directory: Path,
    *,
    tasks: int,
    rounds: int,
    front: str,
    transport: Transport,
    calls: Mapping[str, Call],
) -> Tally:
    """One kvd, restarted ``rounds`` times under the tasks of one client."""
    running = [Kvd(directory / "data", front=front, admin="everybody").wait_serving()]
    address = running[0].address

    def restart() -> None:
        assert running.pop().terminate() == 0
        running.append(Kvd(directory / "data", listen=address, front=front, admin="everybody"))

    client = AsyncClient(address, timeout=TIMEOUT_S, transport=transport)
    try:
        return asyncio.run(_under_tasks(client, tasks, calls, restart, rounds))
    finally:
        for kvd in running:
            kvd.kill()


def restart_under_threads(
    directory: Path, *, threads: int, rounds: int, front: str, transport: Transport
) -> Tally:
    """One kvd, restarted ``rounds`` times under threads that put with one client."""
    tally, stop = Tally(), threading.Event()
    kvd = Kvd(directory / "data", front=front).wait_serving()
    address = kvd.address

    def run(thread: int) -> None:
        for turn in itertools.count():
            if stop.is_set():
                return
            try:
                client.put(b"%d/%d" % (thread, turn % 5), b"%d" % turn)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a failed call
                tally.note("put", error)
            else:
                tally.note("put")

    with Client(address, timeout=TIMEOUT_S, transport=transport) as client:
        running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
        for thread in running:
            thread.start()
        try:
            for _ in range(rounds):
                asyncio.run(_answered(tally, threads))
                assert kvd.terminate() == 0
                kvd = Kvd(directory / "data", listen=address, front=front)
            asyncio.run(_answered(tally, threads))
        finally:
            stop.set()
            for thread in running:
                thread.join()
            kvd.kill()
    return tally


def restart_cluster(
    directory: Path,
    *,
    tasks: int,
    rounds: int,
    front: str,
    transport: Transport,
    calls: Mapping[str, Call],
) -> Tally:
    """Three members with TLS, of which each is restarted in every round, one after the other."""
    with SecureCluster(directory, 3, mutual_tls=True, admin="everybody", fronts=[front]) as cluster:
        cluster.start()

        def restart() -> None:
            for member in cluster.members:
                assert cluster.running.pop(member).terminate() == 0
                cluster.start(member)

        client = AsyncClient(
            [*cluster.clients.values()], timeout=TIMEOUT_S, transport=transport, tls=cluster.tls
        )
        return asyncio.run(_under_tasks(client, tasks, calls, restart, rounds))


PUTS: Mapping[str, Call] = {"put": CALLS["put"]}


def main() -> int:
    """The loops of the first review, and one of all calls."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.restarts")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", choices=["tasks", "threads", "cluster"], action="append")
    parser.add_argument("--front", choices=FRONTS, action="append")
    parser.add_argument("--transport", choices=FRONTS, action="append")
    given = parser.parse_args()
    failed = 0
    for front, transport, what in itertools.product(
        given.front or FRONTS,
        given.transport or FRONTS,
        given.only or ("tasks", "threads", "cluster"),
    ):
        how: dict[str, Any] = {"rounds": given.rounds, "front": front, "transport": transport}
        runs: dict[str, Callable[[Path], Tally]] = {}
        if what == "tasks":
            runs["1,000 tasks"] = partial(restart_under_tasks, tasks=1000, calls=PUTS, **how)
            runs["100 tasks, all calls"] = partial(
                restart_under_tasks, tasks=100, calls=CALLS, **how
            )
        elif what == "threads":
            runs["64 threads"] = partial(restart_under_threads, threads=64, **how)
        else:
            runs["three members with TLS, 32 tasks"] = partial(
                restart_cluster, tasks=32, calls=PUTS, **how
            )
            runs["three members with TLS, 32 tasks, all calls"] = partial(
                restart_cluster, tasks=32, calls=CALLS, **how
            )
        for name, run in runs.items():
            with tempfile.TemporaryDirectory() as directory:
                tally = run(Path(directory))
            failed += len(tally.failed)
            print(f"{name}, {transport} client, {front} front: {tally}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
