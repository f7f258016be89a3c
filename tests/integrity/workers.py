"""Cases judged in processes that may crash, hang or ask for too much memory.

Workers are forked from a process that has all sources in memory, so that starting one costs
milliseconds. Each tells which case it begins, then what came of it; one that falls silent is
killed, and another goes on after the case that it was at.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path

from tests.integrity.cases import Case
from tests.integrity.verdicts import Outcome, Verdict

__all__ = ["judged"]

MEMORY_BYTES_MAX = 512 << 20
"""What a case may ask for beyond what the worker began with."""
CHUNK = 200

Judge = Callable[[Case], Verdict]


def judged(
    cases: Sequence[Case], judge: Judge, jobs: int, case_seconds_max: float
) -> Iterator[tuple[Case, Verdict]]:
    """What came of each case, in the order in which they end, ``jobs`` at a time."""
    left = [list(cases[first : first + CHUNK]) for first in range(0, len(cases), CHUNK)]
    left.reverse()
    running: dict[Connection, _Worker] = {}
    try:
        while left or running:
            while left and len(running) < jobs:
                worker = _start(left.pop(), judge)
                running[worker.connection] = worker
            for connection in wait(list(running), timeout=0.5):
                assert isinstance(connection, Connection)
                yield from _hear(running, connection, left)
            for connection, worker in list(running.items()):
                if time.monotonic() - worker.since > case_seconds_max:
                    worker.process.kill()
                    verdict = Verdict(Outcome.HANGS, "", f"more than {case_seconds_max:g} s")
                    yield from _end(running, connection, left, verdict)
    finally:
        for worker in running.values():
            worker.process.kill()
            worker.process.join()


@dataclass
class _Worker:
    process: ForkProcess
    connection: Connection
    chunk: list[Case]
    done: int = 0
    since: float = 0.0


def _start(chunk: list[Case], judge: Judge) -> _Worker:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=_work, args=(chunk, judge, theirs, ours), daemon=True
    )
    process.start()
    theirs.close()
    return _Worker(process, ours, chunk, since=time.monotonic())


def _hear(
    running: dict[Connection, _Worker], connection: Connection, left: list[list[Case]]
) -> Iterator[tuple[Case, Verdict]]:
    worker = running[connection]
    try:
        verdict = Verdict(*connection.recv())
    except EOFError:
        worker.process.join()
        status = worker.process.exitcode or 0
        if worker.done == len(worker.chunk):
            connection.close()
            del running[connection]
            return
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        yield from _end(running, connection, left, Verdict(Outcome.CRASHED, "", name))
        return
    yield worker.chunk[worker.done], verdict._replace(outcome=Outcome(verdict.outcome))
    worker.done += 1
    worker.since = time.monotonic()


def _end(
    running: dict[Connection, _Worker],
    connection: Connection,
    left: list[list[Case]],
    verdict: Verdict,
) -> Iterator[tuple[Case, Verdict]]:
    """The worker is gone within a case; the others of its chunk are somebody else's."""
    worker = running.pop(connection)
    worker.process.join()
    connection.close()
    yield worker.chunk[worker.done], verdict
    if rest := worker.chunk[worker.done + 1 :]:
        left.append(rest)


# --- in the worker -------------------------------------------------------------------------------


def _work(chunk: list[Case], judge: Judge, out: Connection, parents: Connection) -> None:
    parents.close()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES_MAX, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for case in chunk:
        out.send(tuple(judge_safely(case, judge)))
    out.close()


def judge_safely(case: Case, judge: Judge) -> Verdict:
    """What came of it; whatever else is raised than the judge expects is a verdict as well."""
    try:
        return judge(case)
    except MemoryError as error:
        return Verdict(Outcome.MEMORY, "", repr(error))
    except Exception as error:  # noqa: BLE001  # that is what is looked for
        return Verdict(Outcome.UNNAMED, "", f"{type(error).__name__}: {error}"[:500])
