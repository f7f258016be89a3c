from typing_extensions import Buffer

class FileSystem:
    """A disk that :class:`kvstore.DB` and the log can stand on (their ``filesystem=`` argument).

    The methods are for whole files off the hot path; each raises
    :class:`kvstore.errors.StorageError` when the disk refuses.
    """

    def resolve(self, path: str) -> str:
        """``path`` from the root on, without links, ``..`` and a slash at its end.

        Whoever keeps a path keeps this one: it follows neither ``chdir`` nor a link that is
        changed, and its ``dirname`` is the directory that holds its name.
        """
    def names(self, path: str) -> list[str]:
        """The sorted names in a directory."""
    def kind(self, path: str) -> int:
        """0 nothing there, 1 a file, 2 a directory."""
    def size(self, path: str) -> int: ...
    def read(self, path: str, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``, fewer only at the end of the file."""
    def write(self, path: str, offset: int, data: Buffer) -> None:
        """Write at ``offset``, making the file if it is absent; not durable before :meth:`sync`."""
    def sync(self, path: str) -> None: ...
    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
    def rename(self, old: str, new: str) -> None: ...
    def make_directory(self, path: str) -> None:
        """Make a directory; one that exists is fine."""
    def remove_tree(self, path: str) -> None:
        """Remove a file, or a directory with all in it; nothing there is fine."""
