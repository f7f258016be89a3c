_Bytes = bytes | bytearray | memoryview

class WriteBatch:
    """Operations that are applied together, in order, or not at all.

    One thread at a time. Get one from :meth:`DB.write_batch` (then :meth:`write`, or leaving a
    ``with`` block, writes it), or make one and hand it to :meth:`DB.write`.
    """

    def __init__(self) -> None: ...
    def put(self, key: _Bytes, value: _Bytes, *, sequence: int | None = None) -> None:
        """Set ``key`` to ``value``. ``sequence``: see :meth:`DB.write`.

        Raises InvalidArgumentError for what is too long, ClosedError where the database that the
        batch came from is closed.
        """
    def delete(self, key: _Bytes, *, sequence: int | None = None) -> None:
        """Remove ``key``; no error when it is not there. ``sequence`` as for :meth:`put`."""
    def clear(self) -> None:
        """Forget all operations."""
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
