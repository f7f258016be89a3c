"""Three etcd of the distribution on loopback, and the two messages that are sent to them."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.integration.cluster import free_addresses

START_TIMEOUT_S = 30.0


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of protobuf's wire format."""
    size = len(content)
    header = bytearray([number << 3 | 2])
    while size > 0x7F:
        header.append(size & 0x7F | 0x80)
        size >>= 7
    header.append(size)
    return bytes(header) + content


def put_request(key: bytes, value: bytes) -> bytes:
    """etcdserverpb.PutRequest."""
    return _field(1, key) + _field(2, value)


def range_request(key: bytes) -> bytes:
    """etcdserverpb.RangeRequest for one key, linearizable."""
    return _field(1, key)


class EtcdCluster:
    """Members 1 to 3 with their own defaults: every write synced by a majority."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("etcd") is None:
            raise RuntimeError("etcd is missing: apt-get install etcd-server etcd-client")
        self._directory = directory
        addresses = free_addresses(6)
        self.clients = dict(zip((1, 2, 3), addresses[:3], strict=True))
        self._peers = dict(zip((1, 2, 3), addresses[3:], strict=True))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.start(1, 2, 3)

    def start(self, *members: int) -> None:
        """Start members, and wait until all answer."""
        everybody = ",".join(f"m{m}=http://{peer}" for m, peer in self._peers.items())
        for member in members:
            client, peer = f"http://{self.clients[member]}", f"http://{self._peers[member]}"
            self._processes[member] = subprocess.Popen(
                [
                    *("etcd", f"--name=m{member}", f"--data-dir={self._directory / str(member)}"),
                    *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
                    *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
                    *(f"--initial-cluster={everybody}", "--initial-cluster-state=new"),
                    *("--log-level=error", "--logger=zap", "--quota-backend-bytes=8000000000"),
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        end = time.monotonic() + START_TIMEOUT_S
        while any(self.revision(member) is None for member in self._processes):
            if time.monotonic() > end:
                raise TimeoutError("etcd doesn't answer")
            time.sleep(0.1)

    def kill(self, member: int) -> None:
        """SIGKILL."""
        process = self._processes.pop(member)
        process.kill()
        process.wait()

    def pids(self) -> dict[int, int]:
        """Of the running members."""
        return {member: process.pid for member, process in self._processes.items()}

    def revision(self, member: int) -> int | None:
        """How many changes the member has applied; None while it has no answer."""
        status = self._status(member)
        return None if status is None else int(status["header"]["revision"])

    def leader(self) -> int:
        """The member that leads."""
        for member in self._processes:
            status = self._status(member)
            if status is not None and status["leader"] == status["header"]["member_id"]:
                return member
        raise RuntimeError("etcd has no leader")

    def _status(self, member: int) -> dict[str, dict[str, int]] | None:
        asked = subprocess.run(
            [
                *("etcdctl", f"--endpoints=http://{self.clients[member]}", "--dial-timeout=1s"),
                *("endpoint", "status", "--write-out=json"),
            ],
            check=False,
            capture_output=True,
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin:/usr/local/bin"},
        )
        if asked.returncode:
            return None
        found: dict[str, dict[str, int]] = json.loads(asked.stdout)[0]["Status"]
        return found if found.get("leader") else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for member in list(self._processes):
            self.kill(member)
