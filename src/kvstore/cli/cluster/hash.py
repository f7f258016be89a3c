"""``kvctl hash``: whether members have the same."""

from __future__ import annotations

from typing import NamedTuple

import click

from kvstore.cli.cluster.reports import gather
from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.connection import Settings, connection_options, settings_of
from kvstore.cli.interface.output import tell
from kvstore.cli.interface.tables import table
from kvstore.client.maintenance import StateHash
from kvstore.errors import Error

__all__ = ["hash_command"]


class Answer(NamedTuple):
    """What one member said, or why it didn't."""

    address: str
    found: StateHash | None
    silence: str = ""


@click.command("hash", short_help="compare what members have of all keys")
@click.option(
    "--rev",
    "--revision",
    "rev",
    type=click.IntRange(min=1),
    metavar="N",
    help="Up to revision N. [default: the newest that all have]",
)
@connection_options
@click.pass_context
def hash_command(context: click.Context, rev: int | None) -> int:
    """Ask each member for a hash of all keys and their history, at one revision, and compare.

    Members compare themselves all the while ('kvctl status' shows what they find); this asks them
    now, and reads all that they have. An embedded kvd answers for its leader.

    \b
    Examples:
      kvctl hash
      kvctl --addr db1:50051 hash --rev 4711

    Ends with 5 if they differ, with 4 if one doesn't answer.
    """
    settings = settings_of(context)
    reports = gather(settings)
    heard = [one.said.revision for one in reports.members if one.said is not None]
    revision = rev or min(heard, default=0)
    addresses = [*dict.fromkeys(one.address for one in reports.members)]
    answers = [_ask(settings, address, revision) for address in addresses]
    found = {answer.found for answer in answers if answer.found is not None}
    # Who has compacted more has less to be hashed: only the same stretch can be compared.
    differ = len({one.compact_revision for one in found}) < len(found)
    silent = any(answer.found is None for answer in answers)
    verdict = "they differ" if differ else "equal" if len(found) == 1 else "not comparable"
    rows = [_row(answer) for answer in answers]
    tell(
        context,
        {"revision": revision, "verdict": verdict, "members": [_fields(it) for it in answers]},
        *table(("address", "hash", "revision", "compacted"), rows),
        *(f"{it.address}: {it.silence}" for it in answers if it.found is None),
        verdict,
    )
    if differ:
        return ExitCode.DAMAGED
    return ExitCode.UNAVAILABLE if silent or len(found) != 1 else ExitCode.OK


def _ask(settings: Settings, address: str, revision: int) -> Answer:
    try:
        with settings.connect(address) as client:
            return Answer(address, client.maintenance.hash(revision))
    except Error as error:
        return Answer(address, None, str(error))


def _row(answer: Answer) -> tuple[str, ...]:
    if answer.found is None:
        return (answer.address, "-", "-", "-")
    found = answer.found
    return (
        answer.address,
        f"{found.hash:08x}",
        str(found.revision),
        str(max(0, found.compact_revision)),
    )


def _fields(answer: Answer) -> dict[str, object]:
    if answer.found is None:
        return {"address": answer.address, "hash": None, "silence": answer.silence}
    return {"address": answer.address, **answer.found._asdict()}
