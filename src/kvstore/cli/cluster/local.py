"""A local cluster of real processes, for development: what is in its directory, and who runs.

Everything lies in one directory: ``cluster.json`` says who runs, and each member has its
configuration, its data and its log there.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from kvstore.cli.interface.connection import MEMBER_DATA
from kvstore.client import TLS, Client
from kvstore.errors import ConfigurationError, Error, UnavailableError
from kvstore.server.config.private_files import replace_private
from kvstore.server.peers.secret import make_secret_file

CLUSTER_ID = "local"
FILE = "cluster.json"
# While it is made: what lies beside this may be thrown away, and made anew.
UNFINISHED = "unfinished"
CHECKSUM = "crc32"
READY_S = 30.0
STOP_S = 15.0
LOOK_INTERVAL_S = 0.05
HOST = "127.0.0.1"
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
PORT_MIN = 10_000


def _checksum(fields: dict[str, object]) -> str:
    return f"{zlib.crc32(json.dumps(fields, sort_keys=True).encode()):08x}"


@dataclass(slots=True)
class LocalMember:
    """One member of a local cluster.

    ``pid`` is 0 while it doesn't run. ``joining`` until one that was added votes. ``removed``: it
    is no member any more; its id isn't used again.
    """

    member_id: int
    client_addr: str
    peer_addr: str
    pid: int = 0
    joining: bool = False
    removed: bool = False


class LocalCluster:
    """The members in a directory, and the processes that are theirs."""

    def __init__(self, directory: Path, known: list[LocalMember], *, tls: bool) -> None:
        """``known``: all that there ever were."""
        self.directory = directory
        self.known = known
        self.tls = tls

    @property
    def members(self) -> list[LocalMember]:
        """Those that belong to it."""
        return [member for member in self.known if not member.removed]

    @classmethod
    def load(cls, directory: Path) -> LocalCluster:
        """Read what is there. Raises ConfigurationError."""
        try:
            fields = json.loads((directory / FILE).read_bytes())
            # One from before there was a checksum has none.
            if fields.pop(CHECKSUM, None) not in (None, _checksum(fields)):
                raise ValueError("its checksum does not match")
            members = [LocalMember(**member) for member in fields["members"]]
            return cls(directory, members, tls=bool(fields["tls"]))
        except FileNotFoundError:
            raise ConfigurationError(
                f"there is no local cluster in {directory}; make one with 'kvctl cluster start'"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{directory / FILE} can't be used: {error}") from error

    @classmethod
    def make(cls, directory: Path, size: int, *, tls: bool) -> LocalCluster:
        """Choose ports, and write each member's configuration. All of it, or nothing is left.

        Raises ConfigurationError.
        """
        is_new = not directory.exists()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (directory / UNFINISHED).exists():
            _empty(directory)  # whoever made it was killed
        elif any(directory.iterdir()):
            raise ConfigurationError(
                f"{directory} isn't empty and holds no local cluster; give a new directory"
            )
        addresses = _free_addresses(2 * size)
        members = [
            LocalMember(number + 1, addresses[2 * number], addresses[2 * number + 1])
            for number in range(size)
        ]
        cluster = cls(directory, members, tls=tls)
        try:
            (directory / UNFINISHED).touch()
            if not tls:
                make_secret_file(cluster.secret)
            for member in members:
                cluster.write_config(member)
            if tls:
                config = f"--config={cluster.config(members[0])}"
                cluster.pki("init", f"--cluster-id={CLUSTER_ID}")
                cluster.pki("issue", config)
            cluster.save()
        except BaseException:
            _empty(directory)
            if is_new:
                directory.rmdir()
            raise
        (directory / UNFINISHED).unlink()
        return cluster

    def save(self) -> None:
        """Write who runs; whole or not at all."""
        fields = {"tls": self.tls, "members": [asdict(member) for member in self.known]}
        fields[CHECKSUM] = _checksum(fields)
        replace_private(self.directory / FILE, f"{json.dumps(fields, indent=1)}\n".encode())

    def member(self, member_id: int) -> LocalMember:
        for member in self.members:
            if member.member_id == member_id:
                return member
        ids = ", ".join(str(member.member_id) for member in self.members)
        raise ConfigurationError(f"there is no member {member_id}; this cluster has {ids}")

    def config(self, member: LocalMember) -> Path:
        return self.directory / f"member-{member.member_id}.toml"

    @property
    def secret(self) -> Path:
        return self.directory / "peer.secret"

    def log(self, member: LocalMember) -> Path:
        return self.directory / f"member-{member.member_id}.log"

    @property
    def addresses(self) -> str:
        """What --addr takes."""
        return ",".join(member.client_addr for member in self.members)

    def client(self, addresses: str, timeout: float) -> Client:
        ca = self.directory / "pki" / "ca.pem"
        return Client(addresses, tls=TLS(ca) if self.tls else None, timeout=timeout)

    def runs(self, member: LocalMember) -> bool:
        """Whether its process is there, and is still its own and not another with that number."""
        if not member.pid:
            return False
        try:
            command = Path(f"/proc/{member.pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return f"--config={self.config(member)}".encode() in command

    def start(self, member: LocalMember) -> None:
        """Start its process, apart from this one."""
        with open(self.log(member), "ab") as log, _uninterrupted():
            member.pid = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "kvstore.cli.kvd",
                    "--mode=cluster-node",
                    f"--config={self.config(member)}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            ).pid

    def wait_ready(self, members: Iterable[LocalMember]) -> list[LocalMember]:
        """Return when each knows a leader, or is known to be no member any more: those.

        Raises UnavailableError.
        """
        waiting, removed = list(members), []
        end = time.monotonic() + READY_S
        while waiting:
            for member in list(waiting):
                if self._leads_somebody(member):
                    waiting.remove(member)
            gone = self._removed(waiting) if waiting else []
            for member in gone:
                waiting.remove(member)
                removed.append(member)
            for member in waiting:
                if not self.runs(member):
                    raise UnavailableError(
                        f"member {member.member_id} ended; see {self.log(member)}: "
                        f"{_last_line(self.log(member))}"
                    )
                if time.monotonic() > end:
                    raise UnavailableError(
                        f"member {member.member_id} knows no leader after {READY_S:.0f} s; see "
                        f"{self.log(member)}"
                    )
            if waiting:
                time.sleep(LOOK_INTERVAL_S)
        return removed

    def _leads_somebody(self, member: LocalMember) -> bool:
        """Whether it knows a leader."""
        with contextlib.suppress(Error), self.client(member.client_addr, 1.0) as client:
            return client.status().leader_id > 0
        return False

    def _removed(self, members: list[LocalMember]) -> list[LocalMember]:
        """Those of ``members`` that the others don't count among them, if there is a leader."""
        if all(member in members for member in self.members):
            return []  # nobody to ask
        with contextlib.suppress(Error), self.client(self.addresses, 1.0) as client:
            present = {member.member_id for member in client.members().members}
            return [
                member
                for member in members
                if member.member_id not in present and not member.joining
            ]
        return []

    def leave_out(self, member: LocalMember) -> None:
        """It is no member any more: let its process end, and start it never again."""
        if self.runs(member):
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGCONT)
                os.kill(member.pid, signal.SIGTERM)
            self.wait_gone([member])
        member.pid = 0
        member.removed = True

    def new_member(self) -> LocalMember:
        """One with an id that none had, as ``start`` and :meth:`join` go on with. Raises
        ConfigurationError."""
        client_addr, peer_addr = _free_addresses(2)
        number = 1 + max(member.member_id for member in self.known)
        member = LocalMember(number, client_addr, peer_addr, joining=True)
        self.known.append(member)
        self.write_config(member)
        if self.tls:
            self.pki("issue", f"--member={number}", f"--host={HOST}")
        self.save()
        return member

    def join(self, member: LocalMember, operator: Client) -> None:
        """Add it, start it, and let it vote once it has caught up. May be done again."""
        operator.add_member(member.member_id, member.client_addr, member.peer_addr)
        if not self.runs(member):
            self.start(member)
            self.save()
        self.wait_ready([member])
        operator.promote_member(member.member_id, timeout=READY_S)
        member.joining = False
        self.save()

    def signal(self, member: LocalMember, number: signal.Signals) -> None:
        """Send a signal to its process. Raises ConfigurationError when it doesn't run."""
        if not self.runs(member):
            raise ConfigurationError(f"member {member.member_id} doesn't run")
        os.kill(member.pid, number)

    def wait_gone(self, members: list[LocalMember]) -> None:
        """Return when their processes have ended; after a while they are killed."""
        end = time.monotonic() + STOP_S
        for member in members:
            while self.runs(member):
                # A child of this very process stays in the table until it is waited for.
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(member.pid, os.WNOHANG)
                if time.monotonic() > end:
                    os.kill(member.pid, signal.SIGKILL)
                time.sleep(LOOK_INTERVAL_S)
            member.pid = 0

    def write_config(self, own: LocalMember) -> None:
        """Write the file that its process is started with."""
        pki = self.directory / "pki"
        mine = pki / f"member-{own.member_id}"
        lines = [
            f"cluster_id = {json.dumps(CLUSTER_ID)}",
            f"self_id = {own.member_id}",
            f"data_dir = {json.dumps(str(self.directory / MEMBER_DATA.format(own.member_id)))}",
        ]
        if self.tls:
            lines += [
                'tls_profile = "secure"',
                f"tls_cert = {json.dumps(str(mine / 'server.pem'))}",
                f"tls_key = {json.dumps(str(mine / 'server.key'))}",
                "[peer_tls]",
                f"ca = {json.dumps(str(pki / 'peer-ca.pem'))}",
                f"cert = {json.dumps(str(mine / 'peer.pem'))}",
                f"key = {json.dumps(str(mine / 'peer.key'))}",
            ]
        else:
            lines.append(f"peer_secret_file = {json.dumps(str(self.secret))}")
        if own.joining:
            lines.insert(0, "join = true")
        for member in self.members:
            lines += [
                "[[nodes]]",
                f"node_id = {member.member_id}",
                f"client_addr = {json.dumps(member.client_addr)}",
                f"peer_addr = {json.dumps(member.peer_addr)}",
            ]
        self.config(own).write_text("\n".join(lines) + "\n")

    def pki(self, verb: str, *arguments: str) -> None:
        """As ``kvctl pki``. Raises ConfigurationError."""
        directory = f"--dir={self.directory / 'pki'}"
        made = subprocess.run(
            [sys.executable, "-m", "kvstore.cli.kvctl", "pki", verb, directory, *arguments],
            check=False,
            capture_output=True,
            text=True,
        )
        if made.returncode:
            raise ConfigurationError(made.stderr.strip().removeprefix("kvctl: "))


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM come at the end of the block: a process that was begun must be
    known."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def _empty(directory: Path) -> None:
    """Remove all that lies in it, what says that it may be removed at last."""
    marker = directory / UNFINISHED
    for path in directory.iterdir():
        if path == marker:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    marker.unlink(missing_ok=True)


def _free_addresses(count: int) -> list[str]:
    """Addresses that nobody has now, and that no outgoing connection gets later.

    The kernel gives connections what it gives out for port 0 as well: a member that is down could
    find its port taken when it comes back. These are below that range.
    """
    ports = list(range(PORT_MIN, int(EPHEMERAL.read_text().split()[0])))
    found: list[str] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            if not ports:
                raise ConfigurationError("there are no free ports")
            port = ports.pop(random.randrange(len(ports)))
            one = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind((HOST, port))
                found.append(f"{HOST}:{port}")
    return found


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "it said nothing"
