"""Three real kvd processes as a cluster, the files of one of which are damaged while it is stopped.

Loads gRPC: see kvd_directory.py.
"""

from __future__ import annotations

import fcntl
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc

from kvstore.errors import Error
from tests.integration.cluster import Cluster
from tests.integration.etcd_calls import EtcdCalls
from tests.integrity.kvd_running import VALUES, code_in, refusal
from tests.integrity.trees import write_out
from tests.integrity.verdicts import Outcome, Verdict

__all__ = ["ADDRESSES", "DAMAGED", "judge", "make"]

DAMAGED = 3
OTHERS = (1, 2)
ADDRESSES = "addresses.json"
LATER = {b"later%d" % number: b"written while it was away %d" % number for number in range(5)}
WANTED = VALUES | LATER
WHOLE_S = 45.0
"""Within so long it is whole again, on a machine with much else to do."""
STANDS_ASIDE = ("stands aside", "has no vote", "damaged", "not compared", "repair", "refuses")
"""What a member says that has no answers."""


def make(directory: Path) -> None:
    """Below ``older``, the directory of member 3 as it was at an earlier moment; below ``now``,
    those of all three, of which 3 was stopped first, and their addresses."""
    work = directory / "now"
    work.mkdir(parents=True)
    with Cluster(work) as cluster:
        cluster.start()
        _put(cluster, dict(list(VALUES.items())[:30]))
        cluster.running.pop(DAMAGED).terminate()
        _copy(cluster.data(DAMAGED), directory / "older")
        cluster.start(DAMAGED)
        _put(cluster, dict(list(VALUES.items())[30:]))
        with EtcdCalls(cluster.clients[DAMAGED]) as calls:
            calls.Defragment()  # so that it has tables
        cluster.running.pop(DAMAGED).terminate()
        _put(cluster, LATER)
        for member in OTHERS:
            cluster.running.pop(member).terminate()
        said = {"clients": cluster.clients, "peers": cluster.peers}
        (work / ADDRESSES).write_text(json.dumps(said))


def _put(cluster: Cluster, values: dict[bytes, bytes]) -> None:
    with cluster.client(timeout=30.0) as client:
        for key, value in values.items():
            client.put(key, value)


def _copy(source: Path, target: Path) -> None:
    write_out(
        {
            f"/{path.relative_to(source)}": path.read_bytes()
            for path in source.rglob("*")
            if path.is_file()
        },
        target,
    )


@contextmanager
def _alone() -> Iterator[None]:
    """One cluster at a time: each has the same ports."""
    with open(Path(tempfile.gettempdir()) / "kvstore-integrity-cluster.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def judge(directory: Path, addresses: bytes) -> Verdict:
    """Start the others, then the damaged one, whose directory is ``data3``.

    The others answer rightly and take writes meanwhile, whatever it does. It doesn't start, and
    says why; or it has the same content in the end, told of what was wrong or had nothing; or it
    stays without answers, and says so. It never has another value for a key than was put.
    """
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    # The worker's bound is for what is judged within it: not for kvds and their clients.
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with _alone(), Cluster(directory) as cluster:
        said = json.loads(addresses)
        for known, what in ((cluster.clients, "clients"), (cluster.peers, "peers")):
            known.update({int(member): address for member, address in said[what].items()})
        for member in cluster.members:
            cluster.write_config(member)
        cluster.start(*OTHERS)
        try:
            cluster.running[DAMAGED] = cluster._start(DAMAGED)
        except AssertionError as error:
            verdict = refusal(str(error))
        else:
            verdict = _look(cluster)
        wrong = _wrong_of_others(cluster)
        return Verdict(Outcome.WRONG, "", wrong) if wrong else verdict


def _wrong_of_others(cluster: Cluster) -> str:
    addresses = ",".join(cluster.clients[member] for member in OTHERS)
    del cluster.clients[DAMAGED]
    try:
        with cluster.client(timeout=30.0) as client:
            client.put(b"k", b"they go on")
            found = {key: client.get(key) for key in WANTED}
    except Error as error:
        return f"the others, at {addresses}, don't go on: {error}"
    return "" if found == WANTED else "the others have other values"


def _look(cluster: Cluster) -> Verdict:
    """At what the damaged member has for content of its own, until that is right."""
    kvd = cluster.running[DAMAGED]
    deadline = time.monotonic() + WHOLE_S
    why = ""
    while time.monotonic() < deadline:
        if kvd.has_ended:
            return refusal(f"kvd exited with {kvd.wait()}\n{kvd.stderr}")
        with EtcdCalls(cluster.clients[DAMAGED]) as calls, suppress(grpc.RpcError):
            rows = calls.Range(timeout=5.0, key=b"\0", range_end=b"\0", serializable=True).kvs
            found = {bytes(row.key): bytes(row.value) for row in rows}
            # It may be behind for a moment, and it may not be wrong for one.
            for key, value in found.items():
                if value != WANTED.get(key):
                    return Verdict(Outcome.WRONG, "", f"it has {value!r} for {key!r}")
            if found == WANTED:
                code = code_in(kvd.stderr)
                return Verdict(Outcome.HEALED if code else Outcome.NO_EFFECT, "", code)
            why = f"it has {len(found)} of {len(WANTED)} keys"
        time.sleep(0.1)
    said = kvd.stderr
    if (code := code_in(said)) or any(word in said for word in STANDS_ASIDE):
        return Verdict(Outcome.DETECTED, code, said[-500:])
    return Verdict(Outcome.HANGS, "", f"{why}\n{said[-500:]}")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
