"""Several kvd processes as one cluster on loopback, for tests."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from kvstore.client import TLS, Client
from tests.integration.process import FRONT, Certificates, Kvd, run

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
PORT_MIN = 10_000


def free_addresses(count: int) -> list[str]:
    """Addresses that nobody has now, and that no outgoing connection gets later.

    What the kernel gives out for port 0 it also gives to connections: a member that was killed
    could find its port taken when it comes back. These are below that range.
    """
    ports = list(range(PORT_MIN, int(EPHEMERAL.read_text().split()[0])))
    found: list[str] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            port = random.choice(ports)
            one = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(f"127.0.0.1:{port}")
    return found


class Cluster:
    """Members 1 to ``size`` below ``directory``, each to be started, killed and started again."""

    def __init__(
        self,
        directory: Path,
        size: int = 3,
        *,
        settings: str = "",
        mutual_tls: bool = False,
        admin: str = "operators",
        wrapper: Sequence[str] = (),
        fronts: Sequence[str] = (FRONT,),
        env: dict[str, str] | None = None,
    ) -> None:
        """``fronts``: of members 1, 2 and so on, and from the first on again."""
        self._fronts = fronts
        self._env = env
        self._admin = admin
        self._wrapper = wrapper
        self.directory = directory
        self.members: Sequence[int] = range(1, size + 1)
        addresses = free_addresses(2 * size)
        self.clients = dict(zip(self.members, addresses[:size], strict=True))
        self.peers = dict(zip(self.members, addresses[size:], strict=True))
        self.running: dict[int, Kvd] = {}
        self._settings = settings
        self._mutual_tls = mutual_tls
        if mutual_tls:
            self._make_certificates()
        for member in self.members:
            self.write_config(member)

    def _make_certificates(self) -> None:
        pki = f"--dir={self.directory / 'pki'}"
        made = run("kvctl", "pki", "init", pki, "--cluster-id=test")
        assert made.returncode == 0, made.stderr
        for member in self.members:
            made = run("kvctl", "pki", "issue", pki, f"--member={member}", "--host=127.0.0.1")
            assert made.returncode == 0, made.stderr

    def config(self, member: int) -> Path:
        return self.directory / f"member{member}.toml"

    def data(self, member: int) -> Path:
        return self.directory / f"data{member}"

    def write_config(
        self,
        member: int,
        *,
        cluster: str = "test",
        settings: str = "",
        nodes: Iterable[int] | None = None,
    ) -> Path:
        tables = "".join(
            f"[[nodes]]\nnode_id = {other}\n"
            f'client_addr = "{self.clients[other]}"\npeer_addr = "{self.peers[other]}"\n'
            for other in nodes or self.members
        )
        tls = ""
        if self._mutual_tls:
            pki = self.directory / "pki"
            tls = (
                f'[peer_tls]\nca = "{pki}/peer-ca.pem"\n'
                f'cert = "{pki}/member-{member}/peer.pem"\nkey = "{pki}/member-{member}/peer.key"\n'
            )
        path = self.config(member)
        path.write_text(
            f'cluster_id = "{cluster}"\nself_id = {member}\ndata_dir = "{self.data(member)}"\n'
            f"{self._settings}\n{settings}\n{tables}{tls}"
        )
        return path

    def start(self, *members: int) -> None:
        """Start members (all by default) and wait until each knows a leader."""
        chosen = members or tuple(self.members)

        def start(member: int) -> None:
            # Each by itself: one that can't start doesn't make the others forgotten.
            self.running[member] = self._start(member)

        with ThreadPoolExecutor(len(chosen)) as pool:
            list(pool.map(start, chosen))
            list(pool.map(lambda member: self.running[member].wait_serving(), chosen))

    def _start(self, member: int) -> Kvd:
        return Kvd(
            self.data(member),
            "--mode=cluster-node",
            f"--config={self.config(member)}",
            listen=self.clients[member],
            front=self._fronts[(member - 1) % len(self._fronts)],
            admin=self._admin,
            wrapper=self._wrapper,
            env=self._env,
        )

    def kill(self, *members: int) -> None:
        """SIGKILL members (all by default)."""
        for member in members or tuple(self.running):
            self.running.pop(member).kill()

    def client(self, timeout: float = 15.0) -> Client:
        """A client that knows every member."""
        return Client(",".join(self.clients.values()), timeout=timeout)

    def leader(self) -> int:
        """The leader that the members agree on, as the first of them says."""
        member = next(iter(self.running))
        with Client(self.clients[member], timeout=15.0) as client:
            return client.status().leader_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()


class SecureCluster(Cluster):
    """TLS towards clients as well, with the certificates that kvctl pki issued."""

    @property
    def tls(self) -> TLS:
        return TLS(ca=self.directory / "pki" / "ca.pem")

    def _start(self, member: int) -> Kvd:
        pki = self.directory / "pki"
        own = pki / f"member-{member}"
        return Kvd(
            self.data(member),
            "--mode=cluster-node",
            f"--config={self.config(member)}",
            listen=self.clients[member],
            certificates=Certificates(pki / "ca.pem", own / "server.pem", own / "server.key"),
            front=self._fronts[(member - 1) % len(self._fronts)],
            admin=self._admin,
        )

    def client(self, timeout: float = 15.0) -> Client:
        return Client(",".join(self.clients.values()), timeout=timeout, tls=self.tls)

    def leader(self) -> int:
        member = next(iter(self.running))
        with Client(self.clients[member], timeout=15.0, tls=self.tls) as client:
            return client.status().leader_id
