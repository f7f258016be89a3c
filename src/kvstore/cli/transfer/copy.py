"""``kvctl copy``: from one store to another, until the other has all of it."""

from __future__ import annotations

import click

from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.data_bytes import read_key
from kvstore.cli.interface.durations import duration_type
from kvstore.cli.interface.keys import hex_option
from kvstore.cli.transfer.groups import between_groups
from kvstore.cli.transfer.plan import Plan, There

__all__ = ["copy_command"]

# Before the path of a gateway's configuration file.
POOL = "rados:"


@click.command("copy", short_help="copy keys from one cluster to another, and compare")
@click.argument("prefix", default="", metavar="[PREFIX]")
@click.option(
    "--from",
    "source",
    required=True,
    metavar="HOST:PORT[,...]",
    help="Where they are: addresses of one cluster, a connection string kv://…, or rados:FILE, a "
    "pool by the configuration of its gateways.",
)
@click.option(
    "--to",
    "target",
    required=True,
    metavar="HOST:PORT[,...]",
    help="Where they come to, likewise.",
)
@click.option("--to-prefix", metavar="TEXT", help="There they begin with TEXT, in place of PREFIX.")
@click.option(
    "--merge",
    is_flag=True,
    help="Also where there are such keys already, which stay if these aren't called so.",
)
@click.option(
    "--mirror",
    is_flag=True,
    help="Likewise, but they go if the source doesn't have them, and what is the same isn't "
    "written: to go on where a copy broke off.",
)
@click.option(
    "--allow-empty",
    is_flag=True,
    help="With --mirror: also where the source has none, so that all go.",
)
@click.option(
    "--until-quiet",
    type=duration_type,
    metavar="SECONDS",
    help="Go on with what changes until nothing has for so long, then compare. From clusters.",
)
@click.option(
    "--without-leases",
    is_flag=True,
    help="To a pool: keys with leases as well, which stay there for good.",
)
@hex_option
@connection_options
@click.pass_context
def copy_command(
    context: click.Context,
    prefix: str,
    source: str,
    target: str,
    to_prefix: str | None,
    merge: bool,
    mirror: bool,
    allow_empty: bool,
    until_quiet: float | None,
    without_leases: bool,
    hexadecimal: bool,
) -> int:
    """Copy all keys that begin with PREFIX, or all there are, then what changes meanwhile, until
    nothing is left to copy; then compare both sides, key by key.

    Writers may go on; what comes after it has caught up is not copied. Leases, history and
    revisions stay behind. Options such as --tls-ca and --user are for both sides; where they
    differ, give connection strings.

    A pool of RADOS is read and written beside its gateways, as they do it. It has no revision: from
    one, it is walked until a pass finds nothing that the cluster doesn't have, and only with its
    writers stopped is that all there is. Nobody else may write to where the keys come to.

    \b
    Examples:
      kvctl copy --from old:50051 --to new1:50051,new2:50051
      kvctl copy jobs/ --from old:50051 --to new:50051 --to-prefix old-jobs/
      kvctl copy --from old:50051 --to rados:gateway.toml --until-quiet 10s --timeout 60
      kvctl copy --from rados:gateway.toml --to new:50051

    Exits with 1 if the two sides differ in the end, if changes came while a pool was compared
    (they were copied, but not compared: safe is false in JSON), or if both are one store whose
    copies would be copied; with 5 if keys of a pool are damaged, which are named.
    """
    if merge and mirror:
        raise click.UsageError("--merge and --mirror exclude each other.")
    wanted = read_key(prefix, hexadecimal=hexadecimal)
    begin = wanted if to_prefix is None else read_key(to_prefix, hexadecimal=hexadecimal)
    there = There.MERGED if merge else There.MIRRORED if mirror else There.REFUSED
    settings = settings_of(context)
    plan = Plan(wanted, begin, there, until_quiet, without_leases, settings.timeout, allow_empty)
    _refuse_words(source, target, plan)
    if source.startswith(POOL) or target.startswith(POOL):
        return _with_pool(context, plan, source, target)
    with settings.connect(source) as old, settings.connect(target) as new:
        return between_groups(context, old, new, plan, source, target)


def _refuse_words(source: str, target: str, plan: Plan) -> None:
    """Raises UsageError for what means nothing."""
    if POOL in (source, target):
        raise click.UsageError(f"give the file behind {POOL}, a gateway's configuration.")
    if plan.leased and not target.startswith(POOL):
        raise click.UsageError("--without-leases is for a pool to copy to.")
    if plan.empties and plan.there is not There.MIRRORED:
        raise click.UsageError("--allow-empty is for --mirror.")


def _with_pool(context: click.Context, plan: Plan, source: str, target: str) -> int:
    # They take packages of the server's, which groups do without.
    from kvstore.cli.transfer.pools import found_pool, from_pool, made_pool, to_pool

    settings = settings_of(context)
    timeout_s = settings.timeout
    if not source.startswith(POOL):
        file = target.removeprefix(POOL)
        with settings.connect(source) as old, made_pool(file, timeout_s) as pool:
            return to_pool(context, old, pool, plan)
    if target.startswith(POOL):
        raise click.UsageError("one of both sides has to be a cluster.")
    if plan.quiet_s is not None:
        raise click.UsageError("--until-quiet needs a watch, which a pool hasn't.")
    file = source.removeprefix(POOL)
    with settings.connect(target) as new, found_pool(file, timeout_s) as pool:
        return from_pool(context, pool, new, plan)
