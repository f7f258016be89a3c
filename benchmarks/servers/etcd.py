"""Three etcd of the distribution on loopback, and the two messages that are sent to them."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

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
    """Members 1 to 3 with their own defaults: every write synced by a majority.

    With ``pki``, a directory that ``kvctl pki`` made for members 1 to 3, TLS towards clients, and
    with certificates on both sides between members.
    """

    def __init__(self, directory: Path, pki: Path | None = None) -> None:
        if shutil.which("etcd") is None:
            raise RuntimeError("etcd is missing: apt-get install etcd-server etcd-client")
        self._directory = directory
        self._pki = pki
        self._scheme = "http" if pki is None else "https"
        addresses = free_addresses(6)
        self.clients = dict(zip((1, 2, 3), addresses[:3], strict=True))
        self._peers = dict(zip((1, 2, 3), addresses[3:], strict=True))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.start(1, 2, 3)

    def start(self, *members: int) -> None:
        """Start members, and wait until all answer."""
        everybody = ",".join(f"m{m}={self._scheme}://{peer}" for m, peer in self._peers.items())
        for member in members:
            client = f"{self._scheme}://{self.clients[member]}"
            peer = f"{self._scheme}://{self._peers[member]}"
            self._processes[member] = subprocess.Popen(
                [
                    *("etcd", f"--name=m{member}", f"--data-dir={self._directory / str(member)}"),
                    *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
                    *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
                    *(f"--initial-cluster={everybody}", "--initial-cluster-state=new"),
                    *("--log-level=error", "--logger=zap", "--quota-backend-bytes=8000000000"),
                    *self._certificates(member),
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        end = time.monotonic() + START_TIMEOUT_S
        while any(self.revision(member) is None for member in self._processes):
            if time.monotonic() > end:
                raise TimeoutError("etcd doesn't answer")
            time.sleep(0.1)

    @property
    def ca(self) -> Path | None:
        """What the members' certificates are verified by; None: they have none."""
        return None if self._pki is None else self._pki / "ca.pem"

    def _certificates(self, member: int) -> list[str]:
        if self._pki is None:
            return []
        own = self._pki / f"member-{member}"
        return [
            *(f"--cert-file={own}/server.pem", f"--key-file={own}/server.key"),
            *(f"--peer-cert-file={own}/peer.pem", f"--peer-key-file={own}/peer.key"),
            *(f"--peer-trusted-ca-file={self._pki}/peer-ca.pem", "--peer-client-cert-auth"),
        ]

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

    def _status(self, member: int) -> dict[str, Any] | None:
        asked = subprocess.run(
            [
                *("etcdctl", f"--endpoints={self._scheme}://{self.clients[member]}"),
                *("--dial-timeout=1s", *([] if self.ca is None else [f"--cacert={self.ca}"])),
                *("endpoint", "status", "--write-out=json"),
            ],
            check=False,
            capture_output=True,
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin:/usr/local/bin"},
        )
        if asked.returncode:
            return None
        found: dict[str, Any] = json.loads(asked.stdout)[0]["Status"]
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
