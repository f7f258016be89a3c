"""A real kvd, a cluster of one, is killed at its nth system call while a client writes to it.

Started again, it serves what it had acknowledged, or that and the write that was under way.
``KVSTORE_KILL_SWEEP=all`` takes every 7th call (every 40th of openat), on the disk.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.crash.kill_story import State, Step, states, steps
from tests.crash.killing import (
    ALL,
    KINDS,
    Wrapped,
    build,
    by_library,
    by_strace,
    calls_in,
    needs_strace,
    quick_directory,
    some_of,
    without_sanitizers,
)
from tests.integration.cluster import Cluster
from tests.integration.etcd_calls import EtcdCalls

pytestmark = [without_sanitizers, pytest.mark.timeout(7200 if ALL else 300)]

TOLD = steps()
STATES = states(TOLD)
END = b"\0"
"""As a range's end: all keys from its beginning on."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with quick_directory(tmp_path) as directory:
        yield directory


def do(calls: EtcdCalls, step: Step) -> None:
    """A step as etcd's API has it: returns once it is acknowledged."""
    if step.kind == "delete_range":
        calls.DeleteRange(key=step.span[0], range_end=step.span[1])
    elif step.kind == "compact":
        calls.Compact(revision=calls.Range(key=b"k").header.revision, physical=True)
    elif step.kind == "flush":
        calls.Defragment()
    elif step.kind == "checkpoint":
        for _ in calls.Snapshot():
            pass
    elif step.rows:
        deeds = [
            {"request_delete_range": {"key": key}}
            if value is None
            else {"request_put": {"key": key, "value": value}}
            for key, value in step.rows.items()
        ]
        calls.Txn(success=deeds)


def tell(cluster: Cluster) -> int:
    """Write until kvd is gone, or all is done and it was stopped: how many steps were done."""
    done = 0
    try:
        cluster.start()
    except (AssertionError, grpc.RpcError):
        return done  # it was killed before it served
    with EtcdCalls(cluster.clients[1]) as calls, contextlib.suppress(grpc.RpcError):
        for step in TOLD:
            do(calls, step)
            done += 1
    return done


def found_in(cluster: Cluster) -> State:
    """What is served after a start that nobody disturbs."""
    cluster.start()
    try:
        with EtcdCalls(cluster.clients[1]) as calls:
            rows = calls.Range(key=END, range_end=END).kvs
            calls.Put(key=b"after", value=b"")
        return {bytes(row.key): bytes(row.value) for row in rows}
    finally:
        cluster.kill()


def killed_at(directory: Path, name: str, wrapped: Wrapped) -> bool:
    """One telling that is ended by ``wrapped``; whether it was."""
    one = directory / name
    one.mkdir()
    cluster = Cluster(one, 1, wrapper=wrapped)
    done = tell(cluster)
    kvd = cluster.running.pop(1, None)
    status = -signal.SIGKILL if kvd is None else kvd.terminate()
    assert status in (0, -signal.SIGKILL)
    if status == 0:
        assert done == len(TOLD)
    undisturbed = Cluster(one, 1)
    try:
        assert found_in(undisturbed) in STATES[done : done + 2]
    except BaseException as error:
        error.add_note(f"killed by {' '.join(wrapped)}, {done} steps were done")
        raise
    shutil.rmtree(one)
    return status != 0


def undisturbed(directory: Path, wrapped: Wrapped) -> None:
    """A telling to its end, and a stop."""
    cluster = Cluster(directory, 1, wrapper=wrapped)
    assert tell(cluster) == len(TOLD)
    assert cluster.running.pop(1).terminate() == 0


@needs_strace
def test_killed_at_the_nth_call_of_each_kind(place: Path) -> None:
    (place / "all").mkdir()
    trace = place / "trace"
    undisturbed(
        place / "all",
        ("strace", "-D", "-f", "-y", "-s", "0", "-o", str(trace), "-e", f"trace={','.join(KINDS)}"),
    )
    calls = sorted(set(calls_in(trace.read_text(), place / "all" / "data1")))
    if ALL:
        chosen = [call for call in calls if call.at % (40 if call.kind == "openat" else 7) == 1]
    else:
        chosen = list(some_of([call for call in calls if call.kind != "openat"], 3))
    killed = sum(killed_at(place, f"{call.kind}{call.at}", by_strace(call)) for call in chosen)
    print(f"strace: killed {killed} times at {len(chosen)} of {len(calls)} calls")
    # The last write may not come: how often a thread tells another one differs from run to run.
    assert killed >= (len(chosen) - 1) * 0.75


def test_killed_at_the_nth_call_of_all(place: Path, tmp_path: Path) -> None:
    library = build(tmp_path)
    (place / "all").mkdir()
    count = place / "count"
    undisturbed(place / "all", by_library(library, place / "all" / "data1", 0, count))
    total = int(count.read_text())
    moments = range(1, total + 1, 7) if ALL else range(total // 6, total, total // 3)
    killed = sum(
        killed_at(place, str(at), by_library(library, place / str(at) / "data1", at))
        for at in moments
    )
    print(f"library: killed {killed} times at {len(moments)} of {total} calls")
    # The last ones are those of a stop, of which there may be fewer.
    assert killed >= len(moments) * 0.75
