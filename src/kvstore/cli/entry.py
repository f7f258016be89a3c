"""Where the commands begin, with nothing loaded yet: packages that they need may be missing, and
somebody may press Ctrl-C meanwhile."""

from __future__ import annotations

import gc
import os
import sys

# The public module makes enumerations of everything first, which takes as long as all of this.
from _signal import SIGINT, signal  # type: ignore[import-not-found]

TYPE_CHECKING = False  # as typing's, which takes even longer
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

__all__ = ["kvctl", "kvd"]

# As kvstore.cli.exit_codes has them, which isn't loaded yet.
FAILURE = 1
INTERRUPTED = 130


def kvd() -> None:
    """The command ``kvd``."""
    _run("kvd", "server")


def kvctl() -> None:
    """The command ``kvctl``."""
    # Until its command is loaded: see kvstore.cli.interface.lazy.
    gc.disable()
    _run("kvctl", None)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """End at once: while they load, nothing was done yet."""
    os._exit(INTERRUPTED)


def _run(command: str, extra: str | None) -> None:
    signal(SIGINT, _leave)
    import importlib

    from kvstore.extras import missing_package

    try:
        importlib.import_module(f"kvstore.cli.{command}").main()
    except ModuleNotFoundError as error:
        line = missing_package(command, error, extra)
        if line is None:
            raise
        print(line, file=sys.stderr)
        sys.exit(FAILURE)
