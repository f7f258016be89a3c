"""Whether this build has the native wire."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["available"]


def available() -> bool:
    """False: built without nghttp2. Servers and clients then use grpcio."""
    return find_spec("kvstore._wire.native") is not None
