"""What lies in a checkpoint of a member's state, and the removal of directories like it."""

from __future__ import annotations

from collections.abc import Callable

from kvstore._engine.files.native import FileSystem
from kvstore.engine import DB
from kvstore.engine import Options as EngineOptions
from kvstore.errors import Error
from kvstore.replica.work import Jobs, raise_unless_passing
from kvstore.state import StoredState, stored_state

__all__ = ["Removals", "read_checkpoint"]

# To read a checkpoint once from end to end: nothing is compacted on the way.
_READING = EngineOptions(
    create_if_missing=False, read_only=True, wal=False, background=False, lru_cache_size=8 << 20
)


def read_checkpoint(
    path: str, filesystem: FileSystem, *, verify: bool = False
) -> StoredState | None:
    """What the checkpoint ``path`` says of itself, with ``verify`` after reading all of it.

    None where nothing was ever applied. Raises CorruptionError, StorageError.
    """
    with DB(path, options=_READING, filesystem=filesystem) as database:
        if verify:
            database.verify()
        return stored_state(database)


class Removals:
    """Removes directories that nobody needs any more, one after the other, beside the loop."""

    def __init__(self, filesystem: FileSystem, jobs: Jobs) -> None:
        self._filesystem = filesystem
        self._jobs = jobs
        self._waiting: list[tuple[str, Callable[[], None]]] = []

    def remove(self, path: str, close: Callable[[], None] = lambda: None) -> None:
        """Have everything below ``path`` removed, after ``close``.

        What a crash leaves goes at the next start.
        """
        self._waiting.append((path, close))
        self._start()

    def _start(self) -> None:
        waiting, remove_tree = self._waiting, self._filesystem.remove_tree

        def remove() -> None:
            for path, close in waiting:
                close()
                remove_tree(path)

        if waiting and self._jobs.start("remove", remove, self._removed):
            self._waiting = []

    def _removed(self, outcome: Error | None) -> None:
        if outcome is not None:
            raise_unless_passing(outcome)
        self._start()
