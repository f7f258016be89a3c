_Bytes = bytes | bytearray | memoryview

class WriteBatch:
    """Operations that are applied together, in order, or not at all.

    One thread at a time. Get one from :meth:`DB.write_batch` (then :meth:`write`, or leaving a
    ``with`` block, writes it), or make one and hand it to :meth:`DB.write`.
    """

    def __init__(self) -> None: ...
    def put(self, key: _Bytes, value: _Bytes, *, sequence: int | None = None) -> None:
        """``sequence``: see :meth:`DB.write`."""
    def delete(self, key: _Bytes, *, sequence: int | None = None) -> None: ...
    def clear(self) -> None: ...
    def append(self, source: WriteBatch) -> None:
        """Add the operations of another batch after those of this one."""
    def approximate_size(self) -> int:
        """Bytes that the batch takes in the log."""
    def __len__(self) -> int:
        """The number of operations."""
    def write(self) -> None:
        """Write to the database that the batch came from.

        The operations stay in the batch, as plyvel's do: :meth:`clear` it to go on with others.
        """
    def __enter__(self) -> WriteBatch: ...
    def __exit__(self, *exc: object) -> None: ...
