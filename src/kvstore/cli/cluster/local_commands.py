"""``kvctl cluster``: a local cluster of real processes, for development."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from kvstore.cli.cluster.local import FILE, READY_S, LocalCluster, LocalMember
from kvstore.cli.interface.connection import (
    DIRECTORY_VARIABLE,
    output_options,
    socket_addresses,
)
from kvstore.cli.interface.output import tell
from kvstore.cli.interface.tables import table
from kvstore.client import Client
from kvstore.errors import ConfigurationError, Error

# Between two looks for more of a log.
FOLLOW_INTERVAL_S = 0.1

directory_option = click.option(
    "--dir",
    "directory",
    required=True,
    envvar=DIRECTORY_VARIABLE,
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Where the cluster lives. [env: {DIRECTORY_VARIABLE}]",
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
      eval "$(kvctl cluster env --dir /tmp/c)"    from here on without --dir and --addr
      kvctl put colour green
      kvctl cluster kill 1                    and 'start' brings it back
      kvctl cluster add                       one more member
      kvctl cluster remove 2
      kvctl cluster logs 1 -f
      kvctl cluster stop
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
    is_new = not (directory / FILE).exists()
    if is_new:
        cluster = LocalCluster.make(directory, nodes or 5, tls=tls)
    else:
        cluster = LocalCluster.load(directory)
        if nodes not in (None, len(cluster.members)):
            raise ConfigurationError(f"{directory} holds {len(cluster.members)} members already")
        if tls and not cluster.tls:
            raise ConfigurationError(f"{directory} holds a cluster that was made without --tls")
    started: list[LocalMember] = []
    try:
        _start(cluster, started)
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM
        _take_back(started)
        if is_new:
            shutil.rmtree(directory)
        else:
            cluster.save()
        click.echo("interrupted: what was started is stopped again", err=True)
        raise
    ca = f" --tls-ca {directory / 'pki' / 'ca.pem'}" if cluster.tls else ""
    click.echo(f"{len(cluster.members)} members run: kvctl --addr {cluster.addresses}{ca} status")


def _take_back(started: list[LocalMember]) -> None:
    """End the processes that this one has begun: its children, whatever they are called yet."""
    for member in started:
        if member.pid:
            os.kill(member.pid, signal.SIGKILL)
            os.waitpid(member.pid, 0)
            member.pid = 0


def _start(cluster: LocalCluster, started: list[LocalMember]) -> None:
    """Start all that don't run, noting them, and leave out those that are no members any more."""
    for member in cluster.members:
        if not member.joining and not cluster.runs(member):
            member.pid = 0
            started.append(member)
            cluster.start(member)
    cluster.save()
    for member in cluster.wait_ready(one for one in cluster.members if not one.joining):
        cluster.leave_out(member)
        cluster.save()
        click.echo(
            f"member {member.member_id} was removed from the cluster: it isn't started any more",
            err=True,
        )
    for member in cluster.members:
        if member.joining:
            with _operator(cluster) as operator:
                cluster.join(member, operator)


def _operator(cluster: LocalCluster) -> Client:
    """A client that may change the members: over their sockets."""
    return cluster.client(socket_addresses(cluster.directory), READY_S)


@cluster_group.command("add", short_help="add a member, and let it vote")
@directory_option
def add_command(directory: Path) -> None:
    """Add a member under a new id, start it, and let it vote once it has the data."""
    cluster = _loaded(directory)
    with _operator(cluster) as operator:
        member = cluster.new_member()
        cluster.join(member, operator)
    click.echo(f"member {member.member_id} votes: {member.client_addr}")


@cluster_group.command("remove", short_help="take a member out for good")
@click.argument("member", type=int)
@click.option("--force", is_flag=True, help="Even if too few members that answer would be left.")
@directory_option
def remove_command(member: int, force: bool, directory: Path) -> None:
    """Take MEMBER out for good, and stop it; its id isn't used again."""
    with _changing(directory) as cluster:
        chosen = cluster.member(member)
        with _operator(cluster) as operator:
            operator.remove_member(member, force=force)
        cluster.leave_out(chosen)
    click.echo(f"member {member} is removed; its data stays in {cluster.directory}")


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
@output_options
@click.pass_context
def status_command(context: click.Context, directory: Path) -> None:
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
    fields = [dict(zip(columns, row, strict=True)) for row in rows]
    tell(context, {"members": fields}, *table(columns, rows))


@cluster_group.command("addresses", short_help="print what --addr takes")
@directory_option
def addresses_command(directory: Path) -> None:
    """Print the members' client addresses, for --addr or KVCTL_ADDR."""
    click.echo(_loaded(directory).addresses)


@cluster_group.command("env", short_help="print what a shell needs to talk to it")
@directory_option
def env_command(directory: Path) -> None:
    """Print variables for a shell to take in: eval "$(kvctl cluster env --dir DIR)"."""
    cluster = _loaded(directory)
    variables = {DIRECTORY_VARIABLE: str(cluster.directory), "KVCTL_ADDR": cluster.addresses}
    if cluster.tls:
        variables["KVCTL_TLS_CA"] = str(cluster.directory / "pki" / "ca.pem")
    for name, value in variables.items():
        click.echo(f"export {name}={shlex.quote(value)}")


@cluster_group.command("logs", short_help="print what a member said")
@click.argument("member", type=int)
@click.option("-f", "--follow", is_flag=True, help="Go on with what it says, until Ctrl-C.")
@directory_option
def logs_command(member: int, follow: bool, directory: Path) -> None:
    """Print the log of MEMBER."""
    cluster = _loaded(directory)
    with open(cluster.log(cluster.member(member)), errors="replace") as log:
        while True:
            shutil.copyfileobj(log, sys.stdout)
            sys.stdout.flush()
            if not follow:
                return
            time.sleep(FOLLOW_INTERVAL_S)


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
