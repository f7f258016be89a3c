"""``kvctl cluster``: a local cluster of real processes, for development.

Everything lies in one directory: ``cluster.json`` says who runs, and each member has its
configuration, its data and its log there.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from kvstore.cli.interface.connection import MEMBER_DATA
from kvstore.cli.interface.tables import table
from kvstore.client import TLS, Client
from kvstore.errors import ConfigurationError, Error, UnavailableError
from kvstore.server.config.private_files import replace_private
from kvstore.server.peers.secret import make_secret_file

CLUSTER_ID = "local"
FILE = "cluster.json"
CHECKSUM = "crc32"
READY_S = 30.0
STOP_S = 15.0
LOOK_INTERVAL_S = 0.05
HOST = "127.0.0.1"


def _checksum(fields: dict[str, object]) -> str:
    return f"{zlib.crc32(json.dumps(fields, sort_keys=True).encode()):08x}"


@dataclass(slots=True)
class LocalMember:
    """One member of a local cluster. ``pid`` is 0 while it doesn't run."""

    member_id: int
    client_addr: str
    peer_addr: str
    pid: int = 0


class LocalCluster:
    """The members in a directory, and the processes that are theirs."""

    def __init__(self, directory: Path, members: list[LocalMember], *, tls: bool) -> None:
        self.directory = directory
        self.members = members
        self.tls = tls

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
        """Choose ports, and write each member's configuration."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ConfigurationError(
                f"{directory} isn't empty and holds no local cluster; give a new directory"
            )
        addresses = _free_addresses(2 * size)
        members = [
            LocalMember(number + 1, addresses[2 * number], addresses[2 * number + 1])
            for number in range(size)
        ]
        cluster = cls(directory, members, tls=tls)
        if not tls:
            make_secret_file(cluster.secret)
        for member in members:
            cluster.config(member).write_text(cluster._toml(member))
        if tls:
            cluster._make_certificates()
        cluster.save()
        return cluster

    def save(self) -> None:
        """Write who runs; whole or not at all."""
        fields = {"tls": self.tls, "members": [asdict(member) for member in self.members]}
        fields[CHECKSUM] = _checksum(fields)
        replace_private(self.directory / FILE, f"{json.dumps(fields, indent=1)}\n".encode())

    def member(self, member_id: int) -> LocalMember:
        for member in self.members:
            if member.member_id == member_id:
                return member
        raise ConfigurationError(
            f"there is no member {member_id}; this cluster has 1 to {len(self.members)}"
        )

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
        with open(self.log(member), "ab") as log:
            process = subprocess.Popen(
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
            )
        member.pid = process.pid

    def wait_ready(self, member: LocalMember) -> None:
        """Return when it knows a leader. Raises UnavailableError."""
        end = time.monotonic() + READY_S
        while time.monotonic() < end:
            if not self.runs(member):
                raise UnavailableError(
                    f"member {member.member_id} ended; see {self.log(member)}: "
                    f"{_last_line(self.log(member))}"
                )
            with contextlib.suppress(Error), self.client(member.client_addr, 1.0) as client:
                if client.status().leader_id:
                    return
            time.sleep(LOOK_INTERVAL_S)
        raise UnavailableError(
            f"member {member.member_id} knows no leader after {READY_S:.0f} s; see "
            f"{self.log(member)}"
        )

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

    def _toml(self, own: LocalMember) -> str:
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
        for member in self.members:
            lines += [
                "[[nodes]]",
                f"node_id = {member.member_id}",
                f"client_addr = {json.dumps(member.client_addr)}",
                f"peer_addr = {json.dumps(member.peer_addr)}",
            ]
        return "\n".join(lines) + "\n"

    def _make_certificates(self) -> None:
        pki = f"--dir={self.directory / 'pki'}"
        config = f"--config={self.config(self.members[0])}"
        for arguments in (["init", pki, f"--cluster-id={CLUSTER_ID}"], ["issue", pki, config]):
            made = subprocess.run(
                [sys.executable, "-m", "kvstore.cli.kvctl", "pki", *arguments],
                check=False,
                capture_output=True,
                text=True,
            )
            if made.returncode:
                raise ConfigurationError(made.stderr.strip())


def _free_addresses(count: int) -> list[str]:
    """Addresses that the kernel has just given out, and nobody has now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [f"{HOST}:{one.getsockname()[1]}" for one in sockets]


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "it said nothing"


directory_option = click.option(
    "--dir",
    "directory",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the cluster lives.",
)


def _loaded(directory: Path) -> LocalCluster:
    return LocalCluster.load(directory.resolve())


