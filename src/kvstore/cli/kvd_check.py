"""``kvd check``: all that is wrong with a configuration, without starting."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.data_bytes import in_line
from kvstore.cli.kvd_flags import CLUSTER_FLAGS, CONTEXT_SETTINGS, given_flags, kvd_flags
from kvstore.errors import ConfigurationError
from kvstore.server.checks.configuration import (
    check_cluster_node,
    check_embedded,
    check_process,
    check_rados,
)
from kvstore.server.checks.findings import Finding, fault, warning
from kvstore.server.config.cluster_config import OVERRIDES, draft_cluster_config
from kvstore.server.config.options import ServerOptions, option_faults
from kvstore.server.config.rados_config import OVERRIDES as RADOS_OVERRIDES
from kvstore.server.config.rados_config import draft_rados_config
from kvstore.server.exposure import exposures
from kvstore.server.metrics.endpoint import parse_metrics_address

__all__ = ["check_file", "kvd_check", "merge_listen_address"]

HELP = """Say all that is wrong with a configuration; start nothing.

FILE is that of a cluster node, or with --mode=rados of a gateway (--config); without it the flags
of an embedded kvd are checked. All flags and environment variables of kvd mean what they mean
there. Looks at the configuration, the certificates (readable, of one key, expired, of which
authority, for whom), the data directory (whose it is, permissions, lock, links, space) and the
addresses. Binds and writes nothing, and asks nobody but the resolver.

\b
Examples:
  kvd check /etc/kvstore/kvd.toml
  kvd check --running /etc/kvstore/kvd.toml      before a restart
  kvd check --data_dir=/var/lib/kvstore --tls_profile=secure --tls_cert=c.pem --tls_key=c.key

\b
Exit status:
  0  kvd would start; there may be warnings
  2  it would not, or nobody could talk to it: each reason in a line of its own
"""


@click.command(help=HELP, context_settings=CONTEXT_SETTINGS)
@click.argument("file", required=False)
@click.option(
    "--running",
    is_flag=True,
    help="A kvd runs with it: that the directory and the addresses are in use is no fault.",
)
@kvd_flags
@click.pass_context
def kvd_check(
    context: click.Context,
    /,
    file: str | None,
    running: bool,
    mode: str,
    config: str | None,
    **_flags: object,
) -> None:
    given = given_flags(context)
    if file == "":
        raise click.UsageError("FILE is empty; give the path of a configuration")
    if file and "mode" in given and mode == "embedded":
        raise click.UsageError(f"FILE has no effect with --mode={mode}; use --mode=cluster-node")
    if file and config and file != config:
        raise click.UsageError(f"FILE and --config={config} say the same thing; give one of them")
    path = file or (config if mode in ("cluster-node", "rados") else None)
    if path is None:
        values = {name: context.params[name] for name in _OPTIONS if name in context.params}
        found = [*_embedded(values, given, running=running)]
    elif mode == "rados":
        found = [*_rados(path, given, running=running)]
    else:
        found = [*_cluster_node(path, given, running=running)]
    _say(list(dict.fromkeys(found)))


def _embedded(
    values: dict[str, object], given: dict[str, str], *, running: bool
) -> Iterator[Finding]:
    faults = [
        *option_faults(values),
        *(
            f"--{key} has no effect with --mode=embedded; use --mode=cluster-node"
            for key in CLUSTER_FLAGS
            if key in given and key != "tls_client_ca"
        ),
    ]
    yield from map(fault, faults)
    yield from check_process(given.get("metrics_addr"))
    if not faults:
        yield from check_embedded(ServerOptions(**values), running=running)  # type: ignore[arg-type]


def check_file(path: str, given: dict[str, str], *, running: bool) -> list[Finding]:
    """All that is wrong with the file of a cluster node; ``given`` says other than it does."""
    found = dict.fromkeys(_cluster_node(path, given, running=running))
    return sorted(found, key=lambda finding: not finding.fault)


def _cluster_node(path: str, given: dict[str, str], *, running: bool) -> Iterator[Finding]:
    try:
        merge_listen_address(given)
        if "metrics_addr" in given:
            parse_metrics_address(given["metrics_addr"])
    except ConfigurationError as error:
        given.pop("metrics_addr", None)
        yield fault(str(error))
    overrides = {key: given[key] for key in OVERRIDES if key in given}
    config, faults = draft_cluster_config(path, overrides)
    yield from map(fault, faults)
    if config is None:
        return
    config = dataclasses.replace(
        config, metrics_address=given.get("metrics_addr", config.metrics_address)
    )
    yield from check_process(config.metrics_address)
    yield from check_cluster_node(config, running=running)


def _rados(path: str, given: dict[str, str], *, running: bool) -> Iterator[Finding]:
    given = {key: value for key, value in given.items() if key not in ("file", "running")}
    try:
        merge_listen_address(given)
        overrides = rados_overrides(given)
    except ConfigurationError as error:
        yield fault(str(error))
        overrides = {}
    config, faults = draft_rados_config(path, overrides)
    yield from map(fault, faults)
    if config is not None:
        yield from check_process(config.metrics_address)
        if not faults:
            yield from map(warning, exposures(config.options(path)).values())
        yield from check_rados(config, running=running)


def rados_overrides(given: dict[str, str]) -> dict[str, str | None]:
    """What flags say other than a gateway's file. Raises ConfigurationError for a group's."""
    for key in given:
        if key not in (*RADOS_OVERRIDES, "mode", "config", "metrics_addr"):
            raise ConfigurationError(f"--{key} has no effect with --mode=rados")
    overrides: dict[str, str | None]
    overrides = {key: given[key] for key in RADOS_OVERRIDES if key in given}
    overrides["metrics_address"] = given.get("metrics_addr")
    return overrides


def merge_listen_address(given: dict[str, str]) -> None:
    """Make of a member's --listen_addr its client_addr. Raises ConfigurationError for two."""
    if "listen_addr" not in given:
        return
    address = given.pop("listen_addr")
    if given.setdefault("client_addr", address) != address:
        raise ConfigurationError(
            f"--listen_addr={address} and --client_addr={given['client_addr']} say the same "
            "thing; give one of them"
        )


_OPTIONS = tuple(field.name for field in dataclasses.fields(ServerOptions))


def _say(found: list[Finding]) -> None:
    """Print what was found, the worst first, and exit accordingly."""
    for finding in sorted(found, key=lambda finding: not finding.fault):
        click.echo(f"{'error' if finding.fault else 'warning'}: {in_line(finding.text)}")
    faults = sum(finding.fault for finding in found)
    warnings = len(found) - faults
    if not faults:
        click.echo(f"kvd can start: nothing wrong, {_counted(warnings, 'warning')}")
        return
    click.echo(f"{_counted(faults, 'error')}, {_counted(warnings, 'warning')}")
    raise SystemExit(ExitCode.USAGE)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
