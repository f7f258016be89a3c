"""Which kvstore this is."""

from __future__ import annotations

import functools
import importlib.metadata

from kvstore.extras import DISTRIBUTION


@functools.cache
def version() -> str:
    """Return the version of the installed package; ``unknown`` when run from bare sources."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
