"""Telling systemd what becomes of the process: the protocol of sd_notify(3)."""

from __future__ import annotations

import os
import socket

import structlog

__all__ = ["notify"]

log = structlog.get_logger("kvstore.server")


def notify(state: str) -> None:
    """Send ``state`` (such as ``READY=1``) to whoever started the process and wants to know.

    Nothing happens without ``NOTIFY_SOCKET`` in the environment; a supervisor that can't be told is
    no reason to stop.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
            supervisor.sendto(state.encode(), address)
    except OSError as error:
        log.warning("the supervisor can't be told", state=state, reason=str(error))
