"""Reads over much that is deleted: others are answered meanwhile; they end with their callers."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore.api.etcd import etcd_pb2 as pb
from tests.integration.etcd_calls import EtcdCalls
from tests.integration.process import FRONTS, Kvd

KEYS = 96_000
PUTS = 120
"""Of a transaction."""

LEFT = range(0, KEYS, 1000)
"""What stands between those that are gone: more gaps than the engine remembers to pass over."""

TXNS_AT_ONCE = 32

SCANS = 8
PATIENCE_S = 120.0
IDLE_S = 0.5

# The keys that are gone, 120 times over.
LONG = [
    pb.RequestOp(request_range=pb.RangeRequest(key=b"gone/", range_end=b"gone0", count_only=True))
    for _ in range(120)
]


def cpu_s(pid: int) -> float:
    """What a process has computed, however many others did."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for_rest(pid: int) -> None:
    """Until it computes next to nothing."""
    end = time.monotonic() + PATIENCE_S
    while True:
        before = cpu_s(pid)
        time.sleep(IDLE_S)
        if cpu_s(pid) - before < IDLE_S / 4:
            return
        assert time.monotonic() < end, "it goes on and on"


def scan_alone(calls: EtcdCalls, pid: int) -> tuple[Any, float]:
    """The answer, and what it costs; on a machine that is busy it may take too long."""
    end = time.monotonic() + PATIENCE_S
    while True:
        before = cpu_s(pid)
        try:
            return calls.Txn(success=LONG), cpu_s(pid) - before
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                raise


@pytest.fixture(params=FRONTS)
def kvd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kvd]:
    with Kvd(tmp_path / "data", "--history_s=0", front=request.param) as process:
        process.wait_serving()
        yield process


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_others_pass_long_scans_which_end_when_nobody_waits(kvd: Kvd) -> None:
    pid = kvd.pid
    with EtcdCalls(kvd.address) as calls:
        filling: deque[Any] = deque()
        for first in range(0, KEYS, PUTS):
            puts = [
                pb.RequestOp(request_put=pb.PutRequest(key=b"gone/%06d" % number, value=b"v"))
                for number in range(first, first + PUTS)
            ]
            filling.append(calls.begin("Txn", success=puts))
            if len(filling) == TXNS_AT_ONCE or first + PUTS == KEYS:
                while filling:
                    filling.popleft().result()
        calls.Put(key=b"there", value=b"v")
        for first in LEFT:
            start, stop = b"gone/%06d" % (first + 1), b"gone/%06d" % (first + LEFT.step)
            assert calls.DeleteRange(key=start, range_end=stop).deleted == LEFT.step - 1
        wait_for_rest(pid)
        answer, one = scan_alone(calls, pid)
        assert [each.response_range.count for each in answer.responses] == [len(LEFT)] * len(LONG)
        under_way = [calls.begin("Txn", success=LONG) for _ in range(SCANS)]
        # The first of them is on its way by now, and ranges come after all of them.
        for _ in range(5):
            assert calls.Range(key=b"there").count == 1
            assert calls.Range(key=b"there", range_end=b"therf").count == 1
        answered = sum(scan.done() for scan in under_way)
        before = cpu_s(pid)
        for scan in under_way:
            scan.cancel()
        wait_for_rest(pid)
        assert answered < SCANS, "they had their turns before the others"
        if answered < SCANS // 2:
            assert cpu_s(pid) - before < (SCANS - answered) * one / 2
        with pytest.raises(grpc.RpcError) as refused:
            calls.Txn(success=LONG, timeout=one / 20)
        assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
