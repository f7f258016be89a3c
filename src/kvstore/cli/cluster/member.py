"""``kvctl member`` and ``kvctl leader``: who belongs to the cluster, and who leads it."""

from __future__ import annotations

import dataclasses

import click

from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.output import Results, tell
from kvstore.cli.interface.tables import table
from kvstore.client import Members

force_option = click.option(
    "--force",
    is_flag=True,
    help="Even if too few members that answer would be left: nothing can be written then.",
)

member_id = click.IntRange(1, (1 << 63) - 1)


def _show(context: click.Context, members: Members) -> None:
    rows = [
        (
            str(member.member_id),
            "learner" if member.learner else "voter",
            "leads" if member.member_id == members.leader_id else "",
            member.client_address,
            member.peer_address,
        )
        for member in members.members
    ]
    columns = ("member", "kind", "", "clients", "peers")
    tell(context, dataclasses.asdict(members), *table(columns, rows))


@click.group("member", short_help="list, add, promote and remove members")
def member_group() -> None:
    """List, add, promote and remove the members of a cluster, one change at a time.

    \b
    Examples: a lost machine is replaced
      kvctl member remove 3
      kvctl member add 4 --client-addr db4:50051 --peer-addr db4:50052
      (start member 4 with join = true and an empty data directory)
      kvctl member promote 4
    """


@member_group.command("list", short_help="show who belongs to the cluster")
@connection_options
@click.pass_context
def list_command(context: click.Context) -> None:
    """Show the members, as the leader knows them."""
    with settings_of(context).connect() as client:
        _show(context, client.members())


@member_group.command("add", short_help="add a member that doesn't vote yet")
@click.argument("member", type=member_id)
@click.option("--client-addr", required=True, metavar="HOST:PORT", help="Where clients reach it.")
@click.option("--peer-addr", required=True, metavar="HOST:PORT", help="Where members reach it.")
@connection_options
@click.pass_context
def add_command(context: click.Context, member: int, client_addr: str, peer_addr: str) -> None:
    """Add MEMBER, under an id that was never used, as a learner: it gets the data and has no vote.

    Then start it with join = true and an empty data directory, and promote it.
    """
    with settings_of(context).connect() as client:
        _show(context, client.add_member(member, client_addr, peer_addr))


@member_group.command("promote", short_help="let a learner vote")
@click.argument("member", type=member_id)
@force_option
@connection_options
@click.pass_context
def promote_command(context: click.Context, member: int, force: bool) -> None:
    """Let MEMBER vote.

    Refused while it lacks more than 1,000 entries or doesn't answer, and when of the voters that
    there would be no majority answers.
    """
    with settings_of(context).connect() as client:
        _show(context, client.promote_member(member, force=force))


@member_group.command("remove", short_help="take a member out for good")
@click.argument("member", type=member_id)
@force_option
@connection_options
@click.pass_context
def remove_command(context: click.Context, member: int, force: bool) -> None:
    """Take MEMBER out for good; its id can't be used again.

    It is told, and stops. Refused when of the voters that stay no majority answers.
    """
    with settings_of(context).connect() as client:
        _show(context, client.remove_member(member, force=force))


@member_group.command("forget", short_help="forget a wrong introduction of a member")
@click.argument("member", type=member_id)
@connection_options
@click.pass_context
def forget_command(context: click.Context, member: int) -> None:
    """Let each member of --addr forget which data directory MEMBER came with, and how often.

    For when they refuse it as 'stale' although its directory is whole: somebody else said that it
    was MEMBER. Never for one whose disk was wiped or restored: it forgot its votes.
    """
    settings = settings_of(context)
    with Results(context, ("said",)) as results:
        for address in settings.addr.split(","):
            with settings.connect(address) as client:
                known = client.forget_introduction(member)
            said = "forgot" if known else "knew nothing of"
            line = f"{address} {said} member {member}"
            results.add({"address": address, "forgot": known}, (line,), line.encode())


@click.group("leader", short_help="hand leadership over")
def leader_group() -> None:
    """Who leads, and handing that over.

    \b
    Examples:
      kvctl leader transfer        before the leader's machine is taken down
      kvctl leader transfer 2
    """


@leader_group.command("transfer", short_help="let another member lead")
@click.argument("member", type=member_id, required=False)
@connection_options
@click.pass_context
def transfer_command(context: click.Context, member: int | None) -> None:
    """Let MEMBER lead, or, without one, the member that is furthest; say who leads then."""
    with settings_of(context).connect() as client:
        leader = client.transfer_leadership(member or 0)
    tell(context, {"leader_id": leader}, f"member {leader} leads")
