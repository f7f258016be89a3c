"""Who is told, slice after slice, what a member has applied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kvstore.state import OperationResult

__all__ = ["Listener"]


class Listener(Protocol):
    """Told on the thread that drives the member, in the order of the log. Raises nothing."""

    def applied(self, answers: Sequence[tuple[bytes, OperationResult]], revision: int) -> None:
        """Some entries more are applied, which brought the state to ``revision``.

        ``answers``: what the operations among them came to, by the ids of their proposals.
        """

    def installed(self) -> None:
        """The state is another one: a snapshot, which is further on in the log."""
