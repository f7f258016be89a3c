"""Where the commands begin, with nothing loaded yet: the packages that they need may be missing."""

from __future__ import annotations

import importlib
import sys

from kvstore.extras import missing_package

__all__ = ["kvctl", "kvd"]


def kvd() -> None:
    """The command ``kvd``."""
    _run("kvd", "server")


def kvctl() -> None:
    """The command ``kvctl``."""
    _run("kvctl", None)


def _run(command: str, extra: str | None) -> None:
    try:
        importlib.import_module(f"kvstore.cli.{command}").main()
    except ModuleNotFoundError as error:
        line = missing_package(command, error, extra)
        if line is None:
            raise
        print(line, file=sys.stderr)
        # As kvstore.cli.exit_codes' FAILURE.
        sys.exit(1)
    except KeyboardInterrupt:
        # While they load: nothing was done yet.
        sys.exit(130)
