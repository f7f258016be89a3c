"""Types of the room primitives."""

from typing_extensions import Buffer

# crc32c.pyx

def crc32c(data: Buffer, value: int = 0) -> int:
    """CRC-32C of ``data``, continuing from ``value`` (the checksum of the bytes before it)."""

def crc32c_software(data: Buffer, value: int = 0) -> int:
    """The same by tables, whatever the processor can do: what the hardware path is held against."""

def hardware_accelerated() -> bool:
    """Whether this processor has the instruction that :func:`crc32c` uses."""

# cursor_face.pyx

Entry = tuple[bytes, int, int, bytes]

class CursorFace:
    def current(self) -> Entry | None: ...
    def first(self) -> Entry | None: ...
    def last(self) -> Entry | None: ...
    def seek(self, key: bytes, sequence: int, kind: int = ...) -> Entry | None: ...
    def next(self) -> Entry | None: ...
    def prev(self) -> Entry | None: ...

# gil.pyx

def forget_other_threads() -> None:
    """In the child of a fork: who asked for the GIL isn't there."""

def gil_turns() -> int:
    """How often somebody who asked for the GIL got it, modulo 2**32; of the whole process."""

# memory.pyx

def watch_allocations() -> None:
    """Count allocations from 1 on and refuse none."""

def fail_allocation(n: int, times: int | None = 1) -> None:
    """Refuse the ``n``-th allocation from now and the ones after it: ``times`` in all.

    None is for ever. Counts anew from here; ``n`` is 1 for the very next one.
    """

def reset() -> None:
    """Refuse nothing, count nothing, forget all counts: how the process starts."""

def count() -> int:
    """Allocations asked for since the last call of :func:`fail_allocation`."""

def refused() -> int:
    """How many of these were refused."""

def live() -> int:
    """Pieces obtained less pieces given back since :func:`reset`, while counting was on."""
