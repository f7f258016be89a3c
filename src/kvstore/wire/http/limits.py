"""The bounds of HTTP/1.1, beside those that it shares with HTTP/2 (``ServerLimits``)."""

from __future__ import annotations

import dataclasses

__all__ = ["HttpLimits"]

MIB = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """A request's body has ``body_bytes_max`` (413 beyond), and ``small_chunks_max`` chunks besides
    one for each KiB (400 beyond). Between two requests a connection may be silent for ``idle_s``.

    An answer is to be taken within ``answer_s`` of its begin unless it is a stream. While one is
    under way ``ahead_bytes_max`` of what follows are read, which may be further requests.
    """

    body_bytes_max: int = 3 * MIB
    small_chunks_max: int = 1024
    idle_s: float = 75.0
    answer_s: float = 60.0
    ahead_bytes_max: int = 64 * 1024
