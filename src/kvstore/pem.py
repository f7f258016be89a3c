"""Reading a PEM file, for servers and clients, so that each complaint names the file."""

from __future__ import annotations

from pathlib import Path

from kvstore.errors import ConfigurationError
from kvstore.small_files import read_small


def read_pem(what: str, path: str | Path) -> bytes:
    """Return the bytes of a PEM file; raises ConfigurationError naming it."""
    try:
        data = read_small(path)
    except OSError as error:
        raise ConfigurationError(
            f"failed to read TLS {what} PEM from {path}: {error.strerror}"
        ) from error
    if b"-----BEGIN " not in data:
        raise ConfigurationError(f"failed to read TLS {what} PEM from {path}: not a PEM file")
    return data
