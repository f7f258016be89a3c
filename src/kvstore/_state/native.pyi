"""Types of the native parts of the state."""

# requests.pyx

class RequestMemory:
    """The newest ``capacity`` requests, forgotten one by one, oldest first.

    One thread at a time. ``kvstore.state.requests.PlainRequestMemory`` does the same, readably.
    A word is a fingerprint with the result as its lowest bit, and never 0.
    """

    def __init__(self, capacity: int) -> None: ...
    def __len__(self) -> int: ...
    @property
    def forgotten_ms(self) -> int:
        """The time of the newest request that was forgotten; 0: none was."""

    @forgotten_ms.setter
    def forgotten_ms(self, time: int) -> None: ...
    @property
    def memory_bytes(self) -> int:
        """What is used of memory."""

    def find(self, digest: bytes) -> int:
        """The word of a remembered request, 0 for none."""

    def add(self, digest: bytes, word: int, index: int, time: int) -> None:
        """Remember a request, which :meth:`find` doesn't know, of entry ``index`` at ``time``.

        Neither may go back. Raises MemoryError, and nothing has changed.
        """

    def load(self, packed: bytes, offset: int, index: int, time: int) -> None:
        """Remember all of an entry: from ``offset`` on 24 bytes each, digest and word."""

    def take_forgotten(self) -> list[int]:
        """The entries of which the last request was forgotten, since this was asked last."""
