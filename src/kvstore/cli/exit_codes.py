"""What the exit status of kvctl and kvd says, so that scripts can act on it."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Exit statuses. ``docs/operations.md`` lists them for users."""

    OK = 0
    FAILURE = 1
    """The request was refused, or something broke; for kvd, it could not start."""
    USAGE = 2
    """Wrong or missing arguments."""
    NOT_FOUND = 3
    """kvctl: the key has no value, or there is no such lease."""
    UNAVAILABLE = 4
    """kvctl: no server, no leader, or no answer in time; trying again may work."""
    DAMAGED = 5
    """Stored bytes can't be trusted or the disk failed. For kvd: it stopped because of that."""
    INTERRUPTED = 130
    """kvctl: Ctrl-C, as shells say it."""
    OUTPUT_CLOSED = 141
    """kvctl: whoever read its output has gone, as shells say SIGPIPE."""
    TERMINATED = 143
    """kvctl: SIGTERM, likewise."""
