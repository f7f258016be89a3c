"""Whether a member's storage takes what it is given, judged tick by tick."""

from __future__ import annotations

__all__ = ["StorageWatch"]


class StorageWatch:
    """Notices storage that is full, hangs or is far too slow, and when that is over.

    Both need time, in election timeouts: a disk that is full for one, or a write that has been
    under way for two, is trouble; so leadership leaves a disk that hangs within two of them. It is
    over once there was room, and no write took a whole one, for two of them in a row: a disk whose
    every write takes too long stays in trouble between them as well.
    """

    def __init__(self, election_ticks: int) -> None:
        self.trouble = ""
        """Why it takes nothing; empty while all is well."""
        self._election_ticks = election_ticks
        self._full_ticks = 0
        self._calm_ticks = 0

    def tick(self, lack: str, oldest_ticks: int) -> None:
        """One tick has passed.

        ``lack`` says what there is no room for, empty when there is; ``oldest_ticks``: how long the
        oldest write, or read, has been under way, 0 for none.
        """
        self._full_ticks = self._full_ticks + 1 if lack else 0
        calm = not lack and oldest_ticks < self._election_ticks
        self._calm_ticks = self._calm_ticks + 1 if calm else 0
        if self._full_ticks >= self._election_ticks:
            self.trouble = lack
        elif oldest_ticks >= 2 * self._election_ticks:
            self.trouble = "its disk hangs: what it was asked for has been under way for too long"
        elif self._calm_ticks >= 2 * self._election_ticks:
            self.trouble = ""
