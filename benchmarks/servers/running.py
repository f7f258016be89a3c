"""What is measured: kvd with five replicas in a process, a cluster of kvd, a cluster of etcd.

All are real processes on loopback with data on the disk. ``target`` says where a load goes: to the
leader, which followers don't forward calls to; processes are named after what they do.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from benchmarks.load import Target
from benchmarks.servers.etcd import EtcdCluster
from kvstore.client import TLS, Client
from tests.integration.cluster import Cluster
from tests.integration.process import Certificates, Kvd

__all__ = ["EmbeddedKvd", "Etcd", "KvdCluster", "Server", "side_by_side"]


LEADER_TIMEOUT_S = 30.0


class Server(Protocol):
    """Something that a load can go to."""

    def target(self) -> Target:
        """Its leader's address and its processes: ``leader``, ``follower 1`` and so on."""


class KvdCluster(Cluster):
    """Members of kvd; with ``secure`` TLS towards clients and, with certificates, between members.

    ``arguments`` are flags for each of them.
    """

    def __init__(
        self,
        directory: Path,
        size: int = 3,
        *,
        secure: bool = False,
        arguments: Sequence[str] = (),
        settings: str = "",
        wrapper: Sequence[str] = (),
    ) -> None:
        self._arguments = arguments
        self._secure = secure
        super().__init__(
            directory,
            size,
            mutual_tls=secure,
            admin="everybody",
            settings=f'log_level = "warning"\n{settings}',
            wrapper=wrapper,
        )

    @property
    def tls(self) -> TLS | None:
        return TLS(ca=self.directory / "pki" / "ca.pem") if self._secure else None

    def client(self, timeout: float = 15.0) -> Client:
        return Client(",".join(self.clients.values()), tls=self.tls, timeout=timeout)

    def leader(self) -> int:
        """The leader as the first running member knows it, once it knows one."""
        end = time.monotonic() + LEADER_TIMEOUT_S
        member = next(iter(self.running))
        with Client(self.clients[member], tls=self.tls, timeout=15.0) as client:
            while time.monotonic() < end:
                if leader := client.status().leader_id:
                    return leader
                time.sleep(0.05)
        raise TimeoutError(f"nobody leads; member {member} said: {self.running[member].stderr}")

    def revision(self, member: int) -> int | None:
        """How many changes the member has applied."""
        with Client(self.clients[member], tls=self.tls, timeout=15.0) as client:
            return max(one.revision for one in client.status().members)

    def target(self) -> Target:
        leader = self.leader()
        pids = {member: kvd.pid for member, kvd in self.running.items()}
        ca = self.tls.ca if self.tls else None
        return Target(
            "kvd",
            self.clients[leader],
            ca=None if ca is None else Path(ca),
            processes=_by_role(pids, leader),
        )

    def _start(self, member: int) -> Kvd:
        pki = self.directory / "pki"
        own = pki / f"member-{member}"
        certificates = Certificates(pki / "ca.pem", own / "server.pem", own / "server.key")
        return Kvd(
            self.data(member),
            "--mode=cluster-node",
            f"--config={self.config(member)}",
            *self._arguments,
            listen=self.clients[member],
            admin=self._admin,
            certificates=certificates if self._secure else None,
            wrapper=self._wrapper,
        )


class EmbeddedKvd(Kvd):
    """Five replicas in one process."""

    def __init__(
        self,
        directory: Path,
        *,
        secure: bool = False,
        arguments: Sequence[str] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        certificates = Certificates.make(directory) if secure else None
        super().__init__(
            directory / "data",
            "--log_level=warning",
            *arguments,
            certificates=certificates,
            env=env,
        )

    def target(self) -> Target:
        ca = self.certificates.ca if self.certificates else None
        return Target("kvd", self.address, ca=ca, processes={"leader": self.pid})


class Etcd(EtcdCluster):
    """Three etcd with their own defaults."""

    def target(self) -> Target:
        leader = self.leader()
        return Target(
            "etcd", self.clients[leader], ca=self.ca, processes=_by_role(self.pids(), leader)
        )


@contextlib.contextmanager
def side_by_side(
    directory: Path, *, secure: bool = False, arguments: Sequence[str] = ()
) -> Iterator[dict[str, KvdCluster | Etcd]]:
    """Three kvd and three etcd, all running: ``kvd`` and ``etcd``."""
    with ExitStack() as stack:
        (directory / "kvd").mkdir()
        kvd = stack.enter_context(KvdCluster(directory / "kvd", secure=secure, arguments=arguments))
        kvd.start()
        pki = directory / "kvd" / "pki" if secure else None
        etcd = stack.enter_context(Etcd(directory / "etcd", pki))
        yield {"kvd": kvd, "etcd": etcd}


def _by_role(pids: dict[int, int], leader: int) -> dict[str, int]:
    followers = (pid for member, pid in sorted(pids.items()) if member != leader)
    return {
        "leader": pids[leader],
        **{f"follower {number}": pid for number, pid in enumerate(followers, 1)},
    }
