"""What a store in memory says goes to the standard library's logging, as what clients say does.

kvd sets its own logs up as a process. Here the process is somebody else's, and structlog, unless it
is told otherwise, prints on standard output.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

__all__ = ["keep_off_stdout"]


def keep_off_stdout() -> None:
    """Unless the program has set structlog up: then it gets these lines as all others."""
    if structlog.is_configured():
        return
    defaults = structlog.get_config()

    def make(*names: Any) -> WrappedLogger:
        if names and isinstance(names[0], str) and names[0].startswith("kvstore."):
            return logging.getLogger(names[0])
        return defaults["logger_factory"](*names)

    structlog.configure(processors=[_hand_over, *defaults["processors"]], logger_factory=make)


def _hand_over(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    if not isinstance(logger, logging.Logger):
        return event
    said = event.pop("event", "")
    failure = event.pop("exc_info", None)
    values = "".join(f" {name}={value}" for name, value in event.items())
    level = logging.getLevelNamesMapping().get(method.upper(), logging.ERROR)
    logger.log(level, "%s%s", said, values, exc_info=failure)
    raise structlog.DropEvent
