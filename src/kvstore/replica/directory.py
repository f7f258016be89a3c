"""What lies where in a member's directory, and how a received snapshot becomes its state.

| name | what |
|---|---|
| ``log/`` | the member's log |
| ``LOGEND`` | how far that was durable (log_note.py) |
| ``state-<index>/`` | the engine; the highest index is the current one, 0 the first |
| ``incoming/`` | a snapshot that is being received |
| ``ready-<index>/`` | one that arrived whole, verified and durable, to be installed |
| ``outgoing-<member>-<n>/`` | a checkpoint that is being sent |
| ``outgoing-backup/`` | a checkpoint that is being saved into a file |
| ``outgoing-stand-in/`` | an empty state, where the own one can't be opened (``repair.py``) |

A snapshot is installed with one rename, ``ready-N`` to ``state-N``, after the log durably says that
the state is now that of index N. A crash between the two is finished at the next start.
"""

from __future__ import annotations

import contextlib
import os

from kvstore._engine.files.file_face import free_bytes
from kvstore._engine.files.native import FileSystem
from kvstore.errors import CorruptionError, IntegrityCode, StorageError
from kvstore.replica.recovery import StateFound

__all__ = ["MemberDirectory"]

_INDEX_DIGITS = 20


class MemberDirectory:
    """The directory of one member on ``filesystem``."""

    def __init__(self, path: str, filesystem: FileSystem) -> None:
        """Make the directory where it is missing; its parent must exist."""
        self.path = path = filesystem.resolve(path)
        self.filesystem = filesystem
        self._checkpoints = 0
        self.found = StateFound.FITS
        if filesystem.kind(path) == 0:
            filesystem.make_directory(path)
            filesystem.sync_directory(os.path.dirname(path))
        self.log = f"{path}/log"
        self.log_note = f"{path}/LOGEND"
        if filesystem.kind(self.log) == 0:
            filesystem.make_directory(self.log)
            filesystem.sync_directory(path)

    def current_state(self, mark_index: int) -> str:
        """The engine's directory; first finishes the installation that ``mark_index`` tells of.

        Whatever else a crash left behind is removed; ``found`` says what there was. Raises
        CorruptionError when the log says that
        a snapshot was installed and it isn't there.
        """
        states = self._numbered("state")
        ready = self._numbered("ready")
        newest = max(states, default=0)
        if mark_index in ready and mark_index > newest:
            self.install(mark_index)
            self.found = StateFound.READY
            newest = mark_index
        elif not states:
            if mark_index:
                raise CorruptionError(
                    f"the log begins after index {mark_index} but there is no state",
                    code=IntegrityCode.INVALID_RECORD,
                    path=self.path,
                )
            self.filesystem.make_directory(self._name("state", 0))
            self.filesystem.sync_directory(self.path)
        current = self._name("state", newest)
        for name in self.filesystem.names(self.path):
            path = f"{self.path}/{name}"
            if path not in (self.log, current):
                self._remove_own(name, path)
        return current

    def _remove_own(self, name: str, path: str) -> None:
        """Remove what this class made; anything else is somebody's and stays."""
        if name.partition("-")[0] in ("state", "ready", "incoming", "outgoing"):
            self.filesystem.remove_tree(path)

    def install(self, index: int) -> str:
        """Make the ready snapshot ``index`` the state; returns the engine's new directory.

        May be called again where that, or what comes after it, failed.
        """
        disk, target, ready = (
            self.filesystem,
            self._name("state", index),
            self._name("ready", index),
        )
        if disk.kind(ready):
            if disk.kind(target):
                # Of that name, and damaged: an empty one stands in its place (opening.py).
                replaced = f"{self.path}/outgoing-replaced"
                disk.remove_tree(replaced)
                disk.rename(target, replaced)
            disk.rename(ready, target)
        disk.sync_directory(self.path)
        return target

    def part_of(self, path: str | None) -> str:
        """The entry of this directory that ``path`` is, or lies in; empty for any other path."""
        if path is None or not path.startswith(f"{self.path}/"):
            return ""
        return path[len(self.path) + 1 :].partition("/")[0]

    def state_number(self) -> int:
        """The highest index that a state has in its name; -1 where there is none."""
        return max(self._numbered("state"), default=-1)

    def replaced_by(self, index: int) -> list[str]:
        """What is left of states, that of ``index`` apart, which has taken their place.

        A later one was damaged, of a member that lost its log as well.
        """
        others = [self._name("state", state) for state in self._numbered("state") if state != index]
        return [*others, f"{self.path}/outgoing-replaced"]

    def make_stand_in(self) -> str:
        """An empty directory that lasts until the next start, at most."""
        path = f"{self.path}/outgoing-stand-in"
        self.filesystem.remove_tree(path)
        self.filesystem.make_directory(path)
        return path

    def make_incoming(self) -> str:
        """An empty directory for a snapshot to be received into."""
        path = f"{self.path}/incoming"
        self.filesystem.remove_tree(path)
        self.filesystem.make_directory(path)
        return path

    def drop_incoming(self) -> None:
        """What was being received isn't wanted any more."""
        self.filesystem.remove_tree(f"{self.path}/incoming")

    def ready(self, index: int) -> str:
        """Where the received snapshot ``index`` waits to be installed."""
        return self._name("ready", index)

    def withdrawn(self, index: int) -> str:
        """Where :meth:`withdraw` leaves the ready snapshot ``index``, to be removed."""
        return f"{self.path}/outgoing-unwanted-{index}"

    def withdraw(self, index: int) -> None:
        """Have the ready snapshot ``index`` be no such thing any more, durably.

        Before anything of it is removed: the log's mark may come to name that index for another
        reason, and a start would take what is left of it for the state. May be called again: for
        one that came again meanwhile from the next leader, or after it failed.
        """
        ready, withdrawn = self.ready(index), self.withdrawn(index)
        if self.filesystem.kind(ready):
            self.filesystem.remove_tree(withdrawn)
            self.filesystem.rename(ready, withdrawn)
        self.filesystem.sync_directory(self.path)

    def incoming_is_whole(self, index: int) -> None:
        """Everything in ``incoming`` is written and verified: make it durable under its name.

        One of that index that is ready already stays: it is the same state, and the log may count
        on it by now.
        """
        path = f"{self.path}/incoming"
        for name in self.filesystem.names(path):
            self.filesystem.sync(f"{path}/{name}")
        self.filesystem.sync_directory(path)
        target = self._name("ready", index)
        if self.filesystem.kind(target):
            self.filesystem.remove_tree(path)
        else:
            self.filesystem.rename(path, target)
        # Also of one that was there: that it is durable may have failed the first time.
        self.filesystem.sync_directory(self.path)

    def outgoing(self, member: int) -> str:
        """Where the next checkpoint for ``member`` is made; nothing is there yet.

        Each has a name of its own: those before are removed when somebody gets to it.
        """
        while True:
            self._checkpoints += 1
            path = f"{self.path}/outgoing-{member}-{self._checkpoints}"
            # Where no state was found, what the run before left is still there.
            if not self.filesystem.kind(path):
                return path

    def backup(self) -> str:
        """Where the checkpoint for a backup is made; nothing is there yet."""
        path = f"{self.path}/outgoing-backup"
        self.filesystem.remove_tree(path)
        return path

    def log_bytes(self) -> int:
        """What the log takes on the disk, reserved and spare segments included."""
        total = 0
        for name in self.filesystem.names(self.log):
            # The log's thread may have renamed or removed it by now.
            with contextlib.suppress(StorageError):
                total += self.filesystem.size(f"{self.log}/{name}")
        return total

    def free_bytes(self) -> int:
        """What the disk below the directory has left; 0 when it doesn't say."""
        try:
            return free_bytes(self.filesystem, self.path)
        except OSError:
            return 0

    def _name(self, kind: str, index: int) -> str:
        return f"{self.path}/{kind}-{index:0{_INDEX_DIGITS}d}"

    def _numbered(self, kind: str) -> list[int]:
        found = []
        for name in self.filesystem.names(self.path):
            head, _, tail = name.partition("-")
            if head == kind and tail.isdecimal():
                found.append(int(tail))
        return found
