"""Clusters of real processes that can be hurt: over proxied links, or each in a namespace."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from kvstore.client import Client
from tests.chaos.links import Links
from tests.integration.cluster import Cluster
from tests.integration.process import Kvd, run

BRIDGE_PREFIX = "10.77.77."


class ChaosCluster(Cluster):
    """A cluster whose members may be started with other environments and wrappers."""

    def __init__(self, directory: Path, size: int, *, mutual_tls: bool = False) -> None:
        self.environments: dict[int, dict[str, str]] = {}
        self.extra: dict[int, list[str]] = {}
        super().__init__(directory, size, mutual_tls=mutual_tls)

    def wrapper(self, member: int) -> Sequence[str]:
        """What a member's program runs inside of."""
        return ()

    def arguments(self, member: int) -> list[str]:
        """Flags of a member beyond those of every cluster node."""
        return self.extra.get(member, [])

    def launch(self, member: int) -> Kvd:
        """Start a member without waiting for more than its first line."""
        return Kvd(
            self.data(member),
            "--mode=cluster-node",
            f"--config={self.config(member)}",
            *self.arguments(member),
            listen=self.clients[member],
            env=self.environments.get(member),
            wrapper=self.wrapper(member),
        )

    def _start(self, member: int) -> Kvd:
        return self.launch(member)

    def wait_equal(self, timeout: float = 300.0) -> None:
        """Return once no running member lacks anything that the leader had committed."""
        end = time.monotonic() + timeout
        commit = self._applied(self.leader())
        while any(self._applied(member) < commit for member in self.running):
            if time.monotonic() > end:
                raise TimeoutError("a member doesn't catch up")
            time.sleep(0.05)

    def _applied(self, member: int) -> int:
        with Client(self.clients[member], timeout=15) as client:
            return max(one.applied_index for one in client.status().members)

    def start_missing(self) -> None:
        """Start whoever isn't running, and let run whoever stands still."""
        missing = [member for member in self.members if member not in self.running]
        for kvd in self.running.values():
            kvd.signal(signal.SIGCONT)
        if missing:
            self.start(*missing)

    def rename(self, old: int, new: int) -> None:
        """Member ``new`` takes the place of ``old``, with an empty data directory."""
        self.members = [new if member == old else member for member in self.members]
        self.clients[new] = self.clients.pop(old)
        self.peers[new] = self.peers.pop(old)

    def leader(self) -> int:
        """The leader that the running members agree on, once they do."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            seen = {self._sees(member) for member in self.running}
            if len(seen) == 1 and 0 not in seen:
                return seen.pop()
            time.sleep(0.05)
        raise TimeoutError("the members agree on no leader")

    def wait_until_nobody_leads(self, timeout: float = 30.0) -> None:
        """Return once no running member hears a leader, or is one."""
        end = time.monotonic() + timeout
        while any(self._sees(member) for member in self.running):
            if time.monotonic() > end:
                raise TimeoutError("somebody still leads")
            time.sleep(0.05)

    def _sees(self, member: int) -> int:
        with Client(self.clients[member], timeout=15) as client:
            return client.status().leader_id

    def followers(self) -> list[int]:
        """All but the leader."""
        leader = self.leader()
        return [member for member in self.members if member != leader]


class ProxiedCluster(ChaosCluster):
    """On loopback, with mutual TLS; members reach each other through :class:`Links`."""

    def __init__(self, directory: Path, size: int = 5) -> None:
        super().__init__(directory, size, mutual_tls=True)
        self.links = Links(dict(self.peers), self._sender_of)
        self.peers = dict(self.links.fronts)
        for member in self.members:
            self.write_config(member)

    def rename(self, old: int, new: int) -> None:
        self.links.succeed(old, new)
        self.peers = {**self.links.fronts, old: self.links.fronts[new]}
        super().rename(old, new)
        made = run(
            *("kvctl", "pki", "issue", f"--dir={self.directory / 'pki'}"),
            *(f"--member={new}", "--host=127.0.0.1"),
        )
        assert made.returncode == 0, made.stderr

    def arguments(self, member: int) -> list[str]:
        # Without a tail whoever was away for long needs a snapshot, and slow enough to be cut.
        catching_up = ("--snapshot_mib_per_s=40", "--log_tail_mib=0")
        return [
            f"--peer_addr={self.links.backs[member]}",
            *catching_up,
            *super().arguments(member),
        ]

    def _sender_of(self, port: int) -> int | None:
        """By command line: a member that is only starting dials as well."""
        configs = {f"--config={self.config(member)}": member for member in self.members}
        wanted = _socket_of(port)
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(OSError, psutil.Error):
                member = next((configs[w] for w in process.cmdline() if w in configs), None)
                descriptors = Path(f"/proc/{process.pid}/fd")
                if member and any(os.readlink(one) == wanted for one in descriptors.iterdir()):
                    return member
        return None

    def __exit__(self, *error: object) -> None:
        super().__exit__(None, None, None)
        self.links.close()


class NamespaceCluster(ChaosCluster):
    """Each member in a network namespace with an address of its own, joined by a bridge. Root only.

    Packets are dropped by nftables in the receiver's namespace.
    """

    def __init__(self, directory: Path, size: int = 5) -> None:
        self._tag = f"kv{os.getpid() % 100_000:x}"
        super().__init__(directory, size)
        self.clients = {m: f"{BRIDGE_PREFIX}{m}:7001" for m in self.members}
        self.peers = {m: f"{BRIDGE_PREFIX}{m}:7002" for m in self.members}
        for member in self.members:
            # Nobody else reaches the bridge.
            self.write_config(member, settings="insecure_peers = true")
        try:
            self._make_network()
        except BaseException:
            # Nobody else knows of what is there by now.
            self.__exit__()
            raise

    def _make_network(self) -> None:
        bridge = self._tag
        command("ip", "link", "add", bridge, "type", "bridge")
        command("ip", "addr", "add", f"{BRIDGE_PREFIX}254/24", "dev", bridge)
        command("ip", "link", "set", bridge, "up")
        for member in self.members:
            name, port = self._name(member), f"{self._tag}p{member}"
            command("ip", "netns", "add", name)
            command(
                "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name
            )
            command("ip", "link", "set", port, "master", bridge, "up")
            inside = ("ip", "netns", "exec", name)
            command(*inside, "ip", "addr", "add", f"{BRIDGE_PREFIX}{member}/24", "dev", "eth0")
            command(*inside, "ip", "link", "set", "eth0", "up")
            command(*inside, "ip", "link", "set", "lo", "up")
            command(*inside, "nft", "add", "table", "inet", "chaos")
            chain = "{ type filter hook input priority 0; }"
            command(*inside, "nft", "add", "chain", "inet", "chaos", "input", chain)

    def _name(self, member: int) -> str:
        return f"{self._tag}n{member}"

    def wrapper(self, member: int) -> Sequence[str]:
        return ("ip", "netns", "exec", self._name(member))

    def lose(self, links: Sequence[tuple[int, int]], share: float = 1.0) -> None:
        """Drop packets from each first to each second member; ``share`` of them, at random."""
        chance = (
            [] if share >= 1 else ["numgen", "random", "mod", "100", "<", str(int(share * 100))]
        )
        for sender, to in links:
            rule = ("ip", "saddr", f"{BRIDGE_PREFIX}{sender}", *chance, "drop")
            command(*self.wrapper(to), "nft", "add", "rule", "inet", "chaos", "input", *rule)

    def heal(self) -> None:
        """Every packet arrives again."""
        for member in self.members:
            command(*self.wrapper(member), "nft", "flush", "chain", "inet", "chaos", "input")

    def __exit__(self, *error: object) -> None:
        super().__exit__(None, None, None)
        # What was never made, or can't be removed, keeps nothing else.
        for member in self.members:
            _try("ip", "netns", "del", self._name(member))
        _try("ip", "link", "del", self._tag)


def _try(*words: str) -> None:
    with contextlib.suppress(RuntimeError):
        command(*words)


def command(*words: str) -> None:
    """Run a program; raises with what it said."""
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")


def _socket_of(port: int) -> str | None:
    """What /proc calls the end of a connection with this local port."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *others = line.split()
        if int(local.rpartition(":")[2], 16) == port and not remote.endswith(":0000"):
            return f"socket:[{others[6]}]"
    return None