@contextlib.contextmanager
def _changing(directory: Path) -> Iterator[LocalCluster]:
    cluster = _loaded(directory)
    try:
        yield cluster
    finally:
        cluster.save()


@click.group("cluster", short_help="run a local cluster for development")
def cluster_group() -> None:
    """Run a local cluster of real kvd processes, to develop against and to break.

    \b
    Examples:
      kvctl cluster start --dir /tmp/c
      kvctl --addr "$(kvctl cluster addresses --dir /tmp/c)" put colour green
      kvctl cluster kill 1 --dir /tmp/c       and 'start' brings it back
      kvctl cluster stop --dir /tmp/c
    """


@cluster_group.command("start", short_help="start it, or those of it that don't run")
@directory_option
@click.option(
    "--nodes",
    type=click.IntRange(1, 9),
    metavar="N",
    help="How many, for a new one. [default: 5]",
)
@click.option("--tls", is_flag=True, help="A new one talks TLS, with certificates of its own.")
def start_command(directory: Path, nodes: int | None, tls: bool) -> None:
    """Make a cluster in DIR, or start what doesn't run of the one that is there."""
    directory = directory.resolve()
    if (directory / FILE).exists():
        cluster = LocalCluster.load(directory)
        if nodes not in (None, len(cluster.members)):
            raise ConfigurationError(f"{directory} holds {len(cluster.members)} members already")
    else:
        cluster = LocalCluster.make(directory, nodes or 5, tls=tls)
    for member in cluster.members:
        if not cluster.runs(member):
            cluster.start(member)
    cluster.save()
    for member in cluster.members:
        cluster.wait_ready(member)
    ca = f" --tls-ca {directory / 'pki' / 'ca.pem'}" if cluster.tls else ""
    click.echo(f"{len(cluster.members)} members run: kvctl --addr {cluster.addresses}{ca} status")


@cluster_group.command("stop", short_help="stop all members")
@directory_option
def stop_command(directory: Path) -> None:
    """Stop all members; the data stays."""
    with _changing(directory) as cluster:
        running = [member for member in cluster.members if cluster.runs(member)]
        for member in running:
            os.kill(member.pid, signal.SIGCONT)
            os.kill(member.pid, signal.SIGTERM)
        cluster.wait_gone(running)
    click.echo(f"stopped {len(running)} members")


@cluster_group.command("status", short_help="show who runs and who leads")
@directory_option
def status_command(directory: Path) -> None:
    """Ask each member what it does."""
    cluster = _loaded(directory)
    rows = []
    for member in cluster.members:
        role = term = commit = applied = "-"
        state = "runs" if cluster.runs(member) else "down"
        if state == "runs":
            try:
                with cluster.client(member.client_addr, 1.0) as client:
                    (said,) = client.status().members
                role, term = said.role, str(said.term)
                commit, applied = str(said.commit_index), str(said.applied_index)
            except (Error, ValueError):
                state = "silent"
        rows.append(
            (
                str(member.member_id),
                state,
                role,
                term,
                commit,
                applied,
                member.client_addr,
                str(member.pid or "-"),
            )
        )
    columns = ("member", "process", "role", "term", "commit", "applied", "address", "pid")
    click.echo("\n".join(table(columns, rows)))


@cluster_group.command("addresses", short_help="print what --addr takes")
@directory_option
def addresses_command(directory: Path) -> None:
    """Print the members' client addresses, for --addr or KVCTL_ADDR."""
    click.echo(_loaded(directory).addresses)


@cluster_group.command("logs", short_help="print what a member said")
@click.argument("member", type=int)
@directory_option
def logs_command(member: int, directory: Path) -> None:
    """Print the log of MEMBER."""
    cluster = _loaded(directory)
    click.echo(cluster.log(cluster.member(member)).read_text(errors="replace"), nl=False)


def _signalling(name: str, number: signal.Signals, what: str, done: str) -> None:
    @cluster_group.command(name, short_help=what, help=f"{what.capitalize()}.")
    @click.argument("member", type=int)
    @directory_option
    def command(member: int, directory: Path) -> None:
        with _changing(directory) as cluster:
            chosen = cluster.member(member)
            cluster.signal(chosen, number)
            if number is signal.SIGKILL:
                cluster.wait_gone([chosen])
        click.echo(f"member {member} {done}")


_signalling("kill", signal.SIGKILL, "kill a member, as a crash would", "is dead")
_signalling("pause", signal.SIGSTOP, "let a member stand still", "stands still")
_signalling("resume", signal.SIGCONT, "let a paused member go on", "goes on")
