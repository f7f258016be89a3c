"""``kvctl console``: pages in a browser, served beside the cluster."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.connection import connection_options, settings_of

DEFAULT_LISTEN = "127.0.0.1:8520"

_file = click.Path(path_type=Path)


@click.command("console", short_help="serve pages about the cluster to a browser")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default=DEFAULT_LISTEN,
    show_default=True,
    help="Where browsers reach it; beyond this machine with TLS alone. Port 0: a free one.",
)
@click.option("--write", is_flag=True, help="Let pages change keys, members and users as well.")
@click.option("--serve-cert", type=_file, metavar="FILE", help="Serve HTTPS, as this certificate.")
@click.option("--serve-key", type=_file, metavar="FILE", help="The key of --serve-cert.")
@click.option(
    "--host",
    "names",
    multiple=True,
    metavar="NAME",
    help="Another name that browsers may call it by; again for each.",
)
@click.option(
    "--metrics",
    default="",
    metavar="HOST:PORT[,...]",
    help="Where the members serve metrics: calls, their times and the engine are shown then.",
)
@click.option(
    "--unencrypted",
    is_flag=True,
    help="Listen beyond this machine without TLS: behind a proxy that has it.",
)
@connection_options
@click.pass_context
def console_command(
    context: click.Context,
    listen: str,
    write: bool,
    serve_cert: Path | None,
    serve_key: Path | None,
    names: tuple[str, ...],
    metrics: str,
    unencrypted: bool,
) -> None:
    """Serve pages about the cluster of --addr or --dir, until Ctrl-C.

    Users of the store log in with their passwords where the cluster asks for users. With --dir or
    --tls-cert the console may do what an operator may, and prints a link with a key: only who has
    that, or is a user with the role root, may have it do so. Each change is a line of JSON on
    standard error.

    \b
    Examples:
      kvctl console
      kvctl console --dir ./data --write
      kvctl --addr db1:50051,db2:50051 --tls-ca ca.pem console --listen 0.0.0.0:8520 \\
          --serve-cert console.pem --serve-key console.key --host console.example.com
    """
    # An extra of its own brings what this needs.
    from kvstore.client.urls import Target, target_of
    from kvstore.console.options import Options
    from kvstore.console.serving import serve

    settings = settings_of(context)
    given = Target((), tls=settings.tls, timeout=settings.timeout)
    target = target_of(settings.addr, given)
    if settings.user is not None or target.user is not None:
        raise click.UsageError("users log in to the console's pages: leave the user out")
    if target.namespace is not None:
        raise click.UsageError("the console shows all keys: leave the namespace out")
    options = Options(
        addresses=",".join(target.addresses),
        tls=target.tls,
        timeout_s=settings.timeout,
        listen=listen,
        write=write,
        certificate=serve_cert,
        key=serve_key,
        names=names,
        metrics=tuple(filter(None, metrics.split(","))),
        unencrypted=unencrypted,
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    _log_audit()
    ended_by = serve(options, lambda link: click.echo(f"kvctl console: {link}"))
    context.exit(ExitCode.INTERRUPTED if ended_by == 2 else ExitCode.OK)


def _log_audit() -> None:
    """Lines of JSON, nothing before them."""
    audit = logging.getLogger("kvstore.console.audit")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    audit.addHandler(handler)
    audit.setLevel(logging.INFO)
    audit.propagate = False
