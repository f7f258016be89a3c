"""A listener for operators: a unix socket in the data directory, for kvd's own user and root."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from kvstore.addresses import SOCKET_NAME
from kvstore.errors import ConfigurationError
from kvstore.server.listeners.front import Listener, OpenListener
from kvstore.server.metrics.switch import MetricsSwitch

__all__ = ["serve_operators"]

CONNECTIONS_MAX = 32


@contextlib.asynccontextmanager
async def serve_operators(
    directory: Path, open_listener: OpenListener, add_services: Callable[[Listener], None]
) -> AsyncIterator[None]:
    """Answer calls that come over ``admin.sock`` in ``directory``, which is locked, as long as the
    context lasts.

    A server of its own: an operator gets through whatever clients do. Raises ConfigurationError.
    """
    path = directory / SOCKET_NAME
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # of a process that was killed
    listener = open_listener(CONNECTIONS_MAX, None, MetricsSwitch())
    add_services(listener)
    # Paths of sockets are short (108 bytes); through its descriptor any directory's is.
    opened = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            listener.bind_unix(f"/proc/self/fd/{opened}/{SOCKET_NAME}")
            path.chmod(0o600)
        except OSError as error:
            raise ConfigurationError(f"failed to make the operators' socket {path}") from error
        await listener.start()
        try:
            yield
        finally:
            await listener.stop(grace=None)
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        os.close(opened)
