"""``kvctl verify``: every byte of stored files, without a server."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.connection import connection_options
from kvstore.cli.interface.data_bytes import in_line
from kvstore.cli.interface.output import tell
from kvstore.cli.interface.tables import size, table
from kvstore.errors import Error, StorageError

# What a member is made of takes long to import: each command gets its own.
if TYPE_CHECKING:
    from kvstore.server.verify.report import Report


@click.command("verify", short_help="check every byte of a stopped server's or database's files")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--all", "show_all", is_flag=True, help="Name every file, not just damaged ones.")
@connection_options
@click.pass_context
def verify_command(context: click.Context, path: Path, show_all: bool) -> None:
    """Read and check all of PATH: kvd's data directory, one member's, a database of the library, or
    a backup file. No server is asked, and nothing is written.

    Refused while somebody has it open: a kvd that runs checks its files by itself, and says so in
    'kvctl status'. Ends with 5 when anything is damaged.

    \b
    Examples:
      kvctl verify /var/lib/kvstore
      kvctl verify --all ./data/node3
      kvctl verify monday.kvs --output=json
    """
    verify_path(context, path, show_all=show_all)


def verify_path(context: click.Context, path: Path, *, show_all: bool) -> None:
    """Check it, say what came of it, and exit with 5 when anything is damaged."""
    if not path.exists():
        raise click.UsageError(f"there is nothing at {path}")
    try:
        report = _checked(str(path))
    except Error:
        raise
    except OSError as error:
        where = path if error.filename is None else error.filename
        raise StorageError(
            f"it can't be read: {error.strerror}", path=str(where), errno=error.errno
        ) from error
    tell(context, as_json(report), *as_text(report, show_all=show_all).split("\n"))
    if not report.is_whole:
        context.exit(ExitCode.DAMAGED)


def _checked(path: str) -> Report:
    """Check all of it, with a bar on a terminal."""
    from kvstore.server.verify.directory import held_bytes, verify

    if not sys.stderr.isatty():
        return verify(path)
    with click.progressbar(length=held_bytes(path), label="checking", file=sys.stderr) as bar:
        return verify(path, bar.update)


def as_json(report: Report) -> dict[str, object]:
    """Return the report as one document: every file, and what is wrong between them."""
    return {
        "path": report.root,
        "whole": report.is_whole,
        "findings": report.findings,
        "files": [
            {
                "path": file.path,
                "bytes": file.bytes,
                "outcome": file.outcome.value,
                "reason": file.reason,
            }
            for file in report.files
        ],
    }


def as_text(report: Report, *, show_all: bool) -> str:
    """Return damaged files, or all, what is wrong between files, and a line of counts."""
    from kvstore.server.verify.report import Outcome

    shown = [file for file in report.files if show_all or file.outcome is Outcome.DAMAGED]
    lines = []
    if shown:
        rows = [(file.outcome.value, size(file.bytes), file.path, file.reason) for file in shown]
        lines += table(("outcome", "size", "file", "reason"), rows)
    lines += [f"damaged: {in_line(finding)}" for finding in report.findings]
    counts = Counter(file.outcome.value for file in report.files)
    said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    total = size(sum(file.bytes for file in report.files))
    lines.append(f"{'whole' if report.is_whole else 'DAMAGED'}: {said or 'no files'}, {total}")
    return "\n".join(lines)
